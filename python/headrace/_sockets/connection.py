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
from functools import partial
from typing import Any

from headrace._core import Inbox
from headrace._dispatch import (
    Rest,
    call_in_thread,
    current_executor,
    restore_executor,
    stand_in,
)
from headrace._sockets.backend import Backend
from headrace._sockets.hooks import Hooks, Server
from headrace._sockets.incoming import Incoming
from headrace._sockets.loop import begun
from headrace._sockets.mailbox import TopicMailbox
from headrace._sockets.outgoing import Phase
from headrace._sockets.payload import data_of, frame_of
from headrace._websocket.closing import CLEAN_UP_TIMEOUT, despite_cancel
from headrace._websocket.codes import (
    FORBIDDEN,
    INTERNAL_ERROR,
    NO_STATUS,
    NOT_LOGGED_IN,
    SERVICE_UNAVAILABLE,
    TRY_AGAIN_LATER,
)
from headrace._websocket.handshake import refuse_handshake
from headrace.exceptions import ConnectionClosed, LayerUnavailable
from headrace.typing import Message, Receive, Send

__all__ = ["Connection"]

_logger = logging.getLogger("headrace.sockets")

_STATUS = {NOT_LOGGED_IN: 401, INTERNAL_ERROR: 500, TRY_AGAIN_LATER: SERVICE_UNAVAILABLE}
"""The status of HTTP that a handshake is refused with, where it is not 403."""


