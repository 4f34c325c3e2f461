"""Which channel layer the topics of a socket server are on: one for each configuration in a process.

Asked in this order: the layer that is given; ``hosts`` and ``config``; Django's ``DJANGO_SOCKETS_CONFIG``; the
project's default channel layer; and a layer in this process.
"""

import difflib
import inspect
import reprlib
import threading
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headrace._forks import call_in_child
from headrace._layers.native import NativeChannelLayer
from headrace._layers.redis_config import RedisConfig, redis_config
from headrace._settings import django_settings
from headrace._sockets.keys import key_of
from headrace.exceptions import InvalidChannelLayerError
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer, get_channel_layer

__all__ = ["SETTING", "Backend", "backend_of", "redis_config_of_project"]

SETTING = "DJANGO_SOCKETS_CONFIG"
"""The setting of a Django project that counts where nothing is given."""

LIMIT = 16 * 1024 * 1024
"""Bytes that a message may have, unless ``max_message_bytes`` says otherwise."""

_UNUSED = 4
"""Layers that are kept although nobody uses them."""

_MEMORY_SETTINGS = {
    "expiry",
    "group_expiry",
    "capacity",
    "channel_capacity",
    "capacity_bytes",
    "history",
    "history_bytes",
    "presence",
    "counted",
}
_OWN_SETTINGS = {"hosts", "allow_memory", "max_message_bytes"}
_HOST_OPTIONS = {"address", "host", "port", "sentinels"}
_CLUSTER_MARKS = ("cluster", "is_cluster")
"""What a host of django_sockets has to say that it is of a cluster."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Backend:
    """A layer, and what a socket server has to know of it.

    Attributes:
        layer: The layer.
        limit: Bytes that a message may have.
    """

    layer: NativeChannelLayer
    limit: int

    def is_closed(self) -> bool:
        """Tell whether its owner has closed the layer."""
        return isinstance(self.layer, RedisChannelLayer) and self.layer._engine.is_closed()


class _Made:
    """A layer that was made for some settings, and whether anybody uses it."""

    def __init__(self, key: Hashable, backend: Backend) -> None:
        # As the settings were then: what is in them may have changed since.
        self.key = key
        self.backend = backend
        # What the users have: it is there as long as one of them is.
        self._lease: weakref.ref[Backend] | None = None

    def lease(self) -> Backend:
        """Return the layer for one more user."""
        lease = None if self._lease is None else self._lease()
        if lease is None:
            lease = replace(self.backend)
            self._lease = weakref.ref(lease)
        return lease

    def is_used(self) -> bool:
        """Tell whether a user is left."""
        return self._lease is not None and self._lease() is not None


# By their settings, the one that was asked for last at the end.
_made: dict[Hashable, _Made] = {}
_lock = threading.RLock()


def _after_fork() -> None:
    """Replace the lock in a child: a thread that is not there may hold it."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


call_in_child(_after_fork)


def backend_of(hosts: Any, config: Any, layer: Any, allow_memory: bool | None) -> Backend:
    """Return where the topics are.

    Args:
        hosts: Servers, as ``RedisChannelLayer`` takes them, or with ``"cluster": True``; None for those of ``config``.
        config: ``{"hosts": [...]}`` with any settings of ``RedisChannelLayer``, and ``allow_memory``.
        layer: A layer of headrace, or its alias, in the place of both.
        allow_memory: Whether a layer in this process will do; None leaves it to ``config``.

    Raises:
        ValueError: An argument is wrong, or the layer is one in this process and ``allow_memory`` is False.
        InvalidChannelLayerError: The layer is not one of headrace's.
    """
    if isinstance(hosts, Mapping) and config is None and not _HOST_OPTIONS & hosts.keys():
        # The fourth argument of a server was the config once.
        hosts, config = None, hosts
    if layer is not None:
        if hosts is not None or config is not None:
            raise ValueError("layer is given beside hosts or config; give either a layer or what to make one of")
        return _spanning(_given(layer), allow_memory)
    name, settings = _settings(hosts, config)
    in_memory = settings.pop("allow_memory", True) if allow_memory is None else allow_memory
    if not isinstance(in_memory, bool):
        raise ValueError(f"allow_memory must be True or False, got {in_memory!r}")
    return _spanning(_shared(name, settings) if settings else _default(), in_memory)


def _spanning(backend: Backend, in_memory: bool | None) -> Backend:
    """Return what spans processes, or what need not."""
    if in_memory is False and isinstance(backend.layer, InMemoryChannelLayer):
        raise ValueError(
            "hosts are not given and allow_memory is False, so there is nowhere to broadcast to: give "
            f"hosts=[{{'address': 'redis://localhost:6379'}}], or the same in config or in {SETTING}"
        )
    return backend


def _settings(hosts: Any, config: Any) -> tuple[str, dict[str, Any]]:
    """Return what is configured, as a copy, and how to name it in an error."""
    name = "config"
    if hosts is None and config is None:
        name, config = SETTING, getattr(django_settings(), SETTING, None)
    if config is None:
        config = {}
    if not isinstance(config, Mapping):
        raise ValueError(f"{name} must be a mapping such as {{'hosts': [...]}}, got {type(config).__name__}")
    settings = dict(config)
    if "hosts" in settings and settings["hosts"] is None:
        raise ValueError(f"{name} has hosts that are None: is an environment variable not set? Or leave hosts out")
    if hosts is not None:
        if "hosts" in settings:
            raise ValueError("hosts are given, and config has hosts as well; leave one of them out")
        name, settings["hosts"] = "hosts", hosts
    return name, settings


