"""
The native half of headrace. Import from `headrace` instead: this module is not public.
"""

from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any, Final, final

from _typeshed import Incomplete

__all__ = [
    "EXCEPTIONS",
    "ChannelStats",
    "Forward",
    "FrameSend",
    "FrameWriter",
    "GroupStats",
    "Inbox",
    "LayerStats",
    "Ledger",
    "LinkStats",
    "ManualClock",
    "MemoryLayer",
    "RedisLayer",
    "Reply",
    "Runtime",
    "SendReport",
    "Waiter",
    "after_fork_in_child",
    "pack",
    "position_mark",
    "position_place",
    "threads_are_greenlets",
    "unpack",
]

EXCEPTIONS: Final[Sequence[type[Exception]]]

@final
class ChannelStats:
    """
    A reading of one channel; its counters begin anew when a channel that was gone comes back.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(
        cls,
        /,
        depth: int,
        capacity: int,
        bytes: int,
        capacity_bytes: int,
        waiters: int,
        groups: int,
        delivered: int,
        dropped_full: int,
        dropped_expired: int,
        dropped_replaced: int,
        full_by_bytes: int,
    ) -> ChannelStats: ...
    def __repr__(self, /) -> str: ...
    @property
    def bytes(self, /) -> int:
        """
        The bytes of the messages in its mailbox.
        """
    @property
    def capacity(self, /) -> int:
        """
        How many fit.
        """
    @property
    def capacity_bytes(self, /) -> int:
        """
        How many bytes fit behind the first message.
        """
    @property
    def delivered(self, /) -> int:
        """
        Messages given to its receivers.
        """
    @property
    def depth(self, /) -> int:
        """
        Messages in its mailbox.
        """
    @property
    def dropped_expired(self, /) -> int:
        """
        Messages that nobody took in time.
        """
    @property
    def dropped_full(self, /) -> int:
        """
        Messages refused because it was full.
        """
    @property
    def dropped_replaced(self, /) -> int:
        """
        Messages given up for newer ones, by channels whose owner wants that.
        """
    @property
    def full_by_bytes(self, /) -> int:
        """
        How often it was full by its bytes, while another message would have fit.
        """
    @property
    def groups(self, /) -> int:
        """
        Groups that it is in.
        """
    @property
    def waiters(self, /) -> int:
        """
        Receivers that wait.
        """

@final
class Forward:
    """
    An attendant that writes the messages of some types or topics to a socket itself; all others are the attendant's that it has.
    """
    def __call__(self, message: Any, /) -> Any:
        """
        Attend to a message.
        """
    def __new__(
        cls,
        /,
        attendant: Any,
        frames: Any,
        fields: "dict[str, Any]",
        *,
        unless: "Sequence[tuple[Any, str]]" = ...,
        key: "str" = "type",
        field: "str | None" = None,
    ) -> Forward:
        """
        Make the attendant.

        Args:
            attendant: Attends to all other messages.
            frames: Writes frames to the socket: the extension ``headrace.frames`` of the scope.
            fields: The values of ``key`` with which messages are forwarded, each with the field that holds the payload; None
                stands for ``text`` or else ``bytes``.
            unless: Objects, each with the name of an attribute of it: while one is true, the attendant attends to all.
            key: The key of a message that says whether it is forwarded.
            field: The field that holds the payload, whatever ``fields`` says; None if that says it.

        Raises:
            ValueError: What writes frames says that it has a window that there is not.
        """
    @property
    def written(self, /) -> int:
        """
        How many frames it has written.
        """

@final
class FrameSend:
    """
    Sends messages to a client in the place of the server's ``send``: frames are written at once where that can be done, and
    everything else is sent by the server.
    """
    def __call__(self, message: Any, /) -> Any:
        """
        Send a message. Like ``send`` of a server it is to be awaited.
        """
    def __new__(cls, /, frames: Any, send: Any) -> FrameSend:
        """
        Make what sends to one client, in the thread of its loop: in any other the server's own ``send`` is called.

        Args:
            frames: Writes frames to it: the extension ``headrace.frames`` of its scope.
            send: The server's own ``send``.

        Raises:
            ValueError: What writes frames says that it has a window that there is not.
        """

@final
class FrameWriter:
    """
    Writes frames to one WebSocket.

    Not from any thread but the one that made it, and not while its client does not read: then `write` returns False, and
    the caller sends in the server's way, which waits.
    """
    def __copy__(self, /) -> FrameWriter: ...
    def __deepcopy__(self, memo: Any, /) -> FrameWriter: ...
    def __new__(
        cls,
        /,
        send: Any,
        transport: Any,
        connection: Any,
        attribute: str,
        open: Any,
        descriptor: int | None,
        window_bits: int | None = None,
    ) -> FrameWriter:
        """
        Make the writer of a connection, in the thread of its loop.

        Args:
            send: The server's own ``send``.
            transport: The transport.
            connection: What knows the state of the WebSocket.
            attribute: The name of its attribute that says it.
            open: The value of that while a frame may be sent.
            descriptor: The transport's socket, if frames may be written to it past the transport, or None.
            window_bits: Of how many bits the window is for which frames may be compressed, or None if they may not be.

        Raises:
            ValueError: There is no such window.
        """
    def end(self, /) -> None:
        """
        Take no frames any more: the transport is about to be closed, and its descriptor may be somebody else's then.
        """
    def go_on(self, /) -> None:
        """
        Take frames again.
        """
    def hold(self, /) -> None:
        """
        Take no frames until `go_on`: the transport has more than enough to write.
        """
    @property
    def send(self, /) -> Any:
        """
        The server's own `send`.
        """
    @property
    def window_bits(self, /) -> int | None:
        """
        Of how many bits the window is for which frames may be compressed; None if they may not be.
        """
    def write(self, /, frame: bytes) -> bool:
        """
        Write a whole frame, without waiting; return False, having written nothing, if that cannot be done now.

        To be called in the thread of the connection's loop; in any other it returns False.
        """

@final
class GroupStats:
    """
    A reading of one group; its counters begin anew when a group that was gone comes back.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(cls, /, members: int, sends: int, delivered: int, dropped_full: int) -> GroupStats: ...
    def __repr__(self, /) -> str: ...
    @property
    def delivered(self, /) -> int:
        """
        Copies that reached a mailbox or a waiting receiver.
        """
    @property
    def dropped_full(self, /) -> int:
        """
        Copies that full mailboxes refused.
        """
    @property
    def members(self, /) -> int:
        """
        Its channels.
        """
    @property
    def sends(self, /) -> int:
        """
        How often it was sent to.
        """

