"""Which channel layer an alias stands for.

Where the layers come from:

- Django's settings, if Django is in use: its settings are configured, or ``DJANGO_SETTINGS_MODULE``
  names them and Django is installed. ``CHANNEL_LAYERS`` counts, and an alias that it does not have
  stands for no layer.
- ``configure()``, for programs without Django. Both at once are an error.
- Neither: "default" stands for one in-process layer.

In a Django project that has channels installed, this registry and ``channels.layers`` are one: two
in-process layers, one for each half of the project, would lose every message from one to the other
and nobody would be told. Django and channels are not imported before Django is in use.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias, cast

from headrace._forks import call_in_child
from headrace._settings import django_settings, installed
from headrace.exceptions import InvalidChannelLayerError
from headrace.typing import AnyChannelLayer, ChannelLayer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "ChannelLayerManager",
    "LayerSetting",
    "channel_layers",
    "configure",
    "get_channel_layer",
]

DEFAULT_CHANNEL_LAYER = "default"

LayerSetting: TypeAlias = AnyChannelLayer | Mapping[str, Any]
"""A layer, or how to make one: ``{"BACKEND": path, "CONFIG": {...}, "TEST_CONFIG": {...}}``."""

_IMPLICIT: Mapping[str, LayerSetting] = {DEFAULT_CHANNEL_LAYER: {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}
# What is in a private module now, and where it is found.
_MOVED = {
    "headrace.layers.memory.InMemoryChannelLayer": "headrace.layers.InMemoryChannelLayer",
    "headrace.layers.redis.RedisChannelLayer": "headrace.layers.RedisChannelLayer",
}
_KEYS = {"BACKEND", "CONFIG", "TEST_CONFIG"}
_ABSENT: Any = object()


class ChannelLayerManager:
    """Makes the layer of an alias when it is first asked for, once, and keeps it.

    Any thread may call any method. Its types are those of headrace's layers; of another's layer there is less, see
    ``headrace.typing.ChannelLayer``.
    """

    def __init__(self) -> None:
        self._own: dict[str, ChannelLayer] = {}
        # What configure() was given; None until it is called.
        self._configured: Mapping[str, LayerSetting] | None = None
        # What set() was given, by alias.
        self._given: dict[str, ChannelLayer] = {}
        self._noticed_django = False
        # Held while a layer is made, so that it is made once; its constructor may ask for another.
        self._lock = threading.RLock()

    @property
    def backends(self) -> dict[str, ChannelLayer]:
        """The layers made so far, by alias."""
        self._settings()
        return self._own

    @backends.setter
    def backends(self, backends: dict[str, ChannelLayer]) -> None:
        self._own = backends

    @property
    def configs(self) -> Mapping[str, LayerSetting]:
        """What is configured, by alias, read anew each time.

        Raises:
            InvalidChannelLayerError: Both Django's ``CHANNEL_LAYERS`` and ``configure()`` say
                something, or ``CHANNEL_LAYERS`` is not a mapping.
        """
        settings = self._settings()
        if self._configured is not None:
            return self._configured
        if settings is None:
            return _IMPLICIT
        in_settings = getattr(settings, "CHANNEL_LAYERS", None) or {}
        if not isinstance(in_settings, Mapping):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS must be a mapping of aliases to mappings, got {in_settings!r}"
            )
        return in_settings

    def configure(self, layers: Mapping[str, LayerSetting]) -> None:
        """Say which layer each alias stands for, in a program without Django's ``CHANNEL_LAYERS``.

        Replaces what was configured before. Layers handed out before are not closed and no longer
        found, so call it before the first ``get_channel_layer()``.

        Args:
            layers: For each alias a layer, or a mapping as in Django's ``CHANNEL_LAYERS``.

        Raises:
            InvalidChannelLayerError: Something in it is wrong, or Django's ``CHANNEL_LAYERS`` is
                set as well. What was configured before stays.
        """
        checked = _checked(layers)
        _refuse_both(django_settings())
        with self._lock:
            self._configured = checked
            self._own = {}

    def make_backend(self, name: str) -> ChannelLayer:
        """Make a layer as configured, not to be kept; return one that ``configure()`` was given.

        Raises:
            KeyError: No such alias.
            InvalidChannelLayerError: Its configuration is wrong.
        """
        entry = self.configs[name]
        if isinstance(entry, Mapping):
            return _backend_class(name, entry)(**entry.get("CONFIG", {}))
        if self._configured is not None:
            return cast(ChannelLayer, entry)
        raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}] must be a mapping with BACKEND, got {entry!r}")

    def make_test_backend(self, name: str) -> ChannelLayer:
        """Make a layer from its ``TEST_CONFIG``, and do not keep it.

        Raises:
            InvalidChannelLayerError: No such alias, no ``TEST_CONFIG``, or a wrong configuration.
        """
        entry = self.configs.get(name)
        if not isinstance(entry, Mapping) or "TEST_CONFIG" not in entry:
            raise InvalidChannelLayerError(f"No TEST_CONFIG specified for {name}")
        return _backend_class(name, entry)(**entry["TEST_CONFIG"])

    def set(self, key: str, layer: AnyChannelLayer) -> ChannelLayer | None:
        """Put a layer in the place of an alias's, and return that, or None if none was made yet."""
        with self._lock:
            backends = self.backends
            old = backends.get(key)
            backends[key] = self._given[key] = cast(ChannelLayer, layer)
        return old

    def is_given(self, key: str, layer: object) -> bool:
        """Tell whether the layer of an alias was handed over, by ``configure()`` or ``set()``, and not made here."""
        return self._given.get(key) is layer or self.configs.get(key) is layer

    def forget(self, key: str, layer: ChannelLayer) -> None:
        """Have the next who asks for an alias get a new layer, if its present one is this."""
        with self._lock:
            if self.backends.get(key) is layer:
                del self.backends[key]

    def __getitem__(self, key: str) -> ChannelLayer:
        """Return the layer of an alias; make it if this is the first time.

        Raises:
            KeyError: No such alias.
            InvalidChannelLayerError: Its configuration is wrong.
        """
        layer: ChannelLayer = self.backends.get(key, _ABSENT)
        if layer is not _ABSENT:
            return layer
        entry = self.configs[key]
        if isinstance(entry, Mapping):
            # Import before locking: a module being imported may wait in here for the lock.
            _backend_class(key, entry)
        with self._lock:
            backends = self.backends
            if key not in backends:
                backends[key] = self.make_backend(key)
            return backends[key]

    def __contains__(self, key: str) -> bool:
        """Tell whether an alias is configured."""
        return key in self.configs

    def _settings(self) -> Any:
        """Return Django's settings if Django is in use, else None; the first time, notice it."""
        settings = django_settings()
        if settings is not None:
            if not self._noticed_django:
                self._notice_django()
            if self._configured is not None:
                _refuse_both(settings)
        return settings

    def _notice_django(self) -> None:
        """Follow Django's settings from now on, and leave what was made without them."""
        import_module("django.core.signals").setting_changed.connect(self._reset_backends)
        with self._lock:
            left = list(self._own) if self._configured is None and not self._noticed_django else []
            if left:
                self._own = {}
            self._noticed_django = True
        if left:
            warnings.warn(
                f"the channel layers {left} were made before Django's settings were configured and "
                "are no longer found; configure Django before the first get_channel_layer()",
                RuntimeWarning,
                stacklevel=6,
            )

    def _reset_backends(self, *, setting: str, **_kwargs: object) -> None:
        if setting == "CHANNEL_LAYERS" and self._configured is None:
            self.backends = {}

    def _after_fork(self) -> None:
        """Replace the lock in a child: a thread that is not there may hold it."""
        self._lock = threading.RLock()


