"""One consumer from its first message to its end.

Guaranteed, whatever ends it (its client, an exception, a cancel, ``StopConsumer``, the server's shutdown): what it has
begun is finished once, its groups are left, its channel is closed, and only then does the exception go on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Protocol, cast

from headrace._db import aclose_old_connections, connections_open, enter_consumer
from headrace._dispatch.ending import END_SECONDS, ClosedByGroup, Ending, drained
from headrace._dispatch.failures import explain, place_of
from headrace._dispatch.handlers import CLOSE, FORWARD
from headrace._dispatch.incoming import Event, Failure, Idle, Incoming, is_disconnect
from headrace._dispatch.session import Session
from headrace._dispatch.settings import setting
from headrace._dispatch.side_by_side import SideBySide
from headrace._dispatch.threads import current_executor, restore_executor
from headrace._drain import has_ended, lives
from headrace._layers.close_message import code_and_reason
from headrace._settings import django_settings
from headrace._websocket.closing import CLEAN_UP_TIMEOUT, despite_cancel
from headrace._websocket.lane import Unfinished, deliver, stand_in
from headrace._websocket.rate import RateExceeded
from headrace._websocket.read_ahead import READ_AHEAD_BYTES
from headrace.exceptions import ConnectionClosed, LayerUnavailable, StopConsumer
from headrace.typing import AnyChannelLayer, ChannelLayer, Message, Receive, Scope

__all__ = ["Consumer", "Dispatcher"]

_logger = logging.getLogger("headrace.consumer")


class Consumer(Protocol):
    """What the dispatch asks of a consumer."""

    scope: Scope
    channel_layer: ChannelLayer
    channel_name: str
    _sync: ClassVar[bool]

    async def dispatch(self, message: Any) -> None: ...


class Dispatcher:
    """Runs a consumer.

    Args:
        consumer: The consumer.
        session: What is kept of it.
        direct: Whether handlers may be called without ``dispatch``, because nobody has changed it.
    """

    __slots__ = (
        *("__weakref__", "_cancelled", "_cancels", "_channel", "_close", "_consumer", "_direct", "_executor"),
        *("_failed", "_group", "_handler_timeout", "_has_ended", "_incoming", "_interrupted", "_is_first", "_layer"),
        *("_session", "_task", "_told_expired"),
    )

    def __init__(self, consumer: Consumer, session: Session, direct: bool) -> None:
        self._consumer = consumer
        self._session = session
        self._layer: AnyChannelLayer | None = consumer.channel_layer
        self._channel: str | None = getattr(consumer, "channel_name", None)
        self._incoming = session.incoming = Incoming(self._layer, self._channel)
        self._incoming.limit(consumer, self._layer, self)
        self._handler_timeout: float | None = setting(consumer, "handler_timeout")
        self._told_expired = False
        self._direct = direct and self._handler_timeout is None
        self._failed = self._cancelled = self._has_ended = False
        # Closes the connection, if that is what we have cancelled the task for.
        self._close: Callable[[], Awaitable[None]] | None = None
        # We have cancelled the task, and the cancel has not been dealt with yet.
        self._interrupted = False
        # Cancels that handlers have dealt with; a TaskGroup of Python 3.11 leaves one counted when it has failed.
        self._cancels = 0
        # A connection has to be open before anything else is done with it. What a worker gets is no connection.
        self._is_first = consumer.scope.get("type") != "channel"
        # The handlers that run at a time, where that may be more than one.
        self._group = SideBySide(most) if (most := setting(consumer, "concurrency", 1)) > 1 else None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, receive: Receive) -> None:
        """Handle what comes in until the consumer ends, and clean up.

        Raises:
            BaseException: Whatever ended it, if that was no ordinary end.
        """
        consumer, session = self._consumer, self._session
        session.serving = True
        session.shared.counters.add(opened=1, open=1)
        self._task = asyncio.current_task()
        self._executor = current_executor()
        if django_settings() is not None:
            enter_consumer()
        self._read(receive)
        if consumer.scope.get("type") == "websocket":
            lives(self)
            self._incoming.watch_close(self.limit_close)
        try:
            await self._deliver()
        except StopConsumer:
            pass
        except RateExceeded:
            await self._close_over_rate()
        except asyncio.CancelledError:
            if not self._was_interrupted():
                self._cancelled = True
                raise
            await self._end_interrupted()
        except GeneratorExit:
            # If the loop has ended before its tasks, nothing can be waited for any more.
            self._has_ended = asyncio._get_running_loop() is None
            self._failed = not self._has_ended
            raise
        except BaseException:
            self._failed = True
            raise
        finally:
            self._end_grace()
            session.end_life(consumer)
            try:
                if not self._has_ended:
                    await self._end()
            finally:
                if self._interrupted and self._task is not None:
                    self._task.uncancel()
                session.closed = True
                session.serving = False
                self._task = None
                self._incoming.leave_layer()
                has_ended(self)
                session.shared.counters.add(open=-1, dropped_unhandled=self._incoming.let_go())

    def _read(self, receive: Receive) -> None:
        """Begin to read what the client sends."""
        consumer, session = self._consumer, self._session
        most_in_hand = setting(consumer, "concurrency", 1) if consumer.scope.get("type") == "channel" else None
        receive = session.begin_life(consumer, receive)
        read_ahead: int = setting(consumer, "read_ahead_bytes", READ_AHEAD_BYTES)
        if (rate := session.shared.rate) is not None and most_in_hand is None:
            # Not the consumer: a reader that is cancelled keeps its frames, and these would keep it.
            over_rate = partial(session.drop_over_rate, consumer.scope.get("path"), rate)
            receive = self._incoming.within_rate(receive, rate, over_rate)
        self._incoming.read(receive, most_in_hand, setting(consumer, "idle_timeout"), self, read_ahead)

    async def _end_interrupted(self) -> None:
        """End the consumer, whose handler was interrupted: it is closed, or its client could not be read any more.

        Raises:
            BaseException: What the client could not be read for, if that was no ordinary end.
        """
        if self._close is not None:
            await self._leave()
            await self._close()
        elif failure := self._incoming.failure():
            if isinstance(failure.error, RateExceeded):
                await self._close_over_rate()
                return
            self._cancelled = isinstance(failure.error, asyncio.CancelledError)
            self._failed = not self._cancelled
            raise failure.error from None

    async def _close_over_rate(self) -> None:
        """Close the connection because the client sends more than it may; what it sent before has been handled."""
        await self._leave()
        await self._session.close_over_rate(self._consumer)

    async def _leave(self) -> None:
        """Listen to nobody any more: nobody is to send to it, however long the close takes."""
        self._incoming.leave_layer()
        await self._incoming.close()

    def gone(self, message: Message) -> None:
        """Note that the client has gone: handlers that run side by side need not go on."""
        self._session.note_gone(message)
        if self._group is not None:
            self._group.cancel()
        self._give_grace()

    def lost(self) -> None:
        """Note that nothing more of the client can be read, so that it would not be known whether it has gone."""
        # A worker's messages have no client, and each is finished.
        if self._consumer.scope.get("type") != "channel":
            self._give_grace()

    def overrun(self) -> None:
        """Interrupt the handler, because the channel is full and the consumer wants to be closed then."""
        if not self._session.closed and self._interrupt():
            self._close = partial(self._session.close_overrun, self._consumer)

    def end(self, ending: Ending, seconds: float | None) -> None:
        """End the consumer when what it is at, and what waits of its client, has been handled.

        Args:
            ending: Why.
            seconds: How long it may take; then it is cut off. None for any time.
        """
        if self._has_ended or self._session.closed:
            return
        self._incoming.announce(ending)
        if seconds is not None:
            self._limit(ending, seconds)

    def _limit(self, ending: Ending, seconds: float) -> None:
        ending.timer = asyncio.get_running_loop().call_later(seconds, self.cut_off, ending, seconds)

    def limit_close(self) -> None:
        """Give the consumer its time to come to what ``group_close`` has told it, which waits in its mailbox."""
        asyncio.get_running_loop().call_later(END_SECONDS, self._cut_off_close, END_SECONDS)

    def _cut_off_close(self, seconds: float) -> None:
        if not (self._has_ended or self._session.closed) and (message := self._incoming.take_close()) is not None:
            self.cut_off(ClosedByGroup(message), seconds)

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the consumer is served in."""
        return cast(asyncio.AbstractEventLoop, self._session.loop)

    def begin_drain(self) -> None:
        """Call ``on_drain`` in its turn."""
        self.end(drained(), None)

    def cut_off_drain(self, seconds: float) -> None:
        """End the consumer without ``on_drain``."""
        self.cut_off(drained(), seconds)

    def cut_off(self, ending: Ending, seconds: float) -> None:
        """Close the connection, whatever its handlers are at, because the time for its end is over."""
        ending.stop_timer()
        if self._has_ended or self._task is None:
            return
        if not self._session.closed and (asking := ending.is_due_late(self._session)) is not None:
            ending.closing = asyncio.ensure_future(self._cut_off_if_due(asking, ending, seconds))
        else:
            self._cut_off(ending, seconds)

    async def _cut_off_if_due(self, asking: Coroutine[Any, Any, bool], ending: Ending, seconds: float) -> None:
        """Close the connection, unless the reason for its end holds no longer."""
        if await asking and not self._has_ended and self._task is not None:
            self._cut_off(ending, seconds)

    def _cut_off(self, ending: Ending, seconds: float) -> None:
        session, consumer = self._session, self._consumer
        _logger.error(
            "%s at %r: %s in %s s, so its connection is closed without it",
            type(consumer).__name__,
            place_of(consumer),
            ending.fault(),
            seconds,
        )
        session.shared.counters.add(cut_off=1, **({} if session.closed else {ending.counter: 1}))
        # Not in its own task: a handler in a thread keeps that, however it is cancelled.
        if not session.closed:
            ending.closing = asyncio.ensure_future(session.close_in_place(consumer, ending.code, ending.reason))
        self._close = ending.closed
        self._incoming.leave_layer()
        session.closed = True
        self._interrupt()

    def _give_grace(self) -> None:
        """Let the handler that is at work, or the next one, go on for the grace period: the client has gone."""
        self._session.need_grace().begin(self._session.grace_seconds(self._consumer), self._expire)

    def _end_grace(self) -> None:
        if self._session.grace is not None:
            self._session.grace.end()

    def _expire(self) -> None:
        """Interrupt the handler, because its client has gone and the grace period is over."""
        self._session.closed = True
        self._session.need_grace().expire()
        # A handler in a thread may go on for long, and nobody is left for what waits behind it.
        self._session.shared.counters.add(dropped_unhandled=self._incoming.let_go())
        if self._interrupt():
            self._session.need_grace().watch(self._report_stuck)

    def _report_stuck(self) -> None:
        """Say that a handler goes on: one that ignores its cancel, or one in a thread that does not send."""
        consumer = self._consumer
        _logger.error(
            "%s at %s: its client has gone, and its handler did not end in %s s after its cancel; it keeps its %s",
            type(consumer).__name__,
            consumer.scope.get("path"),
            CLEAN_UP_TIMEOUT,
            "thread" if consumer._sync else "task",
        )

    def _interrupt(self) -> bool:
        """Cancel the task, unless it is at its end; tell whether it was cancelled."""
        if self._task is None or self._has_ended or self._interrupted:
            return False
        self._interrupted = True
        return self._task.cancel()

    def _was_interrupted(self) -> bool:
        """Tell whether the cancel that has come is ours alone, once; that of someone else goes first."""
        ours, self._interrupted = self._interrupted, False
        return ours and self._task is not None and self._task.uncancel() <= self._cancels

    def _deliver(self) -> Coroutine[Any, Any, None]:
        """Deliver what comes in until the end. No coroutine function: one less that waits with each consumer."""
        if self._group is not None:
            return self._group.during(deliver(self._incoming.inbox, self._take))
        self._incoming.inbox.attend(self._session.attendant(self._attend))
        return deliver(self._incoming.inbox, self._take)

    def _attend(self, message: Any) -> Any:
        """Handle a message in the place of the task, where nothing else is to be decided first.

        Returns:
            None if that is all: the loop has a turn before the next message, which may cancel a task that the handler
            has started. True if the next message may follow at once, because no handler was called. Else an
            ``Unfinished``, or the message if it is the task's to handle.
        """
        session, incoming, task = self._session, self._incoming, self._task
        if session.closed or incoming.client or incoming.carried or task is None or connections_open():
            return message
        kind = message.get("type")
        name = session.shared.handlers.of_layer.get(kind) if kind.__class__ is str else None
        if name is None or not (self._direct or name is FORWARD):
            return message
        handler = session.forward if name is FORWARD else getattr(self._consumer, name)
        left = stand_in(task, handler, message)
        return True if name is FORWARD and left is None else left

    async def _take(self, message: Any) -> None:
        """Handle the messages that go before the next one of the inbox, the client's first; then that, if it is one.

        Between two messages the loop has a turn: a task that the first started runs before the second may cancel it.
        """
        incoming, inbox = self._incoming, self._incoming.inbox
        if message.__class__ is Unfinished:
            await self._go_on(message)
        else:
            if incoming.client or incoming.carried:
                message = await self._handle_lanes(message)
            if message is not None:
                await (self._handle(message, True) if self._group is None else self._start(message, True))
        inbox.end_turn()
        if incoming.client or incoming.carried:
            # More than are handled in a turn: the next wait is to end for them, whatever the layer has.
            inbox.call_away()
        # Asked here first: it is none nearly always, and a method more would be called for each message.
        if self._group is not None or inbox.expired():
            self._look_for_expired()
        if self._interrupted:  # and its handler has swallowed the cancel
            raise asyncio.CancelledError
        if self._task is not None:
            self._cancels = self._task.cancelling()

    async def _handle_lanes(self, message: Message | None) -> Message | None:
        """Handle what goes before a message that was taken; return that, unless its turn has come meanwhile."""
        incoming = self._incoming
        closing = None if message is None else self._closing(message)
        try:
            for lane in incoming.lanes():
                if message is not None and isinstance(lane[0], Ending) and lane[0].waits_for_layer:
                    taken, message = message, None
                    await (self._handle(taken, True) if self._group is None else self._start(taken, True))
                await (self._handle_waiting(lane) if self._group is None else self._start_waiting(lane))
                if message is not None or incoming.client or incoming.carried:
                    self._look_for_expired()
                    await asyncio.sleep(0)
        except BaseException:
            self._session.shared.counters.add(dropped_unhandled=int(message is not None))
            raise
        finally:
            if closing is not None:
                closing.stop_timer()
        return message

    def _closing(self, message: Message) -> Ending | None:
        """Give the consumer its time to come to a message that it has taken, if ``group_close`` has sent that."""
        if not self._session.shared.handlers.closes(message):
            return None
        ending = ClosedByGroup(message)
        self._limit(ending, END_SECONDS)
        return ending

    def _look_for_expired(self) -> None:
        """Tell the log, once, that messages have expired while the consumer was busy."""
        if self._told_expired or not (expired := self._incoming.expired()):
            return
        self._told_expired = True
        consumer = self._consumer
        _logger.warning(
            "%s at %r was busy for longer than messages live: %d expired before it could take them; more are only "
            "counted, in dropped_expired of its layer",
            type(consumer).__name__,
            place_of(consumer),
            expired,
        )

    async def _go_on(self, unfinished: Unfinished) -> None:
        """Finish what was begun in the place of the task."""
        try:
            await unfinished.finish()
        except StopConsumer:
            raise
        except Exception as error:
            await self._fail(error, unfinished.message)

    async def _handle_waiting(self, lane: list[Event]) -> None:
        """Handle the first message that waits in a lane."""
        event, of_layer = self._incoming.take(lane), lane is not self._incoming.client
        if not of_layer and (grace := self._session.grace) is not None and grace.timer is not None:
            self._give_grace()
        if isinstance(event, Failure):
            raise event.error
        if isinstance(event, Ending) and event.waits_for_layer:
            await self._handle_waiting_of_layer()
        await self._handle(event, of_layer)
        if of_layer:
            self._look_for_expired()
        else:
            self._incoming.finish()
        if self._interrupted:  # and its handler has swallowed the cancel
            raise asyncio.CancelledError
        self._follow()

    async def _handle_waiting_of_layer(self) -> None:
        """Handle what waits of the layer now, one message after the other."""
        for event in self._incoming.of_layer():
            await (self._handle(event, True) if self._group is None else self._start(event, True))
            if self._interrupted:  # and its handler has swallowed the cancel
                raise asyncio.CancelledError
            await asyncio.sleep(0)

    async def _handle(self, event: Any, of_layer: bool) -> None:
        """Call the handler of a message, and ``on_error`` if that fails."""
        consumer, session = self._consumer, self._session
        if of_layer and session.closed:
            self._drop()
            return
        if session.gone and is_disconnect(event):
            session.closed = True
            self._end_grace()
        try:
            if connections_open():
                await aclose_old_connections()
            if isinstance(event, Idle):
                if session.closed:
                    return
                await (self._end_for(event) if isinstance(event, Ending) else session.be_idle(consumer))
            elif of_layer and (name := session.shared.handlers.name_for_layer(event)) in (FORWARD, CLOSE):
                await (session.forward(event) if name is FORWARD else self._close_by_group(event))
            elif self._handler_timeout is None:
                await consumer.dispatch(event)
            else:
                await self._call_in_time(self._handler_timeout, event)
        except StopConsumer:
            raise
        except Exception as error:
            await self._fail(error, {"type": "on_idle"} if isinstance(event, Idle) else event)

    async def _end_for(self, ending: Ending) -> None:
        """Call the hook of a reason to end, and close the connection if the hook has not, or has failed.

        Raises:
            StopConsumer: It was closed here.
        """
        consumer, session = self._consumer, self._session
        failed = False
        try:
            if self._group is not None:
                await self._group.ended()
            if session.closed or not await ending.is_due(session):
                return
            await ending.call(session, consumer)
            if not (session.closed or await ending.is_due(session)):
                return
        except StopConsumer:
            raise
        except Exception as error:
            failed = True
            restore_executor(self._executor)
            session.shared.counters.add(errors=1)
            with suppress(Exception):  # it has been told, and what it raises changes nothing
                await session.report(consumer, explain(error, consumer, {"type": ending.hook}), {"type": ending.hook})
        finally:
            ending.stop_timer()
        session.shared.counters.add(**{ending.counter: 1})
        # One that has failed may have failed to close.
        if failed or not session.closed:
            await self._leave()
            await session.close_in_place(consumer, ending.code)
            raise StopConsumer

    async def _close_by_group(self, event: Message) -> None:
        """Close the connection, as ``group_close`` has told it.

        Raises:
            StopConsumer: It was closed.
        """
        consumer, session = self._consumer, self._session
        session.shared.counters.add(closed_by_group=1)
        await self._leave()
        await session.close_in_place(consumer, *code_and_reason(event))
        raise StopConsumer

    async def _call_in_time(self, seconds: float, message: Any) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._consumer.dispatch(message)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"{type(self._consumer).__name__} took longer than its handler_timeout of {seconds} s for "
                f"{message.get('type')!r}"
            ) from error

    def _drop(self) -> None:
        """Count a message of the layer for a consumer that has closed, and see to it that no more come."""
        self._session.shared.counters.add(dropped_unhandled=1)
        self._incoming.leave_layer()

    async def _fail(self, error: Exception, message: Any) -> None:
        consumer, session = self._consumer, self._session
        # A handler's timeout is a cancel.
        restore_executor(self._executor)
        if consumer.scope.get("type") == "lifespan":
            # A server asks every application whether it has one, and takes this for the answer.
            raise error
        forwarded = session.shared.handlers.forwards(message)
        if forwarded and await session.excuses(consumer, error):
            return
        if isinstance(error, ConnectionClosed) and session.is_overdue(consumer):
            raise StopConsumer from None
        session.shared.counters.add(errors=1)
        try:
            await session.report(consumer, explain(error, consumer, message), message)
        except Exception as raised:
            if forwarded and isinstance(error, ValueError) and raised is error:
                # One sender's mistake: it must not end the connections of all its receivers.
                return
            if await session.dismisses_client(consumer):
                raise StopConsumer from None
            if isinstance(raised, LayerUnavailable) and await session.defers_client(consumer, message):
                raise StopConsumer from None
            raise

    async def _start_waiting(self, lane: list[Event]) -> None:
        """Start the handler of the first message that waits in a lane, or handle it if it has to be alone."""
        event, group = lane[0], cast(SideBySide, self._group)
        if isinstance(event, Failure):
            # What it was given before the source failed, a worker's stop say, is finished.
            await group.ended()
        if self._is_first or isinstance(event, Failure | Idle) or is_disconnect(event):
            self._is_first = False
            if self._session.gone:
                await group.ended()  # they are cancelled, and may have to put things in order
            await self._handle_waiting(lane)
        else:
            await self._start(self._incoming.take(lane), lane is not self._incoming.client)

    async def _start(self, event: Event, of_layer: bool) -> None:
        group = cast(SideBySide, self._group)
        if of_layer and (closing := self._closing(cast(Message, event))) is not None:
            try:
                await group.ended()
            finally:
                closing.stop_timer()
            if self._session.gone:
                self._drop()
            else:
                await self._handle(event, True)
            return
        await group.room()
        if self._session.closed or self._session.gone:
            self._drop()
            return
        task = group.start(self._handle(event, of_layer))
        if not of_layer:
            task.add_done_callback(lambda _task: self._incoming.finish())
        self._follow()

    def _follow(self) -> None:
        """Listen to the channel that the consumer has named itself, if it has."""
        layer: AnyChannelLayer | None = self._consumer.channel_layer
        channel = getattr(self._consumer, "channel_name", None)
        if (channel is self._channel and layer is self._layer) or layer is None or not channel:
            return
        self._layer, self._channel = layer, channel
        self._incoming.read_layer(layer, channel)

    async def _end(self) -> None:
        """End the consumer: in its own task, but what a cancel cuts off or forbids there, in another."""
        self._has_ended = True
        restore_executor(self._executor)
        if not self._cancelled:
            try:
                await self._finish()
                return
            except asyncio.CancelledError:
                if not self._was_interrupted():
                    self._cancelled = True
        await despite_cancel(self._finish(), "a cancelled consumer: its disconnect()")
        if self._cancelled:
            raise asyncio.CancelledError

    async def _finish(self) -> None:
        """End what the consumer has begun. Called again, it goes on where it was cut off."""
        consumer, session = self._consumer, self._session
        await self._incoming.close()
        try:
            if self._failed:
                await session.close_failed(consumer)
            await session.finish(consumer)
        except Exception as error:
            try:
                await self._fail(error, {"type": "disconnect"})
            except Exception:
                # What ended the consumer goes on, and not what failed after it; on_error has heard of both.
                if not self._failed:
                    raise
