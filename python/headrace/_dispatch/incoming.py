"""What comes in for one consumer: from its client, and from its layer.

The task that the server gave the consumer runs all its handlers, so that what one of them sets in a context variable
the next one finds. It waits at the native inbox of the consumer's channel. The client's messages are read ahead by a
task of their own, which calls the consumer away from the inbox. Reading ahead has limits, in messages and in bytes,
behind which the server holds the client back, and it shows that a client has gone while a handler is still at work.

A layer that is not one of this process's own, and a channel that the consumer chose itself, have a reader of the same
kind; then the inbox is that of a private layer, and only there to be called away from.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol, TypeAlias, TypeGuard

from headrace._core import Inbox
from headrace._dispatch.settings import setting
from headrace._layers.mailbox import set_limits
from headrace._layers.native import NativeChannelLayer
from headrace._websocket.closing import CLOSE_TIMEOUT
from headrace._websocket.ending import Ending
from headrace._websocket.rate import Rate, RateExceeded, TokenBucket
from headrace._websocket.read_ahead import READ_AHEAD, READ_AHEAD_BYTES, is_full
from headrace.exceptions import ChannelEmpty, InvalidChannelLayerError, LayerClosed, StopConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.typing import AnyChannelLayer, Message, Receive

__all__ = ["DISCONNECTS", "Event", "Failure", "Idle", "Incoming", "is_disconnect", "receives_natively"]

_logger = logging.getLogger("headrace.consumer")

DISCONNECTS = ("websocket.disconnect", "http.disconnect")
"""The last message of a client; no server has another behind it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A source could not be read: the consumer cannot go on."""

    error: BaseException


def is_disconnect(event: object) -> bool:
    """Tell whether this is the last message of a client."""
    # Servers send dicts. `isinstance` of an abstract class runs Python code for each look.
    return (type(event) is dict or isinstance(event, Mapping)) and event.get("type") in DISCONNECTS


class Idle:
    """The client has been silent for the consumer's ``idle_timeout``."""


Event: TypeAlias = Message | Failure | Idle


_NOTHING: list[Event] = []
"""Shared by all that have nothing to put there."""


class _Dispatcher(Protocol):
    """Who is told what happens to the consumer."""

    def gone(self, message: Message) -> None: ...
    def lost(self) -> None: ...
    def overrun(self) -> None: ...
    def end(self, ending: Ending) -> None: ...