class Connection(Incoming):
    """The state of one WebSocket, and the two tasks that it lives in.

    Args:
        server: As for ``Outgoing``.
        hooks: What is known of the hooks of its class.
        receive: Returns the client's next message, when awaited.
        send: Sends one to it.
        backend: As for ``Hub``.
        loop: As for ``Hub``.
    """

    # What a connection begins with; it has its own when that changes. An object of few attributes takes less.
    _delivering: asyncio.Task[None] | None = None
    # There is somebody to take leave of.
    _has_begun = False
    _bad_messages = _errors = 0

    _has_told_expired = False

    def __init__(
        self,
        server: Server,
        hooks: Hooks,
        receive: Receive,
        send: Send,
        backend: Backend,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._hooks = hooks
        kind: Any = type(server)
        # Whether a broadcast is sent to the client as it is: no method that could change it is overridden. The methods
        # are compared here and not when the class is made, because tracers and tests replace them later.
        self._passes_on = hooks.unchanged.issuperset((kind.async_send, kind.async_handle_received_broadcast))
        self._asgi_receive = receive
        super().__init__(server, send, backend, loop)

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        self._delivering = None

    def _make_mailbox(self) -> TopicMailbox:
        server = self._server
        return TopicMailbox(
            self.layer, server.max_backlog, server.overflow, server.max_backlog_bytes, self._inbox_opened
        )

    # The lane of the client's frames.

    def start(self, server: Server) -> None:
        """Begin to serve, and do not wait for the end: in the running loop, or else in one in a thread.

        Args:
            server: Its own, which is kept until the end.
        """
        self._require_unstarted()
        if self._may_block():
            asyncio.run_coroutine_threadsafe(self._start(server), self._own_loop()).result()
        else:
            self._begin(server)

    async def async_start(self, server: Server) -> None:
        """Serve until the end; see ``start``."""
        self._require_unstarted()
        await self._serve(server)

    def _require_unstarted(self) -> None:
        if self._task is not None:
            raise RuntimeError(f"{self!r} was started before; make another for another connection")

    async def _start(self, server: Server) -> None:
        self._begin(server)

    def _begin(self, server: Server) -> None:
        self._task = begun(self._serve(server))
        self._task.add_done_callback(self._log_failure)

    def _log_failure(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%r ended because its receive() or send() failed", self, exc_info=error)

    async def _serve(self, server: Server) -> None:
        """Take messages until the end. The server is only kept: nobody else may have it."""
        self._task = asyncio.current_task()
        self._loop = loop = asyncio.get_running_loop()
        self._may_run_loop = False
        cancelled, executor = False, current_executor()
        try:
            if self._server.overflow == "close":
                await self._mailbox.arm(self._overrun)
            self._inbox_opened()
            while self._phase is Phase.OPEN:
                message = await self._next()
                self._note_hook(loop)
                await self._take(message)
                self._hook_began = None
            if self._is_called_away and self._task is not None:
                self._task.uncancel()  # which the hook has swallowed
        except asyncio.CancelledError:
            cancelled = not self._is_called_away or self._task is None or self._task.uncancel() > 0
            if cancelled:
                raise
        finally:
            if asyncio._get_running_loop() is None:
                # The loop was closed before its tasks had ended: nothing can be waited for.
                self._mailbox.close()
                self._phase = Phase.ENDED
            else:
                restore_executor(executor)
                await self._finish(cancelled)

    async def _take(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "websocket.receive":
            await self._take_frame(message)
        elif kind == "websocket.connect":
            await self._open()
        elif kind == "websocket.disconnect":
            if self._phase is Phase.OPEN:
                # As with frames, a connect before it is no condition where nobody has to be let in.
                self._has_begun = self._has_begun or not self._hooks.is_guarded
                self._note_closed(message.get("code"), owes_close=False)
        else:
            _logger.warning("%r got a message of type %r, which a WebSocket does not have", self, kind)

    async def _open(self) -> None:
        self._in_handshake = True
        code = await self._refusal()
        if self._phase is not Phase.OPEN:
            return  # closed meanwhile, which has refused it
        if code is not None:
            await self._refuse(code)
            return
        accept: Message = {"type": "websocket.accept"}
        if self._server.subprotocol is not None:
            accept["subprotocol"] = self._server.subprotocol
            if self._server.subprotocol not in (self._server.scope.get("subprotocols") or ()):
                _logger.warning(
                    "%r is accepted with subprotocol %r, which its client did not offer; browsers give up then",
                    self,
                    self._server.subprotocol,
                )
        await self._asgi_send(accept)
        self._in_handshake = False
        self._has_begun = True
        self._inbox_opened()
        try:
            await self._call("connect")
        except Exception as error:
            self._note_error("connect")
            await self._close(TRY_AGAIN_LATER if isinstance(error, LayerUnavailable) else INTERNAL_ERROR)

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
        self._phase = Phase.CLOSED
        await refuse_handshake(self._server.scope, self._asgi_send, code, _STATUS.get(code, 403))

    async def _take_frame(self, message: Message) -> None:
        self._received += 1
        if not self._has_begun and self._hooks.is_guarded:
            self._unhandled += 1
            _logger.warning("%r got a frame of somebody whom authorize() has not let in; it is not looked at", self)
            return
        self._has_begun = True
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
        hook = getattr(self._server, name)
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
        if isinstance(error, ConnectionClosed) and self._is_overdue():
            self._note_departure()
            return False
        self._errors += 1
        if isinstance(error, LayerUnavailable):
            _logger.error("%r: %s() failed, because headrace's channel layer is away: %s", self, hook, error)
            return True
        # One traceback is enough: a client could fill the log.
        _logger.error("%r: %s() failed: %r", self, hook, error, exc_info=self._errors == 1)
        return True

    # The lane of broadcasts.

    def _inbox_opened(self) -> None:
        """Have what is broadcast delivered from now on, if there is an inbox and somebody to deliver to."""
        if self._task is None or self._loop is None:
            return
        if asyncio._get_running_loop() is self._loop:
            self._begin_delivering()
        else:
            self._loop.call_soon_threadsafe(self._begin_delivering)

    def _begin_delivering(self) -> None:
        inbox = self._mailbox.inbox
        if self._in_handshake:
            return
        if inbox is not None and self._delivering is None and self._phase is Phase.OPEN:
            self._delivering = asyncio.get_running_loop().create_task(self._deliver_all(inbox))

    async def _deliver_all(self, inbox: Inbox) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(self._delivering_ended)
            inbox.attend(partial(self._attend, task))
        async for message in inbox:
            if isinstance(message, Rest):
                await message.finish()
            else:
                await self._deliver(message)
            self._look_for_expired(inbox)
            if not self._passes_on:
                inbox.end_turn()

    def _attend(self, task: "asyncio.Task[Any]", message: dict[str, Any]) -> Rest | bool | None:
        """Deliver in the place of the task; return True if the next may follow at once: no handler was called."""
        left = stand_in(task, self._deliver, message)
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
        if not isinstance(topic, str) or topic not in self._mailbox.groups:
            self._dropped_unsubscribed += 1
            return
        try:
            if self._passes_on:
                await self._send_frame(frame_of(message, self._server.ws_encoder, self._server.ws_encoder_is_bytes))
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
        if self._sends is not None and not self._passes_on:
            # What the handler sent without waiting goes out first: so it is the mailbox that fills up.
            await self._sends.before()

    def _delivering_ended(self, task: "asyncio.Task[None]") -> None:
        """Close, if nothing can be delivered any more: a socket that stays open and hears nothing would be a lie."""
        if task.cancelled() or (error := task.exception()) is None or self._phase is not Phase.OPEN:
            return
        _logger.error("%r is closed, because nothing more can be delivered to it: %r", self, error)
        self._note_closed(INTERNAL_ERROR)
        self._begin_closing()

    def _stop_delivering(self) -> None:
        delivering = self._delivering
        if self._mailbox.inbox is not None:
            self._mailbox.inbox.end()  # in case its handler swallows the cancel
        if delivering is not None and delivering is not asyncio.current_task():
            delivering.cancel()

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
        await self._stop_reading()
        if self._delivering is not None:
            _, stuck = await asyncio.wait({self._delivering}, timeout=CLEAN_UP_TIMEOUT)
            if stuck:
                _logger.error("%r ends while its async_handle_received_broadcast() ignores its cancel", self)
        if self._owes_close:
            await asyncio.wait({self._begin_closing()})
        if self._mailbox.inbox is not None:
            self._mailbox.inbox.attend(None)  # the other half of a cycle
        self._mailbox.close()
        self._phase = Phase.LEAVING
        # What disconnect() sends is dropped, however long ago the end was.
        self._grace_began = None
        try:
            if self._has_begun and not getattr(self._loop, "is_ending", False):
                known = self._code_ahead if self._code is None else self._code
                code = NO_STATUS if known is None else known
                await self._try("disconnect", *([code] if self._hooks.takes_code else []))
        finally:
            self._phase = Phase.ENDED
            self._mailbox.groups.clear()

    def counts(self) -> dict[str, int]:
        """Read the counters."""
        return {
            **super().counts(),
            "received": self._received,
            "sent": self._sent,
            "bad_messages": self._bad_messages,
            "errors": self._errors,
            "unhandled": self._unhandled,
            "dropped_after_close": self._dropped_after_close,
            "dropped_stalled": self._dropped_stalled,
            "dropped_backlog": self._dropped_backlog,
            "pending_bytes": 0 if self._sends is None else self._sends.bytes,
        }

    def note_unhandled(self) -> None:
        """Count a frame that no hook of the user's takes."""
        self._unhandled += 1
