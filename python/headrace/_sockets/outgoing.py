"""What goes to one client: its frames in order, and the close.

Guaranteed: frames leave in the order of the calls, and none behind the close. A client that does not read delays a
thread for a stated time and once, and a close no longer; what waits has a bound; what is dropped is counted.
"""

import asyncio
import enum
import logging
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import Any

from headrace._dispatch import size_of
from headrace._sockets.backend import Backend
from headrace._sockets.hooks import Server
from headrace._sockets.hub import Hub
from headrace._sockets.later import Later
from headrace._sockets.payload import frame
from headrace._sockets.turns import Turns
from headrace._websocket.closing import CLOSE_TIMEOUT, send_close
from headrace._websocket.codes import NO_STATUS, TRY_AGAIN_LATER, may_close_with
from headrace.exceptions import ChannelFull, ConnectionClosed
from headrace.typing import Message, Send

__all__ = ["Outgoing", "Phase"]

_logger = logging.getLogger("headrace.sockets")

SEND_TIMEOUT = 5
"""How many seconds a client that does not read may delay a thread that sends to it."""

_CALL_BYTES = 1024
"""What a frame that waits for its turn counts beside its content: the task and the future of its call."""

_LOOK = 0.5
"""Seconds between two looks at whether a loop is still there."""


class Phase(enum.Enum):
    """How far a connection has come."""

    OPEN = enum.auto()
    # Nothing goes to the client any more.
    CLOSED = enum.auto()
    # In the disconnect hook, which may broadcast.
    LEAVING = enum.auto()
    ENDED = enum.auto()


