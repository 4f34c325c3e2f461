"""What does a message cost on its way to a consumer's handler: from a group, and from a client whom it answers?

A delivery is over when the handler was called; the consumer then waits for its client and for its layer again. Three
comparisons: with Channels' consumers on Channels' layer; with our bare layer, whose tasks are in a loop around
`receive` and have no client; and, for those who keep Channels' consumers, these on our layer.

Changed by the answer: the task that runs the handlers waits at the native inbox itself, and the client's messages call
it away from there. A task for each message is what Channels' consumers cost on our layer, ten times as much.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsConsumer
from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare import fanout, stubs
from benches.compare.fanout import GROUP, Arrivals, repeated, waiting
from benches.compare.rounds import MESSAGE, Rounds, Variant, alternate
from benches.compare.rows import Row
from benches.compare.scale import Scale
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer

OURS, CHANNELS, BARE = "headrace", "Channels", "headrace, bare receive"
UNCHANGED, WITH_APP = "Channels' consumers", "Channels' consumers, headrace.django"
PLAIN = "plain ASGI application"
# What the plot knows these rows by.
PREFIX = "consumers: "
FRAME = {"type": "websocket.receive", "text": "the quick brown fox"}
# So many deliveries of the slower ways as take some milliseconds. Beside them ours takes longer slices than else: after
# so long in other code the caches have forgotten ours, and it is not the first delivery that is asked for.
FEW, MANY = 100, 10_000

App = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def members(
    name: str, base: Any, layer: stubs.AnyLayer, number: int, deliveries: int = fanout.DELIVERIES
) -> AsyncIterator[Variant]:
    """Have connected consumers in a group, on a layer."""
    arrivals = Arrivals()
    arrivals.expect(number)

    def arrive() -> None:
        arrivals.missing -= 1
        if not arrivals.missing:
            arrivals.complete.set_result(None)

    consumer = stubs.member(base, GROUP, arrive)
    with stubs.default_layer(layer):
        async with waiting(consumer()(stubs.scope(), greeted().get, stubs.sink) for _ in range(number)):
            await arrivals.complete
            yield repeated(name, number, arrivals, lambda: layer.group_send(GROUP, MESSAGE), deliveries)


def greeted() -> asyncio.Queue[Any]:
    """Make the queue of a connection whose client has only just come."""
    inbound: asyncio.Queue[Any] = asyncio.Queue()
    inbound.put_nowait(stubs.CONNECT)
    return inbound


def ours(number: int, deliveries: int = fanout.DELIVERIES) -> AbstractAsyncContextManager[Variant]:
    """Have our consumers on our layer."""
    return members(OURS, AsyncWebsocketConsumer, InMemoryChannelLayer(), number, deliveries)


def theirs(name: str, layer: stubs.AnyLayer, number: int) -> AbstractAsyncContextManager[Variant]:
    """Have Channels' consumers on either layer."""
    return members(name, ChannelsConsumer, layer, number, FEW)


@asynccontextmanager
async def theirs_with_app(number: int) -> AsyncIterator[Variant]:
    """Have Channels' consumers on our layer in a project that has our app."""
    async with AsyncExitStack() as stack:
        # How its sources are awaited a consumer decides when it connects, and about the database before each message.
        with stubs.app():
            variant = await stack.enter_async_context(theirs(WITH_APP, InMemoryChannelLayer(), number))
        yield stubs.with_app(variant)


@asynccontextmanager
async def echoes(name: str, app: App, layer: stubs.AnyLayer, exchanges: int) -> AsyncIterator[Variant]:
    """Have one connection whose client sends a frame, waits until it comes back, and sends the next."""
    inbound, outbound = greeted(), asyncio.Queue[Any]()
    with stubs.default_layer(layer):
        async with waiting([app(stubs.scope(), inbound.get, outbound.put)]):  # type: ignore[list-item]  # a coroutine
            await outbound.get()

            async def run() -> None:
                for _ in range(exchanges):
                    inbound.put_nowait(FRAME)
                    await outbound.get()

            yield Variant(name, run, exchanges)


async def plain_echo(_scope: Any, receive: Any, send: Any) -> None:
    """Echo without a consumer: the least that an ASGI application can do."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})


def row(
    loop: str, rounds: Rounds, case: str, *, variant: str, versus: str, members: int, limit: float | None = None
) -> Row:
    """Make the row of one way against another, for one size of group."""
    return replace(rounds.row(case, loop, variant, versus, limit), variant=PREFIX + variant, members=members)


async def measure_group(loop: str, scale: Scale, number: int) -> AsyncIterator[Row]:
    """Compare a fan-out to consumers with our bare layer's and with Channels'."""
    case = f"group_send to {number:,} consumers"
    rounds = await alternate(scale.rounds, ours(number), fanout.ours(number, BARE))
    limit = 1.7 if number >= 100 else None
    yield row(loop, rounds, case, variant=OURS, versus=BARE, members=number, limit=limit)
    rounds = await alternate(
        scale.rounds if number <= 100 else scale.slow_rounds,
        ours(number, min(MANY, 10 * number)),
        theirs(CHANNELS, ChannelsLayer(), number),
        theirs(UNCHANGED, InMemoryChannelLayer(), number),
        theirs_with_app(number),
    )
    limits = {100: (1 / 50, 1 / 8), 1000: (1 / 120, 1 / 15)}.get(number, (None, None))
    yield row(loop, rounds, case, variant=OURS, versus=CHANNELS, members=number, limit=limits[0])
    for way, limit in ((WITH_APP, limits[1]), (UNCHANGED, None)):
        yield row(loop, rounds, f"the same, {way}", variant=way, versus=CHANNELS, members=number, limit=limit)


async def measure_echo(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare the answers of one consumer with Channels', and with an application that is no consumer."""
    own, channels = stubs.echo(AsyncWebsocketConsumer), stubs.echo(ChannelsConsumer)
    rounds = await alternate(
        scale.rounds,
        echoes(OURS, own(), InMemoryChannelLayer(), 50),
        echoes(CHANNELS, channels(), ChannelsLayer(), 5),
        echoes(PLAIN, plain_echo, InMemoryChannelLayer(), 50),
    )
    for versus, limit in ((CHANNELS, 1 / 5), (PLAIN, None)):
        yield Row(
            "echo through one consumer",
            loop,
            rounds.spread(OURS),
            versus=versus,
            theirs=rounds.median(versus),
            ratio=rounds.ratio(OURS, versus),
            limit=limit,
        )


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare deliveries to groups of several sizes, and echoes."""
    stubs.use_django()
    for number in scale.channels_groups:
        async for line in measure_group(loop, scale, number):
            yield line
    async for line in measure_echo(loop, scale):
        yield line