@final
class Inbox:
    """
    The messages of one channel: `async for message in inbox`, or `await anext(inbox)`, by one task at a time.

    Cancelling loses nothing. It ends when its subscription does, and raises `LayerClosed` when the layer is closed. To race
    it against something else, give `asyncio.ensure_future` the `anext(inbox)`. Until it is released, or nobody has it any more,
    the memberships of its channel do not expire.
    """
    def __aiter__(self, /) -> Inbox: ...
    def __anext__(self, /) -> Awaitable[dict[str, Any]]: ...
    def attend(self, /, attendant: Any | None = None) -> None:
        """
        Have a function called with each message that comes while a task waits here, instead of the task, in its context.

        It returns None if that was all; the loop has a turn then before the next message. It returns True if what waits may
        be attended to at once. Anything else resumes the task, as the value of its await. It is for one task, from
        the next wait on; None takes the function away. If the task is cancelled before it gets what is left, it gets it all
        the same, with the exception as its attribute ``cancelled``.

        Raises:
            TypeError: The attendant cannot be called.
        """
    def call_away(self, /) -> None:
        """
        End the wait for the next message with None: the present wait, or the next if there is none.

        To be called in the thread of the event loop of the one who waits.
        """
    @property
    def channel(self, /) -> str:
        """
        The channel's name.
        """
    @property
    def complete(self, /) -> bool | None:
        """
        Whether all that was missed is received first: that of a subscription with `since`. None without.
        """
    def end(self, /) -> None:
        """
        End the iteration, and the present wait with `StopAsyncIteration`.
        """
    def end_turn(self, /) -> None:
        """
        Let the event loop have a turn before the next message, so that what the last one has started runs before.

        To be called in the thread of the event loop of the one who takes the messages. Without it a task that finds one
        message after the other gives way after about a millisecond.
        """
    def expired(self, /) -> int:
        """
        Count the messages of the channel that expired before somebody took them.
        """
    def note_complete(self, /, complete: bool) -> None:
        """
        Say whether all that was missed is received first; to be called once.
        """
    def own(
        self, /, capacity: "int", overflow: str, alarm: Any | None = None, capacity_bytes: "int | None" = None
    ) -> None:
        """
        Say how much the channel holds and what becomes of the rest, until it is closed.

        Args:
            capacity: Messages that it holds.
            overflow: ``"drop_new"``, ``"drop_old"``, or ``"coalesce"`` (those of the type of the new one give way to it; what
                the process sent before this call has no type then).
            alarm: To be called in the running loop, without arguments, after the channel was full for the first time.
            capacity_bytes: Bytes that it holds behind the first message; None for those of any channel of the layer.

        Raises:
            ValueError: A capacity is not positive, or the overflow is unknown.
            TypeError: The alarm cannot be called.
            RuntimeError: The inbox has ended, or there is an alarm and no running loop.
            LayerClosed: The layer was closed.
        """
    def release(self, /) -> None:
        """
        Let the memberships of the channel expire as those of any other; to be called once nobody receives from it.
        """
    def take_close(self, /) -> Any | None:
        """
        Take the message that tells the receiver to end, past those that came before it; None if there is none.

        Raises:
            LayerClosed: The layer was closed.
        """
    def watch_close(self, /, alarm: Any) -> None:
        """
        Have a function called when a message that tells the receiver to end has to wait behind what it is at; once.

        Args:
            alarm: To be called in the running loop, without arguments; also if such a message waits already.

        Raises:
            TypeError: The alarm cannot be called.
            RuntimeError: There is no running loop.
            LayerClosed: The layer was closed.
        """

