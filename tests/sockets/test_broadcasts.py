"""What is broadcast to a socket server: in order, within its bounds, and to whoever keeps up."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import ManualClock

from .conftest import Client
from .noting import Subscribed


async def test_what_is_broadcast_goes_to_the_client_in_order(client: Client, memory: InMemoryChannelLayer) -> None:
    await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    for number in range(90):
        mouth.broadcast("news", {"number": number})
    assert await client.hears(90) == [{"number": number} for number in range(90)]
    assert client.sent[1] == {"type": "websocket.send", "text": '{"number": 0}'}


async def test_a_server_may_change_what_becomes_of_a_broadcast(client: Client, memory: InMemoryChannelLayer) -> None:
    class Framed(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            data["seen"] = True
            await self.async_send({"topic": channel, "data": data})

    other = Client()
    for each in (client, other):
        await each.connects(Framed, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", {"a": 1})
    for each in (client, other):
        assert await each.hears(1) == [{"topic": "news", "data": {"a": 1, "seen": True}}]


async def test_a_server_may_change_how_it_sends(client: Client, memory: InMemoryChannelLayer) -> None:
    class Signed(Subscribed):
        async def async_send(self, data: Any, raw: bool = False) -> None:
            await super().async_send({"signed": data}, raw)

    await client.connects(Signed, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [{"signed": 1}]


async def test_an_encoder_of_its_own_makes_the_frames(client: Client, memory: InMemoryChannelLayer) -> None:
    def compact(data: Any) -> bytes:
        return json.dumps(data, separators=(",", ":")).encode()

    await client.connects(Subscribed, layer=memory, ws_encoder=compact, ws_encoder_is_bytes=True)
    await Broadcaster(layer=memory).async_broadcast("news", {"a": 1})
    client.server.send({"b": 2})
    await client.gets(3)
    assert client.sent[1:] == [
        {"type": "websocket.send", "bytes": b'{"a":1}'},
        {"type": "websocket.send", "bytes": b'{"b":2}'},
    ]


@pytest.mark.complains
async def test_a_broadcast_that_cannot_be_encoded_is_logged_and_counted_and_the_next_one_comes(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", b"\xff")
    mouth.broadcast("news", "good")
    assert await client.hears(1) == ["good"]
    assert client.server.stats().errors == 1
    assert "bytes is not JSON serializable" in caplog.text


async def test_nothing_is_delivered_of_a_topic_that_was_left(client: Client, memory: InMemoryChannelLayer) -> None:
    server = await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", "waits in the mailbox")
    server.unsubscribe("news")
    await server.async_subscribe("other")
    mouth.broadcast("other", 1)
    assert await client.hears(1) == [1]
    assert server.subscriptions == {"other"}
    assert server.stats().dropped_unsubscribed == 1


async def test_a_message_of_the_layer_that_is_no_broadcast_disturbs_nobody(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    server = await client.connects(Subscribed, layer=memory)
    assert server._headrace_hub.mailbox.inbox is not None
    await memory.send(server._headrace_hub.mailbox.inbox.channel, {"type": "redis.disconnect"})
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [1]
    assert server.stats().dropped_unsubscribed == 1


async def test_what_is_subscribed_before_the_start_is_delivered_after_it(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    server = BaseSocketServer(client.scope, client.incoming.get, client.send, layer=memory)
    await server.async_subscribe("news")
    server.broadcast("news", 1)
    serving = asyncio.create_task(server.async_start_listeners())
    assert await client.hears(1) == [1]
    client.gives("disconnect")
    await serving
    assert not server.is_alive


@pytest.mark.parametrize(
    ("overflow", "heard", "counter"),
    [
        ("drop_new", [0, 1, 2], "dropped_full"),
        ("drop_old", [0, 8, 9], "dropped_replaced"),
        ("coalesce", [0, 9], "dropped_replaced"),
    ],
)
async def test_a_slow_client_gets_what_its_server_says(
    client: Client, memory: InMemoryChannelLayer, overflow: Any, heard: list[int], counter: str
) -> None:
    class Slow(Subscribed):
        max_backlog = 2

    Slow.overflow = overflow
    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", 0)
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(1, 10):
        mouth.broadcast("news", number)
    assert getattr(server.stats(), counter) == 10 - len(heard)
    client.open.set()
    assert await client.hears(len(heard)) == heard


async def test_a_slow_client_is_bounded_in_bytes_too(client: Client, memory: InMemoryChannelLayer) -> None:
    class Slow(Subscribed):
        max_backlog_bytes = 1000
        overflow = "drop_old"

    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", 0)
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(1, 10):
        mouth.broadcast("news", f"{number}" * 600)
    stats = server.stats()
    assert (stats.depth, stats.dropped_replaced, stats.full_by_bytes) == (2, 7, 7)
    assert 1200 < stats.bytes < 2200
    client.open.set()
    assert await client.hears(3) == [0, "8" * 600, "9" * 600]


class Feeding(BaseSocketServer):
    """Sends with plain calls, where it is told to."""

    def feed(self, count: int, length: int = 976) -> int:
        """Send until that is refused; return how many were taken."""
        for number in range(count):
            try:
                self.send([number, "a" * length])
            except ChannelFull:
                return number
        return count


@pytest.mark.parametrize(("settings", "taken"), [({"max_backlog_bytes": 10_500}, 6), ({"max_backlog": 3}, 4)])
async def test_plain_sends_in_a_loop_are_bounded(
    client: Client, memory: InMemoryChannelLayer, settings: dict[str, Any], taken: int
) -> None:
    server: Any = await client.connects(type("Here", (Feeding,), settings), layer=memory)
    client.open.clear()
    # The first does not count, and each of the others about two kibibytes.
    assert server.feed(20) == taken
    with pytest.raises(ChannelFull, match=r"does not read as fast .* await async_send\(\)"):
        server.send("more")
    stats = server.stats()
    assert (stats.dropped_backlog, stats.pending) == (2, taken)
    assert 2000 * taken < stats.pending_bytes < 2200 * taken
    client.open.set()
    assert [number for number, _ in await client.hears(taken)] == list(range(taken))
    await server.async_flush()
    assert server.stats().pending_bytes == 0
    assert server.feed(3) == 3
    await client.hears(taken + 3)
    await client.leaves()


async def test_without_settings_the_bytes_of_the_layer_count(client: Client, memory: InMemoryChannelLayer) -> None:
    server: Any = await client.connects(Feeding, layer=memory)
    client.open.clear()
    taken = server.feed(100, length=100_000)
    # Ten fit behind the first.
    assert taken == 11
    assert 1_100_000 < server.stats().pending_bytes < 1_200_000
    client.open.set()
    await client.hears(taken)
    await client.leaves()


async def test_a_client_that_holds_up_plain_sends_can_be_closed(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    server: Any = await client.connects(type("Here", (Feeding,), {"max_backlog": 3, "overflow": "close"}), layer=memory)
    client.open.clear()
    assert server.feed(20) == 20
    while server.is_alive:
        await asyncio.sleep(0)
    server.send("after the end")
    client.open.set()
    await client.ends()
    await server.async_flush()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1013}
    assert server.stats().dropped_backlog == 16
    assert "its client does not keep up" in caplog.text


async def test_what_a_handler_of_broadcasts_sends_goes_out_before_the_next_is_taken(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    class Over(Subscribed):
        max_backlog = 2

        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            self.send(data)

    server = await client.connects(Over, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    for number in range(10):
        mouth.broadcast("news", number)
        for _ in range(10):
            await asyncio.sleep(0)
    stats = server.stats()
    assert (stats.pending, stats.depth, stats.dropped_full, stats.dropped_backlog) == (1, 2, 7, 0)
    client.open.set()
    assert await client.hears(3) == [0, 1, 2]
    await client.leaves()


async def test_coalescing_goes_by_topics(client: Client, memory: InMemoryChannelLayer) -> None:
    class Slow(BaseSocketServer):
        max_backlog = 2
        overflow = "coalesce"

        async def connect(self) -> None:
            for topic in "ab":
                await self.async_subscribe(topic)

    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("a", "first")
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(5):
        mouth.broadcast("a", ["a", number])
        mouth.broadcast("b", ["b", number])
    client.open.set()
    assert sorted((await client.hears(3))[1:]) == [["a", 4], ["b", 4]]


async def test_a_client_that_does_not_keep_up_can_be_closed(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict(Subscribed):
        max_backlog = 2
        overflow = "close"

    server = await client.connects(Strict, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    for number in range(5):
        mouth.broadcast("news", number)
    while server.is_alive:
        await asyncio.sleep(0)
    client.open.set()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1013}
    assert server.noted == [("disconnect", 1013)]
    assert memory.stats().memberships == 0
    assert "its client does not keep up" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("max_backlog", 0, "Wrong.max_backlog must be a positive integer, got 0"),
        ("read_ahead_bytes", 0, "Wrong.read_ahead_bytes must be a positive integer, got 0"),
        ("max_backlog_bytes", 0, "Wrong.max_backlog_bytes must be a positive integer, got 0"),
        ("overflow", "drop", "Wrong.overflow must be one of 'drop_new', .*, got 'drop'"),
    ],
)
def test_wrong_settings_are_told_when_the_class_is_made(setting: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        type("Wrong", (BaseSocketServer,), {setting: value})


@pytest.mark.complains
@pytest.mark.parametrize("what", ["cancelled", "unhashable"])
async def test_broadcasts_go_on_after_one_that_cannot_be_handled(
    client: Client, memory: InMemoryChannelLayer, what: str
) -> None:
    class Waiting(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            if data == "cancelled":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            await self.async_send(data)

    await client.connects(Waiting, layer=memory)
    if what == "unhashable":
        await memory.group_send("socket.t.news", {"type": "any", "topic": []})
    else:
        await Broadcaster(layer=memory).async_broadcast("news", what)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [1]
    await client.leaves()


async def test_a_handler_of_broadcasts_that_swallows_a_cancel_does_not_keep_the_connection(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    class Stubborn(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            self.scope["handling"].set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    client.scope["handling"] = asyncio.Event()
    await client.connects(Stubborn, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    await client.scope["handling"].wait()
    await client.leaves()


@pytest.mark.complains
async def test_a_socket_that_can_hear_nothing_more_is_closed(client: Client, memory: InMemoryChannelLayer) -> None:
    server = await client.connects(Subscribed, layer=memory)
    memory._core.close()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1011}
    assert server.noted[-1] == ("disconnect", 1011)


async def test_broadcasts_that_expire_behind_a_slow_client_are_told_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    layer = InMemoryChannelLayer(expiry=10, clock=clock)
    server, mouth = await client.connects(Subscribed, layer=layer), Broadcaster(layer=layer)
    while not server.subscriptions:
        await asyncio.sleep(0)
    for number in range(1, 3):
        client.open.clear()
        await mouth.async_broadcast("news", "sent")
        while layer.stats().waiters or layer.stats().depth:
            await asyncio.sleep(0)
        await mouth.async_broadcast("news", "expired")
        clock.advance(10)
        client.open.set()
        await client.gets(1 + number)
        while not layer.stats().waiters:
            await asyncio.sleep(0)
    assert [message.get("text") for message in client.sent] == [None, '"sent"', '"sent"']
    assert server.stats().dropped_expired == 2
    told = [record.getMessage() for record in caplog.records if "messages live" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        "<Subscribed at /ws/> was busy for longer than messages live: 1 expired before they could"
    )
