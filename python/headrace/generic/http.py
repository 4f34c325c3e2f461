"""A consumer for HTTP, with the API of ``channels.generic.http``."""

import enum
import logging
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, ClassVar

from headrace._dispatch import Session, Shared, setting
from headrace._layers.base import check_capacity
from headrace.consumer import AsyncConsumer
from headrace.db import aclose_old_connections
from headrace.exceptions import ConnectionClosed, StopConsumer
from headrace.typing import Message, Scope, Send

# Some only because Channels' module has them, and projects import them from there.
__all__ = ["AsyncConsumer", "AsyncHttpConsumer", "StopConsumer", "aclose_old_connections"]

_LAST = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
"""The messages that end a response, unless they have ``more_body``."""


MAX_BODY_BYTES = 16 * 1024 * 1024
"""The default of ``max_body_bytes``."""

_logger = logging.getLogger("headrace.consumer")


class _Phase(enum.Enum):
    """How far a response has come."""

    NONE = enum.auto()
    BEGUN = enum.auto()
    COMPLETE = enum.auto()


class _HttpSession(Session):
    """What headrace keeps of an HTTP consumer.

    Attributes:
        phase: How far the response has come.
        handlers_running: Handlers that run.
        body_bytes: How long the body of the request is so far.
    """

    __slots__ = ("body_bytes", "handlers_running", "phase")

    def __init__(self, shared: Shared[Any]) -> None:
        super().__init__(shared)
        self.phase = _Phase.NONE
        self.handlers_running = 0
        self.body_bytes = 0

    def open(self, consumer: Any, send: Send) -> None:
        """Prepare to serve a connection, in its loop."""
        # Its base_send is a method, which follows the response.
        self.attach(send)
        consumer.body = []

    async def send(self, consumer: Any, message: Mapping[str, Any]) -> None:
        """Send, unless the connection has ended."""
        # What servers take from a stream whose client has gone, they throw away.
        if self.gone:
            self.closed = True
        await super().send(consumer, message)

    def follow(self, message: Mapping[str, Any]) -> None:
        """Note what was sent; end the consumer if the response is whole."""
        if message["type"] in _LAST and not message.get("more_body"):
            self.phase = _Phase.COMPLETE
            if not self.handlers_running and self.incoming is not None:
                # Something else than a handler has finished it.
                self.incoming.stop()

    async def refuse_body(self, consumer: Any, longest: int) -> None:
        """Answer a request whose body is too long."""
        counters = self.shared.counters
        if not counters.read().refused_bodies:
            # Not each: a client could fill the log.
            _logger.warning(
                "%s at %r: a body is longer than max_body_bytes (%d), and is answered with 413; more are only counted",
                self.shared.name,
                consumer.scope.get("path"),
                longest,
            )
        counters.add(refused_bodies=1)
        consumer.body.clear()
        headers = [(b"content-type", b"text/plain")]
        await consumer.send_response(413, b"The body of the request is too long.", headers=headers)

    async def complete(self, consumer: Any) -> None:
        """End a response that was begun; refuse to end without one, unless there is no client any more.

        Raises:
            RuntimeError: The response was not begun.
        """
        if self.gone or self.closed:
            return
        if self.phase is _Phase.NONE:
            raise RuntimeError(
                f"{self.shared.name}.handle() has ended without a response: await send_response(), or at least "
                "send_headers() before it returns, if a task or a handler is to send the rest"
            )
        if self.phase is _Phase.BEGUN:
            await consumer.send_body(b"")

    def grace_seconds(self, consumer: Any) -> float | None:
        """Return the grace period in seconds, or None if there is no limit."""
        # What is done after the whole response is no concern of the client.
        return None if self.phase is _Phase.COMPLETE else super().grace_seconds(consumer)

    async def report(self, consumer: Any, error: Exception, message: Message) -> None:
        """Call ``on_error``; end the consumer if there is no response."""
        try:
            await super().report(consumer, error, message)
        finally:
            unanswered = self.phase is _Phase.NONE and not (self.gone or self.closed)
            if unanswered:
                # A task that would begin the response now would not get to its end.
                self.closed = True
        if unanswered:
            raise error

    async def finish(self, consumer: Any) -> None:
        """Call ``disconnect``, if the request was begun."""
        if self.has_begun:
            self.has_begun = False
            await consumer.disconnect()


