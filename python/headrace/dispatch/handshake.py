"""Refuses the handshake of a WebSocket: with a status of HTTP where the server can answer it, else with a close.

A close before ``accept`` is a 403 of the server's own, whatever its code.
"""

from headrace.typing import Scope, Send

__all__ = ["AWAY", "UNAVAILABLE", "refuse_handshake"]

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
