"""One WebSocket from its first message to its end: the mechanics below ``BaseSocketServer``.

It lives in two lanes. In one its task takes the client's frames, one after the other, and calls the hooks; in the
other a task delivers what is broadcast to its topics, so that a slow hook delays the frames of its own client and
nothing else. Guaranteed, whatever ends it (its client, a close, an exception in ``connect``, the server's shutdown),
but for the end of the process: it has left its topics, and ``disconnect`` was called once, before it ends.
"""

import asyncio
import inspect
import logging
import reprlib
import sys
import weakref
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from headrace._core import ChannelStats, Forward, FrameSend, Inbox
from headrace._dispatch import (
    call_in_thread,
    current_executor,
    restore_executor,
)
from headrace._drain import has_ended, is_draining, lives
from headrace._frames.extension import frames_of
from headrace._layers.close_message import CLOSE_TYPE, check_code, code_and_reason
from headrace._sockets.backend import Backend
from headrace._sockets.ending import ask_expiry, begin_expiry, cut_off, end_for
from headrace._sockets.hooks import Hooks, Server
from headrace._sockets.hub import Hub
from headrace._sockets.incoming import Incoming
from headrace._sockets.loop import begun
from headrace._sockets.mailbox import TopicMailbox
from headrace._sockets.outgoing import Outgoing, result_of
from headrace._sockets.payload import data_of, frame_of, passes_text
from headrace._sockets.presence import SocketPresence
from headrace._websocket.closing import CLEAN_UP_TIMEOUT, CLOSE_TIMEOUT, despite_cancel
from headrace._websocket.codes import (
    FORBIDDEN,
    INTERNAL_ERROR,
    NO_STATUS,
    NOT_LOGGED_IN,
    POLICY_VIOLATION,
    SERVICE_UNAVAILABLE,
    TRY_AGAIN_LATER,
)
from headrace._websocket.ending import DRAINED, limit_close
from headrace._websocket.expiry import of_instance
from headrace._websocket.handshake import refuse_handshake
from headrace._websocket.lane import Unfinished, deliver, stand_in
from headrace._websocket.phase import Phase
from headrace._websocket.rate import Rate, TokenBucket
from headrace._websocket.resume import echoed
from headrace.exceptions import ConnectionClosed, LayerClosed, LayerUnavailable
from headrace.typing import Message, Receive, Send

__all__ = ["Connection"]

_logger = logging.getLogger("headrace.sockets")

_STATUS = {NOT_LOGGED_IN: 401, INTERNAL_ERROR: 500, TRY_AGAIN_LATER: SERVICE_UNAVAILABLE}
"""The status of HTTP that a handshake is refused with, where it is not 403."""

_LOOK = 0.02
"""Seconds between two looks whether it has handled what came before its end."""

_SENT = ("dropped_after_close", "dropped_stalled", "dropped_backlog")


