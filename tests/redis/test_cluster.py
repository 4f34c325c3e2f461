"""The layer on a cluster: sharded pub/sub, queues, and messages that flow while slots and masters change."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from tests.support.cluster import SLOTS, Cluster, Node
from tests.support.envelopes import ahead
from tests.support.traffic import GAP, GROUP, QUEUE, Busy, Fleet, Log, exchange, member, soon
from tests.support.waiting import SECONDS

GROUPS = [f"room.{number}" for number in range(40)]
QUEUES = [f"work-{number}" for number in range(40)]


@pytest.fixture
async def fleet(redis_cluster: Cluster, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers on the cluster; only the first node is told to them."""
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="cluster", on_gap="gap") as fleet:
        yield fleet


@pytest.fixture
async def encrypted_fleet(redis_cluster: Cluster, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers that authenticate what travels, and refuse what comes twice."""
    settings = {"topology": "cluster", "on_gap": "gap", "symmetric_encryption_keys": ["a key"]}
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix, **settings) as fleet:
        yield fleet


def commands(cluster: Cluster) -> list[Counter[str]]:
    """Count what the masters carried out until now."""
    return [node.commands_seen() for node in masters(cluster)]


def masters(cluster: Cluster) -> list[Node]:
    return [cluster.node_of(slot) for slot in (0, SLOTS // 2, SLOTS - 1)]


async def test_groups_are_sharded_channels_on_all_nodes(redis_cluster: Cluster, fleet: Fleet) -> None:
    before = commands(redis_cluster)
    here, there = fleet.layer(), fleet.layer()
    channels = [await member(there, group) for group in GROUPS]
    for number, group in enumerate(GROUPS):
        await here.group_send(group, {"type": "number", "number": number})
    got = [(await asyncio.wait_for(there.receive(channel), SECONDS))["number"] for channel in channels]
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
    got = await asyncio.wait_for(asyncio.gather(*waiting), SECONDS)
    assert [message["number"] for message in got] == list(range(len(QUEUES)))


async def test_flush_removes_everything_on_every_node(redis_cluster: Cluster, fleet: Fleet, redis_prefix: str) -> None:
    here, there = fleet.layer(), fleet.layer()
    for queue in QUEUES:
        await here.send(queue, {"type": "number", "number": 0})
    await here.group_add("room", QUEUES[0])
    keys = [node.cli("KEYS", f"{redis_prefix}*") for node in masters(redis_cluster)]
    assert all(keys)
    await there.flush()
    assert [node.cli("KEYS", f"{redis_prefix}*") for node in masters(redis_cluster)] == [[], [], []]
    await soon(lambda: here.stats().depth == 0, "the other process hears of it")


def slots(cluster: Cluster, prefix: str) -> tuple[int, int]:
    """Give the slots of what a ``Busy`` sends: of its group and of its queue."""
    return cluster.slot_of(f"{prefix}:g:{GROUP}"), cluster.slot_of(f"{{{QUEUE}}}")


async def test_messages_flow_while_slots_move(redis_cluster: Cluster, fleet: Fleet, redis_prefix: str) -> None:
    async with Busy(fleet) as busy:
        await busy.flows()
        await move_slots(redis_cluster, busy, redis_prefix)
    busy.report()
    busy.check()
    assert not busy.group.failed + busy.queue.failed


async def test_encrypted_messages_flow_while_slots_and_masters_change(
    redis_cluster: Cluster, encrypted_fleet: Fleet, redis_prefix: str
) -> None:
    async with Busy(encrypted_fleet) as busy:
        await busy.flows()
        await move_slots(redis_cluster, busy, redis_prefix)
        assert not busy.group.failed + busy.queue.failed
        await change_masters(redis_cluster, busy, redis_prefix, kill=True)
    busy.report()
    busy.check()


async def move_slots(cluster: Cluster, busy: Busy, prefix: str) -> None:
    """Move the slots of the group and of the queue away, further, and back home."""
    homes = {slot: cluster.node_of(slot) for slot in slots(cluster, prefix)}
    ways = {slot: [*(node for node in masters(cluster) if node is not home), home] for slot, home in homes.items()}
    for step in range(len(masters(cluster))):
        for slot, way in ways.items():
            await asyncio.to_thread(cluster.migrate_slot, slot, way[step])
            await busy.flows()


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told"])
async def test_messages_flow_while_a_master_changes(
    redis_cluster: Cluster, fleet: Fleet, redis_prefix: str, kill: bool
) -> None:
    async with Busy(fleet) as busy:
        await busy.flows()
        await change_masters(redis_cluster, busy, redis_prefix, kill)
    busy.report()
    busy.check()


async def change_masters(cluster: Cluster, busy: Busy, prefix: str, kill: bool) -> None:
    """Have a replica take over from the master of the group, and then from that of the queue."""
    for slot in slots(cluster, prefix):
        before = busy.next
        await asyncio.to_thread(cluster.failover, slot, kill=kill)
        await busy.flows()
        # What a master took last, its replica may not have.
        busy.excused.update(range(before, busy.next))
        await asyncio.to_thread(cluster.heal)
        await busy.flows()


@pytest.fixture
async def fleet_of_resp2(redis_cluster: Cluster, redis_prefix: str) -> AsyncIterator[Fleet]:
    """Give layers that speak the older protocol, which knows of no sharded channels."""
    host = {"address": redis_cluster.nodes[0].url, "protocol": 2}
    async with Fleet([host], redis_prefix, topology="cluster", on_gap="gap") as fleet:
        yield fleet


async def test_resp_2_has_no_sharded_channels_and_works(redis_cluster: Cluster, fleet_of_resp2: Fleet) -> None:
    before = commands(redis_cluster)
    await exchange(fleet_of_resp2)
    done = [after - earlier for earlier, after in zip(before, commands(redis_cluster), strict=True)]
    assert not any(node["ssubscribe"] or node["spublish"] for node in done)
    assert sum(node["publish"] for node in done)


async def test_with_resp_2_nothing_of_a_group_is_lost_while_its_slot_moves(
    redis_cluster: Cluster, fleet_of_resp2: Fleet, redis_prefix: str
) -> None:
    async with Busy(fleet_of_resp2) as busy:
        await busy.flows()
        await move_slots(redis_cluster, busy, redis_prefix)
    busy.report()
    busy.check()
    assert GAP not in busy.members.entries
    assert not busy.members.missing(busy.group.taken)


async def test_with_resp_2_messages_flow_while_a_master_changes(
    redis_cluster: Cluster, fleet_of_resp2: Fleet, redis_prefix: str
) -> None:
    async with Busy(fleet_of_resp2) as busy:
        await busy.flows()
        await change_masters(redis_cluster, busy, redis_prefix, True)
    busy.report()
    busy.check()


async def test_with_resp_2_what_a_former_server_passes_on_late_is_part_of_the_gap(
    redis_cluster: Cluster, fleet_of_resp2: Fleet, redis_prefix: str
) -> None:
    here, there = fleet_of_resp2.layer(), fleet_of_resp2.layer()
    channel, topic = await member(there, GROUP), f"{redis_prefix}:g:{GROUP}"
    server = masters(redis_cluster)[0]
    with server.connect(decode=False) as listener:
        listener.ask("SUBSCRIBE", topic)
        await here.group_send(GROUP, {"type": "number", "number": 0})
        _, _, envelope = listener.read()
    for by in (3, 1, 4):
        server.cli("PUBLISH", topic, ahead(envelope, by))
    got = [await asyncio.wait_for(there.receive(channel), SECONDS) for _ in range(4)]
    assert [message["type"] for message in got] == ["number", "gap", "number", "number"]
    assert got[1]["missed"] == 2
    assert there.stats().connection.late == 1


async def test_many_at_once_while_a_slot_moves(redis_cluster: Cluster, fleet: Fleet, redis_prefix: str) -> None:
    here, there = fleet.layer(), fleet.layer(capacity=100_000)
    log = Log(there, await member(there, GROUP))
    slot, _ = slots(redis_cluster, redis_prefix)
    home = redis_cluster.node_of(slot)
    target = next(node for node in masters(redis_cluster) if node is not home)
    receiving = asyncio.ensure_future(log.keep())
    sent = 0
    try:
        for place in (target, home):
            moving = asyncio.ensure_future(asyncio.to_thread(redis_cluster.migrate_slot, slot, place))
            while not moving.done():
                batch = [{"type": "number", "number": sent + number} for number in range(200)]
                await asyncio.gather(*(here.group_send(GROUP, message) for message in batch))
                sent += len(batch)
            await moving
        await here.group_send(GROUP, {"type": "number", "number": sent})
        await soon(lambda: log.has(sent), "the last number comes")
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    assert len(log.numbers) == len(set(log.numbers))
    assert not log.untold(list(range(sent)))
