"""What does a send cost that finds nobody waiting, and what a send with its receive?

The reference is an asyncio.Queue, which knows no names, copies nothing and forgets nothing.

Changed by the answer: the methods of the native layer are bound once, when the layer is made.
"""

import asyncio

import pytest

from benches.python.timing import MESSAGE, TIMES, Stopwatch
from headrace.layers import InMemoryChannelLayer

CHANNEL = "specific.inmemory!0123456789abcdef01234567"


@pytest.mark.benchmark(group="send to a mailbox")
def bench_send(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer(capacity=len(TIMES), capacity_bytes=1 << 40)

    async def work() -> None:
        for _ in TIMES:
            await layer.send(CHANNEL, MESSAGE)

    stopwatch.time_async(work, lambda: layer.close_channel(CHANNEL))


@pytest.mark.benchmark(group="send to a mailbox")
def bench_send_many(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer(capacity=len(TIMES), capacity_bytes=1 << 40)
    pairs = [(CHANNEL, MESSAGE) for _ in TIMES]

    async def work() -> None:
        await layer.send_many(pairs)

    stopwatch.time_async(work, lambda: layer.close_channel(CHANNEL))


@pytest.mark.benchmark(group="send and receive")
def bench_send_and_receive(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        for _ in TIMES:
            await layer.send(CHANNEL, MESSAGE)
            await layer.receive(CHANNEL)

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="send and receive")
def bench_send_and_receive_in_a_subscription(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        async with layer.subscription() as inbox:
            for _ in TIMES:
                await layer.send(inbox.channel, MESSAGE)
                await anext(inbox)

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="send and receive")
def bench_asyncio_queue(stopwatch: Stopwatch) -> None:
    queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def work() -> None:
        for _ in TIMES:
            await queue.put(MESSAGE)
            await queue.get()

    stopwatch.time_async(work)
