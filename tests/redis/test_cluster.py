"""The layer on a cluster: sharded pub/sub, queues, and messages that flow while slots and masters change."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from tests.support.cluster import SLOTS, Cluster
from tests.support.traffic import GROUP, QUEUE, Busy, Fleet, member

from headrace.layers import RedisChannelLayer

GROUPS = [f"room.{number}" for number in range(40)]
QUEUES = [f"work-{number}" for number in range(40)]


@pytest.fixture
async def fleet(redis_cluster: Cluster, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers on the cluster; only the first node is told to them."""
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="cluster", on_gap="gap") as fleet:
        yield fleet


def commands(cluster: Cluster) -> list[Counter[str]]:
    """Count what the masters carried out until now."""
    return [node.commands_seen() for node in masters(cluster)]


def masters(cluster: Cluster) -> list:
    return [cluster.node_of(slot) for slot in (0, SLOTS // 2, SLOTS - 1)]


async def test_groups_are_sharded_channels_on_all_nodes(redis_cluster: Cluster, fleet: Fleet) -> None:
    before = commands(redis_cluster)
    here, there = fleet.layer(), fleet.layer()
    channels = [await member(there, group) for group in GROUPS]
    for number, group in enumerate(GROUPS):
        await here.group_send(group, {"type": "number", "number": number})
    got = [(await asyncio.wait_for(there.receive(channel), 5))["number"] for channel in channels]
    assert got == list(range(len(GROUPS)))
    done = [after - earlier for earlier, after in zip(before, commands(redis_cluster), strict=True)]
    assert all(node["ssubscribe"] and node["spublish"] for node in done)
    assert not any(node["subscribe"] or node["publish"] for node in done)
    assert sum(node["spublish"] for node in done) >= len(GROUPS)


async def test_sends_and_queues_arrive(fleet: Fleet) -> None:
    here, there = fleet.layer(), fleet.layer()
    channel = await there.new_channel()
    for number in range(100):
        await here.send(channel, {"type": "number", "number": number})
    assert [(await there.receive(channel))["number"] for _ in range(100)] == list(range(100))
    waiting = [asyncio.ensure_future(there.receive(queue)) for queue in QUEUES]
    for number, queue in enumerate(QUEUES):
        await here.send(queue, {"type": "number", "number": number})
    got = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert [message["number"] for message in got] == list(range(len(QUEUES)))


async def test_flush_removes_everything_on_every_node(
    redis_cluster: Cluster, fleet: Fleet, redis_prefix: str
) -> None:
    here, there = fleet.layer(), fleet.layer()
    for queue in QUEUES:
        await here.send(queue, {"type": "number", "number": 0})
    await here.group_add("room", QUEUES[0])
    keys = [node.cli("KEYS", f"{redis_prefix}*") for node in masters(redis_cluster)]
    assert all(keys)
    await there.flush()
    assert [node.cli("KEYS", f"{redis_prefix}*") for node in masters(redis_cluster)] == [[], [], []]
    assert here.stats().depth == 0


def slots(cluster: Cluster, prefix: str) -> tuple[int, int]:
    """Give the slots of what a ``Busy`` sends: of its group and of its queue."""
    return cluster.slot_of(f"{prefix}:g:{GROUP}"), cluster.slot_of(f"{{{QUEUE}}}")


async def test_messages_flow_while_slots_move(redis_cluster: Cluster, fleet: Fleet, redis_prefix: str) -> None:
    homes = {slot: redis_cluster.node_of(slot) for slot in slots(redis_cluster, redis_prefix)}
    async with Busy(fleet) as busy:
        await busy.flows()
        for _ in range(2):
            for slot in homes:
                target = next(node for node in masters(redis_cluster) if node is not redis_cluster.node_of(slot))
                await asyncio.to_thread(redis_cluster.migrate_slot, slot, target)
                await busy.flows()
        for slot, home in homes.items():
            if redis_cluster.node_of(slot) is not home:
                await asyncio.to_thread(redis_cluster.migrate_slot, slot, home)
        await busy.flows()
    busy.report()
    busy.check()
    assert not busy.group.failed + busy.queue.failed


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told"])
async def test_messages_flow_while_a_master_changes(
    redis_cluster: Cluster, fleet: Fleet, redis_prefix: str, kill: bool
) -> None:
    async with Busy(fleet) as busy:
        await busy.flows()
        for slot in slots(redis_cluster, redis_prefix):
            await asyncio.to_thread(redis_cluster.failover, slot, kill=kill)
            await busy.flows()
            await asyncio.to_thread(redis_cluster.heal)
            await busy.flows()
    busy.report()
    busy.check()
