"""Event loops of every kind, and the two ways to wake their tasks."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Literal

import pytest
from tests.support.loops import ALL, NewLoop

from headrace.layers import InMemoryChannelLayer


def pytest_asyncio_loop_factories() -> Mapping[str, NewLoop]:
    """Run every asynchronous test here on each kind of event loop."""
    return ALL


@pytest.fixture(params=ALL)
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Give the maker of each kind of event loop, for tests that run loops themselves."""
    return ALL[request.param]


@pytest.fixture(params=["direct", "future"])
def wake(request: pytest.FixtureRequest) -> Literal["direct", "future"]:
    """Give each way to wake a task."""
    wake: Literal["direct", "future"] = request.param
    return wake


@pytest.fixture
def layer(wake: Literal["direct", "future"]) -> InMemoryChannelLayer:
    """Give a layer that has room for all that a test sends."""
    return InMemoryChannelLayer(capacity=1_000_000, capacity_bytes=1 << 30, wake=wake)


class LoopThread:
    """An event loop that runs in a thread of its own until ``end``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Make a task of the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Make a task of the loop, and wait here until it is done."""
        return self.start(coroutine).result(timeout=30)

    def stop(self) -> None:
        """Stop the loop and its thread, and leave the tasks as they are."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def end(self) -> None:
        """Cancel all tasks, stop the loop and close it; nothing happens the second time."""
        if self.loop.is_closed():
            return
        self.run(_cancel_the_others())
        self.stop()
        self.loop.close()


async def _cancel_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


@pytest.fixture
def loop_thread(new_loop: NewLoop) -> Iterator[Callable[[], LoopThread]]:
    """Make event loops of one kind, each in a thread of its own, which end with the test."""
    started: list[LoopThread] = []

    def start() -> LoopThread:
        started.append(LoopThread(new_loop()))
        return started[-1]

    yield start
    for thread in started:
        thread.end()


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which asyncio logged an error, such as an exception that nobody looked at."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
