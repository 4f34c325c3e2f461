"""The codes that a WebSocket is closed with (RFC 6455, 7.4, and the registry of IANA, whose names these are)."""

__all__ = [
    "ABNORMAL_CLOSURE",
    "FORBIDDEN",
    "INTERNAL_ERROR",
    "NOT_LOGGED_IN",
    "NO_ROUTE",
    "NO_STATUS",
    "POLICY_VIOLATION",
    "SERVICE_RESTART",
    "SERVICE_UNAVAILABLE",
    "TRY_AGAIN_LATER",
    "UNSUPPORTED_DATA",
    "may_close_with",
]

UNSUPPORTED_DATA = 1003
NO_STATUS, ABNORMAL_CLOSURE = 1005, 1006
"""What is reported of a close without a code, and of a connection that was lost; neither can be sent."""
POLICY_VIOLATION = 1008
"""Sent to a client that sends more than its ``rate_limit``."""
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
"""Sent when the process is drained: the client may come back at once, to another."""
TRY_AGAIN_LATER = 1013
"""Sent to a client that does not read fast enough, and to one that came while the layer has no server."""

NOT_LOGGED_IN, FORBIDDEN, NO_ROUTE = 4401, 4403, 4404
"""Headrace's own, after the statuses of HTTP."""

SERVICE_UNAVAILABLE = 503
"""The status of HTTP in the place of ``TRY_AGAIN_LATER``, where a handshake is answered."""


def may_close_with(code: int) -> bool:
    """Tell whether a code may be sent in a close. Servers fail on any other, some without an error."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014
