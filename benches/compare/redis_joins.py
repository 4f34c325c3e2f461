"""What does it cost that a thousand consumers connect and join a group over Redis, and what is the server asked for it?

A consumer makes a channel, joins, and waits. The process is up, and has a member in the group already. The commands are
counted by the server (INFO commandstats); those that come whether anybody connects or not are left out.

Shown by the answer: with an inbox for each process a connection asks the server nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.support.servers import Server

from benches.compare.redis_ways import GROUP, HEADRACE, PUBSUB, layer_of
from benches.compare.rounds import Variant, alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

# Ours pings both of its connections once a second, and publishes a probe to itself.
HEALTH = {"ping", "publish"}


class Consumers:
    """Tasks that connect: a channel, a group, and a receive that waits.

    Args:
        layer: The layer.
        number: How many.
        own: Each joins a group of its own.
    """

    def __init__(self, layer: Any, number: int, *, own: bool) -> None:
        self._layer, self._number, self._own = layer, number, own
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = asyncio.Semaphore(0)
        self._names: list[tuple[str, str]] = []
        self._turn = 0

    async def _consume(self, index: int) -> None:
        layer = self._layer
        channel = await layer.new_channel()
        group = f"{GROUP}.{self._turn}.{index}" if self._own else GROUP
        await layer.group_add(group, channel)
        self._names.append((group, channel))
        self._waiting.release()
        await layer.receive(channel)

    async def connect(self) -> None:
        """Connect all of them, at once as after a deployment; when this returns, all wait."""
        self._tasks = [asyncio.create_task(self._consume(index)) for index in range(self._number)]
        for _ in self._tasks:
            await self._waiting.acquire()
        # The last has yet to call receive.
        await asyncio.sleep(0)

    async def disconnect(self) -> None:
        """End them, as consumers end: out of the group, and no more receive."""
        for group, channel in self._names:
            await self._layer.group_discard(group, channel)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._names.clear()
        self._turn += 1


@asynccontextmanager
async def consumers(way: str, url: str, number: int, *, own: bool) -> AsyncIterator[Consumers]:
    """Have consumers of a layer that has one member in the group already."""
    async with layer_of(way, url) as layer:
        await layer.group_add(GROUP, await layer.new_channel())
        yield Consumers(layer, number, own=own)


@asynccontextmanager
async def joins(way: str, url: str, number: int, *, own: bool) -> AsyncIterator[Variant]:
    """Connect consumers; their end is not timed."""
    async with consumers(way, url, number, own=own) as crowd:
        yield Variant(way, crowd.connect, number, crowd.disconnect)


async def commands(way: str, server: Server, number: int, *, own: bool) -> Counter[str]:
    """Count what the server is asked while consumers connect."""
    async with consumers(way, server.url, number, own=own) as crowd:
        before = server.commands_seen()
        await crowd.connect()
        seen = server.commands_seen() - before
        await crowd.disconnect()
    return Counter({name: times for name, times in seen.items() if name not in HEALTH})


def words(seen: Counter[str]) -> str:
    """Write which commands they were."""
    return ", ".join(f"{times:,} {name.upper()}" for name, times in seen.most_common()) or "none"


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure consumers that join one group, and consumers that join one each."""
    number = scale.redis_members
    with Server() as server:
        for own, where, limit in ((False, "join one group", 1 / 5), (True, "join a group of their own", None)):
            case = f"Redis, {number:,} consumers connect and {where}, each"
            rounds = await alternate(
                scale.slow_rounds, *(joins(way, server.url, number, own=own) for way in (HEADRACE, PUBSUB))
            )
            yield rounds.row(case, loop, HEADRACE, PUBSUB, limit)
            ours, theirs = [await commands(way, server, number, own=own) for way in (HEADRACE, PUBSUB)]
            yield Row(
                "the same, commands to Redis for each",
                loop,
                Spread.exactly(ours.total() / number),
                "commands",
                PUBSUB,
                theirs.total() / number,
                limit=None if own else 0,
                note=f"{words(ours)}, against {words(theirs)}",
            )
