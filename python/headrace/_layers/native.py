"""What the layers with native mailboxes share: how they receive, and how they live on after a fork."""

import secrets
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from headrace._core import ChannelStats, GroupStats, Inbox, Ledger, MemoryLayer, RedisLayer, after_fork_in_child
from headrace._forks import call_in_child
from headrace._layers.base import BaseChannelLayer, Capacities, Matcher, check_capacity, check_seconds
from headrace._layers.inbox import OwnInbox
from headrace._layers.overrides import DECIDED_NATIVELY, honour_overrides
from headrace._layers.subscription import Subscription

__all__ = ["LayerConfig", "Message", "NativeChannelLayer", "living_layers"]

Message = dict[str, Any]


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


class NativeChannelLayer(BaseChannelLayer):
    """The base of the layers whose mailboxes are native.

    Attributes:
        group_expiry: Seconds that a membership lasts after its latest ``group_add``, unless its channel has an inbox.
        capacity_bytes: Bytes that a mailbox holds behind its first message.
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
    ) -> None:
        super().__init__(expiry, capacity, channel_capacity)
        self.group_expiry: float = check_seconds("group_expiry", group_expiry)
        self.capacity_bytes: int = check_capacity("capacity_bytes", capacity_bytes)
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
        )
        self._start_empty()
        _layers.add(self)

    def _start_empty(self) -> None:
        """Begin with nothing: when the layer is made, and in the child of a fork."""
        raise NotImplementedError("a layer says what it begins with")

    def _inherited(self) -> object:
        """Return what the child of a fork is to keep and never to look at."""
        return self._core

    def _new_name(self, prefix: str) -> str:
        """Make the name of a channel of this process that nobody else has."""
        name = f"{prefix}{self._owner}!{secrets.token_hex(12)}"
        if prefix != "specific":
            # By itself too: whatever it is, it became text in the name.
            self.require_valid_channel_name(prefix)
            self.require_valid_channel_name(name)
        return name

    def new_channel_sync(self, prefix: str = "specific") -> str:
        """Do what ``new_channel`` does, from any thread; block where that would wait."""
        raise NotImplementedError("a layer says what its channels are called")

    def group_add_sync(self, group: str, channel: str) -> None:
        """Do what ``group_add`` does, from any thread; block where that would wait."""
        raise NotImplementedError("a layer says how a channel is added to a group")

    def group_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``group_discard`` does, from any thread; it waits for nothing if the channel is of this process."""
        raise NotImplementedError("a layer says how a channel is taken out of a group")

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
        """List the channels of a group; over Redis those of this process, and the queues that are in it."""
        return self._engine.group_channels(group)

    def group_count(self, group: str) -> int:
        """Count what ``group_channels`` lists."""
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

    def _inbox(self, channel: str) -> Inbox:
        """Return the messages of a channel of this process as an iterator, received as ``receive`` does it."""
        if "receive" in self._overridden:
            return cast(Inbox, OwnInbox(self, channel))
        return self._core.inbox(channel)

    def _group_send_soon(self, group: str, message: Mapping[str, Any], ledger: Ledger) -> bool:
        """Send to a group from any thread, and wait for nothing but room, not even for queues that are in it.

        What can be told at once is raised. What fails later is counted in the ledger, and logged as a warning.

        Returns:
            Whether it was sent: nothing is if a subclass has a ``group_send`` of its own, which has to be awaited.
        """
        raise NotImplementedError("a layer says how it sends what nobody waits for")

    def subscription(
        self,
        *groups: str,
        max_backlog: int | None = None,
        max_backlog_bytes: int | None = None,
        overflow: Literal["drop_new", "drop_old", "coalesce"] = "drop_new",
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

        Raises:
            ValueError: A limit is out of range; the error names it.
        """
        return Subscription(self, groups, max_backlog, max_backlog_bytes, overflow)


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
        _inherited.append(layer._inherited())
        layer._start_empty()


call_in_child(_start_child_empty)
