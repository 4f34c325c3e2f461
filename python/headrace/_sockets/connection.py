"""One WebSocket from its first message to its end: the mechanics below ``BaseSocketServer``.

It lives in two lanes. In one its task takes the client's frames, one after the other, and calls the hooks; in the
other a task delivers what is broadcast to its topics, so that a slow hook delays the frames of its own client and
nothing else. Guaranteed, whatever ends it (its client, a close, an exception in ``connect``, the server's shutdown),
but for the end of the process: it has left its topics, and ``disconnect`` was called once, before it ends.
"""

import asyncio
import logging
import weakref
from collections.abc import Coroutine
from typing import Any

from headrace._core import ChannelStats, FrameSend
from headrace._dispatch import current_executor, restore_executor
from headrace._drain import has_ended, is_draining, lives
from headrace._frames.extension import frames_of
from headrace._sockets.backend import Backend
from headrace._sockets.closing import Closing
from headrace._sockets.delivery import Delivery
from headrace._sockets.ending import ask_expiry, begin_expiry, cut_off, end_for
from headrace._sockets.frames import take_frame
from headrace._sockets.handshake import answer, code_of_failure
from headrace._sockets.hook_calls import HookCalls
from headrace._sockets.hooks import Hooks, Server
from headrace._sockets.hub import Hub
from headrace._sockets.incoming import Incoming
from headrace._sockets.loop import begun
from headrace._sockets.mailbox import TopicMailbox
from headrace._sockets.outgoing import Outgoing
from headrace._sockets.presence import SocketPresence
from headrace._websocket.closing import despite_cancel
from headrace._websocket.codes import NO_STATUS
from headrace._websocket.ending import DRAINED
from headrace._websocket.expiry import of_instance
from headrace._websocket.lane import deliver
from headrace._websocket.phase import Phase
from headrace.typing import Message, Receive, Send

__all__ = ["Connection"]

_logger = logging.getLogger("headrace.sockets")

_LOOK = 0.02
"""Seconds between two looks whether it has handled what came before its end."""

_RECEIVED = ("received", "unhandled", "bad_messages", "closed_over_rate", "dropped_over_rate")
_SENT = ("dropped_after_close", "dropped_stalled", "dropped_backlog")


