"""The layer on a cluster: sharded pub/sub, queues, and messages that flow while slots and masters change."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from tests.support.cluster import SLOTS, Cluster
from tests.support.traffic import GAP, Fleet, Log, Stream, running, soon

from headrace.layers import RedisChannelLayer

GROUPS = [f"room.{number}" for number in range(40)]
QUEUES = [f"work-{number}" for number in range(40)]


@pytest.fixture
async def fleet(redis_cluster: Cluster, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers on the cluster; only the first node is told to them."""
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="cluster", on_gap="gap") as fleet:
        yield fleet


async def member(layer: RedisChannelLayer, group: str) -> str:
    """Make a channel that is in a group."""
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


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
