"""Senders that are faster than the server, or send while it is away, are held up."""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.redis.conftest import MakeLayer
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.traffic import PATIENT, member, soon

from headrace.exceptions import LayerClosed, LayerUnavailable
from headrace.layers import RedisChannelLayer

# Messages of a mebibyte, of which there is room for 64.
MESSAGE = {"type": "test.big", "bytes": bytes(1 << 20)}
ROOM = 64
COUNT = 80


@pytest.fixture
def server(start_redis: Callable[..., Server]) -> Server:
    return start_redis()


@pytest.fixture
def proxy(server: Server, start_proxy: Callable[[Server], Proxy]) -> Proxy:
    return start_proxy(server)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


class Sender:
    """Who sends without waiting for the server, in a thread of its own.

    Attributes:
        sent: How many sends have returned.
        refused: How many found no room in time.
    """

    def __init__(self, layer: RedisChannelLayer, threads: ThreadPoolExecutor) -> None:
        self.sent = self.refused = 0
        self._layer = layer
        self.outcome = threads.submit(self._send)

    def _send(self) -> None:
        for _ in range(COUNT):
            try:
                self._layer.group_send_sync("nobody", MESSAGE)
                self.sent += 1
            except LayerUnavailable:
                self.refused += 1

    async def is_held_up(self) -> None:
        await soon(lambda: self.sent >= ROOM, "there is no more room")
        assert self.sent <= ROOM + 1


async def down(layer: RedisChannelLayer, proxy: Proxy) -> None:
    """Take the connection away."""
    await layer.connect()
    proxy.refuse()
    proxy.cut()
    await soon(lambda: layer.stats().connection.state == "down", "the loss is seen")


async def test_a_server_that_is_there_takes_all_of_a_fast_sender(layer: RedisChannelLayer) -> None:
    await layer.connect()
    before = layer.stats().connection
    await asyncio.to_thread(lambda: [layer.group_send_sync("nobody", MESSAGE) for _ in range(4 * ROOM)])
    await layer.close_pools()
    after = layer.stats().connection
    assert (after.unsent, after.reconnects) == (0, 0)
    assert after.published - before.published >= 4 * ROOM


async def test_awaited_sends_that_find_no_room_wait_for_it(layer: RedisChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await asyncio.gather(*(layer.group_send("nobody", MESSAGE) for _ in range(4 * ROOM)))
    await layer.group_send_many(("nobody", MESSAGE) for _ in range(2 * ROOM))
    await layer.send(channel, {"type": "test.after"})
    assert (await layer.receive(channel))["type"] == "test.after"
    assert layer.stats().connection.unsent == 0


async def test_a_plain_sender_is_held_up_until_there_is_room(
    make_layer: MakeLayer, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    layer = make_layer(hosts=[proxy.url], send_timeout=PATIENT)
    await down(layer, proxy)
    sender = Sender(layer, threads)
    await sender.is_held_up()
    proxy.accept()
    await asyncio.wrap_future(sender.outcome)
    await layer.close_pools()
    assert (sender.sent, layer.stats().connection.unsent) == (COUNT, 0)


async def test_who_awaits_waits_behind_those_that_found_room(
    make_layer: MakeLayer, server: Server, proxy: Proxy
) -> None:
    layer = make_layer(hosts=[proxy.url], send_timeout=PATIENT)
    # Not a channel of the layer that is cut off: it may send before it is subscribed again.
    receiver = make_layer(hosts=[server.url])
    channel = await member(receiver, "room")
    await down(layer, proxy)
    sends = [layer.group_send("nobody", MESSAGE) for _ in range(COUNT)]
    sending = asyncio.gather(*sends, layer.send(channel, {"type": "test.after"}))
    proxy.accept()
    await sending
    assert (await receiver.receive(channel))["type"] == "test.after"


async def test_what_is_given_up_while_a_plain_sender_is_held_up_is_told_to_the_log(
    make_layer: MakeLayer, proxy: Proxy, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(hosts=[proxy.url], send_timeout=1)
    await down(layer, proxy)
    sender = Sender(layer, threads)
    await asyncio.wrap_future(sender.outcome)
    await soon(lambda: layer.stats().connection.unsent == COUNT, "all are given up")

    def told() -> int:
        lines = (record.getMessage() for record in caplog.records if record.name == "headrace.redis")
        counts = (re.match("sends failed that nobody waited for: ([0-9]+);", line) for line in lines)
        return sum(int(count[1]) for count in counts if count)

    # The sender was told of the others.
    await soon(lambda: told() + sender.refused == COUNT, "all are told")


async def test_a_sender_that_is_held_up_is_told_when_its_layer_is_closed(
    make_layer: MakeLayer, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    layer = make_layer(hosts=[proxy.url], send_timeout=PATIENT)
    await down(layer, proxy)
    sender = Sender(layer, threads)
    await sender.is_held_up()
    await layer.close()
    with pytest.raises(LayerClosed):
        await asyncio.wrap_future(sender.outcome)
