"""Whatever ends a consumer: disconnect() once with the right code, groups left, channel closed, then the exception.

That nothing is left in the layer and in the loop is checked after each test by ``_nothing_left``.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.consumer import consumer_stats
from headrace.exceptions import LayerClosed, StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

WAYS = ("async", "sync", "concurrent")


class OfTheTest(Exception):
    """What a handler raises."""


class Room(AsyncWebsocketConsumer):
    """In a group of its class and in one that it joins, and does what it is told."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()
        # What to do in connect() and in disconnect(); text and layer messages say it themselves.
        self.at_connect = self.at_disconnect = ""

    async def do(self, order: str) -> None:
        if order == "fail":
            raise OfTheTest(order)
        if order == "stop":
            raise StopConsumer
        if order == "wait":
            await self.gate.wait()
        if order == "cancelled":
            raise asyncio.CancelledError

    async def connect(self) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.group_add("joined", self.channel_name)
        await self.do(self.at_connect)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.do(str(text_data))

    async def order(self, event: dict[str, Any]) -> None:
        await self.do(event["order"])

    async def disconnect(self, code: int) -> None:
        self.log.append(code)
        await self.do(self.at_disconnect)


class ConcurrentRoom(Room):
    """The same, several messages at a time."""

    concurrency = 3