class AsyncHttpConsumer(AsyncConsumer):
    """An HTTP request whose body is read whole, and answered by ``handle``.

    Differs from Channels: a response that ``handle`` leaves unfinished (``more_body=True``) may be finished by a
    handler of the layer's messages, as in a long poll, or by a task that ``handle`` has begun; ``disconnect`` is called
    once, whatever ends the request; and sending to a client that has gone ends ``handle`` quietly, so that a stream
    without end has one. A ``handle`` that returns without having begun a response is an error. A body that is longer
    than ``max_body_bytes`` is answered with 413, and ``handle`` is not called.
    """

    raise_after_close = True
    max_body_bytes: int | None = MAX_BODY_BYTES
    """How long the body of a request may be, or None for any length."""

    _headrace: ClassVar[Shared[_HttpSession]] = Shared(_HttpSession)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of the class."""
        super().__init_subclass__(**kwargs)
        if setting(cls, "rate_limit") is not None:
            raise TypeError(f"{cls.__name__}.rate_limit must be None: an HTTP consumer serves one request")
        longest = setting(cls, "max_body_bytes")
        if longest is not None:
            check_capacity(f"{cls.__name__}.max_body_bytes", longest)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a consumer; arguments are accepted and ignored, as in Channels, but for a scope."""
        super().__init__(args[0] if args and isinstance(args[0], MutableMapping) else None)
        self.body: list[bytes] = []

    async def send_headers(
        self,
        *,
        status: int = 200,
        headers: Iterable[tuple[bytes, bytes]] | Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Begin the response.

        Args:
            status: The status.
            headers: Pairs of bytes, or a mapping.

        Raises:
            ConnectionClosed: The client has gone.
        """
        if headers is None:
            pairs = []
        elif isinstance(headers, Mapping):
            pairs = list(headers.items())
        else:
            pairs = list(headers)
        await self._headrace.send(self, {"type": "http.response.start", "status": status, "headers": pairs})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send a part of the response.

        Args:
            body: The part.
            more_body: Whether more will follow.

        Raises:
            AssertionError: The body is not bytes.
            ConnectionClosed: The client has gone.
        """
        if not isinstance(body, bytes):
            raise AssertionError(f"Body is not bytes: got {body!r}")
        await self._headrace.send(self, {"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """Send the whole response; further arguments are those of ``send_headers``."""
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """Answer the request. To be overridden.

        When it returns, the response must have been begun: what is left of it may be sent by something else.

        Args:
            body: The whole body.
        """
        raise NotImplementedError("Subclasses of AsyncHttpConsumer must provide a handle() method.")

    async def disconnect(self) -> None:
        """Take leave: to be overridden. Called once when the request is over, answered or not."""

    async def http_request(self, message: Message) -> None:
        """Collect the body, and call ``handle`` with the whole of it."""
        session = self._headrace
        session.has_begun = True
        if "body" in message:
            session.body_bytes += len(message["body"])
            self.body.append(message["body"])
        longest = setting(self, "max_body_bytes", MAX_BODY_BYTES)
        if longest is not None and max(session.body_bytes, _announced(self.scope)) > longest:
            await session.refuse_body(self, longest)
            raise StopConsumer
        if message.get("more_body"):
            return
        await self.handle(b"".join(self.body))
        if session.phase is not _Phase.BEGUN:
            raise StopConsumer

    async def base_send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the client's server, as it is, whether it can be sent or not."""
        session = self._headrace
        if session.phase is _Phase.NONE:
            session.phase = _Phase.BEGUN
        await session.asgi_send(message)
        session.follow(message)

    async def http_disconnect(self, message: Message) -> None:
        """End the consumer: the client has gone."""
        raise StopConsumer

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message; end the consumer if the response is whole.

        Raises:
            RuntimeError: The consumer has ended without a response.
        """
        session = self._headrace
        session.handlers_running += 1
        try:
            await super().dispatch(message)
        except ConnectionClosed:
            if not session.closed:
                raise
            raise StopConsumer from None
        except StopConsumer:
            await session.complete(self)
            raise
        finally:
            session.handlers_running -= 1
        if session.phase is _Phase.COMPLETE:
            raise StopConsumer


def _announced(scope: Scope) -> int:
    """Return how long the client says that its body is; 0 if it does not say."""
    for name, value in scope.get("headers") or ():
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
