"""What became of the messages of one broadcaster or socket server."""

from dataclasses import dataclass

__all__ = ["BroadcasterStats", "SocketStats"]


@dataclass(frozen=True)
class BroadcasterStats:
    """A reading of one broadcaster, in messages since it was made.

    Attributes:
        topics: Topics that it is subscribed to.
        broadcasts: Messages handed to the layer; one that goes to several topics counts for each.
        pending: Calls that nobody waited for and that are still on their way.
        failed: Calls that nobody waited for and that failed.
        depth: Messages of its topics that wait to be taken.
        bytes: The bytes of those messages.
        delivered: Messages of its topics that were taken.
        dropped_full: Messages of its topics that did not fit in its mailbox.
        dropped_expired: Messages of its topics that waited too long.
        dropped_replaced: Messages of its topics that gave way to newer ones.
        full_by_bytes: How often its mailbox was full by its bytes, while another message would have fit.
        dropped_unsubscribed: Messages that were still here of a topic that was left, and those of nobody's topic.
    """

    topics: int = 0
    broadcasts: int = 0
    pending: int = 0
    failed: int = 0
    depth: int = 0
    bytes: int = 0
    delivered: int = 0
    dropped_full: int = 0
    dropped_expired: int = 0
    dropped_replaced: int = 0
    full_by_bytes: int = 0
    dropped_unsubscribed: int = 0


@dataclass(frozen=True)
class SocketStats(BroadcasterStats):
    """A reading of one socket.

    Attributes:
        received: Frames of the client.
        sent: Frames to the client.
        bad_messages: Frames that could not be decoded.
        errors: Hooks that raised, and messages that could not be encoded.
        unhandled: Frames that came to a server without a ``receive``, or were read before an end that came first.
        dropped_over_rate: Frames of the client that were over the ``rate_limit``.
        closed_over_rate: 1 if it was closed for them (``rate_limit_overflow = "close"``).
        dropped_after_close: Frames that were not sent, because the connection had ended.
        dropped_stalled: Frames from threads that were not sent, because the client did not read.
        dropped_backlog: Frames of plain calls of ``send`` in an event loop that were refused, because too much waited.
        pending_bytes: Bytes of the frames of such calls that wait, and a kibibyte for each call.
    """

    received: int = 0
    sent: int = 0
    bad_messages: int = 0
    errors: int = 0
    unhandled: int = 0
    dropped_over_rate: int = 0
    closed_over_rate: int = 0
    dropped_after_close: int = 0
    dropped_stalled: int = 0
    dropped_backlog: int = 0
    pending_bytes: int = 0
