"""The lane of a socket's broadcasts: a task delivers what is broadcast to its topics, one after the other.

A broadcast that no method of the user's could change is sent to the client as it is: while the task waits it is not
even resumed for that, and on a server that takes ready-made frames no Python runs at all.
"""

import asyncio
import inspect
import logging
from contextlib import suppress
from typing import Any

from headrace._core import Forward, Inbox
from headrace._layers.close_message import CLOSE_TYPE
from headrace._sockets.closing import Closing
from headrace._sockets.hook_calls import HookCalls
from headrace._sockets.payload import data_of, frame_of, passes_text
from headrace._sockets.presence import SocketPresence
from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.codes import INTERNAL_ERROR
from headrace._websocket.ending import limit_close
from headrace._websocket.lane import Unfinished, deliver, stand_in
from headrace._websocket.phase import Phase
from headrace.exceptions import LayerClosed
from headrace.typing import Frames, Message

__all__ = ["Delivery"]

_logger = logging.getLogger("headrace.sockets")


class Delivery:
    """Delivers the broadcasts of one socket.

    Args:
        calls: Calls its hooks.
        closing: Closes it.
        passes_on: Whether a broadcast is sent to the client as it is.
        frames: Writes frames to the client, where the server offers that.
        presence: The topics that it is present in, if it is.

    Attributes:
        presence: The topics that it is present in.
    """

    __slots__ = (
        *("_calls", "_closing", "_forward", "_frames", "_has_told_expired", "_outgoing", "_passes_on", "presence"),
    )

    def __init__(
        self,
        calls: HookCalls,
        closing: Closing,
        passes_on: bool,
        frames: Frames | None,
        presence: SocketPresence | None,
    ) -> None:
        self._outgoing = calls.incoming.outgoing
        self._calls = calls
        self._closing = closing
        self._passes_on = passes_on
        self._frames = frames
        self.presence = presence
        # Made when the first topic is subscribed to, if the client is written frames.
        self._forward: Forward | None = None
        self._has_told_expired = False

    def written(self) -> int:
        """Count the broadcasts that were written without Python."""
        return 0 if self._forward is None else self._forward.written

    def begin(self) -> None:
        """Deliver from now on, if there is an inbox and somebody to deliver to; from any thread."""
        if self._calls.incoming.task is None or self._outgoing.hub.loop is None:
            return
        if asyncio._get_running_loop() is self._outgoing.hub.loop:
            self._begin()
        else:
            self._outgoing.hub.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        inbox, closing = self._outgoing.hub.mailbox.inbox, self._closing
        if self._outgoing.in_handshake or inbox is None or self._outgoing.hub.phase is not Phase.OPEN:
            return
        if closing.delivering is None:
            closing.delivering = asyncio.get_running_loop().create_task(deliver(inbox, self._take))
            closing.delivering.add_done_callback(self._ended)
            with suppress(LayerClosed):  # which ends the delivery
                inbox.watch_close(self._limit_close)
            inbox.attend(self._attendant())

    def _attendant(self) -> Any:
        """Return what is called with each broadcast while the task waits: text is written without Python."""
        server = self._calls.server
        if self._frames is None or not self._passes_on:
            return self._attend
        if not passes_text(server.ws_encoder, server.ws_encoder_is_bytes):
            return self._attend
        unless = ((self._outgoing.hub, "phase"), (self._outgoing.hub, "progress"), (self._outgoing.turns, "taken"))
        groups = self._outgoing.hub.mailbox.groups
        self._forward = Forward(self._attend, self._frames, groups, unless=unless, key="topic", field="text")
        return self._forward

    async def _take(self, message: Any) -> None:
        await (message.finish() if isinstance(message, Unfinished) else self._deliver(message))
        inbox = self._outgoing.hub.mailbox.inbox
        if inbox is not None:  # it is: the message came from there
            self._look_for_expired(inbox)
            if not self._passes_on:
                inbox.end_turn()

    def _attend(self, message: dict[str, Any]) -> Any:
        """Deliver in the place of the task; return True if the next may follow at once: no handler was called."""
        if (task := self._closing.delivering) is None:
            return message
        left = stand_in(task, self._deliver, message)
        return True if self._passes_on and left is None else left

    def _look_for_expired(self, inbox: Inbox) -> None:
        """Tell the log, once, that messages have expired while one was delivered."""
        if not self._has_told_expired and (expired := inbox.expired()):
            self._has_told_expired = True
            _logger.warning(
                "%r was busy for longer than messages live: %d expired before they could be delivered; more are only "
                "counted, in dropped_expired",
                self._outgoing.hub,
                expired,
            )

    async def _deliver(self, message: dict[str, Any]) -> None:
        hub, topic = self._outgoing.hub, message.get("topic")
        if not isinstance(topic, str) or topic not in hub.mailbox.groups:
            await self._take_other(message)
            return
        if hub.progress is not None:
            hub.note(message)
        try:
            if self._passes_on:
                server = self._calls.server
                await self._outgoing.send_frame(frame_of(message, server.ws_encoder, server.ws_encoder_is_bytes))
            else:
                handled: Any = self._calls.server.async_handle_received_broadcast(topic, data_of(message))
                if inspect.isawaitable(handled):
                    await handled
        except asyncio.CancelledError:
            # What the handler waited for may have been cancelled, and not this task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._calls.note_error("async_handle_received_broadcast")
        except Exception:
            self._calls.note_error("async_handle_received_broadcast")
        if hub.sends is not None and not self._passes_on:
            # What the handler sent without waiting goes out first: so it is the mailbox that fills up.
            await hub.sends.before()

    async def _take_other(self, message: dict[str, Any]) -> None:
        """Take what is no broadcast to a topic of the socket."""
        presence = self.presence
        if message.get("type") == CLOSE_TYPE:
            self._closing.by_group(message)
        elif presence is not None and presence.tells(message):
            try:
                await presence.take(message)
            except Exception:
                self._calls.note_error("presence_diff")
        else:
            self._outgoing.hub.dropped_unsubscribed += 1

    def _limit_close(self) -> None:
        """Take no more of the client: what ``group_close`` has told waits behind a broadcast, and not for ever."""
        self._closing.is_told = True
        if self._outgoing.hub.mailbox.inbox is not None:
            limit_close(self._outgoing.hub.mailbox.inbox, self._outgoing.hub.is_open, self._cut_off_close)

    def _cut_off_close(self, message: Message, seconds: float) -> None:
        """Close, as ``group_close`` has told it, although not all that was broadcast before has been delivered."""
        _logger.error(
            "%r did not come to what close_sockets() has told it in %s s; it is cut off", self._outgoing.hub, seconds
        )
        self._calls.errors += 1
        self._closing.by_group(message)
        self._calls.incoming.cancel_hook()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Close, if nothing can be delivered any more: a socket that stays open and hears nothing would be a lie."""
        if task.cancelled() or (error := task.exception()) is None or self._outgoing.hub.phase is not Phase.OPEN:
            return
        _logger.error("%r is closed, because nothing more can be delivered to it: %r", self._outgoing.hub, error)
        self._closing.begin(INTERNAL_ERROR)

    async def stop(self) -> None:
        """Wait for the end of the task, which has been cancelled."""
        if self._closing.delivering is not None:
            _, stuck = await asyncio.wait({self._closing.delivering}, timeout=CLEAN_UP_TIMEOUT)
            if stuck:
                _logger.error(
                    "%r ends while its async_handle_received_broadcast() ignores its cancel", self._outgoing.hub
                )