class Incoming:
    """The sources of one consumer, read while it lives.

    There is one for each connection, so it is kept small.

    Args:
        layer: Its channel layer, or None.
        channel: The name of its channel, or None without a layer.

    Attributes:
        client: Messages of the client that wait to be handled, oldest first.
        carried: Messages that wait and came from a layer otherwise than through the inbox.
        inbox: The messages of the consumer's channel.
    """

    __slots__ = (
        *("_dispatcher", "_idle_timer", "_in_hand", "_last_heard", "_most_in_hand", "_native", "_others", "_owner"),
        *("_read_ahead_bytes", "_receive", "_room", "_tasks", "carried", "client", "inbox"),
    )

    def __init__(self, layer: AnyChannelLayer | None, channel: str | None) -> None:
        self._native = receives_natively(layer)
        self._owner: NativeChannelLayer = layer if receives_natively(layer) else _private_layer()
        # None when nobody wants to know: before the beginning, and at the end.
        self._dispatcher: _Dispatcher | None = None
        # The channels that the inbox does not have; of those of our own layers with an inbox that holds them.
        self._others: tuple[tuple[AnyChannelLayer, str, Inbox | None], ...] = ()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        # Set when a message is taken; made by a reader that waits for that.
        self._room: asyncio.Event | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._last_heard = 0.0
        # For a worker: messages taken and not finished, and how many there may be.
        self._in_hand = 0
        self._most_in_hand: int | None = None
        self._read_ahead_bytes = READ_AHEAD_BYTES
        self._receive: Receive | None = None
        self.client: list[Event] = []
        self.carried: list[Event] = _NOTHING
        self.inbox: Inbox = self._owner._inbox(channel if self._native and channel else f"consumer.{next(_numbers)}")
        if layer is not None and channel is not None and not self._native:
            self._others = ((layer, channel, _held(layer, channel)),)

    def limit(self, limits: object, layer: Any, dispatcher: _Dispatcher) -> None:
        """Let the channel do what the consumer class says when it is full.

        Args:
            limits: The consumer.
            layer: Its layer, which tells the capacity if the consumer does not.
            dispatcher: Told in the loop when the channel is full and the consumer wants to be closed then.

        Raises:
            InvalidChannelLayerError: The mailbox is not in this process, so nothing can be said about it.
        """
        max_backlog, overflow = setting(limits, "max_backlog"), setting(limits, "overflow", "drop_new")
        max_bytes = setting(limits, "max_backlog_bytes")
        if layer is None or (max_backlog is None and max_bytes is None and overflow == "drop_new"):
            return
        if not self._native:
            raise InvalidChannelLayerError(
                "max_backlog, max_backlog_bytes and overflow need a channel layer of headrace: the mailboxes of "
                "another are not in reach"
            )
        set_limits(layer, self.inbox, max_backlog, max_bytes, overflow, dispatcher.overrun)

    def watch_close(self, alarm: Callable[[], object]) -> None:
        """Have a function called in the loop when what ``group_close`` tells has to wait in the mailbox."""
        if self._native:
            with suppress(LayerClosed):  # which the first wait raises
                self.inbox.watch_close(alarm)

    def lanes(self) -> Iterator[list[Event]]:
        """Name the lane of each message that goes before the next one of the inbox; the caller takes it.

        Of each lane these are no more than may be read ahead: a client that sends without pause does not keep the layer
        waiting.
        """
        for lane in (self.client, self.carried):
            left = READ_AHEAD
            while lane and left:
                left -= 1
                yield lane

    def take(self, lane: list[Event]) -> Event:
        """Take the oldest message of a lane: ``client`` or ``carried``. A reader that waits for room goes on."""
        event = lane.pop(0)
        if lane is self.client and self._most_in_hand is not None:
            self._in_hand += 1
        elif self._room is not None:
            self._make_room()
        return event

    def expired(self) -> int:
        """Count the messages of its channels that expired before they were taken, where the mailboxes are in reach."""
        others = sum(inbox.expired() for _, _, inbox in self._others if inbox is not None) if self._others else 0
        return self.inbox.expired() + others

    def let_go(self) -> int:
        """Let the messages go that wait, and count them; not the client's last one, and no failure."""
        left = 0
        for lane in (self.client, self.carried):
            kept = [event for event in lane if isinstance(event, Failure | Idle) or is_disconnect(event)]
            left += len(lane) - len(kept)
            lane[:] = kept
        self._make_room()
        return left

    def of_layer(self) -> Iterator[Event]:
        """Take what waits of its layer now, oldest first; what comes meanwhile is left."""
        engine, channel = self._owner._engine, self.inbox.channel
        with suppress(LayerClosed, ChannelEmpty):  # it may expire, or be dropped, before it is taken
            for _ in range(engine.channel_stats(channel).depth):
                yield engine.receive_nowait(channel)
        for _ in range(len(self.carried)):
            yield self.take(self.carried)

    def announce(self, event: "Idle") -> None:
        """Have the consumer told, behind what waits of its client. To be called in its loop."""
        self.client.append(event)
        self.inbox.call_away()

    def end(self, ending: Ending) -> None:
        """Have the consumer end for a reason; see ``Dispatcher.end``. To be called in its loop."""
        if self._dispatcher is not None:
            self._dispatcher.end(ending)

    def failure(self) -> Failure | None:
        """Return what the client could not be read for, if that still waits."""
        failures = (event for event in self.client if isinstance(event, Failure))
        return next((failure for failure in failures if not isinstance(failure.error, StopConsumer)), None)

    def stop(self) -> None:
        """End the consumer when what waits before has been handled. To be called in its loop."""
        self.client.append(Failure(StopConsumer()))
        self.inbox.call_away()

    def finish(self) -> None:
        """Note that a message of the client has been handled."""
        if self._most_in_hand is not None:
            self._in_hand -= 1
            self._make_room()

    async def finish_and_read(self) -> None:
        """Do what ``finish`` does, and return when the next message is asked for: if it is there, it is in its lane."""
        self.finish()
        # Behind the reader, which has been woken.
        await asyncio.sleep(0)

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def read(
        self,
        receive: Receive,
        most_in_hand: int | None,
        idle_timeout: float | None,
        dispatcher: _Dispatcher,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
    ) -> None:
        """Begin to read the client's messages, and those of the channel if the inbox does not have it.

        Args:
            receive: The server's.
            most_in_hand: How many messages may be unfinished when the next one is asked for; None to read ahead.
            idle_timeout: Seconds of silence after which there is an ``Idle``, or None.
            dispatcher: Told in the loop of the client's last message as soon as it has come.
            read_ahead_bytes: How many bytes of the client may wait before no more is asked for.
        """
        self._dispatcher = dispatcher
        self._receive = receive
        self._most_in_hand = most_in_hand
        self._read_ahead_bytes = read_ahead_bytes
        self._start(self._into(self.client, receive, self._is_last))
        for layer, channel, _ in self._others:
            self._carry(layer, channel)
        if idle_timeout is not None:
            self._last_heard = asyncio.get_running_loop().time()
            self._watch(idle_timeout, idle_timeout)

    def within_rate(self, receive: Receive, rate: Rate, over_rate: Callable[[], None]) -> Receive:
        """Return what receives the client's messages without those that are over the rate.

        Args:
            receive: The server's.
            rate: How many frames may come. The first and the last message of a client are none.
            over_rate: Called in the loop for each that is over it.
        """
        clock = asyncio.get_running_loop().time
        bucket = TokenBucket(rate, clock())

        async def receive_within_rate() -> Any:
            while True:
                message = await receive()
                if message.get("type") != "websocket.receive" or bucket.take(now := clock()):
                    return message
                over_rate()
                if rate.closes:
                    raise RateExceeded
                # It has not been silent.
                self._last_heard = now
                # A server that has the next one at hand would not give the loop a turn.
                await asyncio.sleep(0)

        return receive_within_rate

    def read_layer(self, layer: AnyChannelLayer, channel: str) -> None:
        """Begin to read a channel that the inbox does not have."""
        self._others += ((layer, channel, _held(layer, channel)),)
        self._carry(layer, channel)

    async def pause(self) -> None:
        """Stop asking the server for messages of the client, until ``resume``."""
        dispatcher, reader = self._dispatcher, self._tasks[0]
        if dispatcher is None or reader.done():
            return
        # Without it the reader knows that the cancel is ours.
        self._dispatcher = None
        try:
            reader.cancel()
            await asyncio.wait({reader})
        finally:
            self._dispatcher = dispatcher

    def resume(self) -> None:
        """Ask the server again, if a pause has stopped that."""
        reader = self._tasks[0]
        was_last = any(isinstance(event, Failure) or is_disconnect(event) for event in self.client)
        receive = self._receive
        if receive is not None and self._dispatcher is not None and reader.done() and not was_last:
            reading = self._into(self.client, receive, self._is_last)
            self._tasks = (asyncio.create_task(reading), *self._tasks[1:])

    def leave_layer(self) -> None:
        """Leave all groups, and drop what waits in the mailboxes; it is counted in the layer's ``dropped_other``."""
        self._close_channel(self._owner, self.inbox)
        for layer, _, inbox in self._others:
            if isinstance(layer, NativeChannelLayer) and inbox is not None:
                self._close_channel(layer, inbox)

    async def leave(self) -> None:
        """Listen to nobody any more: nobody is to send to the consumer, however long its close takes."""
        self.leave_layer()
        await self.close()

    async def close(self) -> None:
        """Stop reading."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for task in self._tasks:
            task.cancel()
        # The other halves of cycles.
        self._dispatcher = self._receive = None
        self.inbox.attend(None)
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)
            if stuck:
                _logger.error("the server's receive() does not end when it is cancelled; the consumer ends without it")

    def _close_channel(self, layer: NativeChannelLayer, inbox: Inbox) -> None:
        with suppress(LayerClosed):  # which has left nothing behind
            layer._close_here(inbox.channel)
        inbox.release()

    def _carry(self, layer: AnyChannelLayer, channel: str) -> None:
        if self.carried is _NOTHING:
            self.carried = []
        self._start(self._into(self.carried, partial(layer.receive, channel), _is_never_last))

    def _start(self, reading: Any) -> None:
        # Made before the tuple is read: an eager task runs now, and may change it.
        task = asyncio.create_task(reading)
        self._tasks += (task,)

    async def _into(
        self, waiting: list[Event], receive: Callable[[], Awaitable[Any]], is_last: Callable[[Message], bool]
    ) -> None:
        call_away = self.inbox.call_away
        reads_ahead = waiting is self.client and self._most_in_hand is None
        try:
            while True:
                message = await receive()
                waiting.append(message)
                call_away()
                # Who swallows a cancel to hand over a message is asked for no other.
                if is_last(message) or self._dispatcher is None:
                    return
                while is_full(waiting, self._read_ahead_bytes) if reads_ahead else self._has_enough(waiting):
                    await self._has_room()
        except BaseException as error:  # whatever it is, it ends the consumer and not this task
            if self._dispatcher is None or isinstance(error, GeneratorExit):
                raise
            # A cancel that did not come from close() is one of the server's: it too leaves nothing to wait for.
            waiting.append(Failure(error))
            if waiting is self.client:
                self._dispatcher.lost()
            call_away()

    def _has_enough(self, waiting: list[Event]) -> bool:
        if waiting is self.carried or self._most_in_hand is None:
            return len(waiting) >= READ_AHEAD
        # None is read ahead for a worker: others could have handled it, and it would be lost with one that fails.
        return len(waiting) + self._in_hand >= self._most_in_hand

    async def _has_room(self) -> None:
        """Wait until a message was taken."""
        if self._room is None:
            self._room = asyncio.Event()
        await self._room.wait()

    def _is_last(self, message: Message) -> bool:
        """Note that the client was heard; tell whether this was its last message."""
        if self._idle_timer is not None:
            self._last_heard = asyncio.get_running_loop().time()
        last = is_disconnect(message)
        if last:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            if self._dispatcher is not None:
                self._dispatcher.gone(message)
        return last

    def _watch(self, idle_timeout: float, left: float) -> None:
        self._idle_timer = asyncio.get_running_loop().call_later(left, self._look, idle_timeout)

    def _look(self, idle_timeout: float) -> None:
        now = asyncio.get_running_loop().time()
        left = self._last_heard + idle_timeout - now
        if left > 0:
            self._watch(idle_timeout, left)
            return
        # A consumer that is still at work hears of it once; and whoever's frames wait has not been silent.
        if not self.client:
            self.announce(Idle())
        self._last_heard = now
        self._watch(idle_timeout, idle_timeout)


def receives_natively(layer: object) -> TypeGuard[NativeChannelLayer]:
    """Tell whether a layer is ours, and receives as ours do: a subclass's own way is not to be passed by."""
    return isinstance(layer, NativeChannelLayer) and "receive" not in layer._overridden


def _held(layer: AnyChannelLayer, channel: str) -> Inbox | None:
    """Return an inbox that keeps the channel in its groups, although nobody waits at it; of other layers None."""
    return layer._core.inbox(channel) if isinstance(layer, NativeChannelLayer) else None


def _is_never_last(_message: Message) -> bool:
    return False


_numbers = itertools.count()
"""Names for the inboxes in the private layer."""


@cache
def _private_layer() -> InMemoryChannelLayer:
    """Return a layer that carries nothing: consumers whose messages come another way wait at its inboxes."""
    return InMemoryChannelLayer()