class _ProcessManager(ChannelLayerManager):
    """The manager of this process; keeps its layers where ``channels.layers`` keeps them."""

    @property
    def backends(self) -> dict[str, ChannelLayer]:
        """The layers made so far, by alias."""
        channels = self._channels()
        if channels is None:
            return self._own
        backends: dict[str, ChannelLayer] = channels.backends
        return backends

    @backends.setter
    def backends(self, backends: dict[str, ChannelLayer]) -> None:
        channels = self._channels()
        if channels is None:
            self._own = backends
        else:
            channels.backends = backends

    def _channels(self) -> Any:
        """Return the manager of ``channels.layers`` if it has a part in this, else None."""
        if self._settings() is None or self._configured is not None:
            return None
        manager = getattr(sys.modules.get("channels.layers"), "channel_layers", None)
        if manager is None and installed("channels.layers"):
            manager = import_module("channels.layers").channel_layers
        return manager


channel_layers: ChannelLayerManager = _ProcessManager()
"""The channel layers of this process."""

call_in_child(channel_layers._after_fork)


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> ChannelLayer | Any:
    """Return the layer of an alias, or None if there is no such alias.

    For a type checker it is a ``ChannelLayer`` that may be compared with None, and need not be: only a project that
    configures layers and leaves this alias out gets None.

    Makes the layer if this is the first time; an error in its constructor reaches the caller.

    Raises:
        InvalidChannelLayerError: Its configuration is wrong.
    """
    layer: ChannelLayer | None = channel_layers.backends.get(alias, _ABSENT)
    if layer is not _ABSENT:
        return layer
    # Asked beforehand: a KeyError of the layer's constructor is not an unknown alias.
    if alias not in channel_layers:
        return None
    return channel_layers[alias]


