"""A consumer for HTTP, with the API of ``channels.generic.http``."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from headrace.consumer import AsyncConsumer
from headrace.dispatch import Life
from headrace.exceptions import ConnectionClosed, StopConsumer
from headrace.typing import Message, Send

__all__ = ["AsyncHttpConsumer"]


class AsyncHttpConsumer(AsyncConsumer):
    """An HTTP request whose body is read whole, and answered by ``handle``.

    Differs from Channels: a response that ``handle`` leaves unfinished (``more_body=True``) may be finished by a
    handler of the layer's messages, as in a long poll; ``disconnect`` is called once, whatever ends the request; and
    sending to a client that has gone ends ``handle`` quietly, so that a stream without end has one.
    """

    raise_after_close = True

    _state = (*AsyncConsumer._state, "_unfinished")

    # The response was begun and not finished.
    _unfinished = False

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
        self._unfinished = True
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
        self._unfinished = more_body
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """Send the whole response; further arguments are those of ``send_headers``."""
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """Answer the request. To be overridden.

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
        try:
            await self.handle(b"".join(self.body))
        except ConnectionClosed:
            raise StopConsumer from None
        if not self._unfinished:
            raise StopConsumer

    async def _begin(self, send: Send) -> Life:
        self.body = []
        return await super()._begin(send)

    async def http_disconnect(self, message: Message) -> None:
        """End the consumer: the client has gone."""
        raise StopConsumer

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message; end the consumer if that finished the response."""
        began_unfinished = self._unfinished
        await super().dispatch(message)
        if began_unfinished and not self._unfinished:
            raise StopConsumer

    async def _send(self, message: Message) -> None:
        # What servers take from a stream whose client has gone, they throw away.
        if self._gone:
            self._closed = True
        await super()._send(message)

    async def _finish(self) -> None:
        if self._has_begun:
            self._has_begun = False
            await self.disconnect()
