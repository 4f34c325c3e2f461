"""What each worker of the demo counts, where all of them see it: shared memory, a row for each worker.

A row is written by its worker alone, so a reader may see it while it is being written: some numbers older than others.
"""

from __future__ import annotations

import array
import time
from collections.abc import MutableSequence
from typing import TypedDict

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer

__all__ = ["COUNTERS", "Board", "Row"]

COUNTERS = (
    "channels",
    "groups",
    "memberships",
    "waiters",
    "depth",
    "sent",
    "delivered",
    "returned",
    "dropped_full",
    "dropped_expired",
    "dropped_other",
)
_WIDTH = 1 + len(COUNTERS)


class Row(TypedDict):
    """What a worker counted, and when that was, by `time.monotonic`, which the processes of a machine share."""

    time: float
    counters: dict[str, int]


class Board:
    """The counters of all workers, of which this process is one.

    Args:
        layer: The layer of this process.
        worker: The number of this worker, from 1.
        cells: What `cells` made for all of them, or None where there is one worker.
    """

    def __init__(
        self,
        layer: InMemoryChannelLayer | RedisChannelLayer,
        worker: int = 1,
        cells: MutableSequence[float] | None = None,
    ) -> None:
        self._layer = layer
        self.worker = worker
        self._cells = array.array("d", bytes(8 * self.size(1))) if cells is None else cells

    @staticmethod
    def size(workers: int) -> int:
        """Return how many numbers the shared memory of so many workers has to hold."""
        return workers * _WIDTH

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._cells) // _WIDTH

    def post(self) -> None:
        """Write what this worker counts now."""
        stats = self._layer.stats()
        values = [time.monotonic(), *(getattr(stats, name) for name in COUNTERS)]
        for place, value in enumerate(values, (self.worker - 1) * _WIDTH):
            self._cells[place] = value

    def rows(self) -> list[Row]:
        """Return what each worker wrote last, in their order."""
        rows: list[Row] = []
        for start in range(0, len(self._cells), _WIDTH):
            at, *values = self._cells[start : start + _WIDTH]
            rows.append({"time": at, "counters": dict(zip(COUNTERS, map(int, values), strict=True))})
        return rows
