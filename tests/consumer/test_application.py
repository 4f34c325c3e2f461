"""Consumers as ASGI applications, and on which layer and channels."""

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import iscoroutinefunction

from headrace._layers.registry import channel_layers
from headrace.consumer import AsyncConsumer, SyncConsumer, consumer_stats
from headrace.exceptions import InvalidChannelLayerError, StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Recorder(AsyncWebsocketConsumer):
    """Writes down what it handles, in a group that all are in."""

    groups: Any = ("all",)

    def __init__(self, log: list[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log: list[Any] = [] if log is None else log

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["n"])

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


class TestApplication:
    """Consumers as ASGI applications."""

    def test_as_asgi_looks_like_the_class(self) -> None:
        app: Any = Recorder.as_asgi(log=[])
        assert app.consumer_class is Recorder
        assert app.consumer_initkwargs == {"log": []}
        assert (app.__name__, app.__doc__, app.__module__) == ("Recorder", Recorder.__doc__, Recorder.__module__)
        assert app.__wrapped__ is Recorder
        assert iscoroutinefunction(app)
        assert inspect.iscoroutinefunction(app.__call__)

    async def test_as_asgi_makes_an_instance_for_each_connection(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        log: list[Any] = []
        app = Recorder.as_asgi(log=log)
        clients = [wire(app), wire(app)]
        for client in clients:
            client.connect()
        await settle()
        assert layer.group_count("all") == 2
        for client in clients:
            client.leave()
            await client.end()
        assert log == ["disconnect 1001"] * 2

    async def test_an_instance_made_with_a_scope_takes_receive_and_send(self) -> None:
        sent, left = [], [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 4001}]

        async def receive() -> Any:
            return left.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        class Here(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                seen.append((code, self.scope["path"]))

        seen: list[Any] = []
        await Here({"type": "websocket", "path": "/here/"})(receive, send)
        assert seen == [(4001, "/here/")]
        assert sent == [{"type": "websocket.accept", "subprotocol": None}]

    @pytest.mark.parametrize("count", [0, 1, 2, 4])
    async def test_a_call_with_anything_else_says_what_it_wants(self, count: int) -> None:
        with pytest.raises(TypeError, match="Recorder must be called with scope, receive and send"):
            await Recorder()(*[{}] * count)

    async def test_receive_and_send_may_return_any_awaitable(self) -> None:
        loop = asyncio.get_running_loop()
        left = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "x"},
            {"type": "websocket.disconnect", "code": 1000},
        ]
        sent = []

        class Awaitable:
            def __init__(self, value: Any) -> None:
                self.value = value

            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return self.value

        def receive() -> Any:
            message = left.pop(0)
            if len(left) % 2:
                return Awaitable(message)
            future = loop.create_future()
            loop.call_soon(future.set_result, message)
            return future

        def send(message: Any) -> Any:
            sent.append(message)
            return Awaitable(None)

        consumer = Recorder()
        await consumer({"type": "websocket"}, receive, send)
        assert consumer.log == ["x", "disconnect 1000"]
        assert sent == [{"type": "websocket.accept", "subprotocol": None}]

    async def test_an_instance_may_serve_one_connection_after_the_other(self, wire: "MakeWire") -> None:
        consumer = Recorder()
        for _ in range(2):
            client = wire(consumer)
            client.connect("x")
            await settle()
            assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]
            client.leave()
            await client.end()
        assert consumer.log == ["x", "disconnect 1001"] * 2

    async def test_stop_consumer_ends_it_without_an_error(self, wire: "MakeWire") -> None:
        class Stops(AsyncConsumer):
            async def stop(self, message: Any) -> None:
                raise StopConsumer

        client = wire(Stops())
        client.say({"type": "stop"})
        await client.end()
        assert consumer_stats(Stops).errors == 0

    async def test_the_stop_consumer_of_channels_ends_it_too(self, wire: "MakeWire") -> None:
        from channels.exceptions import StopConsumer as Theirs

        class Stops(AsyncConsumer):
            async def stop(self, message: Any) -> None:
                raise Theirs

        client = wire(Stops())
        client.say({"type": "stop"})
        await client.end()

    def test_consumer_stats_are_those_of_one_class(self) -> None:
        class Base(AsyncWebsocketConsumer):
            pass

        class Derived(Base):
            pass

        assert consumer_stats(Base).opened == consumer_stats(Derived).opened == 0
        with pytest.raises(TypeError, match="must be a class of consumers"):
            consumer_stats(Base())  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(TypeError, match="must be a class of consumers"):
            consumer_stats(int)  # type: ignore[arg-type]  # wrong on purpose


