"""What the layers with native mailboxes share: their methods, and how they live on after a fork.

The engines differ natively. A method here takes what the native side returns at once, or waits for its ``Reply``.
"""

import asyncio
import secrets
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from headrace._core import ChannelStats, GroupStats, Inbox, MemoryLayer, RedisLayer, Reply, after_fork_in_child
from headrace._forks import call_in_child
from headrace._layers.base import (
    BaseChannelLayer,
    Capacities,
    HistorySetting,
    LayerOptions,
    Matcher,
    PresenceSetting,
    check_capacity,
    check_seconds,
)
from headrace._layers.histories import HistoryLayer, HistoryRule, check_history
from headrace._layers.inbox import OwnInbox
from headrace._layers.overrides import DECIDED_NATIVELY, honour_overrides
from headrace._layers.presences import PresenceLayer, PresenceRule, check_presence
from headrace._layers.receiving import Message, ReceivingLayer
from headrace._layers.sending import SendingLayer
from headrace._layers.subscription import Subscription

__all__ = ["CLOSE_TIMEOUT", "LayerConfig", "Message", "NativeChannelLayer", "living_layers"]

CLOSE_TIMEOUT = 1.0
"""Seconds that the end of a layer, or of the process, waits for the server to take what was sent."""


@dataclass(frozen=True)
class LayerConfig:
    """The settings of a layer as the native side reads them."""

    expiry: float
    group_expiry: float
    capacity: int
    channel_capacity: list[tuple[str | Matcher, int]]
    capacity_bytes: int
    strict: bool
    direct_wake: bool
    history: list[HistoryRule] = field(default_factory=list)
    history_bytes: int = LayerOptions.history_bytes
    presence: list[PresenceRule] = field(default_factory=list)


