"""Channels' unchanged consumers while the server of the layer is away: a WebSocket that cannot be opened is refused.

Channels lets the exception through, and the ASGI server logs a traceback for each client that comes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from headrace._dispatch import log_failure
from headrace._websocket.codes import SERVICE_UNAVAILABLE, TRY_AGAIN_LATER
from headrace._websocket.handshake import refuse_handshake
from headrace.exceptions import LayerUnavailable
from headrace.typing import Message, Receive, Scope, Send

__all__ = ["serve"]

CONNECT = "websocket.connect"


class _Handshake:
    """Looks on until a WebSocket is answered, and is out of the way from then on."""

    def __init__(self, consumer: Any, receive: Receive, send: Send) -> None:
        self._consumer = consumer
        self._receive = receive
        self._send = send
        self._is_answered = False
        self._is_refused = False
        # The type of the client's latest message.
        self._latest = CONNECT

    def receive(self) -> Awaitable[Message]:
        """Wait for the client's next message."""
        # For each frame of a client: nothing more is to be known then.
        return self._receive() if self._is_answered else self._receive_and_note()

    async def _receive_and_note(self) -> Message:
        message = await self._receive()
        self._latest = message["type"]
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the client, unless it was refused."""
        if self._is_refused:
            return
        self._is_answered = True
        # A sync consumer wraps this function, so it cannot be replaced there.
        if self._consumer.base_send == self.send:
            self._consumer.base_send = self._send
        await self._send(message)

    def may_be_refused(self) -> bool:
        """Tell whether the consumer has failed on opening the WebSocket, and has not answered."""
        return self._latest == CONNECT and not self._is_answered

    async def refuse(self, scope: Scope) -> None:
        """Refuse the client: it is to try again later."""
        self._is_refused = True
        await refuse_handshake(scope, self._send, TRY_AGAIN_LATER, SERVICE_UNAVAILABLE)


async def serve(
    serve_as_channels: Callable[..., Awaitable[None]], consumer: Any, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve one connection.

    Args:
        serve_as_channels: Channels' own ``AsyncConsumer.__call__``.
        consumer: The consumer.
        scope: The scope of the connection.
        receive: Returns the client's next message, when awaited.
        send: Sends one to it.
    """
    # Where there is no server, as in a test, the exception is all there is to see.
    if scope.get("type") != "websocket" or "asgi" not in scope:
        await serve_as_channels(consumer, scope, receive, send)
        return
    handshake = _Handshake(consumer, receive, send)
    try:
        await serve_as_channels(consumer, scope, handshake.receive, handshake.send)
    except LayerUnavailable as error:
        if not handshake.may_be_refused():
            raise
        log_failure(consumer, CONNECT, error)
        await handshake.refuse(scope)