def _taken(stats: ChannelStats) -> int:
    """Count the messages that have left a mailbox."""
    return stats.delivered + stats.dropped_expired + stats.dropped_replaced


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
    """

    __slots__ = (
        *("_bad_messages", "_closing", "_delivering", "_errors", "_has_begun", "_has_told_expired", "_hooks"),
        "__weakref__",
        *("_bucket", "_closed_over_rate", "_dropped_over_rate", "_is_told_to_close"),
        *("_forward", "_frames", "_passes_on", "_presence", "_server", "hub", "incoming", "outgoing"),
    )

    def __init__(
        self,
        server: Server,
        hooks: Hooks,
        receive: Receive,
        send: Send,
        backend: Backend,
    ) -> None:
        kind: Any = type(server)
        mailbox = TopicMailbox(
            backend.layer, server.max_backlog, server.overflow, server.max_backlog_bytes, self._inbox_opened
        )
        self._hooks = hooks
        self._server: Server = weakref.proxy(server)
        # Whether a broadcast is sent to the client as it is: no method that could change it is overridden. The methods
        # are compared here and not when the class is made, because tracers and tests replace them later.
        self._passes_on = hooks.unchanged.issuperset((kind.async_send, kind.async_handle_received_broadcast))
        self.hub = Hub(kind.__name__, backend, None, self._server, mailbox)
        self._presence: SocketPresence | None = None
        if hooks.presents:
            self._presence = SocketPresence(weakref.proxy(self), backend.layer)
            self.hub.on_joined = self._presence.joined
        self._frames = frames_of(server.scope, send)
        # Made when the first topic is subscribed to, if the client is written frames.
        self._forward: Forward | None = None
        sender = send if self._frames is None else FrameSend(self._frames, send)
        self.outgoing = Outgoing(self._server, sender, self.hub)
        self.incoming = Incoming(self._server, receive, self.outgoing)
        self._delivering: asyncio.Task[None] | None = None
        # Tells the client; its own task, so that whoever asked for the close may be cancelled.
        self._closing: asyncio.Task[None] | None = None
        # There is somebody to take leave of.
        self._has_begun = self._has_told_expired = self._is_told_to_close = False
        self._bad_messages = self._errors = self._closed_over_rate = self._dropped_over_rate = 0
        # Made with the first frame, if there is a rate.
        self._bucket: TokenBucket | None = None

    def __repr__(self) -> str:
        return repr(self.hub)

    # The lane of the client's frames.

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
                await self.hub.mailbox.arm(self._overrun)
            self._inbox_opened()
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
            await self._take_frame(message)
        elif kind == "websocket.connect":
            await self._open()
        elif kind == "websocket.disconnect":
            if self.hub.phase is Phase.OPEN:
                # As with frames, a connect before it is no condition where nobody has to be let in.
                self._has_begun = self._has_begun or not self._hooks.is_guarded
                self.outgoing.note_closed(message.get("code"), owes_close=False)
        else:
            _logger.warning("%r got a message of type %r, which a WebSocket does not have", self, kind)
        self.incoming.end_hook()

    async def _open(self) -> None:
        self.outgoing.in_handshake = True
        code = await self._refusal()
        if is_draining():
            code = TRY_AGAIN_LATER
        if self.hub.phase is not Phase.OPEN:
            return  # closed meanwhile, which has refused it
        if code is not None:
            await self._refuse(code)
            return
        accept: Message = {"type": "websocket.accept"}
        if self._server.subprotocol is None and (echo := echoed(self._server.scope)) is not None:
            accept["subprotocol"] = echo
        elif self._server.subprotocol is not None:
            accept["subprotocol"] = self._server.subprotocol
            if self._server.subprotocol not in (self._server.scope.get("subprotocols") or ()):
                _logger.warning(
                    "%r is accepted with subprotocol %r, which its client did not offer; browsers give up then",
                    self,
                    self._server.subprotocol,
                )
        await self.outgoing.asgi_send(accept)
        self.outgoing.in_handshake = False
        self._has_begun = True
        self._inbox_opened()
        begin_expiry(self, self._server, self._hooks.expires_at)
        if self._presence is not None:
            self._presence.begin()
        try:
            await self._call("connect")
        except Exception as error:
            self._note_error("connect")
            await self._close(TRY_AGAIN_LATER if isinstance(error, LayerUnavailable) else INTERNAL_ERROR)
        ask_expiry(self, self._server)
        if is_draining():
            # Its moment may have come while it was let in.
            self.begin_drain()

    async def _refusal(self) -> int | None:
        """Return the code to refuse the connection with, or None to accept it."""
        try:
            answer = await self._call("authorize")
        except Exception as error:
            self._note_error("authorize")
            return TRY_AGAIN_LATER if isinstance(error, LayerUnavailable) else INTERNAL_ERROR
        if answer is True:
            return None
        if answer is None:
            _logger.warning("%r: authorize() returned nothing, so it is refused; return True to accept", self)
        if not answer:
            user = self._server.scope.get("user", self)
            return FORBIDDEN if user is self or getattr(user, "is_authenticated", False) else NOT_LOGGED_IN
        if isinstance(answer, int) and answer >= 1000:
            return answer
        _logger.error("%r: authorize() must return True, False or a code; it is refused for %r", self, answer)
        return INTERNAL_ERROR

    async def _refuse(self, code: int) -> None:
        self.hub.phase = Phase.CLOSED
        await refuse_handshake(self._server.scope, self.outgoing.asgi_send, code, _STATUS.get(code, 403))

    async def _take_frame(self, message: Message) -> None:
        self.incoming.received += 1
        if not self._has_begun and self._hooks.is_guarded:
            self.incoming.unhandled += 1
            _logger.warning("%r got a frame of somebody whom authorize() has not let in; it is not looked at", self)
            return
        self._has_begun = True
        if self._is_told_to_close:
            self.incoming.unhandled += 1
            return
        if (rate := self._hooks.rate) is not None and not self._is_within(rate):
            if rate.closes and self.hub.phase is Phase.OPEN:
                self._closed_over_rate += 1
                await self._close(POLICY_VIOLATION)
            return
        raw: Any = message.get("text")
        if raw is None:
            raw = message.get("bytes", b"")
        try:
            data = self._server.ws_decoder(raw)
        except Exception as error:
            self._bad_messages += 1
            if self._bad_messages == 1:
                # Not each: a client could fill the log.
                # Nor all of it: the error of a text that is no UTF-8 holds the text.
                reason = f"{type(error).__name__}({reprlib.repr(str(error))})"
                _logger.warning("%r got a frame that its ws_decoder does not take: %s; more are counted", self, reason)
            await self._try("on_bad_message", raw, error)
        else:
            await self._receive(data)

    def _is_within(self, rate: Rate) -> bool:
        """Tell whether the client may send this frame too; count it if not."""
        now = asyncio.get_running_loop().time()
        if self._bucket is None:
            self._bucket = TokenBucket(rate, now)
        if self._bucket.take(now):
            return True
        self._dropped_over_rate += 1
        if not self._hooks.has_told_rate:
            # Not each, nor each connection: a client that comes again could fill the log.
            self._hooks.has_told_rate = True
            what = "it is closed" if rate.closes else "the rest is dropped"
            _logger.warning(
                "%r: its client sends more than its rate_limit of %s, and %s; more are only counted",
                self,
                rate.text,
                what,
            )
        return False

    async def _receive(self, data: Any) -> None:
        try:
            await self._call("receive", data)
        except Exception as error:
            if self._note_error("receive"):
                await self._try("on_error", error, data)

    async def _try(self, hook: str, *arguments: Any) -> bool:
        """Call a hook; tell whether it succeeded. What it raises is logged and counted."""
        try:
            await self._call(hook, *arguments)
        except Exception:
            self._note_error(hook)
            return False
        return True

    async def _call(self, name: str, *arguments: Any) -> Any:
        """Call a hook: here if it is a coroutine function or of the base class, else in a thread."""
        return await self.call_method(getattr(self._server, name), *arguments)

    async def call_method(self, hook: Any, *arguments: Any) -> Any:
        """Call a method of the server: here if it is a coroutine function or of the base class, else in a thread."""
        if inspect.iscoroutinefunction(hook):
            return await hook(*arguments)
        if getattr(hook, "__func__", None) in self._hooks.unchanged:
            result = hook(*arguments)
        else:
            result = await call_in_thread(not self._server.thread_sensitive, hook, *arguments)
        return await result if inspect.isawaitable(result) else result

    def _note_error(self, hook: str) -> bool:
        """Log and count what a hook has raised; but that its send was refused is the end, and no error."""
        error = sys.exception()
        if isinstance(error, ConnectionClosed) and self.outgoing.is_overdue():
            self.incoming.note_departure()
            return False
        self._errors += 1
        if isinstance(error, LayerUnavailable):
            _logger.error("%r: %s() failed, because headrace's channel layer is away: %s", self, hook, error)
            return True
        # One traceback is enough: a client could fill the log.
        _logger.error("%r: %s() failed: %r", self, hook, error, exc_info=self._errors == 1)
        return True

    # What ends it beside its client.

    async def call_hook(self, name: str, *arguments: Any) -> Any:
        """Call a hook."""
        return await self._call(name, *arguments)

    def note_failure(self, hook: str) -> None:
        """Log and count what a hook has raised."""
        self._note_error(hook)

    def note_stuck(self) -> None:
        """Count a hook that has not ended in time."""
        self._errors += 1

    def is_accepted(self) -> bool:
        """Tell whether the connection is served, and was accepted."""
        return self.hub.loop is not None and self._has_begun and self.is_open()

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that it is served in."""
        return self.hub.own_loop()

    def begin_drain(self) -> None:
        """Call ``on_drain``; one that is being let in is refused instead."""
        if self.is_open() and not self.outgoing.in_handshake:
            end_for(self, DRAINED)

    async def settled(self) -> None:
        """Wait until what its client sent and what was broadcast to it before have been handled."""
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
            self.outgoing.note_closed(DRAINED.code)
            self._begin_closing()
        self.incoming.cancel_hook()

    async def close_with(self, code: int) -> None:
        """Close, unless something has ended the connection already; in its loop."""
        await self._close(code)

    # The lane of broadcasts.

    def _inbox_opened(self) -> None:
        """Have what is broadcast delivered from now on, if there is an inbox and somebody to deliver to."""
        if self.incoming.task is None or self.hub.loop is None:
            return
        if asyncio._get_running_loop() is self.hub.loop:
            self._begin_delivering()
        else:
            self.hub.loop.call_soon_threadsafe(self._begin_delivering)

    def _begin_delivering(self) -> None:
        inbox = self.hub.mailbox.inbox
        if self.outgoing.in_handshake:
            return
        if inbox is not None and self._delivering is None and self.hub.phase is Phase.OPEN:
            self._delivering = asyncio.get_running_loop().create_task(deliver(inbox, self._take_broadcast))
            self._delivering.add_done_callback(self._delivering_ended)
            with suppress(LayerClosed):  # which ends the delivery
                inbox.watch_close(self._limit_close)
            inbox.attend(self._attendant())

    def _attendant(self) -> Any:
        """Return what is called with each broadcast while the task waits: text is written without Python."""
        server = self._server
        if self._frames is None or not self._passes_on:
            return self._attend
        if not passes_text(server.ws_encoder, server.ws_encoder_is_bytes):
            return self._attend
        unless = ((self.hub, "phase"), (self.hub, "progress"), (self.outgoing.turns, "taken"))
        groups = self.hub.mailbox.groups
        self._forward = Forward(self._attend, self._frames, groups, unless=unless, key="topic", field="text")
        return self._forward

    async def _take_broadcast(self, message: Any) -> None:
        await (message.finish() if isinstance(message, Unfinished) else self._deliver(message))
        inbox = self.hub.mailbox.inbox
        if inbox is not None:  # it is: the message came from there
            self._look_for_expired(inbox)
            if not self._passes_on:
                inbox.end_turn()

    def _attend(self, message: dict[str, Any]) -> Any:
        """Deliver in the place of the task; return True if the next may follow at once: no handler was called."""
        if self._delivering is None:
            return message
        left = stand_in(self._delivering, self._deliver, message)
        return True if self._passes_on and left is None else left

    def _look_for_expired(self, inbox: Inbox) -> None:
        """Tell the log, once, that messages have expired while one was delivered."""
        if not self._has_told_expired and (expired := inbox.expired()):
            self._has_told_expired = True
            _logger.warning(
                "%r was busy for longer than messages live: %d expired before they could be delivered; more are only "
                "counted, in dropped_expired",
                self,
                expired,
            )

    async def _deliver(self, message: dict[str, Any]) -> None:
        topic = message.get("topic")
        if not isinstance(topic, str) or topic not in self.hub.mailbox.groups:
            if message.get("type") == CLOSE_TYPE:
                self._close_by_group(message)
                return
            if self._presence is not None and self._presence.tells(message):
                await self._tell_presence(self._presence, message)
                return
            self.hub.dropped_unsubscribed += 1
            return
        if self.hub.progress is not None:
            self.hub.note(message)
        try:
            if self._passes_on:
                server = self._server
                await self.outgoing.send_frame(frame_of(message, server.ws_encoder, server.ws_encoder_is_bytes))
            else:
                handled: Any = self._server.async_handle_received_broadcast(topic, data_of(message))
                if inspect.isawaitable(handled):
                    await handled
        except asyncio.CancelledError:
            # What the handler waited for may have been cancelled, and not this task.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._note_error("async_handle_received_broadcast")
        except Exception:
            self._note_error("async_handle_received_broadcast")
        if self.hub.sends is not None and not self._passes_on:
            # What the handler sent without waiting goes out first: so it is the mailbox that fills up.
            await self.hub.sends.before()

    async def _tell_presence(self, presence: SocketPresence, message: dict[str, Any]) -> None:
        """Tell the socket who is present."""
        try:
            await presence.take(message)
        except Exception:
            self._note_error("presence_diff")

    def _delivering_ended(self, task: "asyncio.Task[None]") -> None:
        """Close, if nothing can be delivered any more: a socket that stays open and hears nothing would be a lie."""
        if task.cancelled() or (error := task.exception()) is None or self.hub.phase is not Phase.OPEN:
            return
        _logger.error("%r is closed, because nothing more can be delivered to it: %r", self, error)
        self.outgoing.note_closed(INTERNAL_ERROR)
        self._begin_closing()

    def _stop_delivering(self) -> None:
        delivering = self._delivering
        if self.hub.mailbox.inbox is not None:
            self.hub.mailbox.inbox.end()  # in case its handler swallows the cancel
        if delivering is not None and delivering is not asyncio.current_task():
            delivering.cancel()

    # The close.

    def send(self, data: Any, raw: bool) -> None:
        """Send data to the client; close, if it does not keep up and the class wants that."""
        if not self.outgoing.send(data, raw):
            self.hub.own_loop().call_soon_threadsafe(self._overrun)

    def close(self, code: int) -> None:
        """Close the connection: wait in a thread, and return at once where a loop runs."""
        check_code(code)
        hub = self.hub
        if hub.may_block():
            if self.is_open():
                self.outgoing.note_closed(code)
                loop = hub.own_loop()
                result_of(asyncio.run_coroutine_threadsafe(self._close_now(), loop), loop, 2 * CLOSE_TIMEOUT)
        elif hub.sends is not None and hub.sends.is_busy():
            # What was to be sent before goes out before it.
            hub.send_later(partial(self._close, code), CLOSE_TIMEOUT)
        elif self.is_open():
            self.outgoing.note_closed(code)
            hub.send_later(self._close_now)

    async def async_close(self, code: int) -> None:
        """Close the connection."""
        check_code(code)
        if self.hub.sends is not None:
            await self.hub.sends.before(CLOSE_TIMEOUT)
        await self.hub.in_own_loop(partial(self._close, code))

    def kill(self) -> None:
        """End without telling the client."""
        if self.is_open():
            self.outgoing.note_closed(NO_STATUS, owes_close=False)
            self.hub.own_loop().call_soon_threadsafe(self.incoming.call_away)

    def is_open(self) -> bool:
        """Tell whether the client can be sent to."""
        self.hub.mind_fork()
        return self.hub.phase is Phase.OPEN

    def _overrun(self) -> None:
        """Close, because the mailbox is full; called in the loop."""
        if self.hub.phase is Phase.OPEN:
            _logger.warning("%r is closed: its client does not keep up", self)
            self.outgoing.note_closed(TRY_AGAIN_LATER)
            self._begin_closing()

    def _close_by_group(self, message: Message) -> None:
        """Close, as ``group_close`` has told it; called in the loop."""
        if self.hub.phase is Phase.OPEN:
            code, reason = code_and_reason(message)
            self.outgoing.note_closed(code)
            self._begin_closing(reason)

    def _limit_close(self) -> None:
        """Take no more of the client: what ``group_close`` has told waits behind a broadcast, and not for ever."""
        self._is_told_to_close = True
        if self.hub.mailbox.inbox is not None:
            limit_close(self.hub.mailbox.inbox, self.is_open, self._cut_off_close)

    def _cut_off_close(self, message: Message, seconds: float) -> None:
        """Close, as ``group_close`` has told it, although not all that was broadcast before has been delivered."""
        _logger.error("%r did not come to what close_sockets() has told it in %s s; it is cut off", self, seconds)
        self.note_stuck()
        self._close_by_group(message)
        self.incoming.cancel_hook()

    async def _close(self, code: int) -> None:
        """Close, unless something has ended the connection already."""
        if self.hub.phase is Phase.OPEN:
            self.outgoing.note_closed(code)
            await self._close_now()

    async def _close_now(self) -> None:
        """Tell the client, and call the task away from where it waits for more of it; also if this is cancelled."""
        await asyncio.shield(self._begin_closing())

    def _begin_closing(self, reason: str = "") -> "asyncio.Task[None]":
        # It may be at a send that the client delays; and what waits is not to go out behind the close.
        self._stop_delivering()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._tell_closed(reason))
        return self._closing

    async def _tell_closed(self, reason: str) -> None:
        try:
            await self.outgoing.tell_closed(reason)
        finally:
            self.incoming.call_away()

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
        self._stop_delivering()
        await self.incoming.stop()
        if self._delivering is not None:
            _, stuck = await asyncio.wait({self._delivering}, timeout=CLEAN_UP_TIMEOUT)
            if stuck:
                _logger.error("%r ends while its async_handle_received_broadcast() ignores its cancel", self)
        if self.outgoing.owes_close:
            await asyncio.wait({self._begin_closing()})
        if (expiry := of_instance(self._server)) is not None:
            expiry.end()
        if self.hub.mailbox.inbox is not None:
            self.hub.mailbox.inbox.attend(None)  # the other half of a cycle
        self.hub.mailbox.close()
        self.hub.phase = Phase.LEAVING
        # What disconnect() sends is dropped, however long ago the end was.
        self.outgoing.grace.began = None
        try:
            if self._has_begun and not getattr(self.hub.loop, "is_ending", False):
                known = self.incoming.code_ahead if self.outgoing.code is None else self.outgoing.code
                code = NO_STATUS if known is None else known
                await self._try("disconnect", *([code] if self._hooks.takes_code else []))
        finally:
            self.hub.phase = Phase.ENDED
            self.hub.mailbox.groups.clear()

    def counts(self) -> dict[str, int]:
        """Read the counters."""
        sends = self.hub.sends
        return {
            **self.hub.counts(),
            **{name: getattr(self.incoming, name) for name in ("received", "unhandled")},
            **{name: getattr(self.outgoing, name) for name in _SENT},
            "sent": self.outgoing.sent + (0 if self._forward is None else self._forward.written),
            "bad_messages": self._bad_messages,
            "errors": self._errors,
            "closed_over_rate": self._closed_over_rate,
            "dropped_over_rate": self._dropped_over_rate,
            "pending_bytes": 0 if sends is None else sends.bytes,
        }
