"""Fixtures for pytest, in the tests of whoever has headrace installed.

- ``headrace_layer``: a fresh in-process layer, which is the default layer while the test runs. The marker
  ``@pytest.mark.headrace_layer(capacity=2)`` gives it settings.
- ``headrace_clock``: the clock of that layer, which stands still until the test moves it.
- ``headrace_faults``: the fault switch of that layer.
- ``headrace_drain``: ``headrace.drain``; at the end of the test the process takes WebSockets again.
- ``headrace_websocket``: opens connections to an application and closes them at the end of the test.

They work with pytest-asyncio, anyio, and anything else that runs a test that is a coroutine function.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headrace._core import ManualClock
from headrace._drain import drain
from headrace._layers.registry import DEFAULT_CHANNEL_LAYER, channel_layers
from headrace.testing._drains import undo_drain
from headrace.testing._faults import Faults, FaultyLayer
from headrace.testing._types import ConnectWebsocket
from headrace.testing.websocket import WebsocketCommunicator

__all__ = [
    "headrace_clock",
    "headrace_drain",
    "headrace_faults",
    "headrace_layer",
    "headrace_websocket",
    "pytest_configure",
]


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the marker."""
    config.addinivalue_line(
        "markers", "headrace_layer(**settings): what the fixture headrace_layer gives to FaultyLayer(...)"
    )


@pytest.fixture
def headrace_clock() -> ManualClock:
    """Give a clock that stands still until ``advance(seconds)``; it is the clock of ``headrace_layer``."""
    return ManualClock()


@pytest.fixture
def headrace_layer(request: pytest.FixtureRequest, headrace_clock: ManualClock) -> Iterator[FaultyLayer]:
    """Give a fresh in-process layer, which is the layer of the alias "default" while the test runs."""
    marker = request.node.get_closest_marker("headrace_layer")
    layer = FaultyLayer(**{"clock": headrace_clock, **(marker.kwargs if marker else {})})
    replaced = channel_layers.set(DEFAULT_CHANNEL_LAYER, layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop(DEFAULT_CHANNEL_LAYER, None)
    else:
        channel_layers.set(DEFAULT_CHANNEL_LAYER, replaced)


@pytest.fixture
def headrace_faults(headrace_layer: FaultyLayer) -> Faults:
    """Give the fault switch of ``headrace_layer``."""
    return headrace_layer.faults


@pytest.fixture
def headrace_drain() -> Iterator[Callable[..., Awaitable[None]]]:
    """Give ``headrace.drain``; at the end of the test the process takes WebSockets again."""
    with undo_drain():
        yield drain


@pytest.fixture
def headrace_websocket(request: pytest.FixtureRequest, headrace_layer: FaultyLayer) -> ConnectWebsocket:
    """Give a function that opens connections to applications.

    ``ws = await headrace_websocket(app, "/ws/")`` connects, and raises ``ConnectionRejected`` if it is refused.

    At the end of the test all are closed, the last one first, as by ``async with``: what an application raised and
    the test did not see fails the test. Implies ``headrace_layer``.
    """
    connections = AsyncExitStack()
    test = request.node.obj

    async def connect(application: Callable[..., Any], path: str, **arguments: Any) -> WebsocketCommunicator:
        return await connections.enter_async_context(WebsocketCommunicator(application, path, **arguments))

    @functools.wraps(test)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        async with connections:
            return await test(*args, **kwargs)

    if not inspect.iscoroutinefunction(test):
        pytest.fail("headrace_websocket needs a test that is a coroutine function (async def)", pytrace=False)
    # They have to be closed in the loop of the test, and which plugin runs that loop is not known here: the end of the
    # test itself is the one place that is in it.
    request.node.obj = closing
    return connect
