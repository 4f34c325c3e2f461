"""``group_close``, and the consumers of the group."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace import consumer_stats
from headrace._layers.registry import channel_layers
from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock, settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

CLOSED = {"type": "websocket.close", "code": 4403}


class Noting(AsyncWebsocketConsumer):
    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.gate.wait()
        self.log.append(text_data)

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["text"])

    async def disconnect(self, code: int) -> None:
        self.log.append(code)


async def test_it_closes_behind_what_is_in_the_mailbox(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    class Chat(Noting):
        pass

    consumer = Chat()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    await layer.group_send("all", {"type": "note", "text": "before"})
    report = await layer.group_close("all", 4401, "signed out")
    await layer.group_send("all", {"type": "note", "text": "behind"})
    assert report.delivered == 1
    consumer.gate.set()
    await client.end()
    assert client.sent[1:] == [{"type": "websocket.close", "code": 4401, "reason": "signed out"}]
    assert consumer.log == ["busy", "before", 4401]
    stats = consumer_stats(Chat)
    assert (stats.closed_by_group, stats.open, stats.errors) == (1, 0, 0)


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
async def test_a_full_mailbox_does_not_swallow_it(wire: "MakeWire", layer: InMemoryChannelLayer, overflow: Any) -> None:
    class Full(Noting):
        max_backlog = 2

    Full.overflow = overflow
    consumer = Full()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    for number in range(2):
        await layer.group_send("all", {"type": "note", "text": number})
    await layer.group_close("all")
    await layer.group_send("all", {"type": "note", "text": "late"})
    consumer.gate.set()
    await client.end()
    assert client.sent[1:] == [CLOSED]
    assert consumer.log[-1] == 4403


async def test_it_does_not_expire_while_the_consumer_is_busy(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    clock = ManualClock()
    channel_layers.set("default", own := InMemoryChannelLayer(clock=clock, expiry=60))
    consumer = Noting()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    channel_layers.set("default", layer)
    await own.group_close("all")
    clock.advance(3600)
    consumer.gate.set()
    await client.end()
    assert client.sent[1:] == [CLOSED]


async def test_who_is_excluded_or_joins_later_is_not_touched(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    consumers = [Noting() for _ in range(3)]
    clients = [wire(consumer) for consumer in consumers[:2]]
    for client in clients:
        client.connect()
    await settle()
    await layer.group_close("all", exclude=consumers[0].channel_name)
    clients.append(wire(consumers[2]))
    clients[2].connect()
    await settle()
    assert [len(client.sent) for client in clients] == [1, 2, 1]
    for client in clients:
        client.leave()
        await client.end()


async def test_sync_and_bare_consumers_are_closed_too(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    codes: list[int] = []

    class Plain(WebsocketConsumer):
        groups = ("all",)

        def disconnect(self, code: int) -> None:
            codes.append(code)

    class Bare(AsyncConsumer):
        async def websocket_connect(self, message: Any) -> None:
            await layer.group_add("all", self.channel_name)
            await self.send({"type": "websocket.accept"})

    clients = [wire(Plain()), wire(Bare())]
    for client in clients:
        client.connect()
        async with asyncio.timeout(20):
            while not client.sent:
                await asyncio.sleep(0)
    await layer.group_close("all")
    for client in clients:
        await client.end()
        assert client.sent[1:] == [CLOSED]
    assert codes == [4403]


async def test_with_several_handlers_at_a_time_those_that_run_are_finished(
    wire: "MakeWire", layer: InMemoryChannelLayer
) -> None:
    class Several(Noting):
        concurrency = 3

    consumer = Several()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    await layer.group_send("all", {"type": "note", "text": "before"})
    await layer.group_close("all")
    await layer.group_close("all")
    await settle()
    assert len(client.sent) == 1
    consumer.gate.set()
    await client.end()
    assert client.sent[1:] == [CLOSED]
    assert consumer.log == ["before", "busy", 4403]


async def test_a_handler_of_ones_own_takes_its_place(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    class Polite(Noting):
        async def headrace_close(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["reason"])
            await self.close(event["code"])

    client = wire(Polite())
    client.connect()
    await settle()
    await layer.group_close("all", 4000, "bye")
    await settle()
    assert (client.texts, client.sent[-1]) == (["bye"], {"type": "websocket.close", "code": 4000})
    client.leave()
    await client.end()


@pytest.mark.parametrize(
    "forged", [{}, {"code": True}, {"code": 1005}, {"code": "x", "reason": 1}, {"reason": "x" * 124}]
)
async def test_a_message_of_that_type_with_nonsense_closes_with_4403(
    wire: "MakeWire", layer: InMemoryChannelLayer, forged: dict[str, Any]
) -> None:
    client = wire(Noting())
    client.connect()
    await settle()
    await layer.group_send("all", {"type": "headrace.close", **forged})
    await client.end()
    assert client.sent[1:] == [CLOSED]


@pytest.mark.parametrize("kind", [AsyncConsumer, SyncConsumer])
async def test_what_a_worker_reads_passes_it_by(layer: InMemoryChannelLayer, kind: Any, caplog: Any) -> None:
    """A queue may be in the group: its consumer has no connection that could be closed."""
    caplog.set_level(logging.ERROR)
    consumer = kind()
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "headrace.close", "code": 4403, "reason": ""})
    serving = asyncio.create_task(consumer({"type": "channel", "channel": "jobs"}, incoming.get, None))
    async with asyncio.timeout(20):
        while not incoming.empty():
            await asyncio.sleep(0)
    incoming.put_nowait({"type": "nobody"})
    with pytest.raises(ValueError, match="No handler for message type nobody"):
        await serving
    assert len(caplog.messages) == 1


class Stuck(Noting):
    """Waits in a send to a client that does not read."""

    async def note(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class Several(Stuck):
    """Does so in one of several handlers."""

    concurrency = 3


class Forwarding(Stuck):
    """Waits in no handler of its own."""

    forward = frozenset({"note"})


@pytest.mark.parametrize("kind", [Stuck, Several, Forwarding])
async def test_a_client_that_does_not_read_delays_it_by_ten_seconds(
    wire: "MakeWire",
    layer: InMemoryChannelLayer,
    forward_to: Callable[[float], Any],
    caplog: pytest.LogCaptureFixture,
    kind: type[Noting],
) -> None:
    chat = type("Chat", (kind,), {})
    consumer = chat()
    client = wire(consumer)
    client.connect()
    await settle()
    client.open.clear()
    await layer.group_send("all", {"type": "note", "text": "stuck"})
    await settle()
    await layer.group_send("all", {"type": "note", "text": "waits"})
    await layer.group_close("all", 4401, "signed out")
    await settle()
    await forward_to(9.9)
    assert not client.task.done()
    assert consumer_stats(chat).closed_by_group == 0
    await forward_to(10.1)
    assert consumer_stats(chat).closed_by_group == 1
    # The close waits for the client too, for five seconds.
    await forward_to(15.2)
    await client.end()
    assert consumer.log == [4401]
    stats = consumer_stats(chat)
    assert (stats.closed_by_group, stats.cut_off, stats.errors) == (1, 1, 0)
    assert "Chat at '/ws/': it did not come to what group_close() has told it in 10 s" in caplog.text


async def test_a_consumer_that_comes_to_it_in_time_is_not_cut_off(
    wire: "MakeWire", layer: InMemoryChannelLayer, forward_to: Callable[[float], Any]
) -> None:
    class Chat(Noting):
        pass

    consumer = Chat()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    await layer.group_close("all", 4401)
    await settle()
    await forward_to(9)
    consumer.gate.set()
    await client.end()
    await forward_to(11)
    stats = consumer_stats(Chat)
    assert (stats.closed_by_group, stats.cut_off) == (1, 0)
    assert client.sent[1:] == [{"type": "websocket.close", "code": 4401}]


async def test_what_the_client_sent_before_it_does_not_delay_it_for_longer(
    wire: "MakeWire", layer: InMemoryChannelLayer, forward_to: Callable[[float], Any]
) -> None:
    class Chat(Noting):
        pass

    consumer = Chat()
    client = wire(consumer)
    client.connect()
    await settle()
    # Both are there when the consumer looks: the close is in its hand when it begins with the text.
    await layer.group_close("all", 4401)
    client.write("busy")
    await settle()
    await forward_to(10.1)
    await client.end()
    stats = consumer_stats(Chat)
    assert stats.closed_by_group == 1
    assert client.sent[-1] == {"type": "websocket.close", "code": 4401}


async def test_a_consumer_with_a_method_of_its_own_is_cut_off_if_it_does_not_come_to_that(
    wire: "MakeWire", layer: InMemoryChannelLayer, forward_to: Callable[[float], Any]
) -> None:
    class Chat(Noting):
        async def headrace_close(self, event: dict[str, Any]) -> None:
            self.log.append("own")

    consumer = Chat()
    client = wire(consumer)
    client.connect("busy")
    await settle()
    await layer.group_close("all", 4401)
    await settle()
    await forward_to(10.1)
    await client.end()
    assert consumer.log == [4401]
    assert client.sent[1:] == [{"type": "websocket.close", "code": 4401}]


@pytest.mark.parametrize("forward", [{"headrace.close"}, {"note": "text", "headrace.close": "reason"}])
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
def test_a_class_that_would_forward_it_is_refused(base: type[Any], forward: Any) -> None:
    with pytest.raises(ValueError, match=r"Deaf\.forward must be without 'headrace\.close', which closes"):
        type("Deaf", (base,), {"forward": forward})