@final
class LayerStats:
    """
    A reading of a layer. `sent == delivered + depth + dropped_expired + dropped_replaced + dropped_other` at any moment.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(
        cls,
        /,
        channels: int,
        groups: int,
        memberships: int,
        waiters: int,
        depth: int,
        bytes: int,
        sent: int,
        delivered: int,
        returned: int,
        dropped_full: int,
        dropped_expired: int,
        dropped_replaced: int,
        full_by_bytes: int,
        dropped_other: int,
        history_messages: int,
        history_bytes: int,
        history_evicted: int,
        presence_entries: int,
        presence_diffs: int,
        presence_hidden: int,
        presence_outdated: int,
    ) -> LayerStats: ...
    def __repr__(self, /) -> str: ...
    @property
    def bytes(self, /) -> int:
        """
        The bytes of those messages; one that waits in several mailboxes counts in each.
        """
    @property
    def channels(self, /) -> int:
        """
        Channels that hold messages, waiting receivers or memberships.
        """
    @property
    def delivered(self, /) -> int:
        """
        Messages given to receivers for good.
        """
    @property
    def depth(self, /) -> int:
        """
        Messages in mailboxes.
        """
    @property
    def dropped_expired(self, /) -> int:
        """
        Messages that nobody took in time.
        """
    @property
    def dropped_full(self, /) -> int:
        """
        Messages refused by full mailboxes.
        """
    @property
    def dropped_other(self, /) -> int:
        """
        Messages thrown away by `flush`, `close` or `close_channel`.
        """
    @property
    def dropped_replaced(self, /) -> int:
        """
        Messages given up for newer ones, by channels whose owner wants that.
        """
    @property
    def full_by_bytes(self, /) -> int:
        """
        How often a mailbox was full by its bytes, while another message would have fit. What was dropped then is in
        `dropped_full` or `dropped_replaced`.
        """
    @property
    def groups(self, /) -> int:
        """
        Groups with members.
        """
    @property
    def history_bytes(self, /) -> int:
        """
        What those count against `history_bytes`: their bytes and 64 each, and 256 for each group.
        """
    @property
    def history_evicted(self, /) -> int:
        """
        Groups whose history was dropped because all together were over `history_bytes`.
        """
    @property
    def history_messages(self, /) -> int:
        """
        Messages that are kept in the histories of groups.
        """
    @property
    def memberships(self, /) -> int:
        """
        Memberships of channels in groups.
        """
    @property
    def presence_diffs(self, /) -> int:
        """
        Diffs of who is present that were told; each goes to all members of a group.
        """
    @property
    def presence_entries(self, /) -> int:
        """
        Channels that are present in groups, with those whose leave is not told yet.
        """
    @property
    def presence_hidden(self, /) -> int:
        """
        Diffs that named nobody, because more than `max` were present.
        """
    @property
    def presence_outdated(self, /) -> int:
        """
        Changes of other processes that were dropped because a later one was known.
        """
    @property
    def returned(self, /) -> int:
        """
        Messages that came back from cancelled receivers, to be delivered again.
        """
    @property
    def sent(self, /) -> int:
        """
        Messages accepted since the layer was made; each member of a fan-out counts.
        """
    @property
    def waiters(self, /) -> int:
        """
        Receivers that wait.
        """

@final
class Ledger:
    """
    What became of sends that nobody waited for; any thread may send, and any may look.

    The child of a fork must not look at its parent's, which another thread may have held at that moment: it makes its own.
    """
    def __new__(cls, /) -> Ledger: ...
    def __repr__(self, /) -> str: ...
    @property
    def failed(self, /) -> int:
        """
        How many sends failed since it was made.
        """
    def fault(self, /) -> "BaseException | None":
        """
        Why the latest send that failed did so, as the exception that waiting for it would have raised.
        """
    @property
    def pending(self, /) -> int:
        """
        How many sends have no answer yet.
        """
    def settle(self, /, timeout: float) -> bool:
        """
        Sleep until everything sent before has its answer, or until the time is over; tell whether it has.

        What is sent meanwhile is not waited for.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            ValueError: The time is negative or no number.
        """

@final
class LinkStats:
    """
    A reading of the way to the servers; counts since the layer was made.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __repr__(self, /) -> str: ...
    @property
    def bytes_in(self, /) -> int:
        """
        Bytes of messages received.
        """
    @property
    def bytes_out(self, /) -> int:
        """
        Bytes of messages sent.
        """
    @property
    def fetched(self, /) -> int:
        """
        Messages taken from queues.
        """
    @property
    def gaps(self, /) -> int:
        """
        How often messages may have been missed.
        """
    @property
    def handed_back(self, /) -> int:
        """
        Messages that went back to their queues.
        """
    @property
    def lag(self, /) -> float:
        """
        Seconds from here through the server and back, smoothed.
        """
    @property
    def late(self, /) -> int:
        """
        Messages that came after their deadline, or after a gap was reported that includes them.
        """
    @property
    def malformed(self, /) -> int:
        """
        Messages that could not be read.
        """
    @property
    def missed(self, /) -> int:
        """
        Messages known to be missing.
        """
    @property
    def oversized(self, /) -> int:
        """
        Messages that came and were longer than `max_message_bytes`.
        """
    @property
    def publish_latency(self, /) -> float:
        """
        Seconds from the sending of a message to the server's answer, smoothed.
        """
    @property
    def published(self, /) -> int:
        """
        Messages that a server took for pub/sub.
        """
    @property
    def queue_depth(self, /) -> int:
        """
        Messages in the queues that this process uses, at the last look.
        """
    @property
    def queue_dropped(self, /) -> int:
        """
        Messages of queues thrown away by `flush`, or left to others by `close`.
        """
    @property
    def queue_expired(self, /) -> int:
        """
        Messages of queues that nobody took in time.
        """
    @property
    def queue_full(self, /) -> int:
        """
        Messages refused by full queues.
        """
    @property
    def queued(self, /) -> int:
        """
        Messages put into queues.
        """
    @property
    def queues(self, /) -> int:
        """
        The queues that hold them.
        """
    @property
    def reconnects(self, /) -> int:
        """
        Lost connections that came back.
        """
    @property
    def replayed(self, /) -> int:
        """
        Authenticated messages that came before.
        """
    @property
    def state(self, /) -> str:
        """
        "idle", "connecting", "up", "down" or "closed".
        """
    @property
    def subscriptions(self, /) -> int:
        """
        Pub/sub channels that are subscribed to.
        """
    @property
    def unauthenticated(self, /) -> int:
        """
        Messages, and memberships of queues, that no key of this layer authenticates.
        """
    @property
    def unreachable(self, /) -> int:
        """
        Messages to channels of processes that are gone.
        """
    @property
    def unsent(self, /) -> int:
        """
        Messages given up because no server took them in time.
        """

