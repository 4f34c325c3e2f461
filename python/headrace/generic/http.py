"""A consumer for HTTP, with the API of ``channels.generic.http``."""

import enum
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from headrace.consumer import AsyncConsumer
from headrace.dispatch import Life
from headrace.exceptions import ConnectionClosed, StopConsumer
from headrace.typing import Message, Send

__all__ = ["AsyncHttpConsumer"]

_LAST = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
"""The messages that end a response, unless they have ``more_body``."""


class _Phase(enum.Enum):
    """How far a response has come."""

    NONE = enum.auto()
    BEGUN = enum.auto()
    COMPLETE = enum.auto()


class AsyncHttpConsumer(AsyncConsumer):
    """An HTTP request whose body is read whole, and answered by ``handle``.

    Differs from Channels: a response that ``handle`` leaves unfinished (``more_body=True``) may be finished by a
    handler of the layer's messages, as in a long poll, or by a task that ``handle`` has begun; ``disconnect`` is called
    once, whatever ends the request; and sending to a client that has gone ends ``handle`` quietly, so that a stream
    without end has one. A ``handle`` that returns without having begun a response is an error.
    """

    raise_after_close = True

    _state = (*AsyncConsumer._state, "_response_phase", "_handlers_running")

    _response_phase = _Phase.NONE
    # Handlers that run.
    _handlers_running = 0

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
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

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
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})

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
        self._has_begun = True
        if "body" in message:
            self.body.append(message["body"])
        if message.get("more_body"):
            return
        await self.handle(b"".join(self.body))
        if self._response_phase is not _Phase.BEGUN:
            raise StopConsumer

    async def _begin(self, send: Send) -> Life:
        self.body = []
        life = await super()._begin(send)
        # Behind it the response could not be followed.
        del self.base_send
        return life

    async def base_send(self, message: Message) -> None:
        """Send a message to the client's server, as it is, whether it can be sent or not."""
        if self._response_phase is _Phase.NONE:
            self._response_phase = _Phase.BEGUN
        await self._asgi_send(message)
        if message["type"] in _LAST and not message.get("more_body"):
            self._response_phase = _Phase.COMPLETE
            if not self._handlers_running and self._intake is not None:
                # Something else than a handler has finished it.
                self._intake.stop()

    async def http_disconnect(self, message: Message) -> None:
        """End the consumer: the client has gone."""
        raise StopConsumer

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message; end the consumer if the response is whole.

        Raises:
            RuntimeError: The consumer has ended without a response.
        """
        self._handlers_running += 1
        try:
            await super().dispatch(message)
        except ConnectionClosed:
            if not self._closed:
                raise
            raise StopConsumer from None
        except StopConsumer:
            await self._complete_response()
            raise
        finally:
            self._handlers_running -= 1
        if self._response_phase is _Phase.COMPLETE:
            raise StopConsumer

    async def _complete_response(self) -> None:
        """End a response that was begun; refuse to end without one, unless there is no client any more."""
        if self._gone or self._closed:
            return
        if self._response_phase is _Phase.NONE:
            name = type(self).__name__
            raise RuntimeError(
                f"{name}.handle() has ended without a response: await send_response(), or at least send_headers() "
                "before it returns, if a task or a handler is to send the rest"
            )
        if self._response_phase is _Phase.BEGUN:
            await self.send_body(b"")

    async def _send(self, message: Message) -> None:
        # What servers take from a stream whose client has gone, they throw away.
        if self._gone:
            self._closed = True
        await super()._send(message)

    def _grace_seconds(self) -> float | None:
        # What is done after the whole response is no concern of the client.
        return None if self._response_phase is _Phase.COMPLETE else super()._grace_seconds()

    async def _report(self, error: Exception, message: Message) -> None:
        try:
            await super()._report(error, message)
        finally:
            unanswered = self._response_phase is _Phase.NONE and not (self._gone or self._closed)
            if unanswered:
                # A task that would begin the response now would not get to its end.
                self._closed = True
        if unanswered:
            raise error

    async def _finish(self) -> None:
        if self._has_begun:
            self._has_begun = False
            await self.disconnect()
