"""One consumer from its first message to its end.

Guaranteed, whatever ends it (its client, an exception, a cancel, ``StopConsumer``, the server's shutdown): what it has
begun is finished once, its groups are left, its channel is closed, and only then does the exception go on.

What it does meanwhile stands below, one class on top of the other: which message is next (``delivery``), what becomes
of one message (``handling``), and what ends a consumer that is at work (``closing``). They are one object: parts of
their own would be memory of each idle connection.
"""

import asyncio
from functools import partial

from headrace._db import enter_consumer
from headrace._dispatch.closing import Consumer
from headrace._dispatch.delivery import Delivery
from headrace._dispatch.session import Session
from headrace._dispatch.settings import setting
from headrace._dispatch.threads import restore_executor
from headrace._drain import has_ended, lives
from headrace._settings import django_settings
from headrace._websocket.closing import despite_cancel
from headrace._websocket.rate import RateExceeded
from headrace._websocket.read_ahead import READ_AHEAD_BYTES
from headrace.exceptions import StopConsumer
from headrace.typing import Receive

__all__ = ["Dispatcher"]


class Dispatcher(Delivery):
    """Runs a consumer."""

    __slots__ = ("_cancelled", "_failed")

    def __init__(self, consumer: Consumer, session: Session, direct: bool) -> None:
        super().__init__(consumer, session, direct)
        self._failed = self._cancelled = False

    async def run(self, receive: Receive) -> None:
        """Handle what comes in until the consumer ends, and clean up.

        Raises:
            BaseException: Whatever ended it, if that was no ordinary end.
        """
        consumer, session = self._consumer, self._session
        session.serving = True
        session.shared.counters.add(opened=1, open=1)
        self._task = asyncio.current_task()
        if django_settings() is not None:
            enter_consumer()
        self._read(receive)
        if consumer.scope.get("type") == "websocket":
            lives(self)
            self._incoming.watch_close(self._limit_close)
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
            await self._incoming.leave()
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
        await self._incoming.leave()
        await self._session.close_over_rate(self._consumer)

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