@final
class ManualClock:
    """
    A clock that moves only by `advance`: for tests of expiry.
    """
    def __new__(cls, /) -> ManualClock: ...
    def advance(self, /, seconds: float) -> None:
        """
        Move the clock forward.

        Args:
            seconds: How far; not negative.

        Raises:
            ValueError: The number is negative or no number.
        """

@final
class MemoryLayer:
    """
    Mailboxes and groups in this process: the engine behind `headrace.layers.InMemoryChannelLayer`.
    """
    def __new__(
        cls,
        /,
        config: Incomplete,
        clock: ManualClock | None = None,
        owner: str | None = None,
        before_group_send: Any | None = None,
    ) -> MemoryLayer: ...
    def channel_groups(self, /, channel: str) -> list[str]: ...
    def channel_names(self, /) -> list[str]:
        """
        The channels that hold messages or waiting receivers.
        """
    def channel_stats(self, /, channel: str) -> ChannelStats: ...
    def close(self, /) -> None:
        """
        Flush, refuse everything from now on, and wake all receivers with `LayerClosed`.
        """
    def close_channel(self, /, channel: str) -> None:
        """
        Drop the messages of a channel and take it out of all its groups.
        """
    @staticmethod
    def finish() -> Reply | None:
        """
        Wait until all that was sent is where it belongs. It is.
        """
    def flush(self, /) -> None: ...
    def group_add(self, /, group: str, channel: str) -> None: ...
    def group_add_since(self, /, group: str, channel: str, since: str | int) -> bool:
        """
        Put a channel in a group, with what it missed; tell whether that is complete.
        """
    def group_channels(self, /, group: str) -> list[str]: ...
    def group_close(self, /, group: str, message: Mapping[str, object], exclude: Any) -> SendReport:
        """
        Send a message to a group that tells its receivers to end, and that no full mailbox refuses.
        """
    def group_close_soon(self, /, group: str, message: Mapping[str, object], exclude: Any) -> SendReport:
        """
        Do what `group_close` does: there is nothing to wait for.
        """
    def group_count(self, /, group: str) -> int: ...
    def group_discard(self, /, group: str, channel: str) -> None: ...
    def group_history(
        self, /, group: str, since: str | int | None, limit: int
    ) -> "tuple[list[dict[str, object]], str, bool]":
        """
        The oldest `limit` messages of a group behind a position, or the newest of all; the position of the last of them, and whether
        they are complete.
        """
    def group_members(self, /, group: str) -> list[tuple[str, float]]:
        """
        The channels of a group, each with the seconds since its latest `group_add`.
        """
    def group_names(self, /) -> list[str]: ...
    def group_position(self, /, group: str) -> str | None:
        """
        The newest position of a group; None if it has no history.
        """
    def group_send(self, /, group: str, message: Mapping[str, object], exclude: Any) -> SendReport:
        """
        Send to every member of a group but the excluded. Never blocks.
        """
    def group_send_many(self, /, pairs: Any, exclude: Any) -> SendReport:
        """
        Send each message to its group, but not to the excluded channels. Bad input is found before anything is sent.
        """
    def group_send_soon(self, /, group: str, message: Mapping[str, object], exclude: Any) -> SendReport:
        """
        Do what `group_send` does: there is nothing to wait for.
        """
    def group_send_unattended(self, /, group: str, message: Mapping[str, object], _ledger: Any) -> None:
        """
        Send to a group. It is done when it returns: there is nothing that could fail later, and nothing to enter in the ledger.
        """
    def group_stats(self, /, group: str) -> GroupStats: ...
    def inbox(self, /, channel: str) -> Inbox:
        """
        The messages of a channel, one after the other, as an asynchronous iterator. While there is one, the channel keeps its
        memberships.
        """
    @staticmethod
    def look(_channel: str, _most: int) -> Reply | None:
        """
        Have up to so many messages come here. They are here.
        """
    def presence(self, /, group: str) -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool]":
        """
        Who is present in a group, the version of that, how many keys and channels they are, and whether there are too many to be named.
        """
    def presence_add(self, /, group: str, channel: str, key: str, meta: Mapping[str, object]) -> None:
        """
        Put a channel of this process in a group, and show it there under a key.
        """
    def presence_count(self, /, group: str) -> tuple[int, int]:
        """
        How many keys and channels are present in a group.
        """
    def presence_discard(self, /, group: str, channel: str) -> None:
        """
        Show a channel no longer in a group.
        """
    def presence_update(self, /, group: str, channel: str, meta: Mapping[str, object]) -> bool:
        """
        Give a channel another meta; tell whether it is present.
        """
    def receive(self, /, channel: str) -> Any:
        """
        Take the oldest message, or return a `Waiter` for the next one.
        """
    def receive_many_sync(self, /, channel: str, most: int, timeout: float | None = None) -> "list[dict[str, object]]":
        """
        As `receive_sync`, with up to so many messages, of which those behind the first are there.
        """
    def receive_next(self, /, channel: str) -> Any:
        """
        Do what `receive` does: nothing has to be looked for first.
        """
    def receive_nowait(self, /, channel: str) -> "dict[str, object]":
        """
        Take the oldest message.
        """
    def receive_ready(self, /, channel: str, most: int) -> "list[dict[str, object]]":
        """
        Take up to so many messages that are there.
        """
    def receive_sync(self, /, channel: str, timeout: float | None = None) -> "dict[str, object]":
        """
        Take the oldest message; sleep until there is one, or until the time is over.
        """
    def send(self, /, channel: str, message: Mapping[str, object]) -> None:
        """
        Send one message. Never blocks.
        """
    def send_many(self, /, pairs: Any) -> SendReport:
        """
        Send each message to its channel. Bad input is found before anything is sent; full channels are counted.
        """
    def send_soon(self, /, channel: str, message: Mapping[str, object]) -> None:
        """
        Do what `send` does: there is nothing to wait for.
        """
    def stats(self, /) -> LayerStats: ...

