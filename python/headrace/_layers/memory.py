"""The in-process layer: Channels' API over the native mailboxes and groups."""

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast

from headrace._core import (
    LayerStats,
    Ledger,
    ManualClock,
    MemoryLayer,
    SendReport,
    Waiter,
)
from headrace._layers.absent import ABSENT, say_absent
from headrace._layers.arguments import suggests_arguments
from headrace._layers.base import Capacities, LayerOptions, check_limit
from headrace._layers.native import Message, NativeChannelLayer
from headrace._layers.siblings import warn_of_siblings
from headrace._layers.views import ChannelsView, GroupsView

__all__ = ["InMemoryChannelLayer"]


_OWNER = ".inmemory"
"""What stands before the ``!`` in the names of its channels, at the end."""


class InMemoryChannelLayer(NativeChannelLayer):
    """A channel layer in this process, for any number of threads and event loops.

    It does what ``channels.layers.InMemoryChannelLayer`` does, with these differences: a name may have 100
    characters; expired messages do not count against the capacity and do not end memberships; a capacity is
    at least 1; cancelling a receive, flushing, or a second receiver leaves nobody deaf; ``group_send`` returns a
    report; after ``close`` the layer refuses work.

    After a fork the child has an empty layer under the same name; the parent's is not affected.

    Args:
        expiry: Seconds that a message may wait in its mailbox.
        group_expiry: Seconds that a membership lasts after its latest ``group_add``. One of a channel that a living
            consumer, socket or subscription has does not expire.
        capacity: How many messages a mailbox holds.
        channel_capacity: Other capacities by glob or compiled pattern of the channel's name; the first
            match counts.
        capacity_bytes: How many bytes of messages a mailbox holds behind the first, which it takes whatever its size. A
            message counts the bytes of its texts and byte strings, and 32 for each key, value and container.
        strict: Accept only messages that every engine can carry: dict with keys of str or bytes, list, str, bytes,
            int from -2**63 to 2**64 - 1, float, bool and None. Tuples become lists; bytearray and memoryview become
            bytes. Without it, whatever ``copy.deepcopy`` can copy, and a memoryview as bytes. Text with lone surrogates
            is refused in any case: a receiver could not send it on.
        wake: ``"direct"`` resumes all tasks that got a message from one callback of their loop;
            ``"future"`` gives each an ``asyncio.Future``, for loops or tasks that insist on one.
        clock: A clock to use in place of the machine's, for tests.

    Raises:
        ValueError: A setting is out of range; the error names it.
    """

    @suggests_arguments
    def __init__(
        self,
        expiry: float = LayerOptions.expiry,
        group_expiry: float = LayerOptions.group_expiry,
        capacity: int = LayerOptions.capacity,
        channel_capacity: Capacities | None = LayerOptions.channel_capacity,
        *,
        capacity_bytes: int = LayerOptions.capacity_bytes,
        strict: bool = False,
        wake: Literal["direct", "future"] = LayerOptions.wake,
        clock: ManualClock | None = None,
    ) -> None:
        self._clock = clock
        super().__init__(
            expiry,
            group_expiry,
            capacity,
            channel_capacity,
            capacity_bytes=capacity_bytes,
            strict=strict,
            wake=wake,
        )

    # A message that passes the type checker may be no dict; it is refused natively.
    _send: Callable[[str, Any], None]
    _group_send: Callable[[str, Any, str | Collection[str] | None], SendReport]

    def _start_empty(self) -> None:
        core = MemoryLayer(self._config, self._clock, _OWNER)
        self._core = self._engine = core
        self._owner = _OWNER
        # Bound once: a lookup less on every message.
        self._send = core.send
        self._receive = core.receive
        # Until the first, by which time a server has started all its workers. Held weakly: it would be a cycle.
        self._group_send = partial(_first_group_send, weakref.ref(self))

    def _group_send_soon(self, group: str, message: Mapping[str, Any], ledger: Ledger) -> bool:
        # It is done when it returns: there is nothing that could fail later.
        self._group_send(group, message, None)
        return True

    # Channels' methods. They are coroutine functions because create_task and async_to_sync ask for one.

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send a message to one channel. Never blocks.

        Raises:
            ChannelFull: The mailbox is at its capacity, in messages or in bytes; nothing was sent.
            TypeError: The name is not valid, or the message holds a value that cannot be copied.
            InvalidMessage: The message is not a dict, or uses a reserved key.
            ValueError: The message holds itself or is nested too deep.
            LayerClosed: The layer was closed.
        """
        self._send(channel, message)

    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel.

        Receivers of one channel are served in the order in which they came, each message to one of them. Cancelling
        loses nothing: a message that had been handed over returns to its place, or to the next receiver.

        Raises:
            TypeError: The name is not valid.
            ForeignChannel: It has a ``!``, and ``new_channel`` has not made it.
            LayerClosed: The layer was closed.
        """
        received: Message | Waiter = self._receive(channel)
        if type(received) is not Waiter:
            return received
        # Written out in each method: a function to await would be a coroutine more for each message.
        try:
            await received
            return received.take()
        except BaseException:
            # Also what an interrupt left between the two lines: nobody else would find that message.
            received.close()
            raise

    async def new_channel(self, prefix: str = "specific") -> str:
        """Make the name of a channel that nobody else has.

        Args:
            prefix: What the name begins with.

        Raises:
            TypeError: No valid name can begin so.
        """
        return self._new_name(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        """Put a channel in a group, or renew its membership. Never blocks.

        Raises:
            TypeError: A name is not valid.
            LayerClosed: The layer was closed.
        """
        self._core.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; no error if it is not in it. Never blocks.

        Raises:
            TypeError: A name is not valid.
            LayerClosed: The layer was closed.
        """
        self._core.group_discard(group, channel)

    async def group_send(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send a message to every channel of a group. Never blocks, and never raises for a full channel.

        Args:
            group: The group; one without members is no error.
            message: The message. Each receiver gets a copy of its own.
            exclude: A channel, or several, to pass by.

        Returns:
            How many channels got the message, and how many were full and did not. All are in this process:
            ``delivered_here`` is ``delivered``.

        Raises:
            TypeError, InvalidMessage, ValueError, LayerClosed: As ``send``.
        """
        return self._group_send(group, message, None if exclude == () else exclude)

    async def flush(self) -> None:
        """Drop all messages and all memberships. Receivers that wait go on waiting."""
        self._core.flush()

    async def close(self) -> None:
        """Flush, and refuse everything from now on. Waiting receivers raise ``LayerClosed``.

        Channels' layer ignores ``close``; this one does what it says.
        """
        self._core.close()

    # Beyond Channels.

    async def send_many(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Send messages to channels, given as pairs, with one wake for all. Never blocks.

        Nothing is sent if any pair is not valid. A full channel is not an error here: it is counted.

        Raises:
            TypeError, InvalidMessage, ValueError, LayerClosed: As ``send``.
        """
        return self._core.send_many(pairs)

    async def group_send_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send messages to groups, given as pairs, with one wake for all. Never blocks.

        Nothing is sent if any pair is not valid. The excluded channel, or several, gets none of them.

        Raises:
            TypeError, InvalidMessage, ValueError, LayerClosed: As ``send``.
        """
        return self._core.group_send_many(pairs, None if exclude == () else exclude)

    async def receive_many(self, channel: str, limit: int) -> list[Message]:
        """Wait for a message and take those behind it too, up to ``limit``. Cancelling loses nothing.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        most = check_limit(limit)
        first = await self.receive(channel)
        return [first, *self._core.receive_ready(channel, most - 1)]

    def send_many_sync(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Do what ``send_many`` does, from any thread, with or without a loop."""
        return self._core.send_many(pairs)

    def group_send_many_sync(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Do what ``group_send_many`` does, from any thread, with or without a loop."""
        return self._core.group_send_many(pairs, None if exclude == () else exclude)

    def receive_many_sync(self, channel: str, limit: int, timeout: float | None = None) -> list[Message]:
        """Do what ``receive_many`` does, blocking this thread as ``receive_sync`` does.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TimeoutError, RuntimeError, TypeError, ForeignChannel, LayerClosed: As ``receive_sync``.
        """
        most = check_limit(limit)
        first = self._core.receive_sync(channel, timeout)
        return [first, *self._core.receive_ready(channel, most - 1)]

    def flush_sync(self) -> None:
        """Do what ``flush`` does, from any thread, with or without a loop."""
        self._core.flush()

    def close_sync(self) -> None:
        """Do what ``close`` does, from any thread, with or without a loop."""
        self._core.close()

    def receive_nowait(self, channel: str) -> Message:
        """Take the next message if there is one.

        Raises:
            ChannelEmpty: There is none.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        return self._core.receive_nowait(channel)

    def send_sync(self, channel: str, message: Mapping[str, Any], *, confirm: bool = False) -> None:
        """Do what ``send`` does, from any thread, with or without a loop; ``confirm`` changes nothing."""
        self._send(channel, message)

    def receive_sync(self, channel: str, timeout: float | None = None) -> Message:
        """Wait for the next message of a channel, blocking this thread.

        Args:
            channel: The channel.
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: The time is over; no message was taken.
            RuntimeError: A loop runs in this thread; it would stand still.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        return self._core.receive_sync(channel, timeout)

    def new_channel_sync(self, prefix: str = "specific") -> str:
        """Do what ``new_channel`` does, from any thread, with or without a loop."""
        return self._new_name(prefix)

    def group_add_sync(self, group: str, channel: str) -> None:
        """Do what ``group_add`` does, from any thread, with or without a loop."""
        self._core.group_add(group, channel)

    def group_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``group_discard`` does, from any thread, with or without a loop."""
        self._core.group_discard(group, channel)

    def group_send_sync(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = (), confirm: bool = False
    ) -> SendReport:
        """Do what ``group_send`` does, from any thread, with or without a loop; ``confirm`` is as of ``send_sync``."""
        return self._group_send(group, message, None if exclude == () else exclude)

    def stats(self) -> LayerStats:
        """Read the layer's counters. ``sent == delivered + depth + dropped_expired + dropped_other``."""
        return self._core.stats()

    @property
    def channels(self) -> ChannelsView:
        """The channels that hold messages or waiting receivers, as a live mapping from names to mailboxes."""
        return ChannelsView(self)

    @property
    def groups(self) -> GroupsView:
        """The groups that have members, as a live mapping from names to members."""
        return GroupsView(self)


def _first_group_send(
    reference: "weakref.ref[InMemoryChannelLayer]", group: str, message: Any, exclude: str | Collection[str] | None
) -> SendReport:
    """Send the first message to a group, and tell the log if other workers do not get it."""
    layer = cast(InMemoryChannelLayer, reference())  # it is alive: its method has been called
    layer._group_send = layer._core.group_send
    warn_of_siblings(type(layer).__name__)
    return layer._group_send(group, message, exclude)


say_absent(InMemoryChannelLayer, ABSENT)