class TestLayers:
    """No layer, another's layer, and channels that the consumer names itself."""

    async def test_without_a_layer_there_is_no_channel_name(self, wire: "MakeWire") -> None:
        class Unlayered(AsyncWebsocketConsumer):
            channel_layer_alias = "nowhere"

        consumer = Unlayered()
        client = wire(consumer)
        client.connect("x")
        await settle()
        assert consumer.channel_layer is None
        assert not hasattr(consumer, "channel_name")
        client.leave()
        await client.end()

    async def test_groups_without_a_layer_are_an_error_with_channels_text(self, wire: "MakeWire") -> None:
        class Unlayered(Recorder):
            channel_layer_alias = "nowhere"

        client = wire(Unlayered())
        client.connect()
        error = await client.outcome()
        assert isinstance(error, InvalidChannelLayerError)
        assert str(error) == "BACKEND is unconfigured or doesn't support groups"

    async def test_a_fault_inside_group_add_is_not_hidden(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Broken(InMemoryChannelLayer):
            async def group_add(self, group: str, channel: str, since: str | int | None = None) -> None:
                raise AttributeError("a fault of the layer")

        channel_layers.set("default", Broken())
        client = wire(Recorder())
        client.connect()
        error = await client.outcome()
        assert isinstance(error, AttributeError)
        assert str(error) == "a fault of the layer"

    async def test_a_channel_that_the_consumer_names_is_listened_to(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Seed(Recorder):
            groups: Any = ()

            async def connect(self) -> None:
                self.first = self.channel_name
                self.channel_layer = layer
                self.channel_name = await layer.new_channel("chat")
                await layer.group_add("room", self.channel_name)
                await self.accept()

        consumer = Seed()
        client = wire(consumer)
        client.connect()
        await settle()
        for n in range(20):
            await layer.group_send("room", {"type": "note", "n": n})
        await settle()
        await layer.send(consumer.first, {"type": "note", "n": "to the first"})
        await settle()
        assert consumer.log == [*range(20), "to the first"]
        client.leave()
        await client.end()

    async def test_a_named_channel_may_be_in_another_layer_and_change_again(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        second = InMemoryChannelLayer()

        class Mover(Recorder):
            groups: Any = ()

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.channel_layer = second
                self.channel_name = str(text_data)
                await second.group_add("room", self.channel_name)

        consumer = Mover()
        client = wire(consumer)
        client.connect("a", "b")
        await settle()
        for channel in ("a", "b"):
            await second.send(channel, {"type": "note", "n": channel})
        await settle()
        assert sorted(consumer.log) == ["a", "b"]
        client.leave()
        await client.end()
        stats = second.stats()
        assert (stats.channels, stats.memberships, stats.waiters) == (0, 0, 0)


class TestArguments:
    """What ``as_asgi`` is given is looked at by somebody."""

    @pytest.mark.parametrize(
        "kind",
        [
            *(AsyncConsumer, SyncConsumer, AsyncHttpConsumer, AsyncWebsocketConsumer),
            *(WebsocketConsumer, AsyncJsonWebsocketConsumer, JsonWebsocketConsumer),
        ],
    )
    def test_what_no_constructor_takes_is_refused_by_name(self, kind: type[Any]) -> None:
        named: Any = type("Named", (kind,), {"template": None})
        with pytest.raises(TypeError, match=r"Named.as_asgi\(\) got 'template', which no constructor of Named takes"):
            named.as_asgi(template="x.html")

    def test_what_a_constructor_takes_is_passed_on(self) -> None:
        class Taking(AsyncWebsocketConsumer):
            def __init__(self, *args: Any, template: str, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.template = template

        class Only(AsyncWebsocketConsumer):
            def __init__(self, template: str) -> None:
                super().__init__()

        class Heir(Only):
            pass

        for kind in (Taking, Only, Heir):
            kind.as_asgi(template="x.html")
        Taking.as_asgi(template="x.html", whatever="its **kwargs may be for")
        for kind in (Only, Heir):
            with pytest.raises(TypeError, match=r"got 'other'"):
                kind.as_asgi(template="x.html", other=1)

    def test_a_constructor_without_a_signature_may_take_anything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def signature(_function: object) -> None:
            raise ValueError("no signature found")

        monkeypatch.setattr("inspect.signature", signature)
        AsyncWebsocketConsumer.as_asgi(template="x.html")

    def test_the_scope_is_one(self) -> None:
        AsyncWebsocketConsumer.as_asgi()
        AsyncConsumer.as_asgi(scope={"type": "websocket"})
