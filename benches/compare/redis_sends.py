"""What does a group_send over Redis cost: to a receiver that waits, to a thousand, a thousand at once, from a thread?

Ours, channels_redis' layers and bare clients take turns on one server. A send is over when the sender has the server's
answer and every member its message. Processor time is that of this process, all its threads; the server's is not in it.

Changed by the answer: a receive asks one native call whether its channel is subscribed to, and builds no name for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from asgiref.sync import async_to_sync
from tests.support.servers import Server

from benches.compare.redis_ways import (
    CLIENT,
    CORE,
    GROUP,
    HEADRACE,
    PUBSUB,
    SOCKETS,
    Failures,
    client,
    layer_of,
    room,
    sockets,
)
from benches.compare.rounds import MESSAGE, Rounds, Variant, alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

# Single messages in a slice.
SINGLE = 20
# How many broadcasts are a slice: one of core takes as long as a dozen of the others.
BROADCASTS = {HEADRACE: 10, PUBSUB: 1, CORE: 1}
CALLS = 1000
ASYNC_TO_SYNC, CONFIRMED = "async_to_sync(pubsub.group_send)", "confirm=True"

Noted = dict[str, Failures]


@asynccontextmanager
async def broadcasts(way: str, url: str, members: int, sends: int, noted: Noted) -> AsyncIterator[Variant]:
    """Send to all members, so many times, each time when the one before has come."""
    async with room(way, url, members) as here:
        noted[way] = here.failures

        async def run() -> None:
            for _ in range(sends):
                await here.expect(members, lambda: here.layer.group_send(GROUP, MESSAGE))

        yield Variant(way, run, sends * members)


@asynccontextmanager
async def at_once(way: str, url: str, sends: int, members: int, noted: Noted) -> AsyncIterator[Variant]:
    """Send so many messages concurrently."""
    async with room(way, url, members, capacity=sends) as here:
        noted[way] = here.failures

        async def send() -> None:
            await asyncio.gather(*(here.layer.group_send(GROUP, MESSAGE) for _ in range(sends)))

        async def run() -> None:
            if members:
                await here.expect(sends * members, send)
            else:
                await send()

        yield Variant(way, run, sends)


@asynccontextmanager
async def calls(
    name: str, send: Callable[[], object], times: int, after: Callable[[], Awaitable[object]] | None = None
) -> AsyncIterator[Variant]:
    """Have a thread without a loop send."""

    def call() -> None:
        for _ in range(times):
            send()

    async def run() -> None:
        await asyncio.to_thread(call)

    yield Variant(name, run, times, after)


def processor(case: str, loop: str, rounds: Rounds, versus: str) -> Row:
    """Make the row of the processor time."""
    ours, theirs = rounds.times[HEADRACE].cpu, rounds.times[versus].cpu
    ratio = Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])
    return Row(case, loop, Spread.of(ours), versus=versus, theirs=rounds.cpu(versus), ratio=ratio)


async def single(loop: str, scale: Scale, server: Server) -> AsyncIterator[Row]:
    """Compare one message to one member, which waits."""
    noted: Noted = {}
    rounds = await alternate(
        scale.rounds,
        broadcasts(HEADRACE, server.url, 1, SINGLE, noted),
        broadcasts(PUBSUB, server.url, 1, SINGLE, noted),
        client(server.url, SINGLE),
        sockets(server.port, SINGLE),
    )
    case = "Redis, group_send to one waiting receiver"
    note = f"of {CLIENT} itself {rounds.ratio(CLIENT, SOCKETS).median:.2f} of {SOCKETS}"
    for versus, limit in ((PUBSUB, 0.6), (CLIENT, None), (SOCKETS, None)):
        yield rounds.row(case, loop, HEADRACE, versus, limit, note if versus == SOCKETS else noted_of(noted, versus))
    yield processor(f"{case}, processor time", loop, rounds, PUBSUB)


def noted_of(noted: Noted, way: str) -> str:
    """Say what went wrong on a way."""
    return noted[way].note if way in noted else ""


async def broadcast(loop: str, scale: Scale, server: Server) -> AsyncIterator[Row]:
    """Compare one message to many members."""
    members = scale.redis_members
    case = f"Redis, broadcast to {members:,} local members, each"
    for versus, count, limit in ((PUBSUB, scale.slow_rounds * 2, 1 / 5), (CORE, scale.slow_rounds, 1 / 45)):
        noted: Noted = {}
        rounds = await alternate(
            count,
            *(broadcasts(way, server.url, members, BROADCASTS[way], noted) for way in (HEADRACE, versus)),
        )
        yield rounds.row(case, loop, HEADRACE, versus, limit, noted_of(noted, versus))
        yield processor(f"{case}, processor time", loop, rounds, versus)


async def concurrent(loop: str, scale: Scale, server: Server) -> AsyncIterator[Row]:
    """Compare many sends at once: to one member, and to nobody."""
    sends = scale.redis_sends
    for members, case, limit in (
        (1, f"Redis, {sends:,} concurrent group_sends, each", 1 / 8),
        (0, "the same, to a group without a member", None),
    ):
        noted: Noted = {}
        rounds = await alternate(
            scale.slow_rounds * 2,
            *(at_once(way, server.url, sends, members, noted) for way in (HEADRACE, PUBSUB)),
        )
        rate = f"{1e9 / rounds.median(HEADRACE):,.0f} a second, against {1e9 / rounds.median(PUBSUB):,.0f}"
        yield rounds.row(case, loop, HEADRACE, PUBSUB, limit, ", ".join(filter(None, (rate, noted_of(noted, PUBSUB)))))


async def synchronous(loop: str, scale: Scale, server: Server) -> AsyncIterator[Row]:
    """Compare calls from a thread that has no loop."""
    async with layer_of(HEADRACE, server.url) as ours, layer_of(PUBSUB, server.url) as theirs:
        await ours.connect()
        send = async_to_sync(theirs.group_send)

        async def settle() -> None:
            """Wait until the server has taken what was sent without waiting."""
            await asyncio.to_thread(ours.group_send_sync, GROUP, MESSAGE, confirm=True)

        rounds = await alternate(
            scale.slow_rounds,
            calls(HEADRACE, lambda: ours.group_send_sync(GROUP, MESSAGE), CALLS, settle),
            calls(CONFIRMED, lambda: ours.group_send_sync(GROUP, MESSAGE, confirm=True), SINGLE),
            calls(ASYNC_TO_SYNC, lambda: send(GROUP, MESSAGE), SINGLE),
        )
    case = "Redis, group_send_sync from a thread"
    yield rounds.row(case, loop, HEADRACE, ASYNC_TO_SYNC, 1 / 100)
    confirmed = Rounds([HEADRACE, ASYNC_TO_SYNC])
    confirmed.times[HEADRACE], confirmed.times[ASYNC_TO_SYNC] = rounds.times[CONFIRMED], rounds.times[ASYNC_TO_SYNC]
    yield replace(confirmed.row(case, loop, HEADRACE, ASYNC_TO_SYNC), case=f"the same with {CONFIRMED}")


PARTS: tuple[Callable[[str, Scale, Server], AsyncIterator[Row]], ...] = (single, broadcast, concurrent, synchronous)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure single messages, broadcasts, many sends at once, and calls from a thread."""
    with Server() as server:
        for part in PARTS:
            async for line in part(loop, scale, server):
                yield line