def configure(layers: Mapping[str, LayerSetting]) -> None:
    """Say which layer each alias stands for; see ``ChannelLayerManager.configure``."""
    channel_layers.configure(layers)


def _refuse_both(settings: object) -> None:
    if getattr(settings, "CHANNEL_LAYERS", None):
        raise InvalidChannelLayerError(
            "both headrace.configure() and Django's CHANNEL_LAYERS setting say which channel "
            "layers there are; keep CHANNEL_LAYERS, which Django and Channels follow as well, "
            "and remove the call of configure()"
        )


def _backend_class(name: str, entry: Mapping[str, Any]) -> Callable[..., ChannelLayer]:
    """Import the class that an alias is configured with; errors begin with Channels' texts."""
    if "ROUTING" in entry:
        raise InvalidChannelLayerError(f"ROUTING key found for {name} - this is no longer needed in Channels 2.")
    if "BACKEND" not in entry:
        raise InvalidChannelLayerError(f"No BACKEND specified for {name}")
    try:
        return _import_string(entry["BACKEND"])
    except ImportError as error:
        moved = f"; write {_MOVED[entry['BACKEND']]!r}" if entry["BACKEND"] in _MOVED else ""
        raise InvalidChannelLayerError(
            f"Cannot import BACKEND {entry['BACKEND']!r} specified for {name}: {error}{moved}"
        ) from error


def _import_string(path: object) -> Callable[..., ChannelLayer]:
    if not isinstance(path, str) or not all(path.split(".")) or "." not in path:
        raise ImportError(f"not a dotted path to a class: {path!r}")
    module_name, _, attribute = path.rpartition(".")
    module = import_module(module_name)
    found: Callable[..., ChannelLayer] | None = getattr(module, attribute, None)
    if found is None:
        raise ImportError(f"module {module_name!r} has no attribute {attribute!r}")
    return found


def _checked(layers: object) -> dict[str, LayerSetting]:
    """Return what ``configure()`` was given, copied, if it is right."""
    if not isinstance(layers, Mapping):
        raise InvalidChannelLayerError(f"layers must be a mapping of aliases to channel layers, got {layers!r}")
    return {_checked_alias(alias): _checked_entry(alias, layers[alias]) for alias in layers}


def _checked_alias(alias: object) -> str:
    if isinstance(alias, str) and alias:
        return alias
    raise InvalidChannelLayerError(f"an alias must be a non-empty str, got {alias!r}")


def _checked_entry(alias: str, entry: Any) -> LayerSetting:
    if isinstance(entry, Mapping):
        _check_mapping(alias, entry)
        return dict(entry)
    is_layer = all(callable(getattr(entry, name, None)) for name in ("send", "receive"))
    if isinstance(entry, type) or not is_layer:
        raise InvalidChannelLayerError(
            f"layers[{alias!r}] must be a channel layer (an instance) or a mapping with BACKEND, got {entry!r}"
        )
    layer: ChannelLayer = entry
    return layer


def _check_mapping(alias: str, entry: Mapping[str, Any]) -> None:
    unknown = sorted(map(repr, set(entry) - _KEYS))
    if unknown:
        raise InvalidChannelLayerError(
            f"layers[{alias!r}] has unknown keys: {', '.join(unknown)}; expected {', '.join(sorted(_KEYS))}"
        )
    if "BACKEND" not in entry:
        raise InvalidChannelLayerError(f"No BACKEND specified for {alias}")
    if not isinstance(entry["BACKEND"], str):
        raise InvalidChannelLayerError(
            f"layers[{alias!r}]['BACKEND'] must be a dotted path (str), got {entry['BACKEND']!r}"
        )
    for key in ("CONFIG", "TEST_CONFIG"):
        if not isinstance(entry.get(key, {}), Mapping):
            raise InvalidChannelLayerError(
                f"layers[{alias!r}][{key!r}] must be a mapping of constructor arguments, got {entry[key]!r}"
            )
