"""How long does another client wait for its echo while one consumer is busy?

A consumer gets a burst of messages. For each its handler computes for two milliseconds and never waits, as where it
serializes one user's view of an event. Meanwhile a client of another consumer sends a frame, waits until it comes back,
and sends the next. What counts is its worst echo: a loop that finishes the burst first holds up everybody for its whole
length.

Changed by the answer: between two messages of a consumer the loop has a turn, and a wake of many tasks ends by time.
The worst echo took 141 ms before and 15 ms afterwards, on a machine with other work: the time of half a dozen handlers,
because an echo needs so many turns.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsConsumer
from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare import stubs
from benches.compare.consumers import CHANNELS, FRAME, OURS, WITH_APP, greeted
from benches.compare.fanout import GROUP, waiting
from benches.compare.rounds import MESSAGE, Rounds
from benches.compare.rows import Row
from benches.compare.scale import Scale
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer

BURST = 50
SECONDS = 0.002
# About what Channels' worst echo is over a server, on a busy machine.
LIMIT = 25e6


def busy(base: Any, handled: asyncio.Semaphore) -> Any:
    """Make a class of consumers in a group whose handler computes, on whichever base."""

    class Busy(base):  # type: ignore[misc]  # whichever base is measured
        async def connect(self) -> None:
            await self.channel_layer.group_add(GROUP, self.channel_name)
            await self.accept()
            handled.release()

        async def chat_message(self, _message: object) -> None:
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                pass
            handled.release()

    return Busy


class Side:
    """A busy consumer, and another with a client that waits for echoes."""

    def __init__(self, layer: stubs.AnyLayer, handled: asyncio.Semaphore) -> None:
        self.layer = layer
        self.handled = handled
        self.inbound = greeted()
        self.outbound: asyncio.Queue[Any] = asyncio.Queue()

    async def worst_echo(self) -> float:
        """Send a burst, and return the longest time in nanoseconds that an echo took until all of it was handled."""
        for _ in range(BURST):
            await self.layer.group_send(GROUP, MESSAGE)
        burst = asyncio.ensure_future(self._all_handled())
        worst = 0.0
        while not burst.done():
            start = time.perf_counter_ns()
            self.inbound.put_nowait(FRAME)
            await self.outbound.get()
            worst = max(worst, time.perf_counter_ns() - start)
        return worst

    async def _all_handled(self) -> None:
        for _ in range(BURST):
            await self.handled.acquire()


@asynccontextmanager
async def side(base: Any, layer: stubs.AnyLayer) -> AsyncIterator[Side]:
    """Have both consumers connected, on a layer."""
    handled = asyncio.Semaphore(0)
    pair = Side(layer, handled)
    applications = [
        busy(base, handled)()(stubs.scope(), greeted().get, stubs.sink),
        stubs.echo(base)()(stubs.scope(), pair.inbound.get, pair.outbound.put),
    ]
    with stubs.default_layer(layer):
        async with waiting(applications):
            await handled.acquire()
            await pair.outbound.get()
            yield pair


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Let ours, Channels', and Channels' with our app take turns."""
    stubs.use_django()
    sides = {
        OURS: (AsyncWebsocketConsumer, InMemoryChannelLayer),
        CHANNELS: (ChannelsConsumer, ChannelsLayer),
        WITH_APP: (ChannelsConsumer, InMemoryChannelLayer),
    }
    rounds, order = Rounds(sides), random.Random(scale.slow_rounds)
    for _ in range(scale.slow_rounds):
        for name in order.sample(list(sides), len(sides)):
            base, layer = sides[name]
            # Which way its sources are awaited a consumer decides when it connects.
            with stubs.app() if name == WITH_APP else nullcontext():
                async with side(base, layer()) as pair:
                    rounds.times[name].wall.append(await pair.worst_echo())
    for name in (OURS, WITH_APP):
        case = "worst echo beside a busy consumer" if name == OURS else "the same, worst echo, headrace.django"
        note = f"the worst of all: {max(rounds.times[name].wall) / 1e6:.0f} ms"
        yield replace(rounds.row(case, loop, name, CHANNELS, LIMIT, note), absolute=True)