class NativeChannelLayer(SendingLayer, ReceivingLayer, HistoryLayer, PresenceLayer, BaseChannelLayer):
    """The base of the layers whose mailboxes are native.

    Attributes:
        group_expiry: Seconds that a membership lasts after its latest ``group_add``, unless its channel has an inbox.
        capacity_bytes: Bytes that a mailbox holds behind its first message.
        history_bytes: Bytes that the messages of all groups with a history may take together.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]

    # The mailboxes of this process, and what answers for the whole layer: the same, or the engine that spans processes.
    _core: MemoryLayer
    _engine: MemoryLayer | RedisLayer
    # What stands before the "!" in the names of its channels, behind their prefix.
    _owner: str
    # What a subclass cannot override, each with what to do instead; and what it does override.
    _decided_natively: ClassVar[Mapping[str, str]] = DECIDED_NATIVELY
    _overridden: ClassVar[frozenset[str]] = frozenset()

    # It is known whether a socket of this process listens, or somebody was told that none does.
    _has_listeners_known = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See to it that what a subclass overrides is called, or refuse it."""
        super().__init_subclass__(**kwargs)
        layer_class = next(each for each in cls.__mro__ if NativeChannelLayer in each.__bases__)
        if cls is not layer_class:
            cls._overridden = honour_overrides(cls, layer_class, cls._decided_natively)

    def __init__(
        self,
        expiry: float,
        group_expiry: float,
        capacity: int,
        channel_capacity: Capacities | None,
        *,
        capacity_bytes: int,
        strict: bool,
        wake: Literal["direct", "future"],
        history: HistorySetting | None = None,
        history_bytes: int = LayerOptions.history_bytes,
        presence: PresenceSetting | None = None,
        counted: Iterable[str] | None = None,
    ) -> None:
        super().__init__(expiry, capacity, channel_capacity)
        self.group_expiry: float = check_seconds("group_expiry", group_expiry)
        self.capacity_bytes: int = check_capacity("capacity_bytes", capacity_bytes)
        self.history_bytes: int = check_capacity("history_bytes", history_bytes)
        if wake not in ("direct", "future"):
            raise ValueError(f"wake must be 'direct' or 'future', got {wake!r}")
        # Globs go to the native side as they are, and not as the regular expressions that the base makes of them.
        globs = channel_capacity.items() if isinstance(channel_capacity, Mapping) else None
        self._config = LayerConfig(
            expiry=float(expiry),
            group_expiry=float(group_expiry),
            capacity=capacity,
            channel_capacity=list(globs) if globs else list(self.channel_capacity),
            capacity_bytes=capacity_bytes,
            strict=bool(strict),
            direct_wake=wake == "direct",
            history=check_history(history),
            history_bytes=history_bytes,
            presence=check_presence(presence),
        )
        self._configure_presence(self._config.presence, counted)
        self._start_empty()
        _layers.add(self)

    def _start_empty(self) -> None:
        """Begin with nothing: when the layer is made, and in the child of a fork."""
        raise NotImplementedError("a layer says what it begins with")

    def _begin(self, core: MemoryLayer, engine: MemoryLayer | RedisLayer, owner: str) -> None:
        self._core, self._engine, self._owner = core, engine, owner
        self._bind_sending()
        self._bind_receiving()

    async def new_channel(self, prefix: str = "specific") -> str:
        """Make the name of a channel of this process that nobody else has.

        Over Redis the first one waits until the process is subscribed to its inbox; the others cost nothing on the
        server.

        Args:
            prefix: What the name begins with.

        Raises:
            TypeError: No valid name can begin so.
            LayerUnavailable: The server could not be reached in time.
        """
        name = self._new_name(prefix)
        for asked in self._open(name):
            await asked
        return name

    def new_channel_sync(self, prefix: str = "specific") -> str:
        """Do what ``new_channel`` does, from any thread; it blocks where that would wait."""
        name = self._new_name(prefix)
        for asked in self._open(name):
            asked.wait()
        return name

    def _open(self, channel: str) -> Iterable[Reply]:
        """Have the messages of a new channel come here; each step is to be waited for before the next."""
        return ()

    def _new_name(self, prefix: str) -> str:
        """Make the name of a channel of this process that nobody else has."""
        name = f"{prefix}{self._owner}!{secrets.token_hex(12)}"
        if prefix != "specific":
            # By itself too: whatever it is, it became text in the name.
            self.require_valid_channel_name(prefix)
            self.require_valid_channel_name(name)
        return name

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Put a channel in a group, or renew its membership; returns when messages to the group will reach it.

        Over Redis any channel of the fleet: one of this process costs a round trip only if it is the group's first
        here.

        With ``since`` the channel first receives what it missed of a group that has a history, then what is sent from
        now on: each message once, in order, with no hole between them. If not all that it missed is kept, it receives
        none of that. What it receives again does not count against its capacity, and expires as a message that is sent
        now. What of the group still waits in it and is to be received again is dropped, and counted as replaced.

        Args:
            group: The group.
            channel: The channel.
            since: The position of the last message that the channel had, or how many of the newest messages it is to
                receive.

        Returns:
            None without ``since``. With a position whether all behind it is received: False for any text that is no
            position of the group, or is too old. With a number True.

        Raises:
            TypeError: A name is not valid, or ``since`` is neither text nor an integer.
            ValueError: The group has no history and ``since`` is given, or it is negative.
            LayerUnavailable: The server could not be reached in time; the channel was not added.
            LayerClosed: The layer was closed.
        """
        if since is not None:
            resumed = self._engine.group_add_since(group, channel, since)
            if isinstance(resumed, bool):
                return resumed
            await resumed
            return resumed.complete
        asked = self._engine.group_add(group, channel)
        if asked is not None:
            await asked
        return None

    def group_add_sync(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Do what ``group_add`` does, from any thread; it blocks where that would wait."""
        if since is not None:
            resumed = self._engine.group_add_since(group, channel, since)
            if isinstance(resumed, bool):
                return resumed
            resumed.wait()
            return resumed.complete
        asked = self._engine.group_add(group, channel)
        if asked is not None:
            asked.wait()
        return None

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; no error if it is not in it.

        Raises:
            TypeError: A name is not valid.
            LayerUnavailable: The channel is not one of this process, and the server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        asked = self._engine.group_discard(group, channel)
        if asked is not None:
            await asked

    def group_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``group_discard`` does, from any thread; it waits for nothing if the channel is of this process."""
        asked = self._engine.group_discard(group, channel)
        if asked is not None:
            asked.wait()

    async def flush(self) -> None:
        """Drop all messages, memberships, presences and histories. Receivers that wait go on waiting.

        Over Redis all of the layer's prefix, here, on the server, and in all processes. It removes its own keys by
        their names, and no others.

        Raises:
            LayerUnavailable: The server could not be reached in time; what is in this process is gone all the same.
        """
        asked = self._engine.flush()
        if asked is not None:
            await asked

    def flush_sync(self) -> None:
        """Do what ``flush`` does, from any thread; it blocks until the server has done it."""
        asked = self._engine.flush()
        if asked is not None:
            asked.wait()

    async def close(self) -> None:
        """Drop everything here, and refuse everything from now on. Waiting receivers raise ``LayerClosed``.

        Over Redis it waits a second first for the server to take what was sent.
        """
        try:
            asked = self._engine.finish()
            if asked is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await asked
        finally:
            self._end()

    def close_sync(self) -> None:
        """Do what ``close`` does, from any thread; it blocks for a second at most."""
        try:
            asked = self._engine.finish()
            if asked is not None:
                with suppress(TimeoutError):
                    asked.wait(CLOSE_TIMEOUT)
        finally:
            self._end()

    def _end(self) -> None:
        self._core.close()
        self._engine.close()

    def close_channel(self, channel: str) -> None:
        """Drop the messages of a channel and take it out of all its groups. Never blocks.

        Receivers that wait on it go on waiting: a later message to the name reaches them. A queue over Redis is closed
        for the whole fleet, and the server is not waited for.

        Raises:
            TypeError: The name is not valid.
            LayerClosed: The layer was closed.
        """
        self._engine.close_channel(channel)

    def _close_here(self, channel: str) -> None:
        """Close the channel of a consumer; of a queue only what is in this process."""
        self.close_channel(channel)

    def group_channels(self, group: str) -> list[str]:
        """List the channels of a group in this process, and over Redis the queues that are in it.

        The channels of other processes are not known here.
        """
        return self._engine.group_channels(group)

    def group_count(self, group: str) -> int:
        """Count the channels of a group in this process, and over Redis the queues that are in it."""
        return self._engine.group_count(group)

    def channel_groups(self, channel: str) -> list[str]:
        """List the groups that a channel is in; over Redis that of a channel of this process, or of a queue."""
        return self._engine.channel_groups(channel)

    def channel_stats(self, channel: str) -> ChannelStats:
        """Read one channel's counters in this process; the depth of a queue over Redis is that of the last look."""
        return self._engine.channel_stats(channel)

    def group_stats(self, group: str) -> GroupStats:
        """Read one group's counters in this process; over Redis with what this process sent to its queues."""
        return self._engine.group_stats(group)

    def _unhealed(self) -> int:
        """Count how often messages of a group with a history may have been missed for good: in one process never."""
        return 0

    def _inbox(self, channel: str) -> Inbox:
        """Return the messages of a channel of this process as an iterator, received as ``receive`` does it."""
        if "receive" in self._overridden:
            return cast(Inbox, OwnInbox(self, channel))
        return self._core.inbox(channel)

    def subscription(
        self,
        *groups: str,
        max_backlog: int | None = None,
        max_backlog_bytes: int | None = None,
        overflow: Literal["drop_new", "drop_old", "coalesce"] = "drop_new",
        since: str | int | None = None,
    ) -> Subscription:
        """Make a channel that is in these groups while a context lasts.

        ``async with layer.subscription("news") as inbox`` joins; ``async for message in inbox`` receives, and ends when
        the context does. At the end the channel leaves the groups, and its unread messages are dropped and counted.
        These memberships do not expire. Within the context ``await subscription.join(group)`` joins another group, and
        ``await subscription.leave(group)`` leaves one.

        Args:
            *groups: The groups.
            max_backlog: Messages that the channel holds, or None for the layer's capacity.
            max_backlog_bytes: Bytes of messages that it holds behind the first, or None for ``capacity_bytes``.
            overflow: What a full channel does: ``"drop_new"`` refuses the new message, ``"drop_old"`` drops the oldest,
                ``"coalesce"`` drops those of the new one's type. All are counted.
            since: A position in the stream of the group, or a number of messages, as ``group_add`` takes it: what was
                missed is received first. ``inbox.complete`` tells whether that is all; of several groups, of each.

        Raises:
            ValueError: A limit is out of range; the error names it.
        """
        return Subscription(self, groups, max_backlog, max_backlog_bytes, overflow, since)


_layers: weakref.WeakSet[NativeChannelLayer] = weakref.WeakSet()
# What the child of a fork inherits is kept and never looked at: to let it go would run the clean-up of the parent's
# tasks, on the parent's sockets, in the wrong process.
_inherited: list[object] = []


def living_layers() -> list[NativeChannelLayer]:
    """Return the layers of this process."""
    return list(_layers)


def _start_child_empty() -> None:
    after_fork_in_child()
    for layer in _layers:
        _inherited.append((layer._core, layer._engine))
        layer._start_empty()


call_in_child(_start_child_empty)
