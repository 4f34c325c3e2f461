"""The handshake of a socket: ``authorize`` decides whether it is accepted."""

import logging

from headrace._drain import is_draining
from headrace._sockets.hook_calls import HookCalls
from headrace._sockets.hooks import Server
from headrace._sockets.outgoing import Outgoing
from headrace._websocket.codes import FORBIDDEN, INTERNAL_ERROR, NOT_LOGGED_IN, SERVICE_UNAVAILABLE, TRY_AGAIN_LATER
from headrace._websocket.handshake import refuse_handshake
from headrace._websocket.phase import Phase
from headrace._websocket.resume import echoed
from headrace.exceptions import LayerUnavailable
from headrace.typing import Message

__all__ = ["answer", "code_of_failure"]

_logger = logging.getLogger("headrace.sockets")

_STATUS = {NOT_LOGGED_IN: 401, INTERNAL_ERROR: 500, TRY_AGAIN_LATER: SERVICE_UNAVAILABLE}
"""The status of HTTP that a handshake is refused with, where it is not 403."""


async def answer(server: Server, calls: HookCalls, outgoing: Outgoing) -> bool:
    """Accept a client that asks for a connection, or refuse it; tell whether it was accepted."""
    hub = outgoing.hub
    outgoing.in_handshake = True
    code = await _refusal(server, calls, outgoing)
    if is_draining():
        code = TRY_AGAIN_LATER
    if hub.phase is not Phase.OPEN:
        return False  # closed meanwhile, which has refused it
    if code is not None:
        hub.phase = Phase.CLOSED
        await refuse_handshake(server.scope, outgoing.asgi_send, code, _STATUS.get(code, 403))
        return False
    await outgoing.asgi_send(_accept(server, outgoing))
    outgoing.in_handshake = False
    return True


async def _refusal(server: Server, calls: HookCalls, outgoing: Outgoing) -> int | None:
    """Return the code to refuse the connection with, or None to accept it."""
    try:
        allowed = await calls.call("authorize")
    except Exception as error:
        calls.note_error("authorize")
        return code_of_failure(error)
    if allowed is True:
        return None
    if allowed is None:
        _logger.warning("%r: authorize() returned nothing, so it is refused; return True to accept", outgoing.hub)
    if not allowed:
        user = server.scope.get("user", outgoing)
        return FORBIDDEN if user is outgoing or getattr(user, "is_authenticated", False) else NOT_LOGGED_IN
    if isinstance(allowed, int) and allowed >= 1000:
        return allowed
    _logger.error("%r: authorize() must return True, False or a code; it is refused for %r", outgoing.hub, allowed)
    return INTERNAL_ERROR


def code_of_failure(error: Exception) -> int:
    """Return the code for a client that a hook has failed for while it came in."""
    return TRY_AGAIN_LATER if isinstance(error, LayerUnavailable) else INTERNAL_ERROR


def _accept(server: Server, outgoing: Outgoing) -> Message:
    scope, subprotocol = server.scope, server.subprotocol
    if subprotocol is None:
        subprotocol = echoed(scope)
    elif subprotocol not in (scope.get("subprotocols") or ()):
        _logger.warning(
            "%r is accepted with subprotocol %r, which its client did not offer; browsers give up then",
            outgoing.hub,
            subprotocol,
        )
    return {"type": "websocket.accept", **({} if subprotocol is None else {"subprotocol": subprotocol})}
