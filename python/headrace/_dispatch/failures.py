"""What the log says of a consumer that failed."""

import logging
from typing import Any

from headrace.exceptions import LayerUnavailable

__all__ = ["log_failure", "place_of"]

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