class Outgoing(Hub):
    """The way to one client, and how it ends; its methods are those of ``BaseSocketServer``.

    Args:
        server: The server. It is held by a weak reference, because it holds this object. Whoever serves the connection
            keeps it alive.
        send: Sends one message to the client.
        backend: As for ``Hub``.
        loop: As for ``Hub``.
    """

    # What a connection begins with; it has its own when that changes. An object of few attributes takes less.
    _phase = Phase.OPEN
    _code: int | None = None
    # Asked for and not accepted yet.
    _in_handshake = False
    # Tells the client; its own task, so that whoever asked for the close may be cancelled.
    _closing: asyncio.Task[None] | None = None
    # Closed here, so that the client has to be told.
    _owes_close = False
    # Its client has delayed a thread for as long as it may, and has not read since.
    _is_stalled = False
    _has_failed_to_send = False
    # When the grace period of what still sends began, in the loop's time.
    _grace_began: float | None = None
    # The plain sends of an event loop; made when there is one.
    _sends: Later | None = None
    _sent = _dropped_after_close = _dropped_stalled = _dropped_backlog = 0

    def __init__(self, server: Server, send: Send, backend: Backend, loop: asyncio.AbstractEventLoop | None) -> None:
        self._server: Server = weakref.proxy(server)
        self._asgi_send = send
        # Frames leave in the order of the calls.
        self._turns = Turns()
        super().__init__(type(server).__name__, backend, loop)

    def __repr__(self) -> str:
        with suppress(ReferenceError):
            return self._server.__repr__()
        return f"<{self._name} that has ended>"

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        # The client is the parent's.
        self._phase = Phase.ENDED
        self._loop = self._closing = self._sends = None

    def send(self, data: Any, raw: bool) -> None:
        """Send data to the client: wait in a thread, and return at once where a loop runs."""
        message = self._frame(data, raw)
        if self._may_block():
            self._send_here(message)
        else:
            self._send_in_turn(message)

    async def async_send(self, data: Any, raw: bool) -> None:
        """Send data to the client."""
        message = self._frame(data, raw)
        if self._sends is not None:
            await self._sends.before()
        await self._in_own_loop(partial(self._send_frame, message))

    def _frame(self, data: Any, raw: bool) -> Message:
        self._mind_fork()
        self._check_send()
        if self._in_handshake:
            raise RuntimeError(f"{self!r} is not accepted yet, so nothing can be sent to it; send in connect()")
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

    def close(self, code: int) -> None:
        """Close the connection: wait in a thread, and return at once where a loop runs."""
        _check_code(code)
        if self._may_block():
            if self.is_open():
                self._note_closed(code)
                loop = self._own_loop()
                _result(asyncio.run_coroutine_threadsafe(self._close_now(), loop), loop, 2 * CLOSE_TIMEOUT)
        elif self._sends is not None and self._sends.is_busy():
            # What was to be sent before goes out before it.
            self._send_later(partial(self._close, code), CLOSE_TIMEOUT)
        elif self.is_open():
            self._note_closed(code)
            self._send_later(self._close_now)

    async def async_close(self, code: int) -> None:
        """Close the connection."""
        _check_code(code)
        if self._sends is not None:
            await self._sends.before(CLOSE_TIMEOUT)
        await self._in_own_loop(partial(self._close, code))

    def kill(self) -> None:
        """End without telling the client."""
        if self.is_open():
            self._note_closed(NO_STATUS, owes_close=False)
            self._own_loop().call_soon_threadsafe(self._call_away)

    def is_open(self) -> bool:
        """Tell whether the client can be sent to."""
        self._mind_fork()
        return self._phase is Phase.OPEN

    def _lanes(self) -> tuple[Later, ...]:
        return super()._lanes() if self._sends is None else (*super()._lanes(), self._sends)

    def _check_broadcast(self) -> None:
        if self._phase in (Phase.CLOSED, Phase.ENDED):
            raise ConnectionClosed(
                f"{self!r} has been closed, so it broadcasts nothing any more; a Broadcaster of its own can"
            )
        super()._check_broadcast()

    def _check_send(self) -> None:
        """Refuse to send if the connection ended so long ago that what is sent to it will not end by itself."""
        if self._is_overdue():
            raise ConnectionClosed(
                f"{self!r} ended more than its grace_period of {self._server.grace_period} s ago; end what still sends "
                "to it, in disconnect() at the latest"
            )

    def _is_overdue(self) -> bool:
        """Tell whether the grace period is over; it begins with the first send that is dropped, if not before."""
        if self._phase is Phase.OPEN and self._grace_began is None:
            return False
        if self._phase is Phase.LEAVING or self._loop is None or self._server.grace_period is None:
            return False
        now = self._loop.time()
        if self._grace_began is None:
            self._grace_began = now
        return now - self._grace_began >= self._server.grace_period

    def _look_for_listeners(self) -> None:
        """Do nothing: here is a socket, whether it listens or not."""

    def _check_subscribe(self) -> None:
        if self._phase is not Phase.OPEN:
            raise ConnectionClosed(f"{self!r} has been closed, so it cannot be subscribed to anything any more")
        super()._check_subscribe()

    def _overrun(self) -> None:
        """Close, because the mailbox is full; called in the loop."""
        if self._phase is Phase.OPEN:
            _logger.warning("%r is closed: its client does not keep up", self)
            self._note_closed(TRY_AGAIN_LATER)
            self._begin_closing()

    async def _send_frame(self, message: Message) -> None:
        turns = self._turns
        if turns.taken:
            await turns.wait()
        turns.taken = True
        try:
            if self._phase is Phase.OPEN:
                await self._asgi_send(message)
                self._sent += 1
                self._is_stalled = False
            else:
                self._dropped_after_close += 1
        except (OSError, RuntimeError) as error:
            # The client has gone, and its last message has not been taken. Some servers raise a RuntimeError then.
            self._dropped_after_close += 1
            if isinstance(error, OSError) and self._grace_began is None and self._loop is not None:
                self._grace_began = self._loop.time()
            if not self._has_failed_to_send:
                self._has_failed_to_send = True
                level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
                _logger.log(level, "%r could not be sent to: %r; more of this is only counted", self, error)
        finally:
            turns.pass_on()

    def _send_here(self, message: Message) -> None:
        """Send from a thread without a loop: wait, unless the client does not read."""
        if self._is_stalled and self._turns.taken:
            self._dropped_stalled += 1
            return
        loop = self._own_loop()
        try:
            _result(asyncio.run_coroutine_threadsafe(self._send_frame(message), loop), loop, SEND_TIMEOUT)
        except TimeoutError:
            # The frame is on its way still. What comes behind it is not to delay a thread each.
            self._is_stalled = True
            _logger.warning("%r does not read; until it does, what is sent to it from threads is dropped", self)
            if self._server.overflow == "close":
                loop.call_soon_threadsafe(self._overrun)

    def _send_in_turn(self, message: Message) -> None:
        """Send from a thread where a loop runs, and which cannot wait: in its turn, unless too much waits already.

        Raises:
            ChannelFull: Too much waits, and the socket is not one to be closed then.
        """
        size = size_of(message) + _CALL_BYTES
        waiting = self._too_much_waiting(size)
        if waiting is None:
            self._send_later(partial(self._send_frame, message), size=size)
        elif self._phase is not Phase.OPEN:
            self._dropped_after_close += 1
        else:
            self._dropped_backlog += 1
            if self._server.overflow != "close":
                raise ChannelFull(
                    f"{self!r}: its client does not read as fast as it is sent to; {waiting[0]} frames of plain calls "
                    f"of send() wait, {waiting[1]} bytes; await async_send(), which waits for the client, or set "
                    "max_backlog_bytes"
                )
            self._own_loop().call_soon_threadsafe(self._overrun)

    def _too_much_waiting(self, size: int) -> tuple[int, int] | None:
        """Count the frames and bytes that wait behind the first, if another would be too many; else return None."""
        if self._sends is None or not self._sends.is_busy():
            return None
        frames, waiting = self._sends.waiting()
        most = self._server.max_backlog_bytes or self.layer.capacity_bytes
        is_full = waiting + size > most or (self._server.max_backlog is not None and frames >= self._server.max_backlog)
        return (frames, waiting) if is_full else None

    def _send_later(
        self, call: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None, size: int = 0
    ) -> None:
        """Have something done for the client in its turn, from a thread where a loop runs."""
        if self._sends is None:
            self._sends = Later(self._name)
        self._sends.begin(call, self._own_loop(), timeout, size)

    async def _in_own_loop(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call a coroutine function: in the loop of the connection, from whichever loop it is asked for."""
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop() or not loop.is_running():
            await call()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))

    def _note_closed(self, code: int | None, *, owes_close: bool = True) -> None:
        """Let nothing more go to the client, and nobody send to it, however long the close takes."""
        self._phase = Phase.CLOSED
        self._code = code
        self._owes_close = owes_close
        self._mailbox.close()

    async def _close(self, code: int) -> None:
        """Close, unless something has ended the connection already."""
        if self._phase is Phase.OPEN:
            self._note_closed(code)
            await self._close_now()

    async def _close_now(self) -> None:
        """Tell the client, and call the task away from where it waits for more of it; also if this is cancelled."""
        await asyncio.shield(self._begin_closing())

    def _begin_closing(self) -> "asyncio.Task[None]":
        # It may be at a send that the client delays; and what waits is not to go out behind the close.
        self._stop_delivering()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._tell_client())
        return self._closing

    async def _tell_client(self) -> None:
        try:
            error = await send_close(self._asgi_send, {"type": "websocket.close", "code": self._code})
            if error is not None:
                _logger.debug("%r was closed before its client was told: %r", self, error)
        finally:
            self._call_away()

    def _stop_delivering(self) -> None:
        """Let nothing more come from the topics."""
        raise NotImplementedError("a connection says what delivers to it")

    def _call_away(self) -> None:
        """End the wait for more of the client."""
        raise NotImplementedError("a connection says what waits for its client")


def _check_code(code: object) -> None:
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"code must be an int, got {code!r}")
    if not may_close_with(code):
        raise ValueError(f"code must be one that may be sent: 1000, or from 3000 to 4999, got {code}")


def _result(future: "Future[Any]", loop: asyncio.AbstractEventLoop, timeout: float) -> None:
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
