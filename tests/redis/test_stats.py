"""``stats().connection``: every field moves when, and only when, what it counts happens; and the books balance."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.envelopes import CONTROL, ENCRYPTED, header, seal
from tests.support.peers import Peer
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace import LinkStats
from headrace.exceptions import ChannelFull, LayerUnavailable
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]
PassTime = Callable[[float], None]

FIELDS = {name for name in dir(LinkStats) if not name.startswith("_")}
# Readings, and what grows by the layer's own small talk: probes, and the control messages that it sends.
OWN = {
    "state",
    "bytes_in",
    "bytes_out",
    "published",
    "publish_latency",
    "lag",
    "queue_depth",
    "queues",
    "subscriptions",
}
COUNTERS = FIELDS - OWN


class Reading:
    """What the counters did since the last look."""

    def __init__(self, layer: RedisChannelLayer) -> None:
        self._layer = layer
        self._before = layer.stats().connection

    def moved(self) -> dict[str, int]:
        """Give those that moved, and by how much."""
        before, self._before = self._before, self._layer.stats().connection
        moves = {name: getattr(self._before, name) - getattr(before, name) for name in COUNTERS}
        return {name: by for name, by in moves.items() if by}


@pytest.fixture
async def reading(layer: RedisChannelLayer) -> Reading:
    await layer.connect()
    return Reading(layer)


async def until(ask: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(eventually, ask, what)


def test_each_field_is_tested_here() -> None:
    """Who adds one adds what moves it."""
    assert {
        *("reconnects", "gaps", "missed", "unsent", "unreachable", "malformed", "unauthenticated", "replayed", "late"),
        *("queue_expired", "queued", "fetched", "queue_full", "queue_dropped", "handed_back", "oversized"),
    } == COUNTERS


async def test_the_state(start_redis: Callable[..., Server], make_layer: MakeLayer) -> None:
    server = start_redis()
    layer = make_layer(hosts=[server.url], connect_timeout=0.5)
    assert layer.stats().connection.state == "idle"
    server.pause()
    connecting = asyncio.create_task(layer.connect())
    await until(lambda: layer.stats().connection.state == "connecting", "it connects")
    server.resume()
    await connecting
    await until(lambda: layer.stats().connection.state == "up", "it is up")
    server.stop()
    await until(lambda: layer.stats().connection.state == "down", "it is down")
    server.start()
    await until(lambda: layer.stats().connection.gaps == 1, "it is up again, and has told of the gap")
    await until(lambda: layer.stats().connection.state == "up", "so is what it sends by")
    assert layer.stats().connection.reconnects == 1
    await layer.close()
    assert layer.stats().connection.state == "closed"


async def test_nothing_moves_by_what_goes_well(layer: RedisChannelLayer, reading: Reading) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send(channel, {"n": 1})
    await layer.group_send("room", {"n": 2})
    await layer.receive(channel)
    await layer.receive(channel)
    await layer.group_discard("room", channel)
    assert reading.moved() == {}


async def test_published_and_the_bytes(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    channel = await layer.new_channel()
    began = time.monotonic()
    before = layer.stats().connection
    for _ in range(10):
        await layer.send(channel, {"data": b"x" * 10_000})
    for _ in range(10):
        await layer.receive(channel)
    after = layer.stats().connection
    # A probe of the connection is one too, of which there are two in a second at most.
    assert 10 <= after.published - before.published <= 15 + 2 * (time.monotonic() - began)
    assert 100_000 < after.bytes_out - before.bytes_out < 110_000
    assert 100_000 < after.bytes_in - before.bytes_in < 110_000
    assert 0 < after.publish_latency < 10


async def test_the_lag_is_measured(layer: RedisChannelLayer, reading: Reading) -> None:
    await until(lambda: 0 < layer.stats().connection.lag < 10, "it is measured")
    assert reading.moved() == {}


async def test_a_probe_of_the_connection_leaves_no_hole(layer: RedisChannelLayer, reading: Reading) -> None:
    """It is a message of this process to itself, with a number like any other."""
    channel = await layer.new_channel()

    async def probe() -> None:
        before = layer.stats().connection.published
        await until(lambda: layer.stats().connection.published > before, "a probe was sent")

    await layer.send(channel, {})
    await probe()
    await layer.send(channel, {})
    await layer.receive(channel)
    await layer.receive(channel)
    assert reading.moved() == {}


async def test_subscriptions(make_layer: MakeLayer) -> None:
    layer = make_layer(subscription_linger=0)
    await layer.connect()
    assert layer.stats().connection.subscriptions == 3
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    assert layer.stats().connection.subscriptions == 4
    waiting = asyncio.create_task(layer.receive("work"))
    await until(lambda: layer.stats().connection.subscriptions == 5, "it subscribes to the wake-ups")
    waiting.cancel()
    await layer.group_discard("room", channel)
    await until(lambda: layer.stats().connection.subscriptions == 3, "both are left")


async def test_queued_fetched_and_the_depth(layer: RedisChannelLayer, reading: Reading, make_peer: MakePeer) -> None:
    for number in range(3):
        await layer.send("work", {"n": number})
    await layer.send("other", {})
    link = layer.stats().connection
    assert (link.queue_depth, link.queues) == (4, 2)
    assert reading.moved() == {"queued": 4}
    await layer.receive("work")
    assert reading.moved() == {"fetched": 1}
    assert layer.stats().connection.queue_depth == 3
    # What another process takes is known after the next look.
    assert len(await asyncio.to_thread(make_peer().call, "receive_many", "work", 5)) == 2
    await until(lambda: layer.stats().connection.queue_depth == 1, "it has looked")
    assert reading.moved() == {}


async def test_queue_full(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("work", {})
    reading = Reading(layer)
    for _ in range(2):
        with pytest.raises(ChannelFull):
            await layer.send("work", {})
    assert reading.moved() == {"queue_full": 2}
    assert layer.stats().dropped_full == 2


async def test_queue_expired(make_layer: MakeLayer, make_peer: MakePeer, pass_time: PassTime) -> None:
    layer, short = make_layer(), make_peer(expiry=0.05)
    await layer.connect()
    reading = Reading(layer)
    short.call("send", "work", {"n": 1})
    await layer.send("work", {"n": 2})
    assert reading.moved() == {"queued": 1}
    pass_time(0.1)
    assert await layer.receive("work") == {"n": 2}
    assert reading.moved() == {"queue_expired": 1, "fetched": 1}
    assert layer.stats().dropped_expired == 1


async def test_queue_dropped(layer: RedisChannelLayer, reading: Reading) -> None:
    for channel in ("work", "work", "other"):
        await layer.send(channel, {})
    layer.close_channel("other")
    await until(lambda: layer.stats().connection.queue_dropped == 1, "it is counted")
    await layer.flush()
    assert reading.moved() == {"queued": 3, "queue_dropped": 3}
    assert layer.stats().dropped_other == 3


async def test_handed_back(layer: RedisChannelLayer, reading: Reading, make_peer: MakePeer) -> None:
    peer = make_peer()
    task = asyncio.create_task(layer.receive("work"))
    await until(lambda: layer.channel_stats("work").waiters == 1, "it waits")
    peer.call("send", "work", {"n": 1})
    eventually(lambda: layer.channel_stats("work").waiters == 0, "it is on its way")
    task.cancel()
    await until(lambda: layer.stats().connection.handed_back == 1, "it has gone back")
    assert reading.moved() == {"fetched": 1, "handed_back": 1}


async def test_unreachable(layer: RedisChannelLayer, reading: Reading, make_peer: MakePeer) -> None:
    peer = make_peer()
    channel = peer.call("new_channel")
    peer.kill()
    await until(lambda: layer.send_many_sync([(channel, {})]).processes == 0, "it is gone")
    reading.moved()
    await layer.send(channel, {})
    assert reading.moved() == {"unreachable": 1}


async def test_malformed(layer: RedisChannelLayer, reading: Reading, redis_server: Server, redis_prefix: str) -> None:
    redis_server.cli("PUBLISH", f"{redis_prefix}:c", "what is this?")
    await until(lambda: layer.stats().connection.malformed == 1, "it is counted")
    assert reading.moved() == {"malformed": 1}


async def test_oversized(make_layer: MakeLayer) -> None:
    sender, layer = make_layer(), make_layer(max_message_bytes=2000)
    channel = await layer.new_channel()
    reading = Reading(layer)
    await sender.send(channel, {"text": "x" * 2000})
    await until(lambda: layer.stats().connection.oversized == 1, "it is counted")
    assert reading.moved() == {"oversized": 1}


async def test_unauthenticated(make_layer: MakeLayer, redis_server: Server, redis_prefix: str) -> None:
    layer = make_layer(symmetric_encryption_keys=["key"])
    await layer.connect()
    reading = Reading(layer)
    redis_server.cli("PUBLISH", f"{redis_prefix}:c", bytes([1, 2]) + bytes(24) + b"\x05")
    await until(lambda: layer.stats().connection.unauthenticated == 1, "it is counted")
    assert reading.moved() == {"unauthenticated": 1}


async def test_replayed(make_layer: MakeLayer, redis_server: Server, redis_prefix: str) -> None:
    layer = make_layer(symmetric_encryption_keys=["key"])
    await layer.connect()
    reading = Reading(layer)
    topic = f"{redis_prefix}:c"
    flush = seal("key", topic, header(2, CONTROL | ENCRYPTED, 9, 1, 2**62), b"\x05")
    for _ in range(2):
        redis_server.cli("PUBLISH", topic, flush)
    await until(lambda: layer.stats().connection.replayed == 1, "it is counted")
    assert reading.moved() == {"replayed": 1}


async def test_late(
    start_proxy: Callable[[Server], Proxy], make_layer: MakeLayer, redis_server: Server, pass_time: PassTime
) -> None:
    proxy = start_proxy(redis_server)
    layer, sender = make_layer(hosts=[proxy.url]), make_layer(expiry=0.05)
    channel = await layer.new_channel()
    await sender.connect()
    reading = Reading(layer)
    proxy.stall()
    await sender.send(channel, {"n": 1})
    pass_time(0.1)
    proxy.flow()
    await until(lambda: layer.stats().connection.late == 1, "it is counted")
    assert reading.moved() == {"late": 1}
    assert layer.stats().dropped_expired == 1


async def test_unsent(start_redis: Callable[..., Server], make_layer: MakeLayer) -> None:
    server = start_redis()
    layer = make_layer(hosts=[server.url], send_timeout=2)
    channel = await layer.new_channel()
    server.stop()
    with pytest.raises(LayerUnavailable):
        await layer.send(channel, {})
    with pytest.raises(LayerUnavailable):
        await layer.send("work", {})
    assert layer.stats().connection.unsent == 2


async def test_missed(
    make_layer: MakeLayer, reading: Reading, layer: RedisChannelLayer, redis_server: Server, redis_prefix: str
) -> None:
    await layer.group_add("room", await layer.new_channel())
    for sequence in (1, 2, 6):
        data = b"\x01\x00" + b"\x07" * 8 + sequence.to_bytes(8, "big") + bytes(8) + b"\x00" + b"\x80"
        await asyncio.to_thread(redis_server.cli, "PUBLISH", f"{redis_prefix}:g:room", data)
    await until(lambda: layer.stats().connection.missed, "the hole is seen")
    assert reading.moved() == {"gaps": 1, "missed": 3}


async def test_the_books_of_a_fleet_balance(make_peer: MakePeer) -> None:
    """What was sent was delivered, is there still, or was dropped, and somebody counted it."""
    peers = [make_peer(capacity=5) for _ in range(3)]
    for number in range(40):
        sends = [peer.start("send", f"work.{number % 3}", {"n": number}) for peer in peers]
        for send in sends:
            await asyncio.wait_for(asyncio.gather(asyncio.wrap_future(send), return_exceptions=True), SECONDS)
        if number % 4 == 0:
            await asyncio.to_thread(peers[number % 3].call, "receive_many", f"work.{number % 3}", 2)
    stats = [peer.stats() for peer in peers]

    def total(name: str) -> int:
        return sum(reading[name] for reading in stats)

    depth = sum(len(peers[0].call("receive_many", f"work.{number}", 10)) for number in range(3))
    assert total("sent") == total("delivered") + depth + total("dropped_expired") + total("dropped_other")
    assert total("sent") + total("dropped_full") == 120


def test_readings_are_compared_and_shown() -> None:
    link = RedisChannelLayer().stats().connection
    assert link == RedisChannelLayer().stats().connection
    assert repr(link).startswith('LinkStats(state="idle", reconnects=0, gaps=0')