def _given(layer: Any) -> Backend:
    found = get_channel_layer(layer) if isinstance(layer, str) else layer
    if found is None:
        raise InvalidChannelLayerError(f"layer={layer!r}: no channel layer is configured under this alias")
    return _native(found, f"layer={layer!r}")


def _native(layer: Any, what: str) -> Backend:
    if isinstance(layer, RedisChannelLayer):
        return Backend(layer, layer._settings.max_message_bytes)
    if isinstance(layer, NativeChannelLayer):
        return Backend(layer, LIMIT)
    raise InvalidChannelLayerError(
        f"{what} is {type(layer).__module__}.{type(layer).__qualname__}, and a socket server needs a layer of "
        f"headrace: change its BACKEND to one of headrace.layers, or give hosts in {SETTING}"
    )


def _default() -> Backend:
    """Return the project's own layer; a project of Django that configures none gets one in this process."""
    layer = get_channel_layer()
    return _shared("config", {}) if layer is None else _native(layer, "the channel layer 'default'")


def _shared(name: str, settings: dict[str, Any]) -> Backend:
    """Return the layer of these settings; make it if this is the first time, or if it was closed."""
    key = key_of(settings)
    with _lock:
        made = _made.pop(key, None)
        if made is None or made.backend.is_closed():
            made = _Made(key, _make(name, settings))
        _made[made.key] = made
        lease = made.lease()
        # One that nobody uses is kept for the next who asks; it ends, and its connections, when it is forgotten.
        unused = [key for key, made in _made.items() if not made.is_used()]
        forgotten = [_made.pop(key) for key in unused[:-_UNUSED]]
    del forgotten  # without the lock: what they hold is let go with them
    return lease


def _make(name: str, settings: dict[str, Any]) -> Backend:
    limit = settings.setdefault("max_message_bytes", LIMIT)
    _check_names(name, settings)
    if "hosts" not in settings:
        return _make_in_memory(name, settings, limit)
    return Backend(RedisChannelLayer(**_arguments(settings)), limit)


def _check_names(name: str, settings: Mapping[str, Any]) -> None:
    known = set(inspect.signature(RedisChannelLayer).parameters) | _OWN_SETTINGS
    for setting in settings:
        if setting not in known:
            close = difflib.get_close_matches(str(setting), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{name} has the unknown setting {setting!r}{hint}")


def redis_config_of_project() -> tuple[RedisConfig, dict[str, Any]] | None:
    """Read ``DJANGO_SOCKETS_CONFIG``, and make no layer that has servers.

    Returns:
        The settings of that layer, and what it is made with; None if it is one in this process.

    Raises:
        ValueError: Something in it is wrong.
    """
    name, settings = _settings(None, None)
    if "hosts" not in settings:
        backend_of(None, None, None, None)
        return None
    settings.pop("allow_memory", None)
    _check_names(name, settings)
    arguments = {"max_message_bytes": LIMIT, **_arguments(settings)}
    return redis_config(**{each: value for each, value in arguments.items() if each != "gap"}), arguments


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    servers, clustered = _servers(settings["hosts"])
    topology = settings.get("topology", "cluster")
    if clustered and topology not in ("cluster", "auto"):
        raise ValueError(f"hosts have 'cluster': True, and topology={topology!r} is given; leave one of them out")
    return {**settings, **({"topology": "cluster"} if clustered else {}), "hosts": servers}


def _make_in_memory(name: str, settings: dict[str, Any], limit: Any) -> Backend:
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"max_message_bytes must be a positive integer, got {limit!r}")
    del settings["max_message_bytes"]
    of_servers = sorted(set(settings) - _MEMORY_SETTINGS)
    if of_servers:
        raise ValueError(
            f"{name} has {', '.join(map(repr, of_servers))}, which only servers have, and no hosts; add "
            "'hosts': [{'address': 'redis://localhost:6379'}]"
        )
    return Backend(InMemoryChannelLayer(**settings), limit)


def _servers(hosts: Any) -> tuple[list[Any], bool]:
    """Return the hosts without django_sockets' mark of a cluster, and whether there was one."""
    if isinstance(hosts, str | bytes | Mapping) or not isinstance(hosts, list | tuple) or not hosts:
        got = "an empty one" if isinstance(hosts, list | tuple) else f"one of type {type(hosts).__name__}"
        raise ValueError(
            f"hosts must be a list of servers, such as [{{'address': 'redis://localhost:6379'}}], got {got}"
        )
    mappings = {index: host for index, host in enumerate(hosts) if isinstance(host, Mapping)}
    for index, host in mappings.items():
        if "master_name" in host and "sentinels" not in host:
            raise ValueError(
                f"hosts[{index}] has the master_name {reprlib.repr(host['master_name'])} and no sentinels: add "
                "'sentinels': [(host, port), ...], whom to ask for it"
            )
        for mark in _CLUSTER_MARKS:
            if not isinstance(host.get(mark, False), bool):
                raise ValueError(f"{mark!r} of hosts[{index}] must be True or False, got {host[mark]!r}")
    servers = [_unmarked(host) if isinstance(host, Mapping) else host for host in hosts]
    return servers, any(host.get(mark) for host in mappings.values() for mark in _CLUSTER_MARKS)


def _unmarked(host: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in host.items() if option not in _CLUSTER_MARKS}
