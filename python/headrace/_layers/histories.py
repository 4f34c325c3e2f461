"""The newest messages of groups: which are kept, and how they are read."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace._core import MemoryLayer, RedisLayer, Reply
from headrace._layers.base import HistorySetting, check_limit, check_seconds

__all__ = ["History", "HistoryLayer", "HistoryRule", "check_history"]

MAX_SIZE = 10_000
"""Messages of a group that are kept at most."""

HistoryRule: TypeAlias = tuple[str, int, float]
"""A glob of groups, how many messages are kept, and for how many seconds after the last."""


@dataclass(frozen=True)
class History:
    """Some of the messages that are kept of a group.

    Attributes:
        messages: The messages, oldest first.
        position: That of the last of them, to go on from; of none, what was asked for, or the newest of the group.
        complete: Whether they are all that was sent to the group between what was asked for and ``position``. If not,
            there are none.
    """

    messages: list[dict[str, Any]]
    position: str
    complete: bool


class HistoryLayer:
    """The methods that read what is kept."""

    _engine: MemoryLayer | RedisLayer

    async def group_position(self, group: str) -> str | None:
        """Return where the stream of a group is: what is sent from now on is behind it.

        A position is opaque text of the URL-safe base64 alphabet, 28 characters, for one group. It gives no rights.

        Returns:
            The position of the newest message, or the one before the first; None if the group has no history.

        Raises:
            TypeError: The name is not valid.
            LayerUnavailable: Over Redis, the server could not be reached in time, or refused.
            LayerClosed: The layer was closed.
        """
        position = self._engine.group_position(group)
        if isinstance(position, Reply):
            await position
            return position.position
        return position

    def group_position_sync(self, group: str) -> str | None:
        """Do what ``group_position`` does, from any thread; over Redis it blocks for a round trip."""
        position = self._engine.group_position(group)
        if isinstance(position, Reply):
            position.wait()
            return position.position
        return position

    async def group_history(self, group: str, since: str | None = None, limit: int = 100) -> History:
        """Read what is kept of a group. It changes nothing, and no channel gets anything.

        Args:
            group: The group.
            since: The position behind which to begin, or None for the newest messages.
            limit: How many messages at most. Behind a position these are the oldest: ask again with the position that
                is returned, for those that follow.

        Raises:
            ValueError: The group has no history, or the limit is not a positive integer.
            TypeError: The name is not valid, or ``since`` is not text.
            LayerUnavailable: Over Redis, the server could not be reached in time, or refused.
            LayerClosed: The layer was closed.
        """
        found = self._read_history(group, since, limit)
        if isinstance(found, Reply):
            await found
        return _history(found)

    def group_history_sync(self, group: str, since: str | None = None, limit: int = 100) -> History:
        """Do what ``group_history`` does, from any thread; over Redis it blocks for a round trip."""
        found = self._read_history(group, since, limit)
        if isinstance(found, Reply):
            found.wait()
        return _history(found)

    def _read_history(self, group: str, since: str | None, limit: int) -> "_Found":
        if since is not None and not isinstance(since, str):
            raise TypeError(f"since must be a position (str) or None, got {reprlib.repr(since)}")
        return self._engine.group_history(group, since, check_limit(limit))


_Found: TypeAlias = tuple[list[dict[str, Any]], str, bool] | Reply
"""What an engine gives of a history, or the reply that has it once it was waited for."""


def _history(found: _Found) -> History:
    if isinstance(found, Reply):
        return History(found.messages(), found.position or "", found.complete)
    return History(*found)


def check_history(history: HistorySetting | None) -> list[HistoryRule]:
    """Return which messages are kept, as the native side reads it.

    Raises:
        ValueError: It is not what the setting takes; the error names what is wrong.
    """
    if history is None:
        return []
    if not isinstance(history, Mapping):
        raise ValueError(
            "history must be a mapping of globs of groups, such as {'room.*': {'size': 100, 'ttl': 300}}, got "
            f"{reprlib.repr(history)}"
        )
    return [_rule(glob, limits) for glob, limits in history.items()]


def _rule(glob: object, limits: object) -> HistoryRule:
    if not isinstance(glob, str) or not glob:
        raise ValueError(f"history keys must be globs (str) of the names of groups, got {reprlib.repr(glob)}")
    option = f"history[{glob!r}]"
    if not isinstance(limits, Mapping) or limits.keys() != {"size", "ttl"}:
        raise ValueError(
            f"{option} must be a mapping with the keys 'size', in messages, and 'ttl', in seconds, got "
            f"{reprlib.repr(limits)}"
        )
    size = limits["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_SIZE:
        raise ValueError(f"{option}['size'] must be an integer from 1 to {MAX_SIZE}, got {reprlib.repr(size)}")
    return glob, size, float(check_seconds(f"{option}['ttl']", limits["ttl"]))
