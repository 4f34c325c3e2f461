"""The fixture of all benches here."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from benches.python.timing import Stopwatch

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture
def stopwatch(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Iterator[Stopwatch]:
    """Give what times, with a loop of asyncio, or of the kind that the bench asks for."""
    with asyncio.Runner(loop_factory=LOOPS[getattr(request, "param", "asyncio")]) as runner:
        yield Stopwatch(benchmark, runner.get_loop())
