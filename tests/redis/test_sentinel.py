"""The layer behind sentinels: messages that flow while the master is killed, or replaced."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.sentinel import Sentinels
from tests.support.traffic import Busy, Fleet


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
        await asyncio.to_thread(redis_sentinels.failover, kill=kill)
        await busy.flows()
        await asyncio.to_thread(redis_sentinels.heal)
        await busy.flows()
    busy.report()
    busy.check()
