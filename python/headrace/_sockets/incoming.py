"""What comes from one client: its messages one after the other, and the sign that it has gone.

A hook is at work for one message at a time, and the next one is not asked for meanwhile: so the server holds a client
back that sends too much. A hook that is at work for long is another matter: behind it messages are read ahead, up to
limits in messages and in bytes, to see whether the client has gone. If it has, the hook has its grace period to end,
and is then cancelled.
"""

import asyncio
import logging
from collections import deque
from typing import Self

from headrace._sockets.hooks import Server
from headrace._sockets.loop import BackgroundLoop, begun, taken
from headrace._sockets.outgoing import Outgoing
from headrace._websocket.closing import CLEAN_UP_TIMEOUT, CLOSE_TIMEOUT
from headrace._websocket.phase import Phase
from headrace._websocket.rate import TokenBucket
from headrace._websocket.read_ahead import is_full
from headrace.typing import Message, Receive

__all__ = ["Incoming"]

_logger = logging.getLogger("headrace.sockets")

LONG = 0.5
"""Seconds of a hook after which messages are read ahead."""


class Incoming:
    """The way from one client, and what becomes of a hook whose client has gone.

    Args:
        server: The server, by a weak reference.
        receive: Returns the client's next message, when awaited.
        outgoing: The way to the client.

    Attributes:
        outgoing: The way to the client.
        has_begun: There is somebody to take leave of: it was accepted, or its frames come.
        task: The task that takes the messages and calls the hooks; None until it is started.
        is_called_away: That task was cancelled by us, and not by somebody else.
        code_ahead: The code of a client that is known to have gone, before its last message has been taken.
        received: Frames of the client.
        unhandled: Frames that no hook of the user's has taken.
        bad_messages: Frames that could not be decoded.
        bucket: What the client may still send; made with its first frame, if there is a rate.
        dropped_over_rate: Frames over the rate.
        closed_over_rate: 1 if the connection was closed for that.
    """

    __slots__ = (
        *("_asgi_receive", "_hook_began", "_is_receiving", "_look_timer", "_read_ahead", "_reading", "_server"),
        *("bad_messages", "bucket", "closed_over_rate", "code_ahead", "dropped_over_rate", "has_begun"),
        *("is_called_away", "outgoing", "received", "task", "unhandled"),
    )

    def __init__(self, server: Server, receive: Receive, outgoing: Outgoing) -> None:
        self._server = server
        self._asgi_receive = receive
        self.outgoing = outgoing
        self.task: asyncio.Task[None] | None = None
        # Waiting for the client's next message, so that a close has to call it away.
        self._is_receiving = self.is_called_away = self.has_begun = False
        # When the hook that is at work began, in the loop's time.
        self._hook_began: float | None = None
        # Looks whether a hook is at work for long; one for many hooks.
        self._look_timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_ahead: deque[Message] | None = None
        self.code_ahead: int | None = None
        self.bucket: TokenBucket | None = None
        self.received = self.unhandled = self.bad_messages = self.closed_over_rate = self.dropped_over_rate = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Wait for the next message. The loop has a turn before: what the last hook started runs first."""
        if self.outgoing.hub.phase is not Phase.OPEN:
            raise StopAsyncIteration
        self._is_receiving = True
        try:
            await asyncio.sleep(0)
            if self.outgoing.hub.sends is not None:
                # Whoever does not read is not read from: answers would heap up here.
                await self.outgoing.hub.sends.before()
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
        if isinstance(queue, asyncio.Queue) and isinstance(self.outgoing.hub.loop, BackgroundLoop):
            message: Message = await taken(queue)
            return message
        try:
            return await self._asgi_receive()
        except StopAsyncIteration as error:
            # It would end the iteration over the messages, as if the client had gone.
            raise RuntimeError("receive() raised StopAsyncIteration") from error

    def begin_hook(self) -> None:
        """Note that a hook begins."""
        loop = asyncio.get_running_loop()
        self._hook_began = loop.time()
        if self._look_timer is None:
            self._look_timer = loop.call_later(LONG, self._look)
        if self.outgoing.grace.timer is not None:
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
            while self._hook_began is not None and not is_full(self._read_ahead, self._server.read_ahead_bytes):
                message = await self._receive_one()
                self._read_ahead.append(message)
                if message.get("type") == "websocket.disconnect":
                    self.code_ahead = message.get("code")
                    self._give_grace()
                    return
        except Exception:
            self._give_grace()
            raise

    def _drop_read_ahead(self) -> None:
        """Drop what was read ahead, and count it: nobody will take it."""
        left = sum(message.get("type") == "websocket.receive" for message in self._read_ahead or ())
        self.received += left
        self.unhandled += left
        if self._read_ahead:
            self._read_ahead.clear()

    def _give_grace(self) -> None:
        """Let the hook that is at work, or the next one, go on for the grace period, now that the client has gone."""
        self.outgoing.grace.end()
        # A receive() of the server that ignored its cancel may come back after the end.
        if self.outgoing.hub.phase is not Phase.ENDED:
            self.outgoing.grace.begin(self._server.grace_period, self._expire)

    def _expire(self) -> None:
        """Cancel the hook, because its client has gone and the grace period is over."""
        self.note_departure()
        # A hook in a thread may go on for long.
        self._drop_read_ahead()
        self.outgoing.grace.expire()
        if self._hook_began is not None and self._cancel_task():
            self.outgoing.grace.watch(self._report_stuck)

    def note_departure(self) -> None:
        """Take the client for gone, although its last message has not had its turn."""
        if self.outgoing.hub.phase is Phase.OPEN:
            self.outgoing.note_closed(self.code_ahead, owes_close=False)

    def _report_stuck(self) -> None:
        """Say that a hook goes on: one that ignores its cancel, or one in a thread that does not send."""
        _logger.error(
            "%r: its client has gone, and its hook did not end in %s s after its cancel",
            self.outgoing.hub,
            CLEAN_UP_TIMEOUT,
        )

    def call_away(self) -> None:
        """End the wait for more of the client."""
        if self._is_receiving:
            self._cancel_task()

    def cancel_hook(self) -> None:
        """Cancel the hook that is at work, if one is."""
        if self._hook_began is not None:
            self._cancel_task()

    def _cancel_task(self) -> bool:
        if self.task is None or self.is_called_away:
            return False
        self.is_called_away = True
        return self.task.cancel()

    def ahead(self) -> int:
        """Count the frames that came until now: those that hooks have had, and those that were read ahead."""
        return self.received + len(self._read_ahead or ())

    def has_handled(self, frames: int) -> bool:
        """Tell whether so many frames have been handled, of all that came; a hook that is at work has not ended."""
        return self.received > frames or (self._hook_began is None and not self._read_ahead)

    def end_hook(self) -> None:
        """Note that the hook has returned."""
        self._hook_began = None

    async def stop(self) -> None:
        """Ask the server for no more."""
        self._hook_began = None
        self.outgoing.grace.end()
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._reading is not None:
            self._reading.cancel()
            _, stuck = await asyncio.wait({self._reading}, timeout=CLOSE_TIMEOUT)
            if stuck:
                _logger.error("%r: the server's receive() does not end when it is cancelled", self.outgoing.hub)
            elif not self._reading.cancelled():
                self._reading.exception()  # is nobody's any more
        self._drop_read_ahead()