@final
class RedisLayer:
    """
    Mailboxes in this process and the way to those in others: the engine behind `headrace.layers.RedisChannelLayer`.

    What takes the server's time returns a `Reply`.
    """
    def __new__(
        cls,
        /,
        config: Incomplete,
        local: MemoryLayer,
        expiry: float,
        group_expiry: float,
        runtime: Runtime,
        before_use: Any | None,
    ) -> RedisLayer: ...
    def channel_groups(self, /, channel: str) -> list[str]: ...
    def channel_stats(self, /, channel: str) -> ChannelStats: ...
    def close(self, /) -> None:
        """
        End the connections.
        """
    def close_channel(self, /, channel: str) -> None:
        """
        Drop the messages of a channel and take it out of all its groups; of a queue, for the whole fleet.
        """
    def connect(self, /) -> Reply:
        """
        Become connected.
        """
    def drain(self, /) -> Reply | None:
        """
        Wait until the server has what was sent, and what of it was for this process has come. None: nothing was.
        """
    def finish(self, /) -> Reply | None:
        """
        Wait until the server has what was sent, at the end; it is no error if it does not get it. None: there is nothing to wait
        for.
        """
    def flush(self, /) -> Reply:
        """
        Remove what the layer has, everywhere. It is no error if it is closed.
        """
    def group_add(self, /, group: str, channel: str) -> Reply | None:
        """
        Put a channel in a group. None: it is done.
        """
    def group_add_since(self, /, group: str, channel: str, since: str | int) -> Reply:
        """
        Put a channel in a group that has a history, with what it missed. The reply has whether that is complete.
        """
    def group_channels(self, /, group: str) -> list[str]: ...
    def group_close(self, /, group: str, message: Mapping[str, object], exclude: Any) -> Reply:
        """
        Do what `group_send` does with a message that tells its receivers to end. No history keeps it.
        """
    def group_close_soon(self, /, group: str, message: Mapping[str, object], exclude: Any) -> "SendReport | Reply":
        """
        Do what `group_send_soon` does with such a message.
        """
    def group_count(self, /, group: str) -> int: ...
    def group_count_everywhere(self, /, group: str) -> Reply:
        """
        Ask how many members a group has in all processes, without its queues: the reply's `members`.
        """
    def group_discard(self, /, group: str, channel: str) -> Reply | None:
        """
        Take a channel out of a group. None: it is done.
        """
    def group_history(self, /, group: str, since: str | int | None, limit: int) -> Reply:
        """
        Ask for the oldest `limit` messages of a group behind a position, or for the newest of all. The reply has them, the position
        of the last, and whether they are complete.
        """
    def group_position(self, /, group: str) -> Reply | None:
        """
        Ask for the newest position of a group, which the reply has; None if it has no history.
        """
    def group_send(self, /, group: str, message: Mapping[str, object], exclude: Any) -> Reply:
        """
        Send to the members of a group but the excluded.
        """
    def group_send_many(self, /, pairs: Any, exclude: Any) -> Reply:
        """
        Send each message to its group, but not to the excluded channels.
        """
    def group_send_soon(self, /, group: str, message: Mapping[str, object], exclude: Any) -> "SendReport | Reply":
        """
        Send to the members of a group, and wait for nothing but room, if too much waits already: that gives a report. If there
        are queues in the group, which may be full, there is a reply.
        """
    def group_send_unattended(self, /, group: str, message: Mapping[str, object], ledger: Ledger) -> None:
        """
        Send to the members of a group, and wait for nothing but room, if too much waits already. What becomes of it is entered
        in the ledger.
        """
    def group_stats(self, /, group: str) -> GroupStats: ...
    def is_closed(self, /) -> bool:
        """
        Whether the connections were ended.
        """
    def is_queue(self, /, channel: str) -> bool:
        """
        Whether a channel is a queue, and no channel of a process.
        """
    def is_ready(self, /) -> bool:
        """
        Whether the connection has been made and confirmed.
        """
    def link_stats(self, /) -> LinkStats:
        """
        A reading of the connections alone.
        """
    def listen(self, /, channel: str) -> Reply | None:
        """
        Subscribe to a channel by its name. None: it is done.
        """
    def look(self, /, channel: str, most: int) -> Reply | None:
        """
        Take up to so many messages of a queue into the local mailbox; an unreachable server has none. None: it is no queue.
        """
    def next_notice(self, /, timeout: float) -> "dict[str, object] | None":
        """
        Wait, without a loop, for something that the owner may want to know: as a dict with "kind".
        """
    def presence(self, /, group: str) -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool] | Reply":
        """
        Who is present in a group, as the in-process layer gives it; or the reply whose `presence` will have it.
        """
    def presence_add(self, /, group: str, channel: str, key: str, meta: Mapping[str, object]) -> Reply | None:
        """
        Put a channel of this process in a group, and show it there under a key. None: it is done.
        """
    def presence_count(self, /, group: str) -> "tuple[int, int] | Reply":
        """
        How many keys and channels are present in a group; or the reply whose `presence` will have that.
        """
    def presence_discard(self, /, group: str, channel: str) -> None:
        """
        Show a channel no longer in a group.
        """
    def presence_update(self, /, group: str, channel: str, meta: Mapping[str, object]) -> bool:
        """
        Give a channel another meta; tell whether it is present.
        """
    @property
    def process(self, /) -> str:
        """
        The id of this process in the names of its channels.
        """
    def receive(self, /, channel: str) -> Any:
        """
        Do what `receive_next` does. Before the first of a queue, return the `Reply` that is to be waited for in front of that.
        """
    def receive_many_sync(self, /, channel: str, most: int, timeout: float | None = None) -> "list[dict[str, object]]":
        """
        As `receive_sync`, with up to so many messages, of which those behind the first are the ones that have come here by then.
        """
    def receive_next(self, /, channel: str) -> Any:
        """
        Take the oldest message of a channel, or return a `Waiter` for the next one.
        """
    def receive_nowait(self, /, channel: str) -> "dict[str, object]":
        """
        Take the oldest message. For a queue this asks the server, and sleeps for one round trip.
        """
    def receive_sync(self, /, channel: str, timeout: float | None = None) -> "dict[str, object]":
        """
        Take the oldest message of a queue; sleep until there is one, or until the time is over.
        """
    def send(self, /, channel: str, message: Mapping[str, object]) -> Reply:
        """
        Send one message.
        """
    def send_many(self, /, pairs: Any) -> Reply:
        """
        Send each message to its channel. A full channel is counted, and no error.
        """
    def send_soon(self, /, channel: str, message: Mapping[str, object]) -> Reply | None:
        """
        Send one message, and wait for nothing but room, if too much waits already. To a queue, which may be full, there is a
        reply.
        """
    def stats(self, /) -> tuple[LayerStats, LinkStats]:
        """
        A reading of the layer, and of its connections.
        """
    def unattended(self, /) -> Ledger:
        """
        What became of all sends that were given a ledger.
        """
    def unhealed(self, /) -> int:
        """
        How often messages of a group with a history may have been missed that no server has any more.
        """

