"""Channels' worker on the project's layer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import get_channel_layer
from channels.worker import Worker
from chat.asgi import application


@pytest.fixture
async def worker() -> AsyncIterator[None]:
    """Run a worker in the event loop of the test."""
    task = asyncio.create_task(Worker(application, ["sums"], get_channel_layer()).handle())
    yield
    # The worker leaves its listeners and its applications behind; so cancel whatever still runs.
    left = [task, *(asyncio.all_tasks() - {asyncio.current_task(), task})]
    for other in left:
        other.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.usefixtures("worker")
async def test_a_worker_gets_each_task_once_and_in_order() -> None:
    layer: Any = get_channel_layer()
    reply = await layer.new_channel()
    for number in range(20):
        await layer.send("sums", {"type": "sum.numbers", "numbers": [number, 1], "reply": reply})
    answers = [await layer.receive(reply) for _ in range(20)]
    assert answers == [{"type": "sum.done", "sum": number + 1} for number in range(20)]
