"""Clocks that are wrong, differ or are set: deadlines are in the time of the server that carries the message."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.traffic import Fleet, member, soon

from headrace.layers import RedisChannelLayer

# More than messages live by default.
STEP = 120
GROUPS = [f"room.{number}" for number in range(8)]
QUEUES = [f"work-{number}" for number in range(8)]
StartProxy = Callable[[Server], Proxy]
PassTime = Callable[[float], None]


@pytest.fixture
def clocks(start_redis: Callable[..., Server], start_proxy: StartProxy) -> list[Proxy]:
    """Start two servers, behind proxies that set their clocks."""
    return [start_proxy(start_redis()) for _ in range(2)]


@pytest.fixture
async def fleet(clocks: list[Proxy], redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers on the first of them."""
    async with Fleet([clocks[0].url], redis_prefix) as fleet:
        yield fleet


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """List the warnings that hold a text."""
    records = [record for record in caplog.records if record.name == "headrace.redis"]
    return [record.getMessage() for record in records if text in record.getMessage()]


async def take(layer: RedisChannelLayer, channel: str, count: int) -> list[str]:
    """Receive so many messages; give what they say."""
    return [(await asyncio.wait_for(layer.receive(channel), 5))["text"] for _ in range(count)]


@pytest.mark.parametrize("step", [STEP, -STEP], ids=["forward", "back"])
async def test_what_is_published_survives_a_clock_that_is_set(clocks: list[Proxy], fleet: Fleet, step: int) -> None:
    old = fleet.layer()
    channels = [await member(old, "room")]
    clocks[0].set_clock(step)
    # It knows the new time alone, and the other for up to a second the old time alone.
    new = fleet.layer()
    channels.append(await member(new, "room"))
    for layer, name in ((old, "old"), (new, "new")):
        await layer.group_send("room", {"type": "said", "text": name})
    for layer, channel in zip((old, new), channels, strict=True):
        assert await take(layer, channel, 2) == ["old", "new"]
        assert layer.stats().connection.late == 0


async def test_a_clock_that_is_set_is_followed_in_queues_and_told_to_the_log_once(
    clocks: list[Proxy], fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    old = fleet.layer()
    await old.connect()
    clocks[0].set_clock(STEP)
    new = fleet.layer()
    await new.connect()
    await soon(lambda: told(caplog, "the clock of"), "the log is told")
    await old.send("work", {"type": "said", "text": "old"})
    await new.send("work", {"type": "said", "text": "new"})
    assert await take(new, "work", 2) == ["old", "new"]
    assert len(told(caplog, "the clock of")) == 1


async def test_servers_may_have_different_clocks(clocks: list[Proxy], redis_prefix: str) -> None:
    clocks[1].set_clock(STEP)
    async with Fleet([clock.url for clock in clocks], redis_prefix, topology="shards") as fleet:
        here, there = fleet.layer(), fleet.layer()
        channels = [await member(there, group) for group in GROUPS]
        for group in GROUPS:
            await here.group_send(group, {"type": "said", "text": group})
        for queue in QUEUES:
            await here.send(queue, {"type": "said", "text": queue})
        for text, channel in zip([*GROUPS, *QUEUES], [*channels, *QUEUES], strict=True):
            assert await take(there, channel, 1) == [text]


async def test_a_membership_that_is_asked_for_before_there_is_a_connection_lasts_by_the_servers_clock(
    clocks: list[Proxy], fleet: Fleet
) -> None:
    # This machine is behind its time.
    clocks[0].set_clock(STEP)
    here, there = fleet.layer(group_expiry=STEP // 2), fleet.layer()
    await here.group_add("room", "work")
    await there.group_send("room", {"type": "said", "text": "hello"})
    assert await take(there, "work", 1) == ["hello"]


async def test_the_first_message_that_expires_in_a_queue_is_told_to_the_log(
    fleet: Fleet, pass_time: PassTime, caplog: pytest.LogCaptureFixture
) -> None:
    short, layer = fleet.layer(expiry=0.05), fleet.layer()
    for text in ("first", "second"):
        await short.send("work", {"type": "said", "text": text})
    await layer.send("work", {"type": "said", "text": "third"})
    pass_time(0.1)
    assert await take(layer, "work", 1) == ["third"]
    await soon(lambda: told(caplog, "'work' expired"), "the log is told")
    assert layer.stats().connection.queue_expired == 2
    assert len(told(caplog, "expired")) == 1


async def test_the_first_message_that_comes_late_is_told_to_the_log(
    start_redis: Callable[..., Server],
    start_proxy: StartProxy,
    pass_time: PassTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start_redis()
    proxy = start_proxy(server)
    async with Fleet([server.url], "t") as fleet:
        layer, sender = fleet.layer(hosts=[proxy.url]), fleet.layer(expiry=0.05)
        channel = await layer.new_channel()
        await sender.connect()
        proxy.stall()
        for text in ("first", "second"):
            await sender.send(channel, {"type": "said", "text": text})
        pass_time(0.1)
        proxy.flow()
        await soon(lambda: layer.stats().connection.late == 2, "both are counted")
        await soon(lambda: told(caplog, "after its deadline"), "the log is told")
        assert len(told(caplog, "after its deadline")) == 1
