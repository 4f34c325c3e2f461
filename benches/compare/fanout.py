"""What does one delivery of a group_send to waiting tasks cost, and does it depend on the size of the group?

The reference is the least that asyncio offers: a bare Future for each task, resolved in a Python loop, without names,
copies, expiry or counters. A delivery is over when the task has taken the message and waits again.

Changed by the answer: receivers are woken directly, by one callback of the loop for all of them, because setting
a future for each costs more than all the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare.rounds import MESSAGE, Rounds, Variant, alternate
from benches.compare.rows import Row
from benches.compare.scale import Scale
from headrace.layers import InMemoryChannelLayer

RECEIVE, INBOX, FUTURES, CHANNELS = "receive", "async for", "asyncio.Future each", "Channels"
GROUP = "room"
# A slice is as many sends as make about this many deliveries.
DELIVERIES = 1000
# uvloop's own call_soon is so cheap that futures are hard to beat there.
LIMIT_TO_FUTURES = {"asyncio": 0.75, "uvloop": 1.1}


class Arrivals:
    """Counts the tasks that still lack the message, and tells when there are none."""

    __slots__ = ("complete", "missing")

    def __init__(self) -> None:
        self.missing = 0
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self, members: int) -> None:
        """Begin to count."""
        self.missing = members
        self.complete = asyncio.get_running_loop().create_future()


@asynccontextmanager
async def waiting(tasks: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run tasks while the context lasts; all of them wait for their first message when it begins."""
    running = [asyncio.create_task(task) for task in tasks]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def repeated(
    name: str,
    members: int,
    arrivals: Arrivals,
    send: Callable[[], Awaitable[object]],
    deliveries: int = DELIVERIES,
) -> Variant:
    """Make the variant that sends to the whole group, as often as makes about so many deliveries."""
    sends = max(1, deliveries // members)

    async def run() -> None:
        for _ in range(sends):
            arrivals.expect(members)
            await send()
            await arrivals.complete

    return Variant(name, run, sends * members)


@asynccontextmanager
async def receivers(layer: InMemoryChannelLayer | ChannelsLayer, members: int, name: str) -> AsyncIterator[Variant]:
    """Have tasks that call `receive`, on any layer."""
    arrivals = Arrivals()

    async def member(channel: str) -> None:
        while True:
            await layer.receive(channel)
            arrivals.missing -= 1
            if not arrivals.missing:
                arrivals.complete.set_result(None)

    channels = [await layer.new_channel() for _ in range(members)]
    for channel in channels:
        await layer.group_add(GROUP, channel)
    async with waiting(map(member, channels)):
        # A delivery of Channels takes long enough to be a slice by itself.
        deliveries = 1 if name == CHANNELS else DELIVERIES
        yield repeated(name, members, arrivals, lambda: layer.group_send(GROUP, MESSAGE), deliveries)


@asynccontextmanager
async def inboxes(members: int, name: str = INBOX) -> AsyncIterator[Variant]:
    """Have tasks that iterate over the inbox of a subscription."""
    layer, arrivals = InMemoryChannelLayer(), Arrivals()

    async def member() -> None:
        async with layer.subscription(GROUP) as inbox:
            async for _ in inbox:
                arrivals.missing -= 1
                if not arrivals.missing:
                    arrivals.complete.set_result(None)

    async with waiting(member() for _ in range(members)):
        yield repeated(name, members, arrivals, lambda: layer.group_send(GROUP, MESSAGE))


@asynccontextmanager
async def futures(members: int, name: str = FUTURES) -> AsyncIterator[Variant]:
    """Have tasks that wait for a future each."""
    arrivals, loop = Arrivals(), asyncio.get_running_loop()
    promised: list[asyncio.Future[dict[str, str]]] = [loop.create_future()] * members

    async def member(number: int) -> None:
        while True:
            future = promised[number] = loop.create_future()
            await future
            arrivals.missing -= 1
            if not arrivals.missing:
                arrivals.complete.set_result(None)

    async def send() -> None:
        for future in promised:
            future.set_result(MESSAGE)

    async with waiting(map(member, range(members))):
        yield repeated(name, members, arrivals, send)


def row(loop: str, rounds: Rounds, variant: str, versus: str, *, members: int, limit: float | None) -> Row:
    """Make the row of one variant against another, for one size of group."""
    case = f"fan-out to {members:,} tasks, {variant}"
    return replace(rounds.row(case, loop, variant, versus, limit), variant=variant, members=members)


def ours(members: int, name: str = RECEIVE) -> AbstractAsyncContextManager[Variant]:
    """Have tasks that call `receive` of our layer."""
    return receivers(InMemoryChannelLayer(), members, name)


def theirs(members: int) -> AbstractAsyncContextManager[Variant]:
    """Have tasks that call `receive` of Channels' layer."""
    return receivers(ChannelsLayer(), members, CHANNELS)


async def against_futures(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare with a bare future for each task."""
    limits = {100: LIMIT_TO_FUTURES[loop], 1000: LIMIT_TO_FUTURES[loop]}
    for members in scale.groups:
        rounds = await alternate(scale.rounds, ours(members), inboxes(members), futures(members))
        for variant in (RECEIVE, INBOX):
            yield row(loop, rounds, variant, FUTURES, members=members, limit=limits.get(members))


async def against_channels(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare with Channels' layer."""
    limits = {100: 1 / 20, 1000: 1 / 150}
    for members in scale.channels_groups:
        count = scale.rounds if members <= 100 else scale.slow_rounds
        rounds = await alternate(count, ours(members), theirs(members))
        yield row(loop, rounds, RECEIVE, CHANNELS, members=members, limit=limits.get(members))
    if scale.once is not None and loop == "asyncio":
        rounds = await alternate(1, ours(scale.once), theirs(scale.once), warm_up=False)
        once = row(loop, rounds, RECEIVE, CHANNELS, members=scale.once, limit=None)
        yield replace(once, note="measured once")


async def flatness(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare a large group with a small one, in the same rounds; the same for futures tells what the machine adds."""
    small, large = 100, max(scale.groups)
    ways = {RECEIVE: ours, INBOX: inboxes, FUTURES: futures}
    for name, way in ways.items():
        rounds = await alternate(scale.rounds, way(small, "small"), way(large, "large"))
        yield Row(
            f"flatness, {large:,} tasks over {small}, {name}",
            loop,
            rounds.spread("large"),
            versus=f"{small} tasks",
            theirs=rounds.median("small"),
            ratio=rounds.ratio("large", "small"),
            limit=None if name == FUTURES else 1.6,
        )


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare with futures and with Channels at several sizes, and large groups with small ones."""
    for part in (against_futures, against_channels, flatness):
        async for line in part(loop, scale):
            yield line
