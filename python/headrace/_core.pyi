"""
The native half of headrace. Import from `headrace` instead: this module is not public.
"""

from collections.abc import Awaitable, Generator
from typing import Any, final

from _typeshed import Incomplete

__all__ = [
    "ChannelStats",
    "GroupStats",
    "Inbox",
    "LayerStats",
    "ManualClock",
    "MemoryLayer",
    "SendReport",
    "Waiter",
    "after_fork_in_child",
]

@final
class ChannelStats:
    """
    A reading of one channel; its counters begin anew when a channel that was gone comes back.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __repr__(self, /) -> str: ...
    @property
    def capacity(self, /) -> int:
        """
        How many fit.
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
class GroupStats:
    """
    A reading of one group; its counters begin anew when a group that was gone comes back.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
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
    it against something else, give `asyncio.ensure_future` the `anext(inbox)`.
    """
    def __aiter__(self, /) -> Inbox: ...
    def __anext__(self, /) -> Awaitable[dict[str, Any]]: ...
    def attend(self, /, attendant: Any | None = None) -> None:
        """
        Have a function called with each message that comes while a task waits here, in the task's stead and context.

        It returns None if that was all; anything else resumes the task, as the value of its await. It is for one task, from
        the next wait on; None takes the function away. If the task is cancelled before it gets what is left, it gets it all
        the same, with the exception as its attribute ``cancelled``.
        """
    def call_away(self, /) -> None:
        """
        Call whoever waits for the next message away: the wait ends with None, the one that goes on or else the next.

        To be called in the thread of the event loop of the one who waits.
        """
    @property
    def channel(self, /) -> str:
        """
        The channel's name.
        """
    def end(self, /) -> None:
        """
        End the iteration: whoever waits for the next message is told that there is none.
        """
    def own(self, /, capacity: int, overflow: str, alarm: Any | None = None) -> None:
        """
        Say how many messages the channel holds and what becomes of the rest, until it is closed.

        Args:
            capacity: Messages that it holds.
            overflow: ``"drop_new"``, ``"drop_old"``, or ``"coalesce"`` (those of the type of the new one give way to it).
            alarm: To be called in the running loop, without arguments, after the channel was full for the first time.
        """

@final
class LayerStats:
    """
    A reading of a layer. `sent == delivered + depth + dropped_expired + dropped_replaced + dropped_other` at any moment.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __repr__(self, /) -> str: ...
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
    def groups(self, /) -> int:
        """
        Groups with members.
        """
    @property
    def memberships(self, /) -> int:
        """
        Memberships of channels in groups.
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
class ManualClock:
    """
    A clock that stands still until it is told to move: for tests of expiry.
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
    def __new__(cls, /, config: Incomplete, clock: ManualClock | None = None) -> MemoryLayer: ...
    def channel_groups(self, /, channel: "str") -> list[str]: ...
    def channel_names(self, /) -> list[str]:
        """
        The channels that hold messages or waiting receivers.
        """
    def channel_stats(self, /, channel: "str") -> ChannelStats: ...
    def close(self, /) -> None:
        """
        Flush, refuse everything from now on, and wake all receivers with `LayerClosed`.
        """
    def close_channel(self, /, channel: "str") -> None:
        """
        Drop the messages of a channel and take it out of all its groups.
        """
    def flush(self, /) -> None: ...
    def group_add(self, /, group: "str", channel: "str") -> None: ...
    def group_channels(self, /, group: "str") -> list[str]: ...
    def group_count(self, /, group: "str") -> int: ...
    def group_discard(self, /, group: "str", channel: "str") -> None: ...
    def group_hold(self, /, group: "str", channel: "str") -> None:
        """
        Put a channel in a group until it is discarded or closed.
        """
    def group_members(self, /, group: "str") -> list[tuple[str, float]]:
        """
        The channels of a group, each with the seconds since its latest `group_add`.
        """
    def group_names(self, /) -> list[str]: ...
    def group_send(self, /, group: "str", message: "dict[str, object]", exclude: Any | None = None) -> SendReport:
        """
        Send to every member of a group but the excluded. Never blocks.
        """
    def group_send_many(self, /, pairs: Any) -> SendReport:
        """
        Send each message to its group. Bad input is found before anything is sent.
        """
    def group_stats(self, /, group: "str") -> GroupStats: ...
    def inbox(self, /, channel: "str") -> Inbox:
        """
        The messages of a channel, one after the other, as an asynchronous iterator.
        """
    def receive(self, /, channel: "str") -> Any:
        """
        Take the oldest message, or return a `Waiter` for the next one.
        """
    def receive_nowait(self, /, channel: "str") -> "dict[str, object]":
        """
        Take the oldest message.
        """
    def receive_ready(self, /, channel: "str", max: "int") -> "list[dict[str, object]]":
        """
        Take up to `max` messages that are there.
        """
    def receive_sync(self, /, channel: "str", timeout: float | None = None) -> "dict[str, object]":
        """
        Take the oldest message; sleep until there is one, or until the time is over.
        """
    def send(self, /, channel: "str", message: "dict[str, object]") -> None:
        """
        Send one message. Never blocks.
        """
    def send_many(self, /, pairs: Any) -> SendReport:
        """
        Send each message to its channel. Bad input is found before anything is sent; full channels are counted.
        """
    def stats(self, /) -> LayerStats: ...

@final
class SendReport:
    """
    What a send to many did, in messages.
    """
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
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
    def dropped_other(self, /) -> int:
        """
        Copies that were lost in any other way; always 0 in one process.
        """

@final
class Waiter:
    """
    A wait for a message, for one task at a time.

    One made by `MemoryLayer.receive` is in line already, and is awaited once: it says only that the message is
    there, and `take` takes it, because on Python 3.12 and later an awaitable returns None for nothing, but a value at
    the price of an exception. One that belongs to an `Inbox` gets in line each time it is awaited and returns the message.
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
