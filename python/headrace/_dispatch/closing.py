"""What ends a consumer that is at work: its client has gone, its mailbox is full, or its time for an end is over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, ClassVar, Protocol, cast

from headrace._dispatch.ending import EndingEvent, closed_by_group
from headrace._dispatch.failures import place_of
from headrace._dispatch.incoming import Incoming
from headrace._dispatch.session import Session
from headrace._dispatch.settings import setting
from headrace._dispatch.side_by_side import SideBySide
from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.ending import DRAINED, Ending, limit_close
from headrace.typing import ChannelLayer, Message, Scope

__all__ = ["Closing", "Consumer"]

_logger = logging.getLogger("headrace.consumer")


class Consumer(Protocol):
    """What the dispatch asks of a consumer."""

    scope: Scope
    channel_layer: ChannelLayer
    channel_name: str
    _sync: ClassVar[bool]

    async def dispatch(self, message: Any) -> None: ...


class Closing:
    """Interrupts the task of a consumer, and closes its connection.

    Args:
        consumer: The consumer.
        session: What is kept of it.
    """

    __slots__ = (
        *("__weakref__", "_cancels", "_close", "_consumer", "_group", "_has_ended", "_incoming", "_interrupted"),
        *("_session", "_task"),
    )

    def __init__(self, consumer: Consumer, session: Session) -> None:
        layer = consumer.channel_layer
        self._consumer = consumer
        self._session = session
        self._incoming = session.incoming = Incoming(layer, getattr(consumer, "channel_name", None))
        # The handlers that run at a time, where that may be more than one.
        self._group = SideBySide(most) if (most := setting(consumer, "concurrency", 1)) > 1 else None
        self._task: asyncio.Task[Any] | None = None
        self._has_ended = False
        # Closes the connection, if that is what we have cancelled the task for.
        self._close: Callable[[], Awaitable[None]] | None = None
        # We have cancelled the task, and the cancel has not been dealt with yet.
        self._interrupted = False
        # Cancels that handlers have dealt with; a TaskGroup of Python 3.11 leaves one counted when it has failed.
        self._cancels = 0
        self._incoming.limit(consumer, layer, self)

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the consumer is served in."""
        return cast(asyncio.AbstractEventLoop, self._session.loop)

    def _is_open(self) -> bool:
        return not (self._has_ended or self._session.closed)

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

    def overrun(self) -> None:
        """Interrupt the handler, because the channel is full and the consumer wants to be closed then."""
        if not self._session.closed and self._interrupt():
            self._close = partial(self._session.close_overrun, self._consumer)

    def end(self, ending: Ending) -> None:
        """End the consumer when what it is at, and what waits of its client, has been handled."""
        if not self._is_open():
            return
        event = EndingEvent(ending)
        self._incoming.announce(event)
        if ending is not DRAINED:  # whose time is said by the drain
            event.limit(self._cut_off)

    def begin_drain(self) -> None:
        """Call ``on_drain`` in its turn."""
        self.end(DRAINED)

    def _limit_close(self) -> None:
        """Give the consumer its time to come to what ``group_close`` has told it, which waits in its mailbox."""
        limit_close(self._incoming.inbox, self._is_open, self._cut_off_close)

    def _cut_off_close(self, message: Message, seconds: float) -> None:
        self._cut_off(closed_by_group(message), seconds)

    def cut_off_drain(self, seconds: float) -> None:
        """End the consumer without ``on_drain``."""
        self._cut_off(EndingEvent(DRAINED), seconds)

    def _cut_off(self, event: EndingEvent, seconds: float) -> None:
        """Close the connection, whatever its handlers are at, because the time for its end is over."""
        event.stop_timer()
        if self._has_ended or self._task is None:
            return
        if self._is_open() and (asking := event.ending.is_due_late(self._session.ask)) is not None:
            event.closing = asyncio.ensure_future(self._cut_off_if_due(asking, event, seconds))
        else:
            self._cut_off_now(event, seconds)

    async def _cut_off_if_due(self, asking: Coroutine[Any, Any, bool], event: EndingEvent, seconds: float) -> None:
        """Close the connection, unless the reason for its end holds no longer."""
        if await asking and not self._has_ended and self._task is not None:
            self._cut_off_now(event, seconds)

    def _cut_off_now(self, event: EndingEvent, seconds: float) -> None:
        session, consumer = self._session, self._consumer
        _logger.error(
            "%s at %r: %s in %s s, so its connection is closed without it",
            type(consumer).__name__,
            place_of(consumer),
            event.fault(),
            seconds,
        )
        session.shared.counters.add(cut_off=1, **({} if session.closed else {event.counter: 1}))
        # Not in its own task: a handler in a thread keeps that, however it is cancelled.
        if not session.closed:
            event.closing = asyncio.ensure_future(session.close_in_place(consumer, event.ending.code, event.reason))
        self._close = event.closed
        self._incoming.leave_layer()
        session.closed = True
        self._interrupt()

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
