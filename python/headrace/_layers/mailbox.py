"""The channel of one subscription or socket: where the messages of its groups wait for it.

Guaranteed: when ``join`` has returned, what is sent to the group from then on is put here; when ``close`` has returned,
the channel is in no group and nothing is left of it, also if a join of another thread was on its way.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Protocol

from headrace._core import ChannelStats, Inbox
from headrace._layers.base import check_capacity
from headrace.exceptions import ConnectionClosed, LayerClosed

__all__ = ["OVERFLOWS", "Mailbox", "MailboxLayer", "Overflow", "check_limits", "close_channel", "set_limits"]

Overflow = Literal["drop_new", "drop_old", "coalesce", "close"]

OVERFLOWS = ("drop_new", "drop_old", "coalesce", "close")


class MailboxLayer(Protocol):
    """What a mailbox asks of its layer."""

    def get_capacity(self, channel: str) -> int: ...
    async def new_channel(self) -> str: ...
    def new_channel_sync(self) -> str: ...
    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None: ...
    def group_add_sync(self, group: str, channel: str, since: str | int | None = None) -> bool | None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    def group_discard_sync(self, group: str, channel: str) -> None: ...
    def close_channel(self, channel: str) -> None: ...
    def channel_stats(self, channel: str) -> ChannelStats: ...
    def _inbox(self, channel: str) -> Inbox: ...


class Mailbox:
    """A channel that is made when it is first needed, and joins and leaves groups; for any thread.

    Args:
        layer: The layer.
        backlog: How many messages it holds; None for the layer's capacity.
        overflow: What becomes of further messages; ``"close"`` is ``"drop_new"`` with an alarm.
        backlog_bytes: How many bytes it holds behind the first message; None for the layer's ``capacity_bytes``.

    Attributes:
        inbox: The messages; None until it is opened.
        groups: The groups that it gets messages of, those that are being joined too: their messages may come before
            the answer. With each, in a list of one, how many joins have succeeded or are on their way.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_closed", "_last", "_layer", "_lock", "_overflow", "groups", "inbox")

    def __init__(
        self,
        layer: MailboxLayer,
        backlog: int | None = None,
        overflow: Overflow = "drop_new",
        backlog_bytes: int | None = None,
    ) -> None:
        self._layer = layer
        self._backlog = backlog
        self._backlog_bytes = backlog_bytes
        self._overflow: Overflow = overflow
        self._closed = False
        # What was read before the channel was closed, which takes its counters along.
        self._last: ChannelStats | None = None
        # Held while the inbox is made, so that it is made once; also by a signal handler, whose thread may have it.
        self._lock = threading.RLock()
        self.inbox: Inbox | None = None
        self.groups: dict[str, list[int]] = {}

    def _name(self, group: str) -> str:
        """Return the layer's name of a group."""
        return group

    def _opened(self, inbox: Inbox) -> None:
        """Learn that there is an inbox; called once, by whichever thread has made it."""

    async def open(self) -> Inbox:
        """Return the inbox; the first one of a process waits until the server knows the process."""
        self._require_open()
        return self.inbox or self._make_inbox(await self._layer.new_channel())

    def open_sync(self) -> Inbox:
        """Do what ``open`` does, blocking."""
        self._require_open()
        return self.inbox or self._make_inbox(self._layer.new_channel_sync())

    def _make_inbox(self, channel: str) -> Inbox:
        with self._lock:
            if self.inbox is not None:
                return self.inbox
            inbox = self._layer._inbox(channel)
            self._limit(inbox, None)
            self.inbox = inbox
        self._opened(inbox)
        return inbox

    def _limit(self, inbox: Inbox, alarm: Callable[[], object] | None) -> None:
        set_limits(self._layer, inbox, self._backlog, self._backlog_bytes, self._overflow, alarm)

    async def arm(self, alarm: Callable[[], object]) -> None:
        """Have a function called in the running loop when the mailbox is full."""
        self._limit(await self.open(), alarm)

    async def join(self, group: str, since: str | int | None = None) -> bool | None:
        """Get what is sent to a group from now on, and before that what was missed ``since``, as ``group_add`` has it.

        Raises:
            ConnectionClosed: The mailbox is closed.
            LayerUnavailable, LayerClosed: As the layer's ``group_add``; nothing was joined.
        """
        inbox, name = await self.open(), self._name(group)
        try:
            with self._joining(group, inbox):
                # A subclass of the layer may know nothing of histories.
                missed = {} if since is None else {"since": since}
                complete = await self._layer.group_add(name, inbox.channel, **missed)
        finally:
            # It was left meanwhile; or this join failed, and one that the group was left after has succeeded.
            if group not in self.groups and not self._closed:
                with suppress(LayerClosed):
                    await self._layer.group_discard(name, inbox.channel)
        self._require_open()
        return complete

    def join_sync(self, group: str, since: str | int | None = None) -> bool | None:
        """Do what ``join`` does, blocking for at most a round trip."""
        inbox, name = self.open_sync(), self._name(group)
        try:
            with self._joining(group, inbox):
                missed = {} if since is None else {"since": since}
                complete = self._layer.group_add_sync(name, inbox.channel, **missed)
        finally:
            if group not in self.groups and not self._closed:
                with suppress(LayerClosed):
                    self._layer.group_discard_sync(name, inbox.channel)
        self._require_open()
        return complete

    @contextmanager
    def _joining(self, group: str, inbox: Inbox) -> Iterator[None]:
        """Have the group while it is joined, and no longer if that fails and no other join of it succeeds."""
        with self._lock:
            joins = self.groups.setdefault(group, [0])
            joins[0] += 1
        try:
            yield
        except BaseException:
            with self._lock:
                joins[0] -= 1
                if not joins[0] and self.groups.get(group) is joins:
                    del self.groups[group]
            raise
        finally:
            if self._closed:
                close_channel(self._layer, inbox.channel)

    async def leave(self, group: str) -> None:
        """Get nothing more of a group; no error if it was not joined."""
        self.groups.pop(group, None)
        if self.inbox is not None and not self._closed:
            await self._layer.group_discard(self._name(group), self.inbox.channel)

    def leave_sync(self, group: str) -> None:
        """Do what ``leave`` does; it blocks only if a subclass of the layer makes it."""
        self.groups.pop(group, None)
        if self.inbox is not None and not self._closed:
            self._layer.group_discard_sync(self._name(group), self.inbox.channel)

    def stats(self) -> ChannelStats | None:
        """Read the counters of the channel, or what they were when it was closed; None if there was none."""
        if self.inbox is not None and not self._closed:
            with suppress(LayerClosed):
                return self._layer.channel_stats(self.inbox.channel)
        return self._last

    def close(self) -> bool:
        """Leave all groups and drop what waits. Never blocks; may be called again, and by any thread.

        Returns:
            Whether the layer is open still: one that was closed has left nothing to leave.
        """
        self._last = self.stats()
        self._closed = True
        if self.inbox is None:
            return True
        try:
            return close_channel(self._layer, self.inbox.channel)
        finally:
            self.inbox.release()

    def _require_open(self) -> None:
        if self._closed:
            raise ConnectionClosed("it has been closed, so it cannot be subscribed to anything any more")