class SyncRoom(WebsocketConsumer):
    """The same in threads."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.at_connect = self.at_disconnect = ""

    def do(self, order: str) -> None:
        if order == "fail":
            raise OfTheTest(order)
        if order == "stop":
            raise StopConsumer

    def connect(self) -> None:
        layer: Any = self.channel_layer
        layer.group_add_sync("joined", self.channel_name)
        self.do(self.at_connect)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.do(str(text_data))

    def order(self, event: dict[str, Any]) -> None:
        self.do(event["order"])

    def disconnect(self, code: int) -> None:
        self.log.append(code)
        self.do(self.at_disconnect)


ROOMS: dict[str, type[Any]] = {"async": Room, "sync": SyncRoom, "concurrent": ConcurrentRoom}


async def opened(client: "Wire") -> None:
    """Connect, and wait until the application has accepted."""
    client.connect()
    while not client.sent:
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", WAYS)
class TestEndings:
    """Each way to end, for each kind of consumer."""

    async def test_the_client_leaves(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.leave(4321)
        await client.end()
        assert consumer.log == [4321]

    async def test_the_client_leaves_without_a_code(self, wire: "MakeWire", way: str) -> None:
        for message in ({}, {"code": None}):
            consumer = ROOMS[way]()
            client = wire(consumer)
            await opened(client)
            client.say({"type": "websocket.disconnect", **message})
            await client.end()
            assert consumer.log == [1005]

    async def test_a_frame_makes_its_handler_fail(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.write("fail")
        assert isinstance(await client.outcome(), OfTheTest)
        assert consumer.log == [1006]
        assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]

    async def test_a_failure_over_a_server_closes_with_1011_and_says_so_to_disconnect(
        self, wire: "MakeWire", way: str
    ) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer, asgi={"version": "3.0"})
        await opened(client)
        client.write("fail")
        assert isinstance(await client.outcome(), OfTheTest)
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1011}]
        assert consumer.log == [1011]

    async def test_a_message_of_the_layer_makes_its_handler_fail(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, way: str
    ) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        await layer.group_send("joined", {"type": "order", "order": "fail"})
        assert isinstance(await client.outcome(), OfTheTest)
        assert consumer.log == [1006]

    async def test_connect_fails(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        consumer.at_connect = "fail"
        client = wire(consumer, asgi={"version": "3.0"})
        client.connect()
        assert isinstance(await client.outcome(), OfTheTest)
        assert consumer.log == [1006]
        # The server answers a handshake that failed.
        assert client.sent == []

    async def test_disconnect_fails(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        consumer.at_disconnect = "fail"
        client = wire(consumer)
        await opened(client)
        client.leave()
        assert isinstance(await client.outcome(), OfTheTest)
        assert consumer.log == [1001]

    async def test_a_handler_and_then_disconnect_fail(
        self, wire: "MakeWire", way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        consumer = ROOMS[way]()
        consumer.at_disconnect = "fail"
        client = wire(consumer)
        await opened(client)
        client.say({"type": "no.handler"})
        assert isinstance(await client.outcome(), ValueError)
        assert consumer.log == [1006]
        assert [record.getMessage().split(" failed on ")[1].split(":")[0] for record in caplog.records][
            -1
        ] == "'disconnect'"

    @pytest.mark.parametrize("error", [OfTheTest("server"), OSError("lost"), RuntimeError("odd")])
    async def test_the_servers_receive_fails(self, wire: "MakeWire", way: str, error: BaseException) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.say(error)
        assert await client.outcome() is error
        assert consumer.log == [1006]

    async def test_the_servers_receive_is_cancelled(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.say(asyncio.CancelledError())
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1006]

    async def test_the_task_is_cancelled_while_nothing_happens(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert client.task.cancelled()
        assert consumer.log == [1006]

    async def test_stop_consumer(self, wire: "MakeWire", layer: InMemoryChannelLayer, way: str) -> None:
        for by_layer in (False, True):
            consumer = ROOMS[way]()
            client = wire(consumer)
            await opened(client)
            if by_layer:
                await layer.group_send("all", {"type": "order", "order": "stop"})
            else:
                client.write("stop")
            await client.end()
            assert consumer.log == [1006]

    async def test_the_layer_is_closed(self, wire: "MakeWire", layer: InMemoryChannelLayer, way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        await layer.close()
        assert isinstance(await client.outcome(), LayerClosed)
        assert consumer.log == [1006]

    async def test_it_was_never_opened(self, wire: "MakeWire", way: str) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await settle()
        client.task.cancel()
        await client.outcome()
        assert consumer.log == []

    async def test_the_code_is_the_consumers_own_if_it_closed_and_nobody_knows_better(
        self, wire: "MakeWire", way: str
    ) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        if way == "sync":
            await asyncio.to_thread(consumer.close, 4009)
        else:
            await consumer.close(4009)
        client.task.cancel()
        await client.outcome()
        assert consumer.log == [4009]

    async def test_the_code_is_the_clients_if_its_last_message_has_come_before_the_failure(
        self, wire: "MakeWire", way: str, layer: InMemoryChannelLayer
    ) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        await opened(client)
        client.write("fail")
        client.leave(4010)
        assert isinstance(await client.outcome(), OfTheTest | type(None))
        assert consumer.log == [4010]

    async def test_counters_say_so(self, wire: "MakeWire", way: str) -> None:
        room = type("Counted", (ROOMS[way],), {})
        client = wire(room())
        await opened(client)
        assert (consumer_stats(room).opened, consumer_stats(room).open) == (1, 1)
        client.write("fail")
        await client.outcome()
        assert (consumer_stats(room).opened, consumer_stats(room).open, consumer_stats(room).errors) == (1, 0, 1)


class TestHttp:
    """The same promise for an HTTP request, whose disconnect() has no code."""

    @pytest.mark.parametrize("ending", ["answer", "fail", "cancel", "leave", "receive"])
    async def test_disconnect_is_called_once(self, wire: "MakeWire", layer: InMemoryChannelLayer, ending: str) -> None:
        log: list[str] = []

        class Request(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await layer.group_add("all", self.channel_name)
                if ending == "answer":
                    await self.send_response(200, body)
                elif ending == "fail":
                    raise OfTheTest
                elif ending == "cancel":
                    await asyncio.Event().wait()
                else:
                    await self.send_headers(status=200)
                    await self.send_body(b"", more_body=True)

            async def disconnect(self) -> None:
                log.append("disconnect")

        client = wire(Request(), type="http")
        client.say({"type": "http.request", "body": b"x"})
        await settle()
        if ending == "cancel":
            client.task.cancel()
        elif ending == "leave":
            client.say({"type": "http.disconnect"})
        elif ending == "receive":
            client.say(OfTheTest())
        error = await client.outcome()
        expected = {"fail": OfTheTest, "receive": OfTheTest, "cancel": asyncio.CancelledError}.get(ending, type(None))
        assert isinstance(error, expected)
        assert log == ["disconnect"]


class TestForeignLayer:
    """On a layer that is not ours, what the class and its methods know of is undone."""

    @pytest.mark.parametrize("ending", ["leave", "fail", "cancel", "stop"])
    @pytest.mark.parametrize("way", WAYS)
    async def test_the_groups_of_the_class_are_left(self, wire: "MakeWire", way: str, ending: str) -> None:
        from channels.layers import InMemoryChannelLayer as Theirs

        from headrace._layers.registry import channel_layers

        theirs: Any = Theirs()
        channel_layers.set("default", theirs)

        base = WebsocketConsumer if way == "sync" else AsyncWebsocketConsumer
        consumer = type("Simple", (ROOMS[way],), {"connect": base.connect})()
        client = wire(consumer)
        await opened(client)
        assert list(theirs.groups["all"]) == [consumer.channel_name]
        if ending == "leave":
            client.leave(1006)
        elif ending == "cancel":
            client.task.cancel()
        else:
            client.write(ending)
        await client.outcome()
        assert consumer.log == [1006]
        assert theirs.groups.get("all", {}) == {}


async def test_a_receive_that_swallows_its_cancel_does_not_hold_up_the_end(wire: "MakeWire") -> None:
    """As ``asyncio.wait_for`` does on Python 3.11 when a message comes in the turn of the cancel."""
    consumer = Room()
    client = wire(consumer)
    inner = client._receive

    async def receive() -> Any:
        try:
            return await inner()
        except asyncio.CancelledError:
            return {"type": "websocket.receive", "text": "late"}

    client._receive = receive  # type: ignore[method-assign]  # before the task has begun
    client.connect()
    while not client.sent:
        await asyncio.sleep(0)
    client.say({"type": "no.handler"})
    assert isinstance(await client.outcome(), ValueError)
    assert consumer.log == [1006]


async def test_an_instance_refuses_a_second_connection_beside_its_first(wire: "MakeWire") -> None:
    consumer = Room()
    first, second = wire(consumer), wire(consumer)
    await opened(first)
    second.connect()
    error = await second.outcome()
    assert isinstance(error, RuntimeError)
    assert "serves a connection already" in str(error)
    first.leave()
    await first.end()
