"""The layer on a server that forbids what serverless offers forbid: all of it works, and nothing else is tried."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.serverless import Serverless
from tests.support.traffic import Fleet, exchange, member, soon
from tests.support.waiting import SECONDS

from headrace.layers import RedisChannelLayer


def hosts(server: Serverless) -> list[dict[str, Any]]:
    tls = {} if server.tls is None else {"ssl_ca_certs": str(server.ca)}
    return [{"address": server.url, **tls}]


@pytest.fixture
async def fleet(redis_serverless: Serverless, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers on the server; whatever they did, nothing of it was forbidden."""
    before = redis_serverless.errors_seen()
    async with Fleet(hosts(redis_serverless), redis_prefix, topology="serverless") as fleet:
        yield fleet
    assert redis_serverless.denied() == []
    assert redis_serverless.errors_seen() == before


async def test_messages_go_all_ways(redis_serverless: Serverless, fleet: Fleet) -> None:
    before = redis_serverless.commands_seen()
    await exchange(fleet)
    done = redis_serverless.commands_seen() - before
    assert done["spublish"]
    assert done["ssubscribe"]
    assert not done["publish"] + done["subscribe"] + done["select"]


async def test_resp_2(redis_serverless: Serverless, redis_prefix: str) -> None:
    [host] = hosts(redis_serverless)
    async with Fleet([{**host, "protocol": 2}], redis_prefix, topology="serverless") as fleet:
        await exchange(fleet)
    assert redis_serverless.denied() == []


async def test_members_of_other_processes_and_queues_in_groups(fleet: Fleet) -> None:
    here, there = fleet.layer(), fleet.layer()
    channel = await there.new_channel()
    await here.group_add("room", channel)
    await here.group_add("room", "work")
    await soon(lambda: "work" in there.group_channels("room"), "the other process hears of it")
    await there.group_send("room", {"type": "number", "number": 1})
    for layer, source in ((there, channel), (here, "work")):
        assert (await asyncio.wait_for(layer.receive(source), SECONDS))["number"] == 1
    await here.group_discard("room", channel)
    await here.group_discard("room", "work")
    await soon(lambda: there.group_count("room") == 0, "the other process hears of it")


async def test_a_full_queue_and_one_that_is_closed(fleet: Fleet) -> None:
    layer = fleet.layer(capacity=3)
    report = await layer.send_many([("work", {"type": "number", "number": number}) for number in range(5)])
    assert (report.delivered_here, report.dropped_full) == (3, 2)
    layer.close_channel("work")
    await layer.send("work", {"type": "number", "number": 9})
    assert (await layer.receive("work"))["number"] == 9


async def test_a_message_goes_back_to_its_queue(fleet: Fleet) -> None:
    here, there = fleet.layer(), fleet.layer()
    await here.send("work", {"type": "number", "number": 1})
    # What is taken for a receiver that has left by then waits in its process, until that ends.
    async with asyncio.timeout(SECONDS):
        while not there.stats().connection.fetched:
            waiting = asyncio.ensure_future(there.receive("work"))
            await soon(partial(has_waiter, there, waiting), "somebody waits, or has it")
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await there.send("work", await waiting)
    await there.close()
    assert (await asyncio.wait_for(here.receive("work"), SECONDS))["number"] == 1


def has_waiter(layer: RedisChannelLayer, waiting: "asyncio.Future[Any]") -> bool:
    """Tell whether somebody waits, or waits no longer."""
    return waiting.done() or layer.channel_stats("work").waiters > 0


async def test_sync_and_flush(fleet: Fleet) -> None:
    here, there = fleet.layer(), fleet.layer()
    channel = await member(there, "room")
    report = await asyncio.to_thread(here.group_send_sync, "room", {"type": "number", "number": 1}, confirm=True)
    assert report.processes == 1
    report = await asyncio.to_thread(here.send_many_sync, [(channel, {"type": "number", "number": 2})])
    assert report.processes == 1
    assert [(await there.receive(channel))["number"] for _ in range(2)] == [1, 2]
    await here.send("work", {"type": "number", "number": 3})
    await here.flush()
    await soon(lambda: there.group_count("room") == 0, "the flush is heard everywhere")


async def test_idle_connections_are_kept(
    redis_binary: Binary, make_serverless: Callable[..., Serverless], redis_prefix: str
) -> None:
    with make_serverless(redis_binary, idle=2) as server:
        async with Fleet(hosts(server), redis_prefix, topology="serverless") as fleet:
            here, there = await exchange(fleet)
            # The server closes what was silent for so long: its own clock says when that would have been.
            began = server.cli("TIME")[0]
            await soon(lambda: int(server.cli("TIME")[0]) > int(began) + 4, "the server's patience is over twice")
            assert [layer.stats().connection.reconnects for layer in (here, there)] == [0, 0]
            await exchange(fleet, here=here, there=there)
            assert server.denied() == []