@final
class Reply:
    """
    The answer to what was asked of a server: `await reply` in a task, or `reply.wait()` in any thread, once. It gives a report,
    which says something if a message was sent.

    What was asked is done whether anybody waits or not, but for a join, which fails if nobody waits until it is done.
    """
    def __await__(self, /) -> Generator[Any, None, SendReport]: ...
    def __iter__(self, /) -> Reply: ...
    def __next__(self, /) -> Any: ...
    def close(self, /) -> None:
        """
        End the wait.
        """
    @property
    def complete(self, /) -> bool:
        """
        Whether all was found that is behind a position, once the reply was waited for.
        """
    @property
    def members(self, /) -> int | None:
        """
        How many members a group has in all processes, if that was asked for, once the reply was waited for.
        """
    def messages(self, /) -> "list[dict[str, object]]":
        """
        The messages that were asked for, once the reply was waited for.
        """
    @property
    def position(self, /) -> str | None:
        """
        Where the group stands in whose history something was asked for, once the reply was waited for.
        """
    def presence(self, /) -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool]":
        """
        Who is present, if that was asked for, once the reply was waited for.
        """
    def throw(self, typ: Any, val: Any | None = None, tb: Any | None = None, /) -> None:
        """
        End the wait with an exception.
        """
    def wait(self, /, timeout: float | None = None) -> SendReport:
        """
        Wait for the answer, blocking this thread.

        Args:
            timeout: Seconds to wait at most; None waits for ever, though what a server does not do in time has an answer too.

        Raises:
            ChannelFull: It was a message to a queue that is full.
            TimeoutError: The time is over.
            ValueError: The time is negative or no number.
            LayerUnavailable: The server could not be reached, did not answer in time, or refused.
            LayerClosed: The layer was closed.
            RuntimeError: The reply was taken, or somebody else waits for it.
        """

