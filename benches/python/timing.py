"""How the benches here time: so many operations in a round, in processor time.

A round is `TIMES` operations, so that starting the loop and counting weigh nothing, and a millisecond in
the table is a microsecond for one operation. What has to be put back between two rounds is not timed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

TIMES = range(1000)
ROUNDS = 60
MESSAGE = {"type": "chat.message", "room": "lobby", "user": "ada", "text": "the quick brown fox"}


class Stopwatch:
    """Times some work, on a loop if it is a coroutine function's."""

    def __init__(self, benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
        self._benchmark = benchmark
        self.loop = loop

    def time(self, work: Callable[[], object], before: Callable[[], None] | None = None) -> None:
        """Time a function; call `before` ahead of each round."""
        pedantic: Callable[..., object] = self._benchmark.pedantic
        pedantic(work, setup=before, rounds=ROUNDS, warmup_rounds=3)

    def time_async(
        self, work: Callable[[], Coroutine[Any, Any, None]], before: Callable[[], None] | None = None
    ) -> None:
        """Time a coroutine function; call `before` ahead of each round."""
        self.time(lambda: self.loop.run_until_complete(work()), before)
