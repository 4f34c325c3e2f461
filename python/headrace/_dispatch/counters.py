"""What became of the consumers of a class: counted here, because no layer can know it."""

import threading
from dataclasses import dataclass, replace

__all__ = ["ConsumerStats", "Counters"]


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A reading of one class of consumers, since the process began.

    Attributes:
        opened: Consumers that were started.
        open: Those of them that have not ended.
        errors: Exceptions that reached ``on_error``.
        dropped_after_close: Messages to the client that were not sent, because the connection had ended.
        dropped_unhandled: Messages that were received and not handled, because the consumer had closed or its client
            had gone.
        closed_overrun: Consumers that were closed because they did not keep up (``overflow = "close"``).
        dropped_over_rate: Messages of clients that were over the ``rate_limit``.
        closed_over_rate: Consumers that were closed for them (``rate_limit_overflow = "close"``).
        refused_bodies: Requests whose body was longer than ``max_body_bytes``.
        closed_expired: Consumers that were closed because their ``expires_at`` had come.
        closed_drained: Consumers that were closed because their process was drained.
        closed_by_group: Consumers that were closed by ``group_close``.
        cut_off: Consumers that were closed because ``on_expire`` or ``on_drain`` had not ended in time, or because they
            had not come to what ``group_close`` has told them.
    """

    opened: int = 0
    open: int = 0
    errors: int = 0
    dropped_after_close: int = 0
    dropped_unhandled: int = 0
    closed_overrun: int = 0
    dropped_over_rate: int = 0
    closed_over_rate: int = 0
    refused_bodies: int = 0
    closed_expired: int = 0
    closed_drained: int = 0
    closed_by_group: int = 0
    cut_off: int = 0


class Counters:
    """The counters of one class, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stats = ConsumerStats()

    def add(self, **changes: int) -> None:
        """Add to counters, by name."""
        with self._lock:
            old = self._stats
            self._stats = replace(old, **{name: getattr(old, name) + change for name, change in changes.items()})

    def read(self) -> ConsumerStats:
        """Return the counters as they are."""
        return self._stats
