"""Who is present in groups: which groups tell it, and how it is said and read."""

import fnmatch
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from headrace._core import MemoryLayer, RedisLayer, Reply
from headrace._layers.base import PresenceSetting, check_seconds

__all__ = [
    "Presence",
    "PresenceLayer",
    "PresenceRule",
    "check_counted",
    "check_presence",
    "counted_globs",
]

PresenceRule: TypeAlias = tuple[str, str, float, float, int]
"""A glob of groups, the type of the messages that tell, the seconds of ``interval`` and of ``linger``, and ``max``."""

_DEFAULTS: Mapping[str, Any] = {"type": "presence.diff", "interval": 0.5, "linger": 10.0, "max": 1000}
_INTERVALS = (0.01, 60.0)
_LONGEST_LINGER = 3600.0
_LARGEST_MAX = 100_000


@dataclass(frozen=True)
class Presence:
    """Who is present in a group, as its members were told last.

    Attributes:
        entries: For each key the metas of its channels; empty if there are more than ``max``.
        version: Diffs with a higher version tell what has changed since.
        count: How many keys are present.
        channels: How many channels.
        hidden: There are more than ``max`` channels, so that nobody is named.
    """

    entries: dict[str, list[dict[str, Any]]]
    version: int
    count: int
    channels: int
    hidden: bool


