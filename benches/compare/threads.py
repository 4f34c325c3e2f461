"""What does a message cost from a plain thread to a task of a loop, in a flood and one by one?

The reference is what asyncio itself offers: `call_soon_threadsafe` for each message, into an asyncio.Queue. Channels'
layer has nothing to compare end to end: `async_to_sync(layer.send)` does not wake the loop that the receiver waits on,
so the message lies there until something else does. What its call costs stands beside ours.

Changed by the answer: senders in other threads write one byte for each batch, not one for each message.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare.rounds import MESSAGE, Variant, alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale
from headrace.layers import InMemoryChannelLayer

OURS, THREADSAFE, CHANNELS = "send_sync", "call_soon_threadsafe each", "async_to_sync(Channels' send)"
CHANNEL = "inbox"
# Long enough for the loop to go to sleep between two messages.
PAUSE = 0.0005
# So many that the hop into the thread does not count.
CALLS = 1000

Send = Callable[[dict[str, Any]], object]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def own_route(capacity: int) -> tuple[Send, Receive]:
    """Return how a thread sends and how a task receives on our layer."""
    layer = InMemoryChannelLayer(capacity=capacity, capacity_bytes=1 << 40)
    return (lambda message: layer.send_sync(CHANNEL, message)), (lambda: layer.receive(CHANNEL))


def threadsafe_route() -> tuple[Send, Receive]:
    """Return the same on an asyncio.Queue."""
    fifo: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    return (lambda message: loop.call_soon_threadsafe(fifo.put_nowait, message)), fifo.get


@asynccontextmanager
async def flood(name: str, send: Send, receive: Receive, messages: int) -> AsyncIterator[Variant]:
    """Have a thread send as fast as it can, from its start to the receipt of the last message."""

    def produce() -> None:
        for _ in range(messages):
            send(MESSAGE)

    async def run() -> None:
        producer = threading.Thread(target=produce)
        producer.start()
        for _ in range(messages):
            await receive()
        producer.join()

    yield Variant(name, run, messages)


@asynccontextmanager
async def calls(name: str, send: Send, after: Callable[[], object], times: int) -> AsyncIterator[Variant]:
    """Have a thread without a loop call `send`; nobody receives meanwhile."""

    def call() -> None:
        for _ in range(times):
            send(MESSAGE)

    async def run() -> None:
        await asyncio.to_thread(call)
        after()

    yield Variant(name, run, times)


async def latencies(send: Send, receive: Receive, messages: int) -> list[float]:
    """Return how long each message was on its way, in nanoseconds, from a thread to a loop that sleeps."""
    result: list[float] = []
    received = threading.Semaphore(0)

    def produce() -> None:
        for _ in range(messages):
            time.sleep(PAUSE)
            send({"type": "chat.message", "at": time.perf_counter_ns()})
            received.acquire()

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(messages):
        message = await receive()
        result.append(time.perf_counter_ns() - message["at"])
        received.release()
    producer.join()
    return result


async def measure_flood(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare floods."""
    few = scale.flood // 10
    rounds = await alternate(
        scale.flood_rounds,
        flood(OURS, *own_route(scale.flood), scale.flood),
        flood(THREADSAFE, *threadsafe_route(), few),
    )
    yield Row(
        f"{scale.flood:,} messages from a thread, each",
        loop,
        rounds.spread(OURS),
        versus=THREADSAFE,
        theirs=rounds.median(THREADSAFE),
        ratio=rounds.ratio(OURS, THREADSAFE),
        limit=2000,
        absolute=True,
        note=f"processor time {rounds.cpu(OURS):,.0f} ns, against {rounds.cpu(THREADSAFE):,.0f}",
    )


async def measure_calls(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare the calls alone."""
    own, channels = InMemoryChannelLayer(capacity=CALLS, capacity_bytes=1 << 40), ChannelsLayer()
    send = async_to_sync(channels.send)
    rounds = await alternate(
        scale.slow_rounds,
        calls(OURS, lambda message: own.send_sync(CHANNEL, message), lambda: own.close_channel(CHANNEL), CALLS),
        calls(CHANNELS, lambda message: send(CHANNEL, message), channels.channels.clear, 20),
    )
    ratio = rounds.ratio(OURS, CHANNELS)
    yield Row(
        "the call alone, nobody receives", loop, rounds.spread(OURS), "ns", CHANNELS, rounds.median(CHANNELS), ratio
    )


async def measure_latency(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare single messages, in turns of a tenth of them."""
    routes = {OURS: own_route(100), THREADSAFE: threadsafe_route()}
    taken: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(11):
        for name, (send, receive) in routes.items():
            times = await latencies(send, receive, scale.latencies // 10)
            taken[name] += times if turn else []
    spread, theirs = Spread.of(taken[OURS]), statistics.median(taken[THREADSAFE])
    slowest = statistics.quantiles(taken[OURS], n=100, method="inclusive")[-1]
    yield Row(
        "one message from a thread to an idle loop",
        loop,
        spread,
        versus=THREADSAFE,
        theirs=theirs,
        ratio=Spread.exactly(spread.median / theirs),
        limit=25_000,
        absolute=True,
        note=f"99 of 100 within {slowest / 1000:,.0f} µs",
    )


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure floods, calls and single messages."""
    for part in (measure_flood, measure_calls, measure_latency):
        async for row in part(loop, scale):
            yield row
