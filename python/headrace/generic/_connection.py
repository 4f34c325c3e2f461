"""What headrace keeps of the connection of a WebSocket consumer, sync or async, and how that connection ends."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import Any, ClassVar, cast

from headrace._core import Forward, FrameSend
from headrace._dispatch import Shared
from headrace._frames.extension import frames_of
from headrace._websocket.codes import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    NO_STATUS,
    SERVICE_UNAVAILABLE,
    TRY_AGAIN_LATER,
    UNSUPPORTED_DATA,
)
from headrace._websocket.ending import Expired
from headrace._websocket.expiry import ExpiresAt, Expiry, of_instance
from headrace._websocket.handshake import refuse_handshake
from headrace._websocket.presence import default_key
from headrace._websocket.resume import Replaceable
from headrace.consumer import AsyncConsumer
from headrace.generic._groups import GroupSession, SyncGroupSession
from headrace.generic._messages import accept_message, close_message, forwarded_message
from headrace.typing import Frames, Message, Receive, Send

__all__ = ["BaseWebsocketConsumer", "SyncWebsocketSession", "WebsocketSession"]

_logger = logging.getLogger("headrace.consumer")

PROMPT_CLOSE_SECONDS = 0.1
"""How long a server may take for a close before it is asked for no more messages."""
DISCONNECT_TURNS = 16
"""Turns of the loop in which the last message of a client comes, after a send to it has failed."""


class WebsocketSession(GroupSession):
    """What headrace keeps of a WebSocket consumer.

    Attributes:
        accepted: The connection was accepted.
        answered: It was accepted or closed: its client does not wait for that.
        code: The code that the connection was closed with, as far as it is known.
        failure: The code to close with after a failure.
        frames: Writes frames to the client, where the server offers that.
    """

    __slots__ = ("accepted", "answered", "code", "failure", "frames")

    def __init__(self, shared: Shared[Any]) -> None:
        super().__init__(shared)
        self.accepted = self.answered = False
        self.code: int | None = None
        self.failure = INTERNAL_ERROR
        self.frames: Frames | None = None

    def open(self, consumer: Any, send: Send) -> None:
        """Prepare to serve a connection, in its loop."""
        self.frames = frames_of(consumer.scope, send)
        super().open(consumer, send if self.frames is None else FrameSend(self.frames, send))

    def attendant(self, attend: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what is called with each message of the layer while the consumer's task waits."""
        if self.frames is None or not self.shared.fields:
            return attend
        # What goes before a message of the layer calls the task away from the inbox, and what is written behind a close
        # is refused by the server.
        return Forward(attend, self.frames, self.shared.fields)

    def accept_message(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]] | None) -> Message:
        """Return what accepts the connection; see the function of that name."""
        return accept_message(self.shared.name, self.echo if subprotocol is None else subprotocol, headers)

    def close_message(self, code: int | bool | None, reason: str | None) -> Message:
        """Return what closes the connection; see the function of that name."""
        return close_message(self.shared.name, code, reason, self.accepted and not self.closed)

    def note_closed(self, message: Message) -> None:
        """Note that the consumer closes its connection."""
        self.closed = self.answered = True
        self.code = message.get("code", 1000)

    def code_of(self, message: Message) -> int:
        """Return the code that the connection ended with: the server's if it has one, else that of our own close."""
        code = message.get("code")
        if code is not None and code != NO_STATUS:
            return int(code)
        return NO_STATUS if self.code is None else self.code

    def note_disconnect(self, consumer: Any, message: Message) -> int:
        """Note that the turn of the client's last message has come; return the code."""
        self.code = code = self.code_of(message)
        if not self.answered:
            _logger.warning(
                "%s at %r: its client has gone without having been accepted; connect() has to await self.accept() or "
                "self.close()%s",
                self.shared.name,
                consumer.scope.get("path"),
                f" (root_path {root_path!r})" if (root_path := consumer.scope.get("root_path")) else "",
            )
        return code

    async def send_close(self, consumer: Any, message: Message) -> None:
        """Send a close; if it is held back, stop asking the server for messages meanwhile, as granian wants it."""
        incoming = self.incoming
        if incoming is None:
            await self.emit(consumer, message)
            return
        closing = asyncio.ensure_future(self.emit(consumer, message))
        try:
            await asyncio.wait({closing}, timeout=PROMPT_CLOSE_SECONDS)
            if not closing.done():
                await incoming.pause()
            await closing
        except (OSError, RuntimeError) as error:
            incoming.resume()
            await self.excuse(error)
        finally:
            closing.cancel()
            incoming.resume()

    async def excuse(self, error: Exception) -> None:
        """Go on after a send that failed because the client has gone; raise any other error again.

        The specification has servers raise an ``OSError`` then. Some raise a ``RuntimeError`` instead, and give the
        client's last message a few turns of the loop later: daphne when its transport is closed.
        """
        if isinstance(error, OSError):
            self.closed = True
            return
        for _ in range(DISCONNECT_TURNS):
            await asyncio.sleep(0)
            if self.gone:
                return
        raise error

    # What the dispatch calls.

    def begin_life(self, consumer: Any, receive: Receive) -> Receive:
        """Have the consumer end when its ``expires_at`` comes, but not before its first message has had its turn."""
        default = inspect.getattr_static(type(consumer), "expires_at")
        if not isinstance(default, ExpiresAt) or (expiry := default.begin(consumer)) is None:
            return receive
        return _after_connect(receive, partial(self.watch_expiry, expiry))

    def watch_expiry(self, expiry: Expiry) -> None:
        """Have the consumer told when its time has come. Its method is asked in its turn."""
        incoming = self.incoming
        if not self.serving or incoming is None or self.loop is None:
            return
        expiry.watch(self.loop, lambda: incoming.end(Expired(expiry)))
        if expiry.ask is not None:
            incoming.end(Expired(expiry))

    def end_life(self, consumer: Any) -> None:
        """Wait for no ``expires_at`` any more."""
        if (expiry := of_instance(consumer)) is not None:
            expiry.end()

    def note_gone(self, message: Message) -> None:
        """Note that the client has gone, and its code."""
        super().note_gone(message)
        self.code = self.code_of(message)

    async def report(self, consumer: Any, error: Exception, message: Message) -> None:
        """Call ``on_error``."""
        await super().report(consumer, error, message)
        # The consumer goes on, and what it may fail of later is another matter.
        self.failure = INTERNAL_ERROR

    def forward(self, message: Message) -> Awaitable[None]:
        """Send the client the frame that a message from the layer holds.

        Raises:
            ValueError: It holds neither text nor bytes where it should.
        """
        field = self.shared.fields[message["type"]]
        payload = message.get(field or "text")
        if payload.__class__ is str:
            return self.asgi_send({"type": "websocket.send", "text": payload})
        return self.asgi_send(forwarded_message(self.shared.name, message, field))

    async def excuses(self, consumer: Any, error: Exception) -> bool:
        """Tell whether forwarding failed because the client has gone; count it then."""
        if isinstance(error, OSError | RuntimeError):
            try:
                await self.excuse(error)
            except type(error):
                return False
            self.drop_after_close(consumer)
            return True
        return False

    async def close_failed(self, consumer: Any) -> None:
        """Close the connection after an exception, where the server would not know the code."""
        # Where there is no server, as in a test, the exception is all there is to see; so it is in Channels.
        if self._is_open() and "asgi" in consumer.scope:
            self.code = self.failure
            await self.close_now({"type": "websocket.close", "code": self.failure})

    async def dismisses_client(self, consumer: Any) -> bool:
        """Close the connection of a client that sent what cannot be decoded; tell whether that ends the matter."""
        # The client's fault and not the server's: its server is not to log a traceback for it.
        if self.failure != UNSUPPORTED_DATA or not self._is_open() or "asgi" not in consumer.scope:
            return False
        self.code = UNSUPPORTED_DATA
        if self.incoming is not None:
            await self.incoming.close()
        return await self.close_now({"type": "websocket.close", "code": UNSUPPORTED_DATA})

    def may_defer(self, consumer: Any) -> bool:
        """Tell whether a client may be sent away while the layer is away, in the place of an exception."""
        # No traceback of the server's would help to mend that. Where there is no server, it is all there is to see.
        return not (self.closed or self.gone) and "asgi" in consumer.scope

    async def defers_client(self, consumer: Any, message: Message) -> bool:
        """Send a client away that came while the layer is away; tell whether that ends the matter."""
        if message.get("type") != "websocket.connect" or not self.may_defer(consumer):
            return False
        self.code = TRY_AGAIN_LATER
        if self.accepted:
            return await self.close_now({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        self.closed = True
        await refuse_handshake(consumer.scope, self.asgi_send, TRY_AGAIN_LATER, SERVICE_UNAVAILABLE)
        return True

    async def close_in_place(self, consumer: Any, code: int, reason: str = "") -> None:
        """Close the connection in the place of the consumer."""
        self.code = code
        await super().close_in_place(consumer, code, reason)

    def _is_open(self) -> bool:
        return self.accepted and not self.closed and not self.gone

    async def finish(self, consumer: Any) -> None:
        """Leave the groups and call ``disconnect``, if that was not done."""
        if self.has_begun:
            await self.leave(consumer, ABNORMAL_CLOSURE if self.code is None else self.code)


class SyncWebsocketSession(WebsocketSession, SyncGroupSession):
    """What headrace keeps of a WebSocket consumer whose methods are plain."""

    __slots__ = ()


def _watch(consumer: "BaseWebsocketConsumer", expiry: Expiry) -> None:
    consumer._headrace.watch_expiry(expiry)


def _after_connect(receive: Receive, begin: Callable[[], None]) -> Receive:
    """Return what receives a client's messages, and calls a function when the first one waits to be handled."""
    taken = 0

    async def receive_and_begin() -> Any:
        nonlocal taken
        if taken == 1:
            taken = 2
            begin()
        message = await receive()
        taken = taken or 1
        return message

    return receive_and_begin


class BaseWebsocketConsumer(AsyncConsumer):
    """What sync and async WebSocket consumers share."""

    groups: Iterable[str] | None = None
    """Groups that every connection joins before ``connect`` and leaves before ``disconnect``."""

    expires_at: float | Callable[[], Any] | None = cast(Any, ExpiresAt(None, _watch))
    """When the connection ends, as ``time.time()`` tells it, or None: ``on_expire`` is called then.

    Set it at any time, in any thread, to move the end. Or define a method of that name: it is asked after ``connect``,
    and again when the time has come that it said.
    """

    resume: ClassVar[bool] = False
    """Whether its client, when it comes again, gets what it has missed meanwhile.

    The client gives what it was told of ``position``, as ``?resume=...`` or as a subprotocol, ``resume.`` and that.
    It gets the missed messages of ``groups`` and of those that ``join_group`` joins, if the layer keeps a ``history``
    of them, and then ``resumed`` is called. Not with ``forward``, nor with a ``concurrency`` of more than 1.
    """
    presence: ClassVar[bool] = False
    """Whether it is shown in its groups as present, where the layer's setting ``presence`` has them.

    In all groups that it is in when it has been accepted, and in those that ``join_group`` joins later, until it leaves
    them or ends. If it has a handler for the messages that tell (``presence_diff``), that gets the whole list of a
    group first and what has changed from then on. Not with a ``concurrency`` of more than 1.
    """
    _headrace: ClassVar[Shared[WebsocketSession]] = Shared(WebsocketSession)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of the class."""
        super().__init_subclass__(**kwargs)
        _EXPIRES_AT.of_subclass(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a consumer; arguments are accepted and ignored, as in Channels, but for a scope."""
        super().__init__(args[0] if args and isinstance(args[0], MutableMapping) else None)
        if self.groups is None:
            self.groups = []

    def presence_key(self) -> Any:
        """Return the key that it is shown under, a text, or None not to be shown: the ``pk`` of ``scope["user"]``."""
        return default_key(self.scope)

    def presence_meta(self) -> Any:
        """Return what the others are told of it, a dict of at most 4 KiB in msgpack, or None: for nothing."""
        return None

    @Replaceable
    def position(self) -> str | None:
        """Where the client is in the groups with history, up to the message in hand: what it gives when it comes again.

        Text of letters, digits, ``-``, ``_`` and dots, of at most 656 characters; None without ``resume``, and as long
        as the consumer is in no group with history. A message that its full mailbox has dropped, or that has expired
        there, stays behind it, with all that came after: a client that comes again gets them, some for the second time.
        """
        progress = self._headrace.progress
        return None if progress is None else progress.text()


_EXPIRES_AT: ExpiresAt = vars(BaseWebsocketConsumer)["expires_at"]