class PresenceLayer:
    """The methods that say and read who is present."""

    _core: MemoryLayer
    _engine: MemoryLayer | RedisLayer
    # Which groups tell who is present, with the types of their messages; the first that fits counts.
    _presence_kinds: list[tuple[re.Pattern[str], str]]
    # Which groups are counted in the whole fleet.
    _counted: re.Pattern[str] | None

    def _configure_presence(self, rules: Iterable[PresenceRule], counted: Iterable[str] | None) -> None:
        self._presence_kinds = [(re.compile(fnmatch.translate(glob)), kind) for glob, kind, *_ in rules]
        self._counted = check_counted(counted)

    def _presence_type(self, group: str) -> str | None:
        """Return the type of the messages that tell who is present in a group; None if it has no presence."""
        return next((kind for pattern, kind in self._presence_kinds if pattern.match(group)), None)

    def _presence_types(self) -> frozenset[str]:
        """Return the types of all messages that tell who is present."""
        return frozenset(kind for _, kind in self._presence_kinds)

    async def presence_add(self, group: str, channel: str, *, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Put a channel in a group, as ``group_add`` does, and show it there under a key.

        It is shown until ``presence_discard``, or until its membership ends: by ``group_discard``, when the channel is
        closed, or when it expires. The members are told at most ``interval`` seconds later. To add it again gives it
        another key or meta.

        Args:
            group: The group, which a glob of the layer's ``presence`` fits.
            channel: A channel of this process.
            key: Who it is, text of 1 to 256 bytes of UTF-8: ``str(user.pk)``, say. Several channels may have one, as
                the tabs of a user do.
            meta: What the others are told, a dict of at most 4 KiB in msgpack; None for an empty one.

        Raises:
            TypeError: A name is not valid, the key is no text, or the meta is no dict or cannot be packed.
            ValueError: The group has no presence, or the key is empty or too long, or a value does not fit.
            MessageTooLarge: The meta is longer.
            ForeignChannel: The channel is of another process, or of none.
            LayerUnavailable: The server could not be reached in time; the channel was not added.
            LayerClosed: The layer was closed.
        """
        asked = self._engine.presence_add(group, channel, key, _plain(meta))
        if asked is not None:
            await asked

    def presence_add_sync(self, group: str, channel: str, *, key: str, meta: Mapping[str, Any] | None = None) -> None:
        """Do what ``presence_add`` does, from any thread; it blocks where that would wait."""
        asked = self._engine.presence_add(group, channel, key, _plain(meta))
        if asked is not None:
            asked.wait()

    async def presence_update(self, group: str, channel: str, *, meta: Mapping[str, Any]) -> bool:
        """Give a channel that is present another meta. Whoever does it often within ``interval`` is told of once.

        Args:
            group: The group.
            channel: A channel of this process.
            meta: The new meta, in the place of the old one.

        Returns:
            Whether the channel is present; nothing is done if not.

        Raises:
            TypeError, ValueError, MessageTooLarge, ForeignChannel, LayerUnavailable, LayerClosed: As ``presence_add``.
        """
        return self._engine.presence_update(group, channel, _plain(meta))

    def presence_update_sync(self, group: str, channel: str, *, meta: Mapping[str, Any]) -> bool:
        """Do what ``presence_update`` does, from any thread."""
        return self._engine.presence_update(group, channel, _plain(meta))

    async def presence_discard(self, group: str, channel: str) -> None:
        """Show a channel no longer in a group. It stays a member; no error if it is not shown.

        Unless its key returns within ``linger``, the members are told so many seconds and ``interval`` later.

        Raises:
            TypeError, ValueError, ForeignChannel, LayerUnavailable, LayerClosed: As ``presence_add``.
        """
        self._engine.presence_discard(group, channel)

    def presence_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``presence_discard`` does, from any thread."""
        self._engine.presence_discard(group, channel)

    async def presence(self, group: str) -> Presence:
        """Read who is present in a group, as its members were told last: what came since is in the next diff.

        So a list and all diffs with a higher version have no hole, and nothing twice.

        Raises:
            TypeError: The name is not valid.
            ValueError: The group has no presence.
            LayerUnavailable: Over Redis, the server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        found = self._engine.presence(group)
        if isinstance(found, Reply):
            await found
            found = found.presence()
        return Presence(*found)

    def presence_sync(self, group: str) -> Presence:
        """Do what ``presence`` does, from any thread; it blocks where that would wait."""
        found = self._engine.presence(group)
        if isinstance(found, Reply):
            found.wait()
            found = found.presence()
        return Presence(*found)

    async def presence_count(self, group: str) -> tuple[int, int]:
        """Count who is present in a group, as its members were told last: the keys, and the channels.

        Raises:
            TypeError, ValueError, LayerUnavailable, LayerClosed: As ``presence``.
        """
        found = self._engine.presence_count(group)
        if isinstance(found, Reply):
            await found
            _, _, keys, channels, _ = found.presence()
            return keys, channels
        return found

    def presence_count_sync(self, group: str) -> tuple[int, int]:
        """Do what ``presence_count`` does, from any thread; it blocks where that would wait."""
        found = self._engine.presence_count(group)
        if isinstance(found, Reply):
            found.wait()
            _, _, keys, channels, _ = found.presence()
            return keys, channels
        return found

    async def group_count_everywhere(self, group: str) -> int:
        """Count the channels of a group in all processes: of one that the layer's setting ``counted`` names.

        In process it is what ``group_count`` returns.

        Raises:
            TypeError: The name is not valid.
            ValueError: The group is not counted.
            LayerUnavailable: Over Redis, the server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        asked = self._ask_everywhere(group)
        if asked is not None:
            await asked
        return self._count_everywhere(group, asked)

    def group_count_everywhere_sync(self, group: str) -> int:
        """Do what ``group_count_everywhere`` does, from any thread; it blocks where that would wait."""
        asked = self._ask_everywhere(group)
        if asked is not None:
            asked.wait()
        return self._count_everywhere(group, asked)

    def _ask_everywhere(self, group: str) -> Reply | None:
        self._core.group_count(group)
        if self._counted is None or not self._counted.match(group):
            raise ValueError(
                f"the group {group!r} is not counted in all processes: no glob of the layer's setting 'counted' fits "
                "its name"
            )
        return None if self._engine is self._core else cast("RedisLayer", self._engine).group_count_everywhere(group)

    def _count_everywhere(self, group: str, asked: Reply | None) -> int:
        count = self._engine.group_count(group)
        if asked is None:
            return count
        # The queues in the group are in no process.
        return count - self._core.group_count(group) + (asked.members or 0)


def _plain(meta: Mapping[str, Any] | None) -> Any:
    """Return a meta as the native side takes it, which refuses what is no dict."""
    return {} if meta is None else meta


def check_presence(presence: PresenceSetting | None) -> list[PresenceRule]:
    """Return which groups tell who is present, as the native side reads it.

    Raises:
        ValueError: It is not what the setting takes; the error names what is wrong.
    """
    if presence is None:
        return []
    if not isinstance(presence, Mapping):
        raise ValueError(
            "presence must be a mapping of globs of groups, such as {'room.*': {'linger': 10}}, got "
            f"{reprlib.repr(presence)}"
        )
    return [_rule(glob, options) for glob, options in presence.items()]


def _rule(glob: object, options: object) -> PresenceRule:
    if not isinstance(glob, str) or not glob:
        raise ValueError(f"presence keys must be globs (str) of the names of groups, got {reprlib.repr(glob)}")
    option = f"presence[{glob!r}]"
    if not isinstance(options, Mapping) or not options.keys() <= _DEFAULTS.keys():
        known = ", ".join(map(repr, _DEFAULTS))
        raise ValueError(f"{option} must be a mapping with some of the keys {known}, got {reprlib.repr(options)}")
    said = {**_DEFAULTS, **options}
    kind, interval, linger, most = said["type"], said["interval"], said["linger"], said["max"]
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{option}['type'] must be the type of a message, such as 'presence.diff', got {kind!r}")
    least, longest = _INTERVALS
    if not least <= check_seconds(f"{option}['interval']", interval) <= longest:
        raise ValueError(f"{option}['interval'] must be from {least} to {longest:g} seconds, got {interval!r}")
    if linger != 0 and check_seconds(f"{option}['linger']", linger) > _LONGEST_LINGER:
        raise ValueError(f"{option}['linger'] must be from 0 to {_LONGEST_LINGER:g} seconds, got {linger!r}")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= _LARGEST_MAX:
        raise ValueError(f"{option}['max'] must be an integer from 1 to {_LARGEST_MAX}, got {reprlib.repr(most)}")
    return glob, kind, float(interval), float(linger), most


def check_counted(counted: Iterable[str] | None) -> re.Pattern[str] | None:
    """Return what matches the groups that are counted in all processes; None if none is.

    Raises:
        ValueError: It is no list of globs.
    """
    globs = counted_globs(counted)
    return re.compile("|".join(map(fnmatch.translate, globs))) if globs else None


def counted_globs(counted: Iterable[str] | None) -> tuple[str, ...]:
    """Return the globs of the groups that are counted in all processes.

    Raises:
        ValueError: It is no list of globs.
    """
    if counted is None:
        return ()
    if isinstance(counted, str | bytes) or not isinstance(counted, Iterable):
        raise ValueError(f"counted must be a list of globs of groups, such as ['room.*'], got {reprlib.repr(counted)}")
    globs = list(counted)
    if not all(isinstance(glob, str) and glob for glob in globs):
        raise ValueError(f"counted must be a list of globs (str) of groups, got {reprlib.repr(globs)}")
    return tuple(globs)
