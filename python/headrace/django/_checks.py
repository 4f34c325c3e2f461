"""What ``manage.py check`` says about ``CHANNEL_LAYERS``, and about ``DJANGO_SOCKETS_CONFIG``.

Each finding has an identifier, to be silenced by ``SILENCED_SYSTEM_CHECKS``:

- ``headrace.E001``: the setting, or an entry of it, is not a mapping as it should be.
- ``headrace.E002``: a ``BACKEND`` is missing or cannot be imported.
- ``headrace.E003``: ``CONFIG`` has keys that the backend does not know; it will refuse them.
- ``headrace.E004``: a capacity below 1, so that messages are refused.
- ``headrace.E005``: the layer refuses a value in ``CONFIG``.
- ``headrace.E006``: the socket servers refuse ``DJANGO_SOCKETS_CONFIG``.
- ``headrace.W001``: there is no ``CHANNEL_LAYERS``, or it is empty: ``get_channel_layer()`` returns None. Not in a
  project that has ``DJANGO_SOCKETS_CONFIG``: its socket servers need none.
- ``headrace.W002``: there is no ``"default"``, which consumers use unless told otherwise.
- ``headrace.W003``: Channels' layer in memory, whose cost grows with the number of channels.
- ``headrace.W004``: a layer in memory, while the environment asks for several processes.
- ``headrace.W005``: channels_redis's core layer with redis-py 8 or newer, whose waiting ends every 5 s.
- ``headrace.W006``: channels_redis's core layer with several hosts, which loses messages.
- ``headrace.W007``: ``CONFIG`` has keys that the backend takes and ignores.
- ``headrace.W008``: an entry has keys that nobody reads.
- ``headrace.W009``: a layer of channels_redis; headrace's takes its settings.
- ``headrace.W010``: ``check --deploy``, and the default layer is one in memory, which connects no processes.
- ``headrace.I001``: the Redis layer takes these options and does not need them.
- ``headrace.I002``: a database number is all that keeps this project apart on its server; pub/sub knows none.
- ``headrace.I003``: ``ASGI_APPLICATION`` is set, and ``runserver`` is Django's own, which serves no WebSockets.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning
from django.core.management import get_commands
from django.utils.module_loading import import_string

from headrace._layers.arguments import meant
from headrace._layers.memory import InMemoryChannelLayer
from headrace._layers.redis import RedisChannelLayer
from headrace._layers.redis_config import RedisConfig, RedisOptions, redis_config
from headrace._sockets.backend import SETTING, redis_config_of_project

__all__ = [
    "check_channel_layers",
    "check_deployment",
    "check_runserver",
    "check_sockets_config",
    "has_constructor_of",
    "is_over_redis",
]

_OURS = "headrace.layers.InMemoryChannelLayer"
_CHANNELS = "channels.layers.InMemoryChannelLayer"
_IN_MEMORY = {_OURS, "headrace.InMemoryChannelLayer", _CHANNELS}
_REDIS = "headrace.layers.RedisChannelLayer"
_CORE = {"channels_redis.core.RedisChannelLayer"}
_PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
# Why to move, and how.
_CHANNELS_REDIS = {
    **dict.fromkeys(
        _CORE,
        (
            "channels_redis's core layer, which loses messages to groups while other consumers come and go",
            f"Set BACKEND to {_REDIS!r} in all processes at once; CONFIG stays as it is.",
        ),
    ),
    _PUBSUB: (
        "channels_redis's pub/sub layer, which has no capacity, and never calls on_disconnect and on_reconnect",
        f"Set BACKEND to {_REDIS!r}; CONFIG stays as it is, with 'wire': 'channels_redis' until all processes have it.",
    ),
}

_ENTRY_KEYS = {"BACKEND", "CONFIG", "TEST_CONFIG"}
# What the layers know that take any key.
_TAKES_ANYTHING = {
    _CHANNELS: {"expiry", "group_expiry", "capacity", "channel_capacity"},
    _PUBSUB: {*("hosts", "prefix", "on_disconnect", "on_reconnect", "symmetric_encryption_keys", "serializer_format")},
}

_PREFIX = "asgi"
"""What ``prefix`` is if nobody sets it."""

_WSGI_RUNSERVERS = ("django.core", "django.contrib.staticfiles")

# How servers and process managers are told, by the environment, how many processes to start.
_PROCESSES = ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GRANIAN_WORKERS")

_Entry = Mapping[str, Any]


def check_channel_layers(**_kwargs: object) -> list[CheckMessage]:
    """Tell what in ``CHANNEL_LAYERS`` could go wrong; reads settings and environment, and connects to nothing."""
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    if not layers and getattr(settings, SETTING, None) is not None:
        return []
    if not layers:
        return [
            Warning(
                "CHANNEL_LAYERS is not set, so there is no channel layer: get_channel_layer() returns None",
                hint=f"Set CHANNEL_LAYERS = {{'default': {{'BACKEND': {_OURS!r}}}}}, or take 'headrace.django' out.",
                id="headrace.W001",
            )
        ]
    if not isinstance(layers, Mapping):
        return [_wrong_kind("CHANNEL_LAYERS", layers, "a mapping of aliases to mappings")]
    found = [] if "default" in layers else [_no_default(layers)]
    for alias, entry in layers.items():
        found += _check_entry(f"CHANNEL_LAYERS[{alias!r}]", entry)
    return found


def check_sockets_config(**_kwargs: object) -> list[CheckMessage]:
    """Tell whether socket servers take ``DJANGO_SOCKETS_CONFIG``; connects to nothing."""
    if getattr(settings, SETTING, None) is None:
        return []
    try:
        redis_config_of_project()
    except ValueError as error:
        # No password is in it.
        hint = "docs/how-to/sockets.md says what may be in it."
        named = str(error) if SETTING in str(error) else f"{SETTING}: {error}"
        return [Error(named, hint=hint, id="headrace.E006")]
    return []


def check_deployment(**_kwargs: object) -> list[CheckMessage]:
    """Tell, of what is deployed, that a layer in memory connects no processes."""
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    entry = layers.get("default") if isinstance(layers, Mapping) else None
    backend = entry.get("BACKEND") if isinstance(entry, Mapping) else None
    if backend not in _IN_MEMORY or (_several() and not settings.DEBUG):
        return []
    return [
        Warning(
            "CHANNEL_LAYERS['default'] is a layer in memory: what is sent reaches the process that sent it, and no "
            "other worker of a server, no task queue and no command",
            hint=f"Use {_REDIS!r}; or, if one process is all there is, add 'headrace.W010' to SILENCED_SYSTEM_CHECKS.",
            id="headrace.W010",
        )
    ]


def check_runserver(**_kwargs: object) -> list[CheckMessage]:
    """Tell whether ``manage.py runserver`` serves WebSockets, where it may be used."""
    if not settings.DEBUG or not getattr(settings, "ASGI_APPLICATION", None):
        return []
    if get_commands().get("runserver") not in _WSGI_RUNSERVERS:
        return []
    return [
        Info(
            "ASGI_APPLICATION is set, but runserver is Django's own: it serves HTTP by WSGI, and no WebSockets",
            hint="Put 'daphne' at the head of INSTALLED_APPS, or run an ASGI server: uvicorn mysite.asgi:application "
            "--reload.",
            id="headrace.I003",
        )
    ]


def _no_default(layers: _Entry) -> CheckMessage:
    return Warning(
        f"CHANNEL_LAYERS has no 'default', only {', '.join(map(repr, layers))}",
        hint="Consumers use 'default' unless their channel_layer_alias says otherwise; add it.",
        id="headrace.W002",
    )


def _wrong_kind(where: str, value: object, expected: str) -> CheckMessage:
    return Error(
        # The value is not shown: where a mapping should be there may be a URL with a password.
        f"{where} must be {expected}, got a {type(value).__name__}",
        hint=f"Write it as {{'default': {{'BACKEND': {_OURS!r}, 'CONFIG': {{}}}}}}.",
        id="headrace.E001",
    )


def _check_entry(where: str, entry: object) -> Iterator[CheckMessage]:
    if not isinstance(entry, Mapping):
        yield _wrong_kind(where, entry, "a mapping with BACKEND")
        return
    config = entry.get("CONFIG", {})
    if not isinstance(config, Mapping):
        yield _wrong_kind(f"{where}['CONFIG']", config, "a mapping of constructor arguments")
        return
    if unknown := _names(set(entry) - _ENTRY_KEYS):
        yield Warning(
            f"{where} has keys that nobody reads: {unknown}",
            hint="Arguments of the layer belong into CONFIG.",
            id="headrace.W008",
        )
    backend = entry.get("BACKEND")
    if not backend:
        yield Error(
            f"{where} has no BACKEND", hint=f"Name the class of the layer, for one {_OURS!r}.", id="headrace.E002"
        )
        return
    try:
        layer_class = import_string(backend)
    except Exception as error:  # a backend's module may raise anything when it is imported
        yield Error(
            f"{where}['BACKEND'] is {backend!r}, which cannot be imported: {error}",
            hint="Install the package that has it, or correct the path.",
            id="headrace.E002",
        )
        return
    no_limit = is_over_redis(layer_class)
    wrong = [*_check_keys(where, str(backend), layer_class, config), *_check_capacities(where, config, no_limit)]
    yield from wrong or _check_values(where, layer_class, config)
    if backend == _CHANNELS or _is_kind(layer_class, InMemoryChannelLayer):
        yield from _check_in_memory(where, str(backend))
    if backend in _CORE:
        yield from _check_redis_core(where, config)
    if backend in _CHANNELS_REDIS:
        yield from _check_channels_redis(where, str(backend), config)


def is_over_redis(layer_class: object) -> bool:
    """Tell whether a backend is our layer over Redis, or a project's own that is made of it."""
    return _is_kind(layer_class, RedisChannelLayer)


