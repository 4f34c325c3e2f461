"""What does a send and a receive cost when nobody has to wait, and does it matter how many other channels there are?

Changed by the answer: no operation of the engine walks the channels; a receive that finds a message makes no waiter.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare.rounds import MESSAGE, Variant, alternate
from benches.compare.rows import Row
from benches.compare.scale import Scale
from headrace.layers import InMemoryChannelLayer

ALONE, CROWDED, CHANNELS, QUEUE = "headrace", "headrace, crowded", "Channels", "asyncio.Queue"
CROWD = 10_000
# Long enough that the other channels stay alive through all rounds.
EXPIRY = 3600


@asynccontextmanager
async def ready(
    name: str, layer: InMemoryChannelLayer | ChannelsLayer, others: int, operations: int
) -> AsyncIterator[Variant]:
    """Send to a channel and receive from it, among others that hold a message each."""
    channel = await layer.new_channel()
    for number in range(others):
        await layer.send(f"specific.other!{number}", MESSAGE)

    async def run() -> None:
        for _ in range(operations):
            await layer.send(channel, MESSAGE)
            await layer.receive(channel)

    yield Variant(name, run, operations)


@asynccontextmanager
async def queue(operations: int) -> AsyncIterator[Variant]:
    """Put the message on an asyncio.Queue and get it: no names, no copy, no expiry."""
    fifo: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def run() -> None:
        for _ in range(operations):
            fifo.put_nowait(MESSAGE)
            await fifo.get()

    yield Variant(QUEUE, run, operations)


def ours() -> InMemoryChannelLayer:
    """Make a layer of ours."""
    return InMemoryChannelLayer(expiry=EXPIRY)


def theirs() -> ChannelsLayer:
    """Make a layer of Channels."""
    return ChannelsLayer(expiry=EXPIRY)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare with Channels and with asyncio.Queue, alone and among 10,000 other channels."""
    alone = await alternate(
        scale.rounds,
        ready(ALONE, ours(), 0, 1000),
        ready(CROWDED, ours(), CROWD, 1000),
        ready(CHANNELS, theirs(), 0, 70),
        queue(1000),
    )
    case = "ready send + receive"
    for versus, limit in ((CHANNELS, 1 / 15), (QUEUE, None)):
        yield Row(
            case, loop, alone.spread(ALONE), "ns", versus, alone.median(versus), alone.ratio(ALONE, versus), limit
        )
    case = f"the same among {CROWD:,} live channels"
    ratio = alone.ratio(CROWDED, ALONE)
    yield Row(case, loop, alone.spread(CROWDED), "ns", "headrace without them", alone.median(ALONE), ratio, 1.2)
    crowded = await alternate(
        scale.slow_rounds, ready(CROWDED, ours(), CROWD, 1000), ready(CHANNELS, theirs(), CROWD, 1)
    )
    ratio = crowded.ratio(CROWDED, CHANNELS)
    yield Row(case, loop, crowded.spread(CROWDED), "ns", CHANNELS, crowded.median(CHANNELS), ratio)
