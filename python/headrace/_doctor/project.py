"""The layers of a Django project, and that of its socket servers, as its settings have them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.core import checks
from django.utils.module_loading import import_string

from headrace._doctor.examination import Target
from headrace._doctor.findings import Finding, Level, Section, note, warning
from headrace._layers.redis_config import RedisConfig, RedisOptions, redis_config
from headrace._sockets.backend import SETTING, redis_config_of_project
from headrace.django._checks import check_channel_layers, check_sockets_config, has_constructor_of, is_over_redis
from headrace.layers import RedisChannelLayer

__all__ = ["targets"]

_CORE = "channels_redis.core.RedisChannelLayer"
_PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
_IN_MEMORY = "InMemoryChannelLayer"
# What a check warns of, because its cause may be mended before it is met, and what fails whenever it is run.
_FAILING = {"headrace.W005", "headrace.W006"}


def targets(settings: Any) -> Iterator[Section | Target]:
    """Give what `manage.py check` finds in the settings, and each layer of them."""
    yield Section("CHANNEL_LAYERS, as manage.py check reads it", list(_findings(check_channel_layers())))
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    for alias, entry in layers.items() if isinstance(layers, Mapping) else ():
        config = entry.get("CONFIG", {}) if isinstance(entry, Mapping) else None
        if isinstance(config, Mapping):
            yield from _layer(f"layer {alias!r}", str(entry.get("BACKEND", "")), config)
    if getattr(settings, SETTING, None) is not None:
        yield from _sockets()


def _sockets() -> Iterator[Section | Target]:
    wrong = check_sockets_config()
    yield Section(f"{SETTING}, as manage.py check reads it", list(_findings(wrong)))
    read = None if wrong else redis_config_of_project()
    if read is not None:
        config, arguments = read
        yield Target("the layer of the socket servers", config, arguments)


def _findings(found: Sequence[Any]) -> Iterator[Finding]:
    for message in found:
        fails = message.level >= checks.ERROR or message.id in _FAILING
        level = Level.PROBLEM if fails else Level.WARNING if message.level >= checks.WARNING else Level.NOTE
        yield Finding(level, f"{message.msg} ({message.id})", message.hint or "")
    if not found:
        yield Finding(Level.OK, "nothing wrong with it")


def _layer(name: str, backend: str, config: Mapping[str, Any]) -> Iterator[Section | Target]:
    title = f"{name}, {backend}"
    ours = _class(backend)
    if ours is None and backend not in (_CORE, _PUBSUB):
        yield Section(title, [_without_server(backend)])
        return
    try:
        settings = _own_settings(ours, config) if ours else _settings(config, **_wire(backend))
    except (TypeError, ValueError) as error:
        # Of our class it is said above; of one of the project the constructor says it.
        said = ours is None or has_constructor_of(ours, RedisChannelLayer)
        why = "" if said else f": {type(error).__name__}: {error}"
        yield Section(title, [note(f"its servers are not looked at before its CONFIG is corrected{why}")])
        return
    if ours:
        yield Target(title, settings, dict(config), layer_class=ours)
    else:
        yield Target(title, settings, None, core=backend == _CORE, known=list(_known(backend, config)))


def _class(backend: str) -> type[RedisChannelLayer] | None:
    """Return our class, or the project's own that is made of it; None if the backend is another, or is not there."""
    try:
        found = import_string(backend)
    except Exception:  # a backend's module may raise anything, which the checks tell
        return None
    return found if is_over_redis(found) else None


def _own_settings(layer_class: type[RedisChannelLayer], config: Mapping[str, Any]) -> RedisConfig:
    """Read the settings; those that a constructor of the project's own makes of ``CONFIG`` only it knows."""
    return _settings(config) if has_constructor_of(layer_class, RedisChannelLayer) else layer_class(**config)._settings


def _settings(config: Mapping[str, Any], **more: Any) -> RedisConfig:
    known = RedisOptions.__dataclass_fields__
    return redis_config(**{name: value for name, value in config.items() if name in known}, **more)


def _wire(backend: str) -> dict[str, str]:
    return {"wire": "channels_redis"} if backend == _PUBSUB else {}


def _without_server(backend: str) -> Finding:
    if backend.endswith(_IN_MEMORY):
        return note("it lives in one process and has no server: what other processes send does not reach it")
    return note("it is no layer that the doctor knows, so nothing is connected to")


def _known(backend: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Say what is wrong with channels_redis whatever the server, beyond what the checks say."""
    move = "use headrace.layers.RedisChannelLayer; docs/how-to/moving-a-fleet.md says how a fleet is moved"
    if backend == _CORE:
        capacity = config.get("capacity", 100)
        yield warning(
            f"its capacity ({capacity}) is one for all consumers of a process: one that is slow fills it for all", move
        )
    else:
        yield warning(
            "a message to a plain channel reaches every receiver, and not one: workers do work several times", move
        )
        yield warning("group_add of another process's channel raises RuntimeError", move)
