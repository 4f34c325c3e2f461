"""The layer behind sentinels: messages that flow while the master is killed, or replaced."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.ports import HOST, Port
from tests.support.proxy import Proxy
from tests.support.sentinel import Sentinels
from tests.support.servers import Server
from tests.support.traffic import Busy, Fleet, exchange, soon
from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable


def hosts(sentinels: Sentinels) -> list[dict[str, Any]]:
    return [{"sentinels": sentinels.addresses, "master_name": sentinels.name}]


@pytest.fixture
async def fleet(redis_sentinels: Sentinels, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers that are told of the sentinels only."""
    async with Fleet(hosts(redis_sentinels), redis_prefix, on_gap="gap") as fleet:
        yield fleet


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told"])
async def test_messages_flow_while_the_master_changes(redis_sentinels: Sentinels, fleet: Fleet, kill: bool) -> None:
    async with Busy(fleet) as busy:
        await busy.flows()
        before = busy.next
        await asyncio.to_thread(redis_sentinels.failover, kill=kill)
        await busy.flows()
        # What a master took last, its replica may not have.
        busy.excused.update(range(before, busy.next))
        await asyncio.to_thread(redis_sentinels.heal)
        await busy.flows()
    busy.report()
    busy.check()


async def test_a_silent_sentinel_is_passed_by(redis_sentinels: Sentinels, fleet: Fleet) -> None:
    redis_sentinels.sentinels[0].pause()
    try:
        await exchange(fleet)
    finally:
        redis_sentinels.sentinels[0].resume()


async def test_a_master_that_no_sentinel_knows_is_a_clear_error(redis_sentinels: Sentinels, redis_prefix: str) -> None:
    hosts = [{"sentinels": redis_sentinels.addresses, "master_name": "another"}]
    async with Fleet(hosts, redis_prefix, send_timeout=SECONDS) as fleet:
        with pytest.raises(LayerUnavailable, match="knows no master 'another'"):
            await fleet.layer().connect()


async def test_sentinels_that_are_all_away_are_a_clear_error(redis_prefix: str) -> None:
    port = Port()
    hosts = [{"sentinels": [(HOST, port.number)], "master_name": "main"}]
    async with Fleet(hosts, redis_prefix, send_timeout=SECONDS) as fleet:
        with pytest.raises(LayerUnavailable, match=str(port.number)):
            await fleet.layer().connect()
    port.release()


async def test_a_password_of_the_servers_behind_them(redis_binary: Binary) -> None:
    with Sentinels(redis_binary, password="secret") as sentinels:
        host = {"sentinels": sentinels.addresses, "master_name": sentinels.name, "password": "secret"}
        async with Fleet([host], "asgi") as fleet:
            await exchange(fleet)


async def test_a_sentinel_that_is_given_as_a_server_is_a_clear_error(
    redis_sentinels: Sentinels, redis_prefix: str
) -> None:
    host, port = redis_sentinels.addresses[0]
    async with Fleet([f"redis://{host}:{port}"], redis_prefix, send_timeout=SECONDS) as fleet:
        with pytest.raises(LayerUnavailable, match="is a Sentinel, which keeps no messages: give it in 'sentinels'"):
            await fleet.layer().connect()


async def test_a_server_that_is_given_as_a_sentinel_is_a_clear_error(
    redis_sentinels: Sentinels, redis_prefix: str
) -> None:
    master = redis_sentinels.master()
    host = {"sentinels": [(HOST, master.port)], "master_name": redis_sentinels.name}
    async with Fleet([host], redis_prefix, send_timeout=SECONDS) as fleet:
        with pytest.raises(LayerUnavailable, match="is a server and no Sentinel: give it without 'sentinels'"):
            await fleet.layer().connect()


