"""The layer on three servers that know nothing of each other: which has what, and what one that is down takes along."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.servers import Server
from tests.support.traffic import GAP, Fleet, Log, member, soon
from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

SHARDS = 3
GROUPS = [f"room.{number}" for number in range(30)]
QUEUES = [f"work-{number}" for number in range(30)]
_WIDTH = 64
_MASK = 2**_WIDTH - 1


def channels_redis(name: str) -> int:
    """Give a name's server as channels_redis does."""
    return int((zlib.crc32(name.encode()) & 0xFFF) / (4096 / SHARDS))


def rendezvous(name: str) -> int:
    """Give a name's server as docs/reference/protocol.md says."""
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = (digest ^ byte) * 0x100000001B3 & _MASK
    scores = [_mix(digest ^ _mix((place + 1) * 0x9E3779B97F4A7C15 & _MASK)) for place in range(SHARDS)]
    return scores.index(max(scores))


def _mix(number: int) -> int:
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


RINGS = {"rendezvous": rendezvous, "channels_redis": channels_redis}


@pytest.fixture
def servers(start_redis: Callable[..., Server]) -> list[Server]:
    """Start three."""
    return [start_redis() for _ in range(SHARDS)]


@pytest.fixture(params=RINGS)
def ring(request: pytest.FixtureRequest) -> str:
    """Give each ring."""
    return str(request.param)


@pytest.fixture
async def fleet(servers: list[Server], ring: str) -> AsyncIterator[Fleet]:
    """Give layers on all three."""
    hosts = [server.url for server in servers]
    async with Fleet(hosts, "asgi", ring=ring, topology="shards", on_gap="gap", send_timeout=5) as fleet:
        yield fleet


async def numbers(layer: RedisChannelLayer, channel: str, count: int) -> list[int]:
    return [(await asyncio.wait_for(layer.receive(channel), SECONDS))["number"] for _ in range(count)]


async def test_everything_arrives_and_each_name_has_its_server(servers: list[Server], fleet: Fleet, ring: str) -> None:
    here, there = fleet.layer(), fleet.layer()
    channels = [await member(there, group) for group in GROUPS]
    for number in range(20):
        for channel, group in zip(channels, GROUPS, strict=True):
            await here.send(channel, {"type": "number", "number": 2 * number})
            await here.group_send(group, {"type": "number", "number": 2 * number + 1})
    for channel in channels:
        got = await numbers(there, channel, 40)
        # What goes another way may come at another time.
        assert [number for number in got if number % 2] == list(range(1, 40, 2))
        assert [number for number in got if number % 2 == 0] == list(range(0, 40, 2))
    for number, queue in enumerate(QUEUES):
        await here.send(queue, {"type": "number", "number": number})
    place = RINGS[ring]
    for server in servers:
        queues = {f"asgi:q:{{{queue}}}" for queue in QUEUES if servers[place(queue)] is server}
        groups = {f"asgi:g:{group}" for group in GROUPS if servers[place(group)] is server}
        assert queues
        assert groups
        assert set(server.cli("KEYS", "asgi:q:*")) == queues
        assert set(server.cli("PUBSUB", "CHANNELS", "asgi:g:*")) == groups
    assert [await numbers(there, queue, 1) for queue in QUEUES] == [[number] for number in range(len(QUEUES))]


async def test_flush_removes_everything_from_every_server(servers: list[Server], fleet: Fleet) -> None:
    here, there = fleet.layer(), fleet.layer()
    await there.connect()
    for queue in QUEUES:
        await here.send(queue, {"type": "number", "number": 0})
    await here.group_add("room", QUEUES[0])
    await there.flush()
    assert [server.cli("KEYS", "*") for server in servers] == [[], [], []]


async def test_a_server_that_is_down_takes_only_its_own_names_along(
    servers: list[Server], fleet: Fleet, ring: str
) -> None:
    here, there = fleet.layer(), fleet.layer()
    logs = {group: Log(there, await member(there, group)) for group in GROUPS}
    tasks = [asyncio.ensure_future(log.keep()) for log in logs.values()]
    place = RINGS[ring]
    # Not the one that has what the layers tell each other.
    down = (place("") + 1) % SHARDS
    try:
        await _send_to_all(here, 0)
        await soon(lambda: all(log.numbers == [0] for log in logs.values()), "all have the first")
        servers[down].kill()
        affected = {group for group in GROUPS if place(group) == down}
        assert affected
        assert await _send_to_all(here, 1) == affected
        healthy = [log for group, log in logs.items() if group not in affected]
        await soon(lambda: all(log.numbers == [0, 1] for log in healthy), "the others have the second")
        for queue in QUEUES:
            if place(queue) != down:
                await here.send(queue, {"type": "number", "number": 1})
                assert await numbers(there, queue, 1) == [1]
        servers[down].restart()
        await soon(lambda: there.stats().connection.state == "up", "it is connected again")
        await soon(lambda: here.stats().connection.state == "up", "it is connected again")
        assert await _send_to_all(here, 2) == set()
        await soon(lambda: all(log.numbers[-1] == 2 for log in logs.values()), "all have the third")
        for group, log in logs.items():
            assert log.numbers == ([0, 2] if group in affected else [0, 1, 2])
            assert log.untold([0, 2]) == []
            assert (GAP in log.entries) == (group in affected)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_to_all(layer: RedisChannelLayer, number: int) -> set[str]:
    """Send to all groups at once, and give those that could not be reached."""
    message: dict[str, Any] = {"type": "number", "number": number}
    sends = [layer.group_send(group, message) for group in GROUPS]
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    return {group for group, outcome in zip(GROUPS, outcomes, strict=True) if isinstance(outcome, LayerUnavailable)}


async def test_a_gap_is_told_of_while_another_server_stays_away(servers: list[Server], fleet: Fleet, ring: str) -> None:
    place = RINGS[ring]
    away, back = ((place("") + step) % SHARDS for step in (1, 2))
    group = next(group for group in GROUPS if place(group) == back)
    here, there = fleet.layer(), fleet.layer()
    log = Log(there, await member(there, group))
    for other in GROUPS:
        await member(there, other)
    task = asyncio.ensure_future(log.keep())
    try:
        servers[away].kill()
        servers[back].restart()
        await soon(lambda: log.entries == [GAP], "the gap is told")
        await here.group_send(group, {"type": "number", "number": 0})
        await soon(lambda: log.entries == [GAP, 0], "messages flow")
        assert there.stats().connection.state == "down"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
