"""How much of a client is read while a handler is at work: enough to see that it has gone, and no more."""

import sys
from collections.abc import Collection

__all__ = ["READ_AHEAD", "READ_AHEAD_BYTES", "is_full", "size_of"]

READ_AHEAD = 8
"""Messages that are read ahead, at most."""

READ_AHEAD_BYTES = 1024 * 1024
"""The default of ``read_ahead_bytes``: how much of a client may wait before no more of it is asked for."""


def is_full(waiting: Collection[object], most_bytes: int) -> bool:
    """Tell whether no more is to be read ahead of what waits."""
    return len(waiting) >= READ_AHEAD or sum(map(size_of, waiting)) >= most_bytes


def size_of(message: object) -> int:
    """Return the memory that the content of a message to or from a client takes: its text, bytes or body."""
    if not isinstance(message, dict):
        return 0
    content = message.get("text")
    if content is None:
        content = message.get("bytes") or message.get("body")
    return 0 if content is None else sys.getsizeof(content)
