"""How far a connection has come."""

import enum

__all__ = ["Phase"]


class Phase(enum.IntEnum):
    """How far a connection has come; true as soon as it has ended."""

    OPEN = 0
    # Nothing goes to the client any more.
    CLOSED = enum.auto()
    # In the disconnect hook, which may broadcast.
    LEAVING = enum.auto()
    ENDED = enum.auto()