class One:
    """One sentinel behind a proxy, its master and its replica.

    Attributes:
        sentinels: All of them.
        sentinel: The sentinel.
        proxy: What is before the sentinel.
        host: By which a layer finds the master.
    """

    def __init__(self, sentinels: Sentinels, proxy: Proxy) -> None:
        self.sentinels = sentinels
        self.sentinel = sentinels.sentinels[0]
        self.proxy = proxy
        self.host = {"sentinels": [(HOST, proxy.port)], "master_name": sentinels.name}

    def commands(self) -> int:
        """Give how many commands the sentinel has carried out; it counts two more for each call of this."""
        return int(self.sentinel.info("stats")["total_commands_processed"])

    async def connect(self, fleet: Fleet, layers: int) -> None:
        """Connect layers, and wait until the sentinel publishes to them."""
        for _ in range(layers):
            await fleet.layer().connect()
        await soon(lambda: self.sentinel.subscribers() == 1, "the process is subscribed")

    async def pass_seconds(self, master: Server, layers: int, seconds: int) -> None:
        """Wait until so many layers have asked the master what time it is, which each does once a second."""
        before = master.commands_seen()["time"]
        asks = layers * seconds
        await soon(lambda: master.commands_seen()["time"] >= before + asks, f"{asks} checks", seconds + SECONDS)


def connected(server: Server) -> int:
    """Give how many layers have a connection to a server on which they send."""
    return str(server.ask("CLIENT", "LIST")).count(" name=headrace-")


@pytest.fixture
def one(redis_binary: Binary) -> Iterator[One]:
    """Give a sentinel for the test alone."""
    with Sentinels(redis_binary, quorums=(1,)) as sentinels, Proxy(sentinels.sentinels[0].port) as proxy:
        yield One(sentinels, proxy)


async def test_a_sentinel_has_no_more_to_do_for_many_layers_of_a_process(one: One) -> None:
    for layers in (1, 8):
        accepted = one.proxy.accepted
        async with Fleet([one.host], "asgi") as fleet:
            await one.connect(fleet, layers)
            assert (one.proxy.connections, one.proxy.accepted - accepted) == (2, 2)
            master = one.sentinels.master()
            before, began = one.commands(), time.monotonic()
            await one.pass_seconds(master, layers, 6)
            done = one.commands() - before - 2
            # Every five seconds a question, and a check of the connection that subscribes.
            assert done <= 2 * ((time.monotonic() - began) / 5 + 1)
            assert (one.proxy.connections, one.proxy.accepted - accepted) == (2, 2)
        await soon(lambda: one.proxy.connections == 0, "the last layer has ended")


async def test_all_layers_of_a_process_follow_when_the_sentinel_publishes_another_master(one: One) -> None:
    async with Fleet([one.host], "asgi") as fleet:
        await one.connect(fleet, 2)
        asked = one.proxy.to_server
        await soon(lambda: one.proxy.to_server > asked, "it was asked, and will not be in the next five seconds")
        new = await asyncio.to_thread(one.sentinels.failover, kill=False)
        named = time.monotonic()
        await soon(lambda: connected(new) == 2, "both layers have followed")
        assert time.monotonic() - named < 4


async def test_a_master_is_followed_whose_message_was_lost(one: One) -> None:
    async with Fleet([one.host], "asgi") as fleet:
        await one.connect(fleet, 2)
        one.proxy.mislay_messages()
        new = await asyncio.to_thread(one.sentinels.failover, kill=False)
        await soon(lambda: connected(new) == 2, "both layers have followed")
        assert one.sentinel.subscribers() == 1


async def test_a_process_subscribes_again_when_the_sentinel_has_restarted(one: One) -> None:
    async with Fleet([one.host], "asgi") as fleet:
        await one.connect(fleet, 2)
        await asyncio.to_thread(one.sentinel.restart)
        await soon(lambda: one.sentinel.subscribers() == 1, "it is subscribed again")
        await asyncio.to_thread(one.sentinels.heal)
        new = await asyncio.to_thread(one.sentinels.failover, kill=False)
        await soon(lambda: connected(new) == 2, "both layers have followed")
        await soon(lambda: one.proxy.connections == 2, "there are two connections again")


async def test_a_sentinel_that_lets_nobody_subscribe_is_asked_every_second(one: One) -> None:
    one.sentinel.ask("ACL", "SETUSER", "default", "resetchannels")
    async with Fleet([one.host], "asgi") as fleet:
        await fleet.layer().connect()
        master = one.sentinels.master()
        before = one.commands()
        await one.pass_seconds(master, 1, 4)
        assert one.commands() - before - 2 >= 3
        new = await asyncio.to_thread(one.sentinels.failover, kill=False)
        await soon(lambda: connected(new) == 1, "the layer has followed")
