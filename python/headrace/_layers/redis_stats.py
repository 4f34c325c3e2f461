"""A reading of a layer over Redis, as one record."""

from dataclasses import dataclass, field, fields

from headrace._core import LayerStats, LinkStats

__all__ = ["RedisStats", "redis_stats"]


@dataclass(frozen=True)
class RedisStats:
    """A reading of a layer, in messages; the counters of this process, whoever sent or receives.

    ``sent == delivered + depth + dropped_expired + dropped_replaced + dropped_other`` in the fleet: a message that
    goes through a queue is counted as sent where it was put in and as delivered where it was taken out.

    Attributes:
        bytes: Those of the messages in mailboxes of this process, in msgpack; one that waits in several counts in each.
        full_by_bytes: How often a mailbox was full by its bytes, while another message would have fit.
        history_messages: Messages of groups with ``history`` that this process holds for those who come again.
        history_bytes: What those count against ``history_bytes``: their bytes and 64 each, and 256 for each group.
        history_evicted: Groups that this process holds nothing of any more because all together were over
            ``history_bytes``.
        connection: The way to the servers: its state, reconnects, gaps, bytes, latency and lag, and what was lost
            there.
    """

    channels: int
    groups: int
    memberships: int
    waiters: int
    depth: int
    bytes: int
    sent: int
    delivered: int
    returned: int
    dropped_full: int
    dropped_expired: int
    dropped_replaced: int
    full_by_bytes: int
    dropped_other: int
    history_messages: int
    history_bytes: int
    history_evicted: int
    connection: LinkStats = field(compare=False)


_COUNTED = [each.name for each in fields(RedisStats) if each.compare]


def redis_stats(layer: LayerStats, connection: LinkStats) -> RedisStats:
    """Return a reading of a layer together with that of its connections."""
    return RedisStats(**{name: getattr(layer, name) for name in _COUNTED}, connection=connection)