def _is_kind(layer_class: object, kind: type) -> bool:
    return isinstance(layer_class, type) and issubclass(layer_class, kind)


def _check_values(where: str, layer_class: Callable[..., Any], config: _Entry) -> Iterator[CheckMessage]:
    """Read the settings of a layer of ours. Those of a class with a constructor of its own are for that alone."""
    try:
        if is_over_redis(layer_class) and has_constructor_of(layer_class, RedisChannelLayer):
            parsed = redis_config(**_of_redis(config))
            yield from _explain_ignored(where, parsed.ignored)
            yield from _explain_databases(where, parsed)
        elif _is_kind(layer_class, InMemoryChannelLayer) and has_constructor_of(layer_class, InMemoryChannelLayer):
            # That does nothing but look at its arguments.
            InMemoryChannelLayer(**config)
    except (TypeError, ValueError) as error:
        yield Error(f"{where}['CONFIG'] is refused: {error}", hint="Correct the value.", id="headrace.E005")


def has_constructor_of(layer_class: Any, kind: Any) -> bool:
    """Tell whether a class takes the arguments of another one, because it has no constructor of its own."""
    return layer_class.__init__ is kind.__init__


def _explain_ignored(where: str, ignored: Mapping[str, str]) -> Iterator[CheckMessage]:
    if ignored:
        reasons = "; ".join(f"{option}: {reason}" for option, reason in sorted(ignored.items()))
        yield Info(
            f"{where}['CONFIG'] has options that this layer takes and does not need: {reasons}",
            hint="Take them out once channels_redis no longer reads them.",
            id="headrace.I001",
        )


