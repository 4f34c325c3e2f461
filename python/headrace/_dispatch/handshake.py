"""Refuses the handshake of a WebSocket: with a status of HTTP where the server can answer it, else with a close.

A close before ``accept`` is a 403 of the server's own, whatever its code.
"""

import logging
from typing import Any

from headrace.exceptions import LayerUnavailable
from headrace.typing import Scope, Send

__all__ = ["AWAY", "UNAVAILABLE", "log_away", "refuse_handshake"]

_logger = logging.getLogger("headrace.consumer")

AWAY = 1013
"""The code of a close for a client that is to try again later."""
UNAVAILABLE = 503
"""The same, as a status of HTTP."""


async def refuse_handshake(scope: Scope, send: Send, code: int, status: int) -> None:
    """Refuse a connection that was not accepted.

    Args:
        scope: The connection's.
        send: The server's.
        code: The code of the close. The client does not see it.
        status: The status, where the server has the extension ``websocket.http.response``.
    """
    if "websocket.http.response" not in (scope.get("extensions") or ()):
        await send({"type": "websocket.close", "code": code})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"0")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})


def log_away(consumer: Any, kind: object, error: LayerUnavailable) -> None:
    """Log that a consumer failed because the server of the layer is away: one line, as a traceback would say no more.

    Args:
        consumer: The consumer.
        kind: The type of the message that it was handling.
        error: What the layer raised.
    """
    place = consumer.scope.get("path", consumer.scope.get("type"))
    _logger.error(
        "%s at %s failed on %r, because headrace's channel layer is away: %s",
        type(consumer).__name__,
        place,
        kind,
        error,
    )