class Connection:
    """One WebSocket: its broadcaster, the ways to and from its client, and the two tasks that it lives in.

    Args:
        server: The server.
        hooks: What is known of the hooks of its class.
        receive: Returns the client's next message, when awaited.
        send: Sends one to it.
        backend: As for ``Hub``.

    Attributes:
        hub: Its broadcaster.
        outgoing: What goes to its client.
        incoming: What comes from its client.
        calls: Calls its hooks.
        closing: Closes it.
    """

    __slots__ = ("__weakref__", "_delivery", "_server", "calls", "closing", "hub", "incoming", "outgoing")

    def __init__(self, server: Server, hooks: Hooks, receive: Receive, send: Send, backend: Backend) -> None:
        kind: Any = type(server)
        mailbox = TopicMailbox(backend.layer, server.max_backlog, server.overflow, server.max_backlog_bytes)
        self._server: Server = weakref.proxy(server)
        self.hub = Hub(kind.__name__, backend, None, self._server, mailbox)
        presence = SocketPresence(weakref.proxy(self), backend.layer) if hooks.presents else None
        if presence is not None:
            self.hub.on_joined = presence.joined
        frames = frames_of(server.scope, send)
        self.outgoing = Outgoing(self._server, send if frames is None else FrameSend(frames, send), self.hub)
        self.incoming = Incoming(self._server, receive, self.outgoing)
        self.calls = HookCalls(self._server, hooks, self.incoming)
        self.closing = Closing(self.incoming)
        # A broadcast is sent as it is, if no method that could change it is overridden. The methods are compared here
        # and not when the class is made, because tracers and tests replace them later.
        passes_on = hooks.unchanged.issuperset((kind.async_send, kind.async_handle_received_broadcast))
        self._delivery = Delivery(self.calls, self.closing, passes_on, frames, presence)
        mailbox.on_open = self._delivery.begin

    def __repr__(self) -> str:
        return repr(self.hub)

    def start(self, server: Server) -> None:
        """Begin to serve, and do not wait for the end: in the running loop, or else in one in a thread.

        Args:
            server: Its own, which is kept until the end.
        """
        self._require_unstarted()
        if self.hub.may_block():
            asyncio.run_coroutine_threadsafe(self._start(server), self.hub.own_loop()).result()
        else:
            self._begin(server)

    def async_start(self, server: Server) -> Coroutine[Any, Any, None]:
        """Serve until the end; see ``start``."""
        self._require_unstarted()
        return self._serve(server)

    def _require_unstarted(self) -> None:
        if self.incoming.task is not None:
            raise RuntimeError(f"{self!r} was started before; make another for another connection")

    async def _start(self, server: Server) -> None:
        self._begin(server)

    def _begin(self, server: Server) -> None:
        self.incoming.task = begun(self._serve(server))
        self.incoming.task.add_done_callback(self._log_failure)

    def _log_failure(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%r ended because its receive() or send() failed", self, exc_info=error)

    async def _serve(self, server: Server) -> None:
        """Take messages until the end. The server is only kept: nobody else may have it."""
        self.incoming.task = asyncio.current_task()
        self.hub.loop = asyncio.get_running_loop()
        self.hub.may_run_loop = False
        lives(self)
        cancelled, executor = False, current_executor()
        try:
            if self._server.overflow == "close":
                await self.hub.mailbox.arm(self.closing.overrun)
            self._delivery.begin()
            await deliver(self.incoming, self._take)
            if self.incoming.is_called_away and self.incoming.task is not None:
                self.incoming.task.uncancel()  # which the hook has swallowed
        except asyncio.CancelledError:
            task = self.incoming.task
            cancelled = not self.incoming.is_called_away or task is None or task.uncancel() > 0
            if cancelled:
                raise
        finally:
            has_ended(self)
            if asyncio._get_running_loop() is None:
                # The loop was closed before its tasks had ended: nothing can be waited for.
                self.hub.mailbox.close()
                self.hub.phase = Phase.ENDED
            else:
                restore_executor(executor)
                await self._finish(cancelled)

    async def _take(self, message: Message) -> None:
        self.incoming.begin_hook()
        kind = message.get("type")
        if kind == "websocket.receive":
            await take_frame(message, self.calls, self.closing)
        elif kind == "websocket.connect":
            if await answer(self._server, self.calls, self.outgoing):
                await self._begin_accepted()
        elif kind == "websocket.disconnect":
            if self.hub.phase is Phase.OPEN:
                # As with frames, a connect before it is no condition where nobody has to be let in.
                self.incoming.has_begun = self.incoming.has_begun or not self.calls.hooks.is_guarded
                self.outgoing.note_closed(message.get("code"), owes_close=False)
        else:
            _logger.warning("%r got a message of type %r, which a WebSocket does not have", self, kind)
        self.incoming.end_hook()

    async def _begin_accepted(self) -> None:
        """Begin what has to wait until the connection is accepted, and call ``connect``."""
        self.incoming.has_begun = True
        self._delivery.begin()
        begin_expiry(self, self._server, self.calls.hooks.expires_at)
        if self._delivery.presence is not None:
            self._delivery.presence.begin()
        try:
            await self.calls.call("connect")
        except Exception as error:
            self.calls.note_error("connect")
            await self.closing.close_here(code_of_failure(error))
        ask_expiry(self, self._server)
        if is_draining():
            # Its moment may have come while it was let in.
            self.begin_drain()

    def is_open(self) -> bool:
        """Tell whether the client can be sent to."""
        return self.hub.is_open()

    def is_accepted(self) -> bool:
        """Tell whether the connection is served, and was accepted."""
        return self.hub.loop is not None and self.incoming.has_begun and self.is_open()

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that it is served in."""
        return self.hub.own_loop()

    def send(self, data: Any, raw: bool) -> None:
        """Send data to the client; close, if it does not keep up and the class wants that."""
        if not self.outgoing.send(data, raw):
            self.own_loop().call_soon_threadsafe(self.closing.overrun)

    # The drain.

    def begin_drain(self) -> None:
        """Call ``on_drain``; one that is being let in is refused instead."""
        if self.is_open() and not self.outgoing.in_handshake:
            end_for(self, DRAINED)

    async def settled(self) -> None:
        """Wait until what its client sent and what was broadcast to it before have been handled."""
        # It polls: a broadcast that the native side writes calls nothing here.
        frames, before = self.incoming.ahead(), self.hub.mailbox.stats()
        while self.is_open() and not (self.incoming.has_handled(frames) and self._has_delivered(before)):
            await asyncio.sleep(_LOOK)

    def _has_delivered(self, before: ChannelStats | None) -> bool:
        """Tell whether all that waited at an earlier reading of the mailbox has been delivered, or dropped."""
        now = self.hub.mailbox.stats()
        if before is None or now is None or (now.waiters and not now.depth):
            return True
        # The one behind them has been taken too: so the last of them is no longer at work.
        return _taken(now) - _taken(before) > before.depth

    def cut_off_drain(self, seconds: float) -> None:
        """End it, although its hooks have not: cancel the one that is at work."""
        cut_off(self, DRAINED, seconds)
        if self.is_open():
            self.closing.begin(DRAINED.code)
        self.incoming.cancel_hook()

    # The end.

    async def _finish(self, cancelled: bool) -> None:
        """End, whether the task is cancelled or not, and also if it is cancelled meanwhile."""
        ending = asyncio.ensure_future(self._end())
        if not cancelled:
            try:
                await asyncio.shield(ending)
                return
            except asyncio.CancelledError:
                await despite_cancel(ending, f"{self!r}: its disconnect()")
                raise
        await despite_cancel(ending, f"{self!r}: its disconnect()")

    async def _end(self) -> None:
        """Leave the topics, and take leave."""
        self.closing.stop_delivering()
        await self.incoming.stop()
        await self._delivery.stop()
        if self.outgoing.owes_close:
            await asyncio.wait({self.closing.tell()})
        if (expiry := of_instance(self._server)) is not None:
            expiry.end()
        if self.hub.mailbox.inbox is not None:
            self.hub.mailbox.inbox.attend(None)  # the other half of a cycle
        self.hub.mailbox.close()
        self.hub.phase = Phase.LEAVING
        # What disconnect() sends is dropped, however long ago the end was.
        self.outgoing.grace.began = None
        try:
            if self.incoming.has_begun and not getattr(self.hub.loop, "is_ending", False):
                known = self.incoming.code_ahead if self.outgoing.code is None else self.outgoing.code
                code = NO_STATUS if known is None else known
                await self.calls.attempt("disconnect", *([code] if self.calls.hooks.takes_code else []))
        finally:
            self.hub.phase = Phase.ENDED
            self.hub.mailbox.groups.clear()

    def counts(self) -> dict[str, int]:
        """Read the counters."""
        sends = self.hub.sends
        return {
            **self.hub.counts(),
            **{name: getattr(self.incoming, name) for name in _RECEIVED},
            **{name: getattr(self.outgoing, name) for name in _SENT},
            "sent": self.outgoing.sent + self._delivery.written(),
            "errors": self.calls.errors,
            "pending_bytes": 0 if sends is None else sends.bytes,
        }


def _taken(stats: ChannelStats) -> int:
    """Count the messages that have left a mailbox."""
    return stats.delivered + stats.dropped_expired + stats.dropped_replaced