def _explain_databases(where: str, config: RedisConfig) -> Iterator[CheckMessage]:
    if config.prefix == _PREFIX and (numbers := {host.endpoint.database for host in config.hosts} - {0}):
        yield Info(
            f"{where} has database {', '.join(map(str, sorted(numbers)))} and no prefix: pub/sub knows no "
            "databases, so projects and environments on this server hear each other's groups",
            hint="Give each a 'prefix' of its own in CONFIG.",
            id="headrace.I002",
        )


def _of_redis(config: _Entry) -> dict[str, Any]:
    """Leave out what only the class itself knows, which has been looked at."""
    return {name: config[name] for name in config.keys() & RedisOptions.__dataclass_fields__.keys()}


def _check_keys(where: str, backend: str, layer_class: Callable[..., Any], config: _Entry) -> Iterator[CheckMessage]:
    known = _TAKES_ANYTHING.get(backend) or _parameters(layer_class)
    unknown = _names(set(config) - known) if known is not None else ""
    if known is None or not unknown:
        return
    questions = [question for name in sorted(map(str, set(config) - known)) if (question := meant(name, known))]
    hint = " ".join([*(f"{question[0].upper()}{question[1:]}" for question in questions), f"It knows {_names(known)}."])
    if backend in _TAKES_ANYTHING:
        what = f"{where}['CONFIG'] has keys that {backend} takes and ignores: {unknown}"
        yield Warning(what, hint=hint, id="headrace.W007")
    else:
        what = f"{where}['CONFIG'] has keys that {backend} does not know: {unknown}"
        yield Error(what, hint=hint, id="headrace.E003")


