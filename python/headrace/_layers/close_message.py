"""The message that ``group_close`` sends: who serves a connection closes it, and others receive it as any other."""

from collections.abc import Mapping
from typing import Any

from headrace._websocket.codes import FORBIDDEN, may_close_with

__all__ = ["CLOSE_TYPE", "MAX_REASON", "check_code", "close_message", "code_and_reason"]

# The native side knows it: no full mailbox refuses it.
CLOSE_TYPE = "headrace.close"

MAX_REASON = 123
"""Bytes that fit in the frame of a close."""


def check_code(code: object) -> None:
    """Refuse a code that a connection cannot be closed with."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"code must be an int, got {code!r}")
    if not may_close_with(code):
        raise ValueError(f"code must be one that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to 4999, got {code}")


def close_message(code: Any, reason: Any) -> dict[str, Any]:
    """Return the message.

    Raises:
        TypeError, ValueError: The code is none that a WebSocket may be closed with, or the reason is no short text.
    """
    check_code(code)
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {reason!r}")
    if (length := len(reason.encode(errors="surrogatepass"))) > MAX_REASON:
        raise ValueError(f"reason must have at most {MAX_REASON} bytes, got {length}")
    return {"type": CLOSE_TYPE, "code": code, "reason": reason}


def code_and_reason(message: Mapping[str, Any]) -> tuple[int, str]:
    """Read the message, which somebody else may have made; what cannot be sent in a close is left out."""
    code, reason = message.get("code"), message.get("reason")
    if not isinstance(code, int) or isinstance(code, bool) or not may_close_with(code):
        code = FORBIDDEN
    fits = isinstance(reason, str) and len(reason.encode(errors="surrogatepass")) <= MAX_REASON
    return code, str(reason) if fits else ""
