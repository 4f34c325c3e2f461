"""Live mappings over the in-process layer, where Channels has dicts of queues and of join times.

They hold nothing: each look asks the layer, and each change acts on it. After a fork they show the child's layer.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from headrace._core import MemoryLayer
from headrace.exceptions import LayerClosed

__all__ = ["ChannelView", "ChannelsView", "GroupView", "GroupsView"]


class _Layer(Protocol):
    """A layer, of which only the native side is looked at: another one after a fork."""

    _core: MemoryLayer


class ChannelView:
    """The mailbox of one channel, with the reading methods of an ``asyncio.Queue``."""

    def __init__(self, layer: _Layer, channel: str) -> None:
        self._layer = layer
        self._channel = channel

    @property
    def maxsize(self) -> int:
        """How many messages fit."""
        return self._layer._core.channel_stats(self._channel).capacity

    def qsize(self) -> int:
        """Count the messages."""
        return self._layer._core.channel_stats(self._channel).depth

    def empty(self) -> bool:
        """Tell whether there is no message."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Tell whether a send would be refused."""
        return self.qsize() >= self.maxsize

    def __repr__(self) -> str:
        return f"<mailbox of {self._channel!r}: {self.qsize()} of {self.maxsize}>"


class ChannelsView(Mapping[str, ChannelView]):
    """The channels that hold messages or waiting receivers. Deleting one closes the channel."""

    def __init__(self, layer: _Layer) -> None:
        self._layer = layer

    def __contains__(self, channel: object) -> bool:
        if not isinstance(channel, str):
            return False
        try:
            stats = self._layer._core.channel_stats(channel)
        except (TypeError, LayerClosed):
            return False
        return stats.depth > 0 or stats.waiters > 0

    def __getitem__(self, channel: str) -> ChannelView:
        if channel not in self:
            raise KeyError(channel)
        return ChannelView(self._layer, channel)

    def __delitem__(self, channel: str) -> None:
        if channel not in self:
            raise KeyError(channel)
        self._layer._core.close_channel(channel)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._core.channel_names())

    def __len__(self) -> int:
        return len(self._layer._core.channel_names())

    def __repr__(self) -> str:
        return repr(dict(self))

    def clear(self) -> None:
        """Close all these channels."""
        for channel in self:
            self._layer._core.close_channel(channel)


class GroupView(MutableMapping[str, float]):
    """The members of one group, each with the time of its latest ``group_add``.

    Deleting one discards it. Setting one adds it, now: whatever the value is.
    """

    def __init__(self, layer: _Layer, group: str) -> None:
        self._layer = layer
        self._group = group

    def _members(self) -> dict[str, float]:
        now = time.time()
        return {channel: now - age for channel, age in self._layer._core.group_members(self._group)}

    def __contains__(self, channel: object) -> bool:
        return channel in self._layer._core.group_channels(self._group)

    def __getitem__(self, channel: str) -> float:
        return self._members()[channel]

    def __setitem__(self, channel: str, _time: object) -> None:
        self._layer._core.group_add(self._group, channel)

    def __delitem__(self, channel: str) -> None:
        if channel not in self:
            raise KeyError(channel)
        self._layer._core.group_discard(self._group, channel)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._core.group_channels(self._group))

    def __len__(self) -> int:
        return self._layer._core.group_count(self._group)

    def __repr__(self) -> str:
        return repr(self._members())


class GroupsView(MutableMapping[str, Mapping[str, float]]):
    """The groups that have members.

    Deleting one discards all its members. Setting one makes the keys of a mapping its members.
    """

    def __init__(self, layer: _Layer) -> None:
        self._layer = layer

    def __contains__(self, group: object) -> bool:
        if not isinstance(group, str):
            return False
        try:
            return self._layer._core.group_count(group) > 0
        except (TypeError, LayerClosed):
            return False

    def __getitem__(self, group: str) -> GroupView:
        if group not in self:
            raise KeyError(group)
        return GroupView(self._layer, group)

    def __setitem__(self, group: str, members: Iterable[str]) -> None:
        wanted = list(members)
        here = GroupView(self._layer, group)
        for channel in set(here).difference(wanted):
            del here[channel]
        for channel in wanted:
            here[channel] = None

    def __delitem__(self, group: str) -> None:
        for channel in self[group]:
            self._layer._core.group_discard(group, channel)

    def setdefault(self, group: str, default: Iterable[str] | None = None) -> GroupView:
        """Return the members of a group, to be added to; those of the default if it has none."""
        if group not in self:
            self[group] = default or ()
        return GroupView(self._layer, group)

    def pop(self, group: str, *default: Any) -> Any:
        """Discard all members of a group; return them, each with the time of its latest ``group_add``."""
        if group not in self and default:
            return default[0]
        members = dict(self[group])
        del self[group]
        return members

    def __iter__(self) -> Iterator[str]:
        return iter(self._layer._core.group_names())

    def __len__(self) -> int:
        return len(self._layer._core.group_names())

    def __repr__(self) -> str:
        return repr({group: GroupView(self._layer, group)._members() for group in self})

    def clear(self) -> None:
        """Discard all members of all groups."""
        for group in self:
            for channel in self._layer._core.group_channels(group):
                self._layer._core.group_discard(group, channel)
