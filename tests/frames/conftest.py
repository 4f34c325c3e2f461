"""The loops of these tests, a server for them, and a layer of its own for each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager

import pytest
import uvloop
from tests.frames.serving import Served, serving
from tests.support.loops import USUAL, NewLoop, loops_of

from headrace._layers.registry import channel_layers
from headrace.layers import InMemoryChannelLayer


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, NewLoop]:
    """Run the tests on uvloop too: its transports are others."""
    return loops_of(item, {**USUAL, "uvloop": uvloop.new_event_loop})


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve() -> Serve:
    """Serve an application while a context lasts; the arguments are those of ``uvicorn.Config``."""
    return serving


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    """Give a fresh layer, which is the default one."""
    layer = InMemoryChannelLayer()
    replaced = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)
