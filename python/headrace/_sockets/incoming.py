"""What comes from one client: its messages one after the other, and the sign that it has gone.

A hook is at work for one message at a time, and the next one is not asked for meanwhile: so the server holds a client
back that sends too much. A hook that is at work for long is another matter: behind it messages are read ahead, up to
limits in messages and in bytes, to see whether the client has gone. If it has, the hook has its grace period to end,
and is then cancelled.
"""

import asyncio
import logging
import math
from collections import deque

from headrace._dispatch import size_of
from headrace._sockets.loop import BackgroundLoop, begun, taken
from headrace._sockets.outgoing import Outgoing, Phase
from headrace._websocket.closing import CLEAN_UP_TIMEOUT, CLOSE_TIMEOUT
from headrace.typing import Message, Receive

__all__ = ["Incoming"]

_logger = logging.getLogger("headrace.sockets")

READ_AHEAD = 8
"""Messages that are read ahead, at most."""

LONG = 0.5
"""Seconds of a hook after which messages are read ahead."""


class Incoming(Outgoing):
    """The way from one client, and what becomes of a hook whose client has gone."""

    _asgi_receive: Receive

    # What a connection begins with; it has its own when that changes. An object of few attributes takes less.
    _task: asyncio.Task[None] | None = None
    # Waiting for the client's next message, so that a close has to call it away.
    _is_receiving = False
    # Cancelled by us, and not by somebody else.
    _is_called_away = False
    # When the hook that is at work began, in the loop's time.
    _hook_began: float | None = None
    # Looks whether a hook is at work for long; one for many hooks.
    _look_timer: asyncio.TimerHandle | None = None
    # Ends a hook whose client has gone.
    _grace_timer: asyncio.TimerHandle | None = None
    _reading: asyncio.Task[None] | None = None
    _read_ahead: deque[Message] | None = None
    # The code of a client that is known to have gone, before its last message has been taken.
    _code_ahead: int | None = None
    _received = _unhandled = 0

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        self._task = self._reading = self._look_timer = self._grace_timer = None

    async def _next(self) -> Message:
        """Wait for the next message. The loop has a turn before: what the last hook started runs first."""
        self._is_receiving = True
        try:
            await asyncio.sleep(0)
            if self._sends is not None:
                # Whoever does not read is not read from: answers would heap up here.
                await self._sends.before()
            if self._reading is not None:
                if not self._read_ahead:
                    await asyncio.wait({self._reading})
                if self._read_ahead:
                    return self._read_ahead.popleft()
                reading, self._reading = self._reading, None
                reading.result()
            return await self._receive_one()
        finally:
            self._is_receiving = False

    async def _receive_one(self) -> Message:
        queue = getattr(self._asgi_receive, "__self__", None)
        if isinstance(queue, asyncio.Queue) and isinstance(self._loop, BackgroundLoop):
            message: Message = await taken(queue)
            return message
        return await self._asgi_receive()

    def _note_hook(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a hook begins."""
        self._hook_began = loop.time()
        if self._look_timer is None:
            self._look_timer = loop.call_later(LONG, self._look)
        if self._grace_timer is not None:
            self._give_grace()

    def _look(self) -> None:
        """Read ahead, if a hook is at work for long."""
        self._look_timer = None
        if self._hook_began is None:
            return
        loop = asyncio.get_running_loop()
        left = self._hook_began + LONG - loop.time()
        if left > 0:
            self._look_timer = loop.call_later(left, self._look)
        elif self._reading is None or self._reading.done():
            self._reading = begun(self._read())

    async def _read(self) -> None:
        """Read ahead while a hook is at work; the message that is being waited for when it ends is read too."""
        if self._read_ahead is None:
            self._read_ahead = deque()
        try:
            while self._hook_began is not None and self._may_read_ahead():
                message = await self._receive_one()
                self._read_ahead.append(message)
                if message.get("type") == "websocket.disconnect":
                    self._code_ahead = message.get("code")
                    self._give_grace()
                    return
        except Exception:
            self._give_grace()
            raise

    def _may_read_ahead(self) -> bool:
        ahead = self._read_ahead or ()
        return len(ahead) < READ_AHEAD and sum(map(size_of, ahead)) < self._server.read_ahead_bytes

    def _let_go_of_what_was_read(self) -> None:
        """Drop what was read ahead, and count it: nobody will take it."""
        left = sum(message.get("type") == "websocket.receive" for message in self._read_ahead or ())
        self._received += left
        self._unhandled += left
        if self._read_ahead:
            self._read_ahead.clear()

    def _give_grace(self) -> None:
        """Let the hook that is at work, or the next one, go on for the grace period, now that the client has gone."""
        self._end_grace()
        if self._phase is Phase.ENDED:
            return  # a receive() of the server that ignored its cancel has come back
        if self._server.grace_period is not None and self._server.grace_period != math.inf:
            loop = asyncio.get_running_loop()
            self._grace_began = loop.time()
            self._grace_timer = loop.call_later(self._server.grace_period, self._expire)

    def _end_grace(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _expire(self) -> None:
        """Cancel the hook, because its client has gone and the grace period is over."""
        self._note_departure()
        # A hook in a thread may go on for long.
        self._let_go_of_what_was_read()
        # A loop's timers may be a moment early.
        self._grace_began = -math.inf
        if self._hook_began is not None and self._cancel_task():
            self._grace_timer = asyncio.get_running_loop().call_later(CLEAN_UP_TIMEOUT, self._report_stuck)

    def _note_departure(self) -> None:
        """Take the client for gone, although its last message has not had its turn."""
        if self._phase is Phase.OPEN:
            self._note_closed(self._code_ahead, owes_close=False)

    def _report_stuck(self) -> None:
        """Say that a hook goes on: one that ignores its cancel, or one in a thread that does not send."""
        _logger.error(
            "%r: its client has gone, and its hook did not end in %s s after its cancel", self, CLEAN_UP_TIMEOUT
        )

    def _call_away(self) -> None:
        if self._is_receiving:
            self._cancel_task()

    def _cancel_task(self) -> bool:
        if self._task is None or self._is_called_away:
            return False
        self._is_called_away = True
        return self._task.cancel()

    async def _stop_reading(self) -> None:
        self._hook_began = None
        self._end_grace()
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._reading is not None:
            self._reading.cancel()
            _, stuck = await asyncio.wait({self._reading}, timeout=CLOSE_TIMEOUT)
            if stuck:
                _logger.error("%r: the server's receive() does not end when it is cancelled", self)
            elif not self._reading.cancelled():
                self._reading.exception()  # is nobody's any more
        self._let_go_of_what_was_read()
