"""The layer behind sentinels: messages that flow while the master is killed, or replaced."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.ports import HOST
from tests.support.sentinel import Sentinels
from tests.support.traffic import Busy, Fleet, exchange

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
    async with Fleet(hosts, redis_prefix, send_timeout=0.5) as fleet:
        with pytest.raises(LayerUnavailable, match="knows no master 'another'"):
            await fleet.layer().connect()


async def test_sentinels_that_are_all_away_are_a_clear_error(redis_prefix: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    hosts = [{"sentinels": [(HOST, port)], "master_name": "main"}]
    async with Fleet(hosts, redis_prefix, send_timeout=0.5) as fleet:
        with pytest.raises(LayerUnavailable, match=str(port)):
            await fleet.layer().connect()


async def test_a_password_of_the_servers_behind_them(redis_binary: Binary) -> None:
    with Sentinels(redis_binary, password="secret") as sentinels:
        host = {"sentinels": sentinels.addresses, "master_name": sentinels.name, "password": "secret"}
        async with Fleet([host], "asgi") as fleet:
            await exchange(fleet)


async def test_a_sentinel_that_is_given_as_a_server_is_a_clear_error(
    redis_sentinels: Sentinels, redis_prefix: str
) -> None:
    host, port = redis_sentinels.addresses[0]
    async with Fleet([f"redis://{host}:{port}"], redis_prefix, send_timeout=2) as fleet:
        with pytest.raises(LayerUnavailable, match="is a Sentinel, which keeps no messages: give it in 'sentinels'"):
            await fleet.layer().connect()


async def test_a_server_that_is_given_as_a_sentinel_is_a_clear_error(
    redis_sentinels: Sentinels, redis_prefix: str
) -> None:
    master = redis_sentinels.master()
    host = {"sentinels": [(HOST, master.port)], "master_name": redis_sentinels.name}
    async with Fleet([host], redis_prefix, send_timeout=2) as fleet:
        with pytest.raises(LayerUnavailable, match="is a server and no Sentinel: give it without 'sentinels'"):
            await fleet.layer().connect()
