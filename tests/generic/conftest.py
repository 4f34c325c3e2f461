"""A layer of its own for each test, and a consumer that is asked to send without a server."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace._layers.registry import channel_layers
from headrace.layers import InMemoryChannelLayer


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    """Give a fresh layer, which is the default one; nothing may be left in it."""
    layer = InMemoryChannelLayer()
    replaced = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)
    stats = layer.stats()
    assert (stats.channels, stats.memberships, stats.waiters, stats.depth) == (0, 0, 0, 0)


@pytest.fixture
def unconnected() -> Callable[[type[Any]], tuple[Any, list[Any]]]:
    """Give ``unconnected(consumer_class)``: a consumer and the list of what it sends."""

    def make(consumer_class: type[Any]) -> tuple[Any, list[Any]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        consumer = consumer_class()
        consumer.scope = {"type": "websocket"}
        consumer.base_send = sent.append if consumer._sync else send
        return consumer, sent

    return make
