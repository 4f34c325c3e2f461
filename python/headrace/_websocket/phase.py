"""How far a connection has come."""

import enum

__all__ = ["Phase"]


class Phase(enum.Enum):
    """How far a connection has come."""

    OPEN = enum.auto()
    # Nothing goes to the client any more.
    CLOSED = enum.auto()
    # In the disconnect hook, which may broadcast.
    LEAVING = enum.auto()
    ENDED = enum.auto()