def close_channel(layer: MailboxLayer, channel: str) -> bool:
    """Close a channel, if the layer is open; tell whether it is."""
    try:
        layer.close_channel(channel)
    except LayerClosed:
        return False
    return True


def set_limits(
    layer: MailboxLayer,
    inbox: Inbox,
    backlog: int | None,
    backlog_bytes: int | None,
    overflow: str,
    alarm: Callable[[], object] | None,
) -> None:
    """Say how much a channel holds, unless that is what the layer says.

    Args:
        layer: Its layer, which says the capacity if ``backlog`` does not.
        inbox: Its inbox.
        backlog: Messages, or None.
        backlog_bytes: Bytes behind the first message, or None for the layer's ``capacity_bytes``.
        overflow: What becomes of further messages.
        alarm: Called in the running loop when the channel is full, if ``overflow`` is ``"close"``.
    """
    if backlog is None and backlog_bytes is None and overflow == "drop_new":
        return
    closes = overflow == "close"
    capacity = backlog or layer.get_capacity(inbox.channel)
    inbox.own(capacity, "drop_new" if closes else overflow, alarm if closes else None, backlog_bytes)


def check_limits(
    prefix: str,
    backlog: int | None,
    backlog_bytes: int | None,
    overflow: object,
    allowed: tuple[str, ...] = OVERFLOWS,
) -> None:
    """Check what is to be said of a mailbox.

    Args:
        prefix: What stands before the names of the settings in an error.
        backlog: Messages, or None.
        backlog_bytes: Bytes, or None.
        overflow: What becomes of further messages, or None.
        allowed: What may become of them.

    Raises:
        ValueError: A value is out of range; the error names the setting.
    """
    if backlog is not None:
        check_capacity(f"{prefix}max_backlog", backlog)
    if backlog_bytes is not None:
        check_capacity(f"{prefix}max_backlog_bytes", backlog_bytes)
    if overflow is not None and overflow not in allowed:
        raise ValueError(f"{prefix}overflow must be one of {', '.join(map(repr, allowed))}, got {overflow!r}")
