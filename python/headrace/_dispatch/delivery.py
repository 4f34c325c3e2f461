"""The order in which a consumer handles what comes in: its client's messages and its layer's, one or several at a time.

Between two messages the loop has a turn: a task that the first started runs before the second may cancel it.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

from headrace._db import connections_open
from headrace._dispatch.closing import Consumer
from headrace._dispatch.ending import EndingEvent, closed_by_group
from headrace._dispatch.failures import place_of
from headrace._dispatch.handlers import FORWARD
from headrace._dispatch.handling import Handling
from headrace._dispatch.incoming import Event, Failure, Idle, is_disconnect
from headrace._dispatch.session import Session
from headrace._dispatch.side_by_side import SideBySide
from headrace._websocket.lane import Unfinished, deliver, stand_in
from headrace.exceptions import StopConsumer
from headrace.typing import AnyChannelLayer, Message

__all__ = ["Delivery"]

_logger = logging.getLogger("headrace.consumer")


class Delivery(Handling):
    """Delivers what comes in for a consumer, in the consumer's task.

    Args:
        consumer, session: As for ``Closing``.
        direct: Whether handlers may be called without ``dispatch``, because nobody has changed it.
    """

    __slots__ = ("_channel", "_direct", "_is_first", "_layer", "_told_expired")

    def __init__(self, consumer: Consumer, session: Session, direct: bool) -> None:
        super().__init__(consumer, session)
        self._layer: AnyChannelLayer | None = consumer.channel_layer
        self._channel: str | None = getattr(consumer, "channel_name", None)
        self._direct = direct and self._handler_timeout is None
        self._told_expired = False
        # A connection has to be open before anything else is done with it. What a worker gets is no connection.
        self._is_first = consumer.scope.get("type") != "channel"

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
        """Handle the messages that go before the next one of the inbox, the client's first; then that, if it is one."""
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
                if message is not None and isinstance(lane[0], EndingEvent) and lane[0].waits_for_layer:
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

    def _closing(self, message: Message) -> EndingEvent | None:
        """Give the consumer its time to come to a message that it has taken, if ``group_close`` has sent that."""
        if not self._session.shared.handlers.closes(message):
            return None
        event = closed_by_group(message)
        event.limit(self._cut_off)
        return event

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
        if isinstance(event, EndingEvent) and event.waits_for_layer:
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
