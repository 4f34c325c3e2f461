"""Channels' unchanged consumers while the server of the layer is away: a WebSocket that cannot be opened is refused.

Channels lets the exception through, and the ASGI server logs a traceback for each client that comes.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from headrace.dispatch import AWAY, UNAVAILABLE, log_away, refuse_handshake
from headrace.exceptions import LayerUnavailable
from headrace.typing import Message, Receive, Scope, Send

__all__ = ["serve"]


class _Answer:
    """Notes that a WebSocket has been answered, and is out of the way from then on."""

    def __init__(self, consumer: Any, send: Send) -> None:
        self.is_given = False
        self._consumer = consumer
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        self.is_given = True
        # That of a sync consumer is made of this one, and stays.
        if self._consumer.base_send == self.send:
            self._consumer.base_send = self._send
        await self._send(message)


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
    answer = _Answer(consumer, send)
    try:
        await serve_as_channels(consumer, scope, receive, answer.send)
    except LayerUnavailable as error:
        if answer.is_given:
            raise
        log_away(consumer, "websocket.connect", error)
        await refuse_handshake(scope, send, AWAY, UNAVAILABLE)
