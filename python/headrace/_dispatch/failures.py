"""What is said of a consumer that failed: to the log, and by its error."""

import logging
from typing import Any

from headrace.exceptions import LayerUnavailable

__all__ = ["explain", "log_failure", "place_of"]

_HOOKS = {
    "websocket_connect": "connect",
    "websocket_receive": "receive",
    "websocket_disconnect": "disconnect",
    "receive": "receive_json",
    "http_request": "handle",
    "leave": "disconnect",
    "be_idle": "on_idle",
    "tell_resumed": "resumed",
}
"""The method of the user's that each method of headrace's calls."""

_NOT_AWAITABLE = ("'await' expression", "can't be awaited")
"""How a TypeError says that what was awaited cannot be: until Python 3.13, and from 3.14."""

_logger = logging.getLogger("headrace.consumer")


def place_of(consumer: Any) -> object:
    """Return where a consumer is: its path, or the type of its scope."""
    return consumer.scope.get("path", consumer.scope.get("type"))


def log_failure(consumer: Any, kind: object, error: Exception) -> None:
    """Log that a consumer failed, in one line.

    Args:
        consumer: The consumer.
        kind: The type of the message that it was handling.
        error: What was raised.
    """
    if isinstance(error, LayerUnavailable):
        # There is nothing to mend in the code that it passed through, so nobody misses a traceback.
        reason = f", because headrace's channel layer is away: {error}"
    else:
        reason = f": {error!r}"
    _logger.error("%s at %s failed on %r%s", type(consumer).__name__, place_of(consumer), kind, reason)


def explain(error: Exception, consumer: object, message: Any) -> Exception:
    """Return a clearer error where a method that has to be a coroutine function is none."""
    if not isinstance(error, TypeError) or not any(words in str(error) for words in _NOT_AWAITABLE):
        return error
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or not traceback.tb_frame.f_globals.get("__name__", "").startswith("headrace."):
        return error
    caller = traceback.tb_frame.f_code.co_name
    culprit = _HOOKS.get(caller) or str(message.get("type")).replace(".", "_")
    explained = TypeError(
        f"{type(consumer).__name__}: {culprit} is not a coroutine function; write 'async def', or use a sync consumer"
    )
    explained.__cause__ = error
    return explained
