"""Full mailboxes: refused in the process that has them, counted there when the sender is elsewhere."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.support.peers import Peer
from tests.support.programs import Ended, run
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace import AsyncConsumer, channel_layers
from headrace.exceptions import ChannelFull
from headrace.layers import RedisChannelLayer
from headrace.testing import settle

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]


async def test_a_full_mailbox_of_this_process_refuses(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2)
    channel = await layer.new_channel()
    for number in range(2):
        await layer.send(channel, {"n": number})
    # It is full when they have come back from the server.
    await asyncio.to_thread(eventually, lambda: layer.channel_stats(channel).depth == 2, "they are here")
    with pytest.raises(ChannelFull) as caught:
        await layer.send(channel, {"n": 2})
    assert caught.value.args == (channel,)
    with pytest.raises(ChannelFull):
        layer.send_sync(channel, {"n": 2})
    report = await layer.send_many([(channel, {"n": 2})])
    assert (report.delivered_here, report.dropped_full) == (0, 1)
    assert layer.stats().dropped_full == 3
    assert [await layer.receive(channel) for _ in range(2)] == [{"n": 0}, {"n": 1}]


def test_a_full_mailbox_of_another_process_counts_it_there(make_peer: MakePeer) -> None:
    owner, sender = make_peer(capacity=2), make_peer(capacity=2)
    channel = owner.call("new_channel")
    for number in range(5):
        sender.call("send", channel, {"n": number})
    eventually(lambda: owner.stats()["dropped_full"] == 3, "it is counted")
    assert owner.call("channel_stats", channel)["dropped_full"] == 3
    assert sender.stats()["dropped_full"] == 0
    assert [owner.call("receive", channel)["n"] for _ in range(2)] == [0, 1]


def has_collected(peer: Peer, channel: str, count: int) -> bool:
    return len(peer.collected(channel)) == count


def test_one_full_member_of_a_group_is_full_for_nobody_else(make_peer: MakePeer) -> None:
    owner, sender = make_peer(capacity=2), make_peer()
    full, other = owner.call("new_channel"), owner.call("new_channel")
    for channel in (full, other):
        owner.call("group_add", "room", channel)
    owner.collect(other)
    for number in range(1, 6):
        sender.call("group_send", "room", {"n": number})
        # One after the other, because that member could be full as well if its reader were slow.
        eventually(partial(has_collected, owner, other, number), "it came")
    assert owner.call("group_stats", "room")["dropped_full"] == 3
    assert owner.call("channel_stats", full)["depth"] == 2


RULE_THAT_ASKS_ANOTHER_THREAD = """if True:
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from headrace import RedisChannelLayer

    class Rule:
        def match(self, name):
            return threads.submit(layer.stats).result() is None

    threads = ThreadPoolExecutor(1)
    layer = RedisChannelLayer(hosts=sys.argv[1:2], prefix=sys.argv[2], channel_capacity={Rule(): 1})
    for _ in range(2):
        layer.group_add_sync("group", layer.new_channel_sync())
    assert layer.group_count("group") == 2
    print("done")
"""


def test_a_capacity_rule_may_give_other_threads_their_turn(redis_server: Server, redis_prefix: str) -> None:
    assert run(RULE_THAT_ASKS_ANOTHER_THREAD, redis_server.url, redis_prefix) == Ended(0, ["done"], "")


class TestConsumers:
    """What a consumer of headrace does when its mailbox is full, on messages from another process."""

    async def _overrun(self, layer: RedisChannelLayer, peer: Peer, consumer: type[AsyncConsumer]) -> list[int]:
        """Send 20 messages while the consumer is busy with the first; give those that it handled."""
        handled: list[int] = []
        busy, go_on, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()

        class Busy(consumer):  # type: ignore[misc, valid-type]  # a class that is an argument
            async def go(self, _message: Any) -> None:
                await self.channel_layer.group_add("room", self.channel_name)
                ready.set()

            async def work(self, message: dict[str, Any]) -> None:
                busy.set()
                await go_on.wait()
                handled.append(message["n"])

        inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        inputs.put_nowait({"type": "go"})

        async def send(_message: Any) -> None:
            """Nothing is sent."""

        before = channel_layers.set("default", layer)
        try:
            task = asyncio.create_task(Busy.as_asgi()({"type": "test"}, inputs.get, send))
            await asyncio.wait_for(ready.wait(), SECONDS)
            await asyncio.to_thread(peer.call, "group_send", "room", {"type": "work", "n": 0})
            await asyncio.wait_for(busy.wait(), SECONDS)
            for number in [*range(1, 20), 99]:
                await asyncio.to_thread(peer.call, "group_send", "room", {"type": "work", "n": number})
            # The last has arrived, or was dropped, when a later message has.
            probe = await layer.new_channel()
            await asyncio.to_thread(peer.call, "send", probe, {"type": "later"})
            assert await asyncio.wait_for(layer.receive(probe), SECONDS) == {"type": "later"}
            go_on.set()
            # The last that was taken is handled in a turn of its own.
            while layer.stats().depth:
                await asyncio.sleep(0)
            await settle()
            inputs.put_nowait({"type": "websocket.disconnect", "code": 1000})
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        finally:
            if before is not None:
                channel_layers.set("default", before)
            else:
                channel_layers.backends.pop("default", None)
        return handled

    async def test_drop_new(self, make_layer: MakeLayer, make_peer: MakePeer) -> None:
        layer = make_layer(capacity=3)
        handled = await self._overrun(layer, make_peer(), AsyncConsumer)
        assert handled[:4] == [0, 1, 2, 3]
        assert layer.stats().dropped_full == 17

    async def test_drop_old(self, make_layer: MakeLayer, make_peer: MakePeer) -> None:
        class Latest(AsyncConsumer):
            overflow = "drop_old"

        layer = make_layer(capacity=3)
        handled = await self._overrun(layer, make_peer(), Latest)
        assert handled == [0, 18, 19, 99]
        assert layer.stats().dropped_replaced == 17
        assert layer.stats().dropped_full == 0

    async def test_max_backlog(self, make_layer: MakeLayer, make_peer: MakePeer) -> None:
        class Small(AsyncConsumer):
            max_backlog = 2

        layer = make_layer(capacity=100)
        handled = await self._overrun(layer, make_peer(), Small)
        assert handled[:3] == [0, 1, 2]
        assert layer.stats().dropped_full == 18