@final
class Runtime:
    """
    The thread that does the input and output of all layers of a process. It ends with this object.
    """
    def __new__(cls, /) -> Runtime: ...

@final
class SendReport:
    """
    What a send to many did, in copies of messages.
    """
    def __add__(self, other: object, /) -> SendReport:
        """
        The report of both sends. What one of them does not know is not known of both.
        """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(
        cls,
        /,
        delivered: int | None,
        dropped_full: int,
        dropped_other: int,
        *,
        delivered_here: int | None = None,
        processes: int | None = None,
        position: str | None = None,
    ) -> SendReport: ...
    def __radd__(self, other: object, /) -> SendReport: ...
    def __repr__(self, /) -> str: ...
    @property
    def delivered(self, /) -> int | None:
        """
        Copies that reached a mailbox or a waiting receiver, in all processes. None over Redis, where no process knows that of the
        others.
        """
    @property
    def delivered_here(self, /) -> int:
        """
        Those of them that are known here: in memory all. Over Redis those to channels of this process, as they were before the
        server had the message, and those that queues took.
        """
    @property
    def dropped_full(self, /) -> int:
        """
        Copies that full mailboxes refused. Over Redis those that full queues refused, and of `send_many` the full mailboxes of
        this process.
        """
    @property
    def dropped_other(self, /) -> int:
        """
        Copies that were lost in any other way.
        """
    @property
    def position(self, /) -> str | None:
        """
        Where the message stands in the stream of its group: what `group_add` and its like take as `since`. None if the group has
        no history, and of several messages.
        """
    @property
    def processes(self, /) -> int | None:
        """
        Processes that it reached; of several messages the sum. Over Redis those that the server passed it on to, or None if the
        server was not waited for. In memory 1, or 0 where there was no channel to send to.
        """