def _parameters(layer_class: Callable[..., Any]) -> set[str] | None:
    """Name what a class can be made with, or None if that cannot be told."""
    try:
        parameters = inspect.signature(layer_class).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


def _check_capacities(where: str, config: _Entry, no_limit: bool) -> Iterator[CheckMessage]:
    capacities = {name: config.get(name, 1) for name in ("capacity", "capacity_bytes")}
    by_pattern = config.get("channel_capacity") or {}
    if isinstance(by_pattern, Mapping):
        capacities |= {f"channel_capacity[{pattern!r}]": capacity for pattern, capacity in by_pattern.items()}
    for name, capacity in capacities.items():
        if isinstance(capacity, int | float) and capacity < 1 and not (capacity == 0 and no_limit):
            yield Error(
                f"{where}['CONFIG'] has {name} = {capacity!r}: a channel of that capacity refuses messages",
                hint="A capacity is how many messages, or bytes of messages, may wait on a channel; give at least 1. "
                "100 messages and 1048576 bytes are usual.",
                id="headrace.E004",
            )


def _check_in_memory(where: str, backend: str) -> Iterator[CheckMessage]:
    if backend == _CHANNELS:
        yield Warning(
            f"{where} is Channels' layer in memory, which walks all channels and groups at every receive",
            hint=f"Use {_OURS!r}: the same interface, at a cost that does not grow with their number.",
            id="headrace.W003",
        )
    several = _several()
    if several and not settings.DEBUG:
        yield Warning(
            f"{where} is a layer in memory, and {several[0]}={os.environ[several[0]]} asks for several processes: "
            "a message reaches only the process that sent it",
            hint="Run one process, or use a layer that connects processes.",
            id="headrace.W004",
        )


def _several() -> list[str]:
    """Name the variables of the environment that ask for several processes."""
    return [name for name in _PROCESSES if os.environ.get(name, "1").strip() not in ("", "0", "1")]


def _check_redis_core(where: str, config: _Entry) -> Iterator[CheckMessage]:
    hosts = config.get("hosts") or [{}]
    if not isinstance(hosts, list | tuple):
        return
    if _redis_version() >= 8 and not all(isinstance(host, Mapping) and "socket_timeout" in host for host in hosts):
        yield Warning(
            f"{where}: redis-py {_redis_version()} gives up reading after 5 s, which is as long as this layer waits "
            "for a message: consumers that hear nothing fail every 5 s",
            hint="Give each host as a mapping with 'socket_timeout': None, or install redis<8.",
            id="headrace.W005",
        )
    if len(hosts) > 1:
        yield Warning(
            f"{where} has {len(hosts)} hosts: this layer sends to a consumer's channel by another host than the "
            "consumer reads from, so most such messages are lost",
            hint="Use one host, or channels_redis.pubsub.RedisPubSubChannelLayer.",
            id="headrace.W006",
        )


def _check_channels_redis(where: str, backend: str, config: _Entry) -> Iterator[CheckMessage]:
    what, how = _CHANNELS_REDIS[backend]
    try:
        redis_config(**_of_redis(config))
    except (TypeError, ValueError) as error:
        how = f"{how} But before, correct this: {error}"
    yield Warning(f"{where} is {what}", hint=how, id="headrace.W009")


def _redis_version() -> int:
    """Return redis-py's major version, or 0 if it cannot be told."""
    try:
        return int(import_module("redis").__version__.partition(".")[0])
    except (ImportError, AttributeError, ValueError):
        return 0


def _names(keys: set[Any]) -> str:
    return ", ".join(sorted(map(repr, keys)))
