"""One message of a consumer: its handler is called, and what becomes of it if that fails."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from headrace._db import aclose_old_connections, connections_open
from headrace._dispatch.closing import Closing, Consumer
from headrace._dispatch.ending import EndingEvent
from headrace._dispatch.failures import explain
from headrace._dispatch.handlers import CLOSE, FORWARD
from headrace._dispatch.incoming import Idle, is_disconnect
from headrace._dispatch.session import Session
from headrace._dispatch.settings import setting
from headrace._dispatch.threads import current_executor, restore_executor
from headrace._layers.close_message import code_and_reason
from headrace.exceptions import ConnectionClosed, LayerUnavailable, StopConsumer
from headrace.typing import Message

__all__ = ["Handling"]


class Handling(Closing):
    """Calls the handlers of a consumer."""

    __slots__ = ("_executor", "_handler_timeout")

    def __init__(self, consumer: Consumer, session: Session) -> None:
        super().__init__(consumer, session)
        self._executor = current_executor()
        self._handler_timeout: float | None = setting(consumer, "handler_timeout")

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
                await (self._end_for(event) if isinstance(event, EndingEvent) else session.be_idle(consumer))
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

    async def _end_for(self, event: EndingEvent) -> None:
        """Call the hook of a reason to end, and close the connection if the hook has not, or has failed.

        Raises:
            StopConsumer: It was closed here.
        """
        consumer, session, ending = self._consumer, self._session, event.ending
        failed = False
        try:
            if self._group is not None:
                await self._group.ended()
            call = partial(session.call_hook, consumer)
            if not await ending.run(lambda: not session.closed, session.ask, call):
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
            event.stop_timer()
        session.shared.counters.add(**{event.counter: 1})
        # One that has failed may have failed to close.
        if failed or not session.closed:
            await self._incoming.leave()
            await session.close_in_place(consumer, ending.code)
            raise StopConsumer

    async def _close_by_group(self, event: Message) -> None:
        """Close the connection, as ``group_close`` has told it.

        Raises:
            StopConsumer: It was closed.
        """
        consumer, session = self._consumer, self._session
        session.shared.counters.add(closed_by_group=1)
        await self._incoming.leave()
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

    def _drop(self) -> None:
        """Count a message of the layer for a consumer that has closed, and see to it that no more come."""
        self._session.shared.counters.add(dropped_unhandled=1)
        self._incoming.leave_layer()