@final
class Waiter:
    """
    A wait for a message, for one task at a time.

    It is among the waiters of the mailbox already, and is awaited once. The await returns None when the message is there,
    and `take` returns the message: on Python 3.12 and later, to return a value from an awaitable costs an exception.
    """
    def __await__(self, /) -> Generator[Any, None, Any]: ...
    def __iter__(self, /) -> Waiter: ...
    def __next__(self, /) -> Any: ...
    def close(self, /) -> None:
        """
        End the wait.
        """
    def take(self, /) -> "dict[str, object]":
        """
        Take the message, once.

        Raises:
            RuntimeError: It is not there: not yet, or not any more.
        """
    def throw(self, typ: Any, val: Any | None = None, tb: Any | None = None, /) -> None:
        """
        End the wait with an exception.
        """

def after_fork_in_child() -> None:
    """
    Forget the event loops of the parent process, and close their descriptors. The tasks of the parent are
    neither woken nor finalised: they are not this process's to end.
    """

def pack(message: "dict[str, object]", limit: "int") -> bytes:
    """
    A message as msgpack.

    Raises:
        MessageTooLarge: It takes more bytes than the limit.
        InvalidMessage: It is not a dict, or uses a reserved key.
        TypeError: It holds what is not serialisable.
        ValueError: It holds itself, is nested too deep, or has text or integers that msgpack cannot carry.
    """

def position_mark(group: str) -> int:
    """
    Return the number that stands for a group in its positions.
    """

def position_place(position: str) -> tuple[int, int, int] | None:
    """
    Read a position: a number that stands for its group, that of its stream, and its number in that; None if it is none.
    """

def threads_are_greenlets() -> bool:
    """
    Whether gevent or eventlet has made greenlets of this process's threads.
    """

def unpack(data: "bytes") -> "dict[str, object]":
    """
    A message from msgpack.

    Raises:
        ValueError: It is none; the error tells what is wrong, and at which byte.
    """
