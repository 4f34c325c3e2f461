"""Alternating rounds: the one way in which wall time is compared here.

The machine is shared and its speed drifts, so a time alone means little. Variants therefore run in one process, in
an order shuffled in each round, in slices of about a millisecond; what counts is the ratio of two variants within a
round, and the median of that over all rounds. The first round warms up and is dropped. What was set up is frozen out of
the garbage collector, which otherwise stays on, as in life.
"""

import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from benches.compare.rows import Row, Spread

MESSAGE = {"type": "chat.message", "room": "lobby", "user": "ada", "text": "the quick brown fox"}


@dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        name: What the table calls it.
        run: Does one slice of the work.
        operations: How many operations a slice is.
        after: Brings back what was before the slice; it is not timed.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    operations: int
    after: Callable[[], Awaitable[object]] | None = None


@dataclass
class Times:
    """Nanoseconds for each operation of one variant, one figure for each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def time(self, variant: Variant, *, keep: bool) -> None:
        """Run one slice, and keep its time or not."""
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        await variant.run()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        if keep:
            self.wall.append(wall / variant.operations)
            self.cpu.append(cpu / variant.operations)
        if variant.after is not None:
            await variant.after()


class Rounds:
    """The times of all variants, paired by round."""

    def __init__(self, names: Iterable[str]) -> None:
        self.times = {name: Times() for name in names}

    def median(self, name: str) -> float:
        """Return the median wall time of an operation, in nanoseconds."""
        return statistics.median(self.times[name].wall)

    def cpu(self, name: str) -> float:
        """Return the median time of an operation on all processors of this process, in nanoseconds."""
        return statistics.median(self.times[name].cpu)

    def spread(self, name: str) -> Spread:
        """Return the wall times of an operation over the rounds."""
        return Spread.of(self.times[name].wall)

    def ratio(self, ours: str, theirs: str) -> Spread:
        """Return the ratios of two variants within each round."""
        pairs = zip(self.times[ours].wall, self.times[theirs].wall, strict=True)
        return Spread.of([mine / other for mine, other in pairs])

    def row(self, case: str, loop: str, ours: str, theirs: str, limit: float | None = None, note: str = "") -> Row:
        """Make the row of a variant beside another; the limit is one of their ratio."""
        return Row(
            case,
            loop,
            self.spread(ours),
            versus=theirs,
            theirs=self.median(theirs),
            ratio=self.ratio(ours, theirs),
            limit=limit,
            note=note,
        )


async def alternate(rounds: int, *entered: AbstractAsyncContextManager[Variant], warm_up: bool = True) -> Rounds:
    """Set the variants up, run them in turns, and take them down again. Only the turns are timed.

    Args:
        rounds: How many rounds count.
        entered: The variants, each as a context that holds its set-up.
        warm_up: Run one round before those that count. Only for a slice that takes seconds may it be left out.
    """
    async with AsyncExitStack() as stack:
        variants = [await stack.enter_async_context(variant) for variant in entered]
        result, order = Rounds(variant.name for variant in variants), random.Random(rounds)
        gc.collect()
        gc.freeze()
        try:
            for turn in range(-1 if warm_up else 0, rounds):
                for variant in order.sample(variants, len(variants)):
                    await result.times[variant.name].time(variant, keep=turn >= 0)
        finally:
            gc.unfreeze()
        return result
