"""What goes to one client: its frames in order, and the close.

Guaranteed: frames leave in the order of the calls, and none behind the close. A client that does not read delays a
thread for a stated time and once, and a close no longer; what waits has a bound; what is dropped is counted.
"""

import asyncio
import logging
import time
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from headrace._sockets.hooks import Server
from headrace._sockets.hub import Hub
from headrace._sockets.payload import frame
from headrace._sockets.turns import Turns
from headrace._websocket.closing import tell_closed
from headrace._websocket.grace import GracePeriod
from headrace._websocket.phase import Phase
from headrace._websocket.read_ahead import size_of
from headrace.exceptions import ConnectionClosed, _ChannelFull
from headrace.typing import Message, Send

__all__ = ["Outgoing", "result_of"]

_logger = logging.getLogger("headrace.sockets")

SEND_TIMEOUT = 5
"""How many seconds a client that does not read may delay a thread that sends to it."""

_CALL_BYTES = 1024
"""What a frame that waits for its turn counts beside its content: the task and the future of its call."""

_LOOK = 0.5
"""Seconds between two looks at whether a loop is still there."""


class Outgoing:
    """The way to one client: what is sent to it, in the order of the calls.

    Args:
        server: The server, by a weak reference.
        send: Sends one message to the client.
        hub: Its broadcaster.

    Attributes:
        hub: Its broadcaster.
        turns: Whose turn it is to send.
        in_handshake: The connection was asked for and is not accepted yet.
        code: The code that it was closed with.
        owes_close: It was closed here, so that the client has to be told.
        grace: The grace period of what still works when the connection has ended.
        sent: Frames that were sent.
        dropped_after_close: Frames that were not, because the connection had ended.
        dropped_stalled: Frames of threads that were not, because the client did not read.
        dropped_backlog: Frames of plain calls in an event loop that were refused.
    """

    __slots__ = (
        *("_has_failed_to_send", "_is_stalled", "_server", "asgi_send", "code", "dropped_after_close"),
        *("dropped_backlog", "dropped_stalled", "grace", "hub", "in_handshake", "owes_close", "sent", "turns"),
    )

    def __init__(self, server: Server, send: Send, hub: Hub) -> None:
        self._server = server
        self.asgi_send = send
        self.hub = hub
        self.turns = Turns()
        self.code: int | None = None
        self.grace = GracePeriod()
        self.in_handshake = self.owes_close = False
        # Its client has delayed a thread for as long as it may, and has not read since.
        self._is_stalled = False
        self._has_failed_to_send = False
        self.sent = self.dropped_after_close = self.dropped_stalled = self.dropped_backlog = 0

    def send(self, data: Any, raw: bool) -> bool:
        """Send data to the client: wait in a thread, and return at once where a loop runs.

        Returns:
            Whether the client keeps up; if it does not, the connection is one to be closed.

        Raises:
            ChannelFull: Too much waits, and the connection is not one to be closed then.
        """
        message = self._frame(data, raw)
        return self._send_here(message) if self.hub.may_block() else self._send_in_turn(message)

    async def async_send(self, data: Any, raw: bool) -> None:
        """Send data to the client."""
        message = self._frame(data, raw)
        if self.hub.sends is not None:
            await self.hub.sends.before()
        await self.hub.in_own_loop(partial(self.send_frame, message))

    def _frame(self, data: Any, raw: bool) -> Message:
        self.hub.mind_fork()
        if self.is_overdue():
            raise ConnectionClosed(
                f"{self.hub!r} ended more than its grace_period of {self._server.grace_period} s ago; end what still "
                "sends to it, in disconnect() at the latest"
            )
        if self.in_handshake:
            raise RuntimeError(f"{self.hub!r} is not accepted yet, so nothing can be sent to it; send in connect()")
        if not raw:
            return frame(self._encoded(data), self._server.ws_encoder_is_bytes)
        if not isinstance(data, str | bytes | bytearray | memoryview):
            raise TypeError(f"data must be str or bytes to be sent raw, got {type(data).__name__}")
        return frame(data if isinstance(data, str) else bytes(data), not isinstance(data, str))

    def _encoded(self, data: Any) -> str | bytes:
        try:
            return self._server.ws_encoder(data)
        except RecursionError:
            raise ValueError("data cannot be sent: it is nested too deep") from None
        except (TypeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"data cannot be sent, because ws_encoder refuses it: {error}") from error

    def is_overdue(self) -> bool:
        """Tell whether the grace period is over; it begins with the first send that is dropped, if not before."""
        hub = self.hub
        if hub.phase is Phase.LEAVING or hub.loop is None or (hub.phase is Phase.OPEN and self.grace.began is None):
            return False
        return self.grace.is_over(hub.loop.time(), self._server.grace_period)

    def note_closed(self, code: int | None, *, owes_close: bool = True) -> None:
        """Let nothing more go to the client, and nobody send to it, however long the close takes."""
        self.hub.phase = Phase.CLOSED
        self.code = code
        self.owes_close = owes_close
        self.hub.mailbox.close()

    async def tell_closed(self, reason: str = "") -> None:
        """Tell the client that the connection is closed."""
        if (error := await tell_closed(self.asgi_send, self.code, reason)) is not None:
            _logger.debug("%r was closed before its client was told: %r", self.hub, error)

    async def send_frame(self, message: Message) -> None:
        """Send a frame in its turn, unless the connection has ended; what is not sent is counted."""
        turns = self.turns
        if turns.taken:
            await turns.wait()
        turns.taken = True
        try:
            if self.hub.phase is Phase.OPEN:
                await self.asgi_send(message)
                self.sent += 1
                self._is_stalled = False
            else:
                self.dropped_after_close += 1
        except (OSError, RuntimeError) as error:
            # The client has gone, and its last message has not been taken. Some servers raise a RuntimeError then.
            self.dropped_after_close += 1
            if isinstance(error, OSError) and self.grace.began is None and self.hub.loop is not None:
                self.grace.began = self.hub.loop.time()
            if not self._has_failed_to_send:
                self._has_failed_to_send = True
                level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
                _logger.log(level, "%r could not be sent to: %r; more of this is only counted", self.hub, error)
        finally:
            turns.pass_on()

    def _send_here(self, message: Message) -> bool:
        """Send from a thread without a loop: wait, unless the client does not read."""
        if self._is_stalled and self.turns.taken:
            self.dropped_stalled += 1
            return True
        loop = self.hub.own_loop()
        try:
            result_of(asyncio.run_coroutine_threadsafe(self.send_frame(message), loop), loop, SEND_TIMEOUT)
        except TimeoutError:
            # The frame is on its way still. What comes behind it is not to delay a thread each.
            self._is_stalled = True
            _logger.warning("%r does not read; until it does, what is sent to it from threads is dropped", self.hub)
            return self._server.overflow != "close"
        return True

    def _send_in_turn(self, message: Message) -> bool:
        """Send from a thread where a loop runs, and which cannot wait: in its turn, unless too much waits already.

        Raises:
            ChannelFull: Too much waits, and the socket is not one to be closed then.
        """
        size = size_of(message) + _CALL_BYTES
        waiting = self._too_much_waiting(size)
        if waiting is None:
            self.hub.send_later(partial(self.send_frame, message), size=size)
        elif self.hub.phase is not Phase.OPEN:
            self.dropped_after_close += 1
        else:
            self.dropped_backlog += 1
            if self._server.overflow != "close":
                raise _ChannelFull(
                    f"{self.hub!r}: its client does not read as fast as it is sent to; {waiting[0]} frames of plain "
                    f"calls of send() wait, {waiting[1]} bytes; await async_send(), which waits for the client, or set "
                    "max_backlog_bytes"
                )
            return False
        return True

    def _too_much_waiting(self, size: int) -> tuple[int, int] | None:
        """Count the frames and bytes that wait behind the first, if another would be too many; else return None."""
        if self.hub.sends is None or not self.hub.sends.is_busy():
            return None
        frames, waiting = self.hub.sends.waiting()
        most = self._server.max_backlog_bytes or self.hub.layer.capacity_bytes
        is_full = waiting + size > most or (self._server.max_backlog is not None and frames >= self._server.max_backlog)
        return (frames, waiting) if is_full else None


def result_of(future: "Future[Any]", loop: asyncio.AbstractEventLoop, timeout: float) -> None:
    """Wait for a call in a loop that may end before it gets there.

    Raises:
        TimeoutError: It has not ended in that many seconds.
        ConnectionClosed: Nor will it ever.
    """
    end = time.monotonic() + timeout
    while not wait({future}, min(_LOOK, max(0.0, end - time.monotonic()))).done:
        if loop.is_closed():
            raise ConnectionClosed("the event loop of the connection was closed, and the connection has ended with it")
        if time.monotonic() > end:
            raise TimeoutError
    future.result()
