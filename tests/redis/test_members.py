"""Plain channels in groups: every process knows the same members, and does not read all of them for each change."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.support.peers import Peer
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]

GROUPS = ("room", "hall")


def in_hash(server: Server, prefix: str, group: str) -> list[str]:
    fields = [field.split("\0") for field in server.cli("HGETALL", f"{prefix}:m")[::2]]
    return sorted(channel for of, channel in fields if of == group)


def known(peer: Peer, group: str) -> list[str]:
    return sorted(peer.call("group_channels", group))


def readings(server: Server) -> int:
    """Count how often all members were read, by whomever."""
    calls: int = server.commands_seen()["hgetall"]
    return calls


def connected(make_peer: MakePeer, count: int, **settings: Any) -> list[Peer]:
    peers = [make_peer(**settings) for _ in range(count)]
    for peer in peers:
        peer.call("connect")
        peer.call("group_send", "room", {})
    return peers


def test_members_that_come_and_go_are_known_everywhere_without_a_reading_for_each(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    peers = connected(make_peer, 3)
    peers[0].call("group_add", "room", "first")
    eventually(lambda: all(known(peer, "room") == ["first"] for peer in peers), "all have begun")
    before = readings(redis_server)
    for number in range(100):
        peers[number % 3].call("group_add", "room", f"work.{number}")
    for number in range(0, 100, 2):
        peers[number % 3].call("group_discard", "room", f"work.{number}")
    after = readings(redis_server)
    expected = sorted(["first", *(f"work.{number}" for number in range(1, 100, 2))])
    eventually(lambda: all(known(peer, "room") == expected for peer in peers), "all know the same")
    assert after == before
    assert in_hash(redis_server, redis_prefix, "room") == expected
    assert peers[1].call("channel_groups", "work.99") == ["room"]


def test_processes_that_change_the_same_members_at_once_agree_in_the_end(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    peers, choice = connected(make_peer, 3), random.Random(15)
    calls = [
        peer.start(choice.choice(("group_add", "group_discard")), choice.choice(GROUPS), f"work.{choice.randrange(4)}")
        for _ in range(150)
        for peer in peers
    ]
    for call in calls:
        call.result(SECONDS)

    def agree() -> bool:
        expected = [in_hash(redis_server, redis_prefix, group) for group in GROUPS]
        return all([known(peer, group) for group in GROUPS] == expected for peer in peers)

    eventually(agree, "all know what the hash says")


def test_members_are_known_by_their_announcement_with_keys_as_well(make_peer: MakePeer, redis_server: Server) -> None:
    one, two = connected(make_peer, 2, symmetric_encryption_keys=["a secret"])
    one.call("group_add", "room", "work")
    before = readings(redis_server)
    for number in range(20):
        one.call("group_add", "room", f"work.{number}")
    eventually(lambda: len(known(two, "room")) == 21, "all are known")
    assert readings(redis_server) == before


def test_a_flush_leaves_no_members_anywhere(make_peer: MakePeer, redis_server: Server, redis_prefix: str) -> None:
    one, two = connected(make_peer, 2)
    one.call("group_add", "room", "work")
    eventually(lambda: known(two, "room") == ["work"], "it is known")
    two.call("flush")
    eventually(lambda: known(one, "room") == known(two, "room") == [], "it is gone")
    assert in_hash(redis_server, redis_prefix, "room") == []


async def test_a_forged_announcement_is_counted_and_not_believed(
    layer: RedisChannelLayer, redis_server: Server, redis_prefix: str
) -> None:
    await layer.connect()
    # A control message that says that a channel of a process is a queue in the group "room".
    channel = b"specific." + b"0" * 16 + b"!a"
    body = b"\x06\x04room" + bytes([len(channel)]) + channel + b"\xff" * 8
    redis_server.cli("PUBLISH", f"{redis_prefix}:m", bytes([1, 2]) + bytes(24) + body)
    await asyncio.to_thread(eventually, lambda: layer.stats().connection.malformed == 1, "it is counted")
    assert layer.group_channels("room") == []


async def test_a_process_of_an_earlier_release_is_told_and_heard(
    layer: RedisChannelLayer, redis_server: Server, redis_prefix: str
) -> None:
    await layer.connect()
    await layer.group_send("room", {})
    # What such a process does: it writes to the hash, and says that something has changed.
    redis_server.cli("HSET", f"{redis_prefix}:m", "room\0work", str(2**60))
    redis_server.cli("PUBLISH", f"{redis_prefix}:c", bytes([1, 2]) + bytes(7) + b"\x01" + bytes(16) + b"\x04")
    await asyncio.to_thread(eventually, lambda: layer.group_channels("room") == ["work"], "it has been read")
