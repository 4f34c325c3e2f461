"""Groups over several processes: who hears what, in which order, and what it costs the server."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.peers import Peer
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["n"] for message in messages]


def came(peer: Peer, channel: str, count: int) -> None:
    eventually(lambda: len(peer.collected(channel)) == count, "all came")


def subscribers(server: Server, topic: str) -> int:
    count: int = server.cli("PUBSUB", "NUMSUB", topic)[1]
    return count


def members(server: Server, prefix: str) -> dict[str, int]:
    """Read the memberships of plain channels, with their ends."""
    words = server.cli("HGETALL", f"{prefix}:m")
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def test_every_process_sees_the_messages_of_a_group_in_the_same_order(make_peer: MakePeer) -> None:
    peers = [make_peer(capacity=1000) for _ in range(3)]
    channels = [peer.call("new_channel") for peer in peers]
    for peer, channel in zip(peers, channels, strict=True):
        peer.call("group_add", "room", channel)
        peer.collect(channel)
    each = 100
    sends = [
        peer.start("group_send", "room", {"n": number * each + i})
        for i in range(each)
        for number, peer in enumerate(peers)
    ]
    for send in sends:
        send.result(SECONDS)
    for peer, channel in zip(peers, channels, strict=True):
        came(peer, channel, len(sends))
    orders = [numbers(peer.collected(channel)) for peer, channel in zip(peers, channels, strict=True)]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == list(range(len(sends)))
    for number in range(3):
        # Those of one sender in the order in which it sent them.
        own = [n for n in orders[0] if n // each == number]
        assert own == sorted(own)


async def test_a_living_subscription_stays_in_the_group_that_another_process_put_it_in(
    make_layer: MakeLayer, make_peer: MakePeer
) -> None:
    layer, peer = make_layer(group_expiry=0.2), make_peer()
    async with layer.subscription() as inbox:
        unheld = await layer.new_channel()
        for channel in (inbox.channel, unheld):
            await asyncio.to_thread(peer.call, "group_add", "room", channel)
        eventually(lambda: unheld not in layer.group_channels("room"), "its membership has expired")
        await asyncio.to_thread(peer.call, "group_send", "room", {"n": 1})
        assert await anext(inbox) == {"n": 1}
    assert layer.group_channels("room") == []


async def test_a_sender_is_a_receiver_like_any_other(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    here, peer = await layer.new_channel(), make_peer()
    there = await asyncio.to_thread(peer.call, "new_channel")
    await layer.group_add("room", here)
    await asyncio.to_thread(peer.call, "group_add", "room", there)
    await layer.group_send("room", {"n": 1})
    assert await layer.receive(here) == await asyncio.to_thread(peer.call, "receive", there) == {"n": 1}


def test_who_is_excluded_is_so_in_every_process(make_peer: MakePeer) -> None:
    one, two = make_peer(), make_peer()
    passed, heard = {}, {}
    for peer in (one, two):
        passed[peer], heard[peer] = peer.call("new_channel"), peer.call("new_channel")
        for channel in (passed[peer], heard[peer]):
            peer.call("group_add", "room", channel)
    one.call("group_add", "room", "queue")
    one.call("group_add", "room", "queue.passed")
    # The other process hears of it a moment later.
    eventually(lambda: {"queue", "queue.passed"} <= set(two.call("group_channels", "room")), "it knows the queues")
    two.call("group_send", "room", {"n": 1}, exclude=[*passed.values(), "queue.passed"])
    two.call("group_send", "room", {"n": 2})
    for peer in (one, two):
        assert [peer.call("receive", heard[peer])["n"] for _ in range(2)] == [1, 2]
        assert peer.call("receive", passed[peer]) == {"n": 2}
    assert one.call("receive_many", "queue", 5) == [{"n": 1}, {"n": 2}]
    assert one.call("receive_many", "queue.passed", 5) == [{"n": 2}]


def test_a_channel_of_another_process_joins_and_leaves(make_peer: MakePeer) -> None:
    owner, other, sender = make_peer(), make_peer(), make_peer()
    channel = owner.call("new_channel")
    other.call("group_add", "room", channel)
    assert owner.call("channel_groups", channel) == ["room"]
    sender.call("group_send", "room", {"n": 1})
    assert owner.call("receive", channel) == {"n": 1}
    other.call("group_discard", "room", channel)
    assert owner.call("channel_groups", channel) == []
    sender.call("group_send", "room", {"n": 2})
    sender.call("send", channel, {"n": 3})
    assert owner.call("receive", channel) == {"n": 3}


def test_a_plain_name_joins_and_leaves_from_any_process(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    one, two, three = make_peer(), make_peer(), make_peer()
    two.call("connect")
    one.call("group_add", "jobs", "work")
    eventually(lambda: two.call("group_channels", "jobs") == ["work"], "it is known elsewhere")
    two.call("group_send", "jobs", {"n": 1})
    assert three.call("receive", "work") == {"n": 1}
    two.call("group_discard", "jobs", "work")
    eventually(lambda: one.call("group_channels", "jobs") == [], "it is known elsewhere")
    one.call("group_send", "jobs", {"n": 2})
    one.call("send", "work", {"n": 3})
    assert three.call("receive_many", "work", 5) == [{"n": 3}]
    assert members(redis_server, redis_prefix) == {}


def test_a_plain_name_is_a_member_as_soon_as_group_add_returns(make_peer: MakePeer) -> None:
    one, two = make_peer(), make_peer()
    two.call("connect")
    for number in range(20):
        one.call("group_add", "jobs", f"work.{number}")
        one.call("group_send", "jobs", {"n": number})
    assert numbers(two.call("receive_many", "work.0", 50)) == list(range(20))
    assert numbers(two.call("receive_many", "work.19", 50)) == [19]


def test_the_first_message_of_a_process_reaches_the_plain_members(make_peer: MakePeer) -> None:
    one = make_peer()
    one.call("group_add", "jobs", "work")
    for number, method in enumerate(("group_send", "group_send_sync")):
        make_peer().call(method, "jobs", {"n": number})
        assert one.call("receive", "work") == {"n": number}
    late = make_peer()
    late.call("connect")
    eventually(lambda: late.call("group_count", "jobs") == 1, "it has read them")


def test_the_first_message_is_counted_where_it_went(make_peer: MakePeer) -> None:
    one = make_peer(capacity=1)
    for channel in ("work", "full"):
        one.call("group_add", "jobs", channel)
    one.call("send", "full", {"n": 0})
    report = make_peer(capacity=1).call("group_send", "jobs", {"n": 1})
    assert (report["delivered_here"], report["dropped_full"]) == (1, 1)


def test_a_plain_membership_expires_and_is_cleared_away(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    # Long enough for the first message.
    one = make_peer(group_expiry=5)
    one.call("group_add", "jobs", "work")
    one.call("group_send", "jobs", {"n": 1})
    assert one.call("receive", "work") == {"n": 1}
    eventually(lambda: one.call("group_count", "jobs") == 0, "it has expired")
    one.call("group_send", "jobs", {"n": 2})
    one.call("send", "work", {"n": 3})
    assert one.call("receive", "work") == {"n": 3}
    # Whoever reads the hash next takes it out.
    make_peer().call("connect")
    eventually(lambda: members(redis_server, redis_prefix) == {}, "it is cleared away")


def test_group_add_renews_a_plain_membership(make_peer: MakePeer, redis_server: Server, redis_prefix: str) -> None:
    one = make_peer(group_expiry=100)
    one.call("group_add", "jobs", "work")
    first = members(redis_server, redis_prefix)
    one.call("group_add", "jobs", "work")
    second = members(redis_server, redis_prefix)
    assert list(first) == list(second) == ["jobs\0work"]
    assert second["jobs\0work"] >= first["jobs\0work"]
    assert one.call("group_count", "jobs") == 1


def test_the_members_of_a_dead_process_cost_nothing(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    dead, alive = make_peer(), make_peer()
    channels = [dead.call("new_channel") for _ in range(5)]
    for channel in channels:
        dead.call("group_add", "room", channel)
    inbox, topic = f"{redis_prefix}:p:{dead.call('client_prefix')}", f"{redis_prefix}:g:room"
    dead.kill()
    eventually(lambda: subscribers(redis_server, inbox) == subscribers(redis_server, topic) == 0, "it is gone")
    with redis_server.monitor() as monitor:
        assert alive.call("group_send_sync", "room", {"n": 1}, confirm=True)["processes"] == 0
        assert [seen.name for seen in monitor.seen() if topic.encode() in seen.words] == ["PUBLISH"]
    assert redis_server.cli("KEYS", f"{redis_prefix}*") == []
    # Nor does it fail to add and discard what is no more, and a send to it is counted.
    alive.call("group_add", "room", channels[0])
    alive.call("group_discard", "room", channels[0])
    assert alive.call("send_many_sync", [(channels[0], {"n": 2})])["processes"] == 0
    assert alive.link()["unreachable"] == 1


async def test_the_subscription_is_confirmed_when_group_add_returns(
    make_layer: MakeLayer, make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    layer, peer = make_layer(), make_peer()
    channel = await layer.new_channel()
    for number in range(30):
        group = f"room.{number}"
        await layer.group_add(group, channel)
        # Through another process's connection, at once.
        report = await asyncio.to_thread(peer.call, "group_send_sync", group, {"n": number}, confirm=True)
        assert report["processes"] == 1
        assert await layer.receive(channel) == {"n": number}


async def test_joining_again_while_the_subscription_is_left_misses_nothing(
    make_layer: MakeLayer, make_peer: MakePeer
) -> None:
    layer, peer = make_layer(subscription_linger=0), make_peer()
    channel = await layer.new_channel()
    for number in range(100):
        await layer.group_add("room", channel)
        await asyncio.to_thread(peer.call, "group_send", "room", {"n": number})
        assert await asyncio.wait_for(layer.receive(channel), SECONDS) == {"n": number}
        await layer.group_discard("room", channel)
        await asyncio.sleep(0.02)
    assert layer.stats().connection.gaps == 0


async def test_a_subscription_outlives_its_last_member_for_a_while(
    make_layer: MakeLayer, redis_server: Server, redis_prefix: str
) -> None:
    # Long enough for a member that comes again.
    layer, topic = make_layer(subscription_linger=5), f"{redis_prefix}:g:room"
    channel = await layer.new_channel()
    before = redis_server.commands_seen()
    await layer.group_add("room", channel)
    assert subscribers(redis_server, topic) == 1
    await layer.group_discard("room", channel)
    await layer.group_add("room", channel)
    assert (redis_server.commands_seen() - before)["subscribe"] == 1
    await layer.group_discard("room", channel)
    await asyncio.to_thread(eventually, lambda: subscribers(redis_server, topic) == 0, "it is left")
    assert layer.stats().connection.subscriptions == 3
    await layer.group_add("room", channel)
    assert subscribers(redis_server, topic) == 1


async def test_a_closed_channel_leaves_the_subscription(
    make_layer: MakeLayer, redis_server: Server, redis_prefix: str
) -> None:
    layer, topic = make_layer(subscription_linger=0.2), f"{redis_prefix}:g:room"
    async with layer.subscription("room"):
        assert subscribers(redis_server, topic) == 1
    await asyncio.to_thread(eventually, lambda: subscribers(redis_server, topic) == 0, "it is left")


async def test_a_further_consumer_costs_the_server_nothing(layer: RedisChannelLayer, redis_server: Server) -> None:
    await layer.group_add("room", await layer.new_channel())
    with redis_server.monitor() as monitor:
        for _ in range(200):
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_discard("room", channel)
            layer.close_channel(channel)
        # What a process publishes to itself is the probe of a connection, which it sends now and then without any
        # consumer.
        inbox = f":p:{layer.client_prefix}".encode()
        ours = [seen for seen in monitor.seen() if not (seen.name == "PUBLISH" and seen.words[1].endswith(inbox))]
    assert [seen.name for seen in ours if seen.name not in ("PING", "TIME")] == []


async def test_a_group_send_is_one_publish_whatever_the_number_of_members(
    layer: RedisChannelLayer, redis_server: Server, redis_prefix: str
) -> None:
    channels = [await layer.new_channel() for _ in range(50)]
    for channel in channels:
        await layer.group_add("room", channel)
    with redis_server.monitor() as monitor:
        await layer.group_send("room", {"n": 1})
        topic = f"{redis_prefix}:g:room".encode()
        assert [seen.name for seen in monitor.seen() if topic in seen.words] == ["PUBLISH"]
    assert [await layer.receive(channel) for channel in channels] == [{"n": 1}] * 50


async def test_groups_of_another_prefix_are_other_groups(make_layer: MakeLayer, redis_prefix: str) -> None:
    one, two = make_layer(), make_layer(prefix=f"{redis_prefix}x")
    channels = {layer: await layer.new_channel() for layer in (one, two)}
    for layer, channel in channels.items():
        await layer.group_add("room", channel)
    await two.group_send("room", {"n": 2})
    await one.group_send("room", {"n": 1})
    assert await one.receive(channels[one]) == {"n": 1}
    assert await two.receive(channels[two]) == {"n": 2}


async def test_a_refused_membership_is_undone(redis_prefix: str, start_redis: Callable[..., Server]) -> None:
    """Whoever may not subscribe is no member here either."""
    own = " ".join(f"&{redis_prefix}:{name}" for name in ("p:*", "c", "m"))
    server = start_redis(users={"app": f"on >secret ~{redis_prefix}:* {own} +@all"})
    layer = RedisChannelLayer([server.url_for(("app", "secret"))], redis_prefix)
    try:
        channel = await layer.new_channel()
        with pytest.raises(ConnectionError, match=r"(?i)permission") as caught:
            await layer.group_add("room", channel)
        assert "secret" not in str(caught.value)
        assert layer.group_channels("room") == []
    finally:
        await layer.close()


def test_the_hash_of_plain_members_is_what_the_protocol_says(
    make_peer: MakePeer, redis_server: Server, redis_prefix: str
) -> None:
    one = make_peer(group_expiry=60)
    one.call("group_add", "jobs", "work")
    ((field, end),) = members(redis_server, redis_prefix).items()
    seconds, microseconds = map(int, redis_server.cli("TIME"))
    assert json.dumps(field) == r'"jobs\u0000work"'
    # What the layer knows of the time there is wrong by half of what the answer took.
    assert 30_000 < end - (seconds * 1000 + microseconds // 1000) < 90_000


@pytest.fixture
async def paused(
    start_redis: Callable[..., Server], make_layer: Callable[..., RedisChannelLayer]
) -> tuple[Server, RedisChannelLayer, str]:
    """Give a server that does not answer until it is resumed, and a layer on it with a channel."""
    server = start_redis()
    layer = make_layer(hosts=[server.url])
    channel = await layer.new_channel()
    server.pause()
    return server, layer, channel


async def test_a_join_that_is_cancelled_does_not_undo_another_that_succeeds(
    paused: tuple[Server, RedisChannelLayer, str],
) -> None:
    server, layer, channel = paused
    first, second = [asyncio.create_task(layer.group_add("room", channel)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.resume()
    await second
    assert layer.group_channels("room") == [channel]


async def test_joins_that_are_all_cancelled_leave_nothing(paused: tuple[Server, RedisChannelLayer, str]) -> None:
    server, layer, channel = paused
    joins = [asyncio.create_task(layer.group_add("room", channel)) for _ in range(3)]
    await asyncio.sleep(0)
    for join in joins:
        join.cancel()
    await asyncio.gather(*joins, return_exceptions=True)
    server.resume()
    assert layer.group_channels("room") == []
