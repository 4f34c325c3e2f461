"""Refuses the handshake of a WebSocket: with a status of HTTP where the server can answer it, else with a close.

A close before ``accept`` is a 403 of the server's own, whatever its code.
"""

from headrace.typing import Scope, Send

__all__ = ["can_be_answered", "refuse_handshake", "respond"]


def can_be_answered(scope: Scope) -> bool:
    """Tell whether a handshake can be answered with a status: the server has ``websocket.http.response``."""
    return "websocket.http.response" in (scope.get("extensions") or ())


async def refuse_handshake(scope: Scope, send: Send, code: int, status: int) -> None:
    """Refuse a connection that was not accepted.

    Args:
        scope: The connection's.
        send: The server's.
        code: The code of the close. The client does not see it.
        status: The status, where the server can answer.
    """
    if can_be_answered(scope):
        await respond(send, "websocket.http.response", status)
    else:
        await send({"type": "websocket.close", "code": code})


async def respond(send: Send, kind: str, status: int, body: bytes = b"", content_type: bytes = b"text/plain") -> None:
    """Send a whole response, of HTTP or to a handshake.

    Args:
        send: The server's.
        kind: What its messages are of: ``http.response`` or ``websocket.http.response``.
        status: The status.
        body: The body.
        content_type: The type of the body.
    """
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
