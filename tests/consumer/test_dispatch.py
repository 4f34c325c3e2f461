"""Which method gets a message, and which methods no message gets."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.consumer import AsyncConsumer, consumer_stats, get_handler_name
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Recorder(AsyncWebsocketConsumer):
    """Writes down what it handles, in a group that all are in."""

    groups = ("all",)

    def __init__(self, log: list[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log: list[Any] = [] if log is None else log

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["n"])

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


class TestNames:
    """From a type to a method."""

    def test_dots_become_underscores(self) -> None:
        assert get_handler_name({"type": "chat.message.new"}) == "chat_message_new"
        assert get_handler_name({"type": "a_b"}) == "a_b"

    @pytest.mark.parametrize(
        ("message", "text"),
        [
            ({}, "Incoming message has no 'type' attribute"),
            ({"type": "_hidden"}, "Malformed type in message (leading underscore)"),
            ({"type": ".hidden"}, "Malformed type in message (leading underscore)"),
            ({"type": "__init__"}, "Malformed type in message (leading underscore)"),
            ({"type": 3}, "Malformed type in message: expected a str, got 3"),
            ({"type": None}, "Malformed type in message: expected a str, got None"),
            ({"type": ["x"]}, "Malformed type in message: expected a str, got ['x']"),
        ],
    )
    def test_a_type_that_no_handler_can_have_is_refused(self, message: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            get_handler_name(message)

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize("by_layer", [False, True])
    @pytest.mark.parametrize(
        "wrong",
        [
            ({"no": "type"}, "Incoming message has no 'type' attribute"),
            ({"type": ".hidden"}, "Malformed type in message (leading underscore)"),
            ({"type": ["x"]}, "Malformed type in message: expected a str, got ['x']"),
            ({"type": "no.such"}, "No handler for message type no.such"),
            ({"type": ""}, "No handler for message type "),
        ],
    )
    async def test_both_sources_refuse_what_has_no_handler_and_the_consumer_ends(
        self,
        wire: "MakeWire",
        layer: InMemoryChannelLayer,
        wrong: tuple[dict[str, Any], str],
        by_layer: bool,
        concurrency: int,
    ) -> None:
        message, text = wrong
        consumer = type("Here", (Recorder,), {"concurrency": concurrency})()
        client = wire(consumer)
        client.connect()
        await settle()
        if by_layer:
            await layer.group_send("all", message)
        else:
            client.say(message)
        error = await client.outcome()
        assert isinstance(error, ValueError)
        assert str(error).startswith(text)
        assert consumer.log == ["disconnect 1006"]
        assert consumer_stats(type(consumer)).errors == 1

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("chat-message", "no method can have this name; send a type of words with dots between them"),
            ("1.message", "no method can have this name"),
            ("class", "no method can have this name"),
            ("chat.message", "define its method chat_message(self, message)"),
            ("room", "its room is no method but a str"),
        ],
    )
    async def test_the_error_says_what_to_do(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: str, text: str
    ) -> None:
        client = wire(type("Here", (Recorder,), {"room": "lobby"})())
        client.connect()
        await settle()
        await layer.group_send("all", {"type": kind})
        error = await client.outcome()
        assert isinstance(error, ValueError)
        assert text in str(error)

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize("message", [None, 3, "text", ["type"]])
    async def test_a_server_that_gives_no_message_ends_the_consumer(
        self, wire: "MakeWire", message: Any, concurrency: int
    ) -> None:
        consumer = type("Here", (Recorder,), {"concurrency": concurrency})()
        client = wire(consumer)
        client.connect()
        client.say(message)
        assert isinstance(await client.outcome(), TypeError | ValueError)
        assert consumer.log == ["disconnect 1006"]

    async def test_a_handler_that_a_class_switches_off_is_none_each_time(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        errors = []

        class Off(Recorder):
            note = None  # type: ignore[assignment]  # no handler

            async def on_error(self, exc: Exception, message: Any) -> None:
                errors.append(str(exc))

        client = wire(Off())
        client.connect()
        await settle()
        for _ in range(3):
            await layer.group_send("all", {"type": "note", "n": 1})
            await settle()
        assert [text.startswith("No handler for message type note") for text in errors] == [True] * 3
        client.leave()
        await client.end()

    async def test_a_handler_may_be_set_on_an_instance(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        seen = []

        async def special(event: dict[str, Any]) -> None:
            seen.append(event["n"])

        consumer = Recorder()
        consumer.special = special  # type: ignore[attr-defined]  # as tests do
        consumer.note = special  # type: ignore[method-assign]  # as tests do
        client = wire(consumer)
        client.connect()
        await settle()
        for kind in ("special", "note", "special", "note"):
            await layer.group_send("all", {"type": kind, "n": kind})
        await settle()
        assert seen == ["special", "note", "special", "note"]
        client.leave()
        await client.end()

    async def test_types_that_somebody_makes_up_fill_no_memory(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Tolerant(Recorder):
            async def on_error(self, exc: Exception, message: Any) -> None:
                pass

        client = wire(Tolerant())
        client.connect()
        await settle()
        before = len(Tolerant._headrace.handlers.of_client), len(Tolerant._headrace.handlers.of_layer)
        for n in range(50):
            client.say({"type": f"made.up.{n}"})
            await layer.group_send("all", {"type": f"made.up.{n}"})
        await settle()
        assert (len(Tolerant._headrace.handlers.of_client), len(Tolerant._headrace.handlers.of_layer)) == before
        client.leave()
        await client.end()

    async def test_dispatch_may_be_overridden_on_the_class_and_on_the_instance(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Watching(Recorder):
            async def dispatch(self, message: Any) -> None:
                self.log.append(message["type"])
                await super().dispatch(message)

        on_class, on_instance = Watching(), Recorder()

        async def dispatch(message: Any) -> None:
            on_instance.log.append(message["type"])
            await AsyncConsumer.dispatch(on_instance, message)

        on_instance.dispatch = dispatch  # type: ignore[method-assign]  # as tests do
        clients = [wire(on_class), wire(on_instance)]
        for client in clients:
            client.connect()
        await settle()
        await layer.group_send("all", {"type": "note", "n": 1})
        await settle()
        for client in clients:
            client.leave()
            await client.end()
        expected = ["websocket.connect", "note", 1, "websocket.disconnect", "disconnect 1001"]
        assert (on_class.log, on_instance.log) == (expected, expected)

    async def test_a_dispatch_that_a_tracer_patches_sees_the_layers_messages_too(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, dispatch = [], AsyncConsumer.dispatch

        async def traced(self: AsyncConsumer, message: Any) -> None:
            seen.append(message["type"])
            await dispatch(self, message)

        monkeypatch.setattr(AsyncConsumer, "dispatch", traced)
        client = wire(Recorder())
        client.connect()
        await settle()
        await layer.group_send("all", {"type": "note", "n": 1})
        await settle()
        client.leave()
        await client.end()
        assert seen == ["websocket.connect", "note", "websocket.disconnect"]


class TestInterface:
    """What a layer's message must not call."""

    @pytest.mark.parametrize("concurrency", [1, 3])
    @pytest.mark.parametrize(
        "kind",
        [
            "send",
            "close",
            "accept",
            "dispatch",
            "as_asgi",
            "as.asgi",
            "connect",
            "on.error",
            "on.idle",
            "websocket.connect",
            "groups",
            "scope",
            "base.send",
            "channel.layer",
            "channel_name",
            "channel.layer.alias",
            "concurrency",
            "forward",
        ],
    )
    async def test_a_method_of_the_interface_is_refused(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: str, concurrency: int
    ) -> None:
        consumer = type("Here", (Recorder,), {"concurrency": concurrency})()
        client = wire(consumer)
        client.connect()
        await settle()
        await layer.group_send("all", {"type": kind, "code": 4000, "text": "x"})
        error = await client.outcome()
        assert isinstance(error, ValueError), kind
        assert kind in str(error)
        assert consumer.log == ["disconnect 1006"]
        assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]

    async def test_handlers_of_the_users_own_with_common_names_are_called(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Own(AsyncConsumer):
            async def start(self, message: Any) -> None:
                assert self.channel_layer is not None
                await self.channel_layer.group_add("all", self.channel_name)

            async def close(self, event: dict[str, Any]) -> None:
                await self.send({"type": "called", "name": "close"})

            async def accept(self, event: dict[str, Any]) -> None:
                await self.send({"type": "called", "name": "accept"})

            async def websocket_send(self, event: dict[str, Any]) -> None:
                await self.send({"type": "called", "name": "websocket_send"})

        client = wire(Own())
        client.say({"type": "start"})
        await settle()
        for kind in ("close", "accept", "websocket.send"):
            await layer.group_send("all", {"type": kind})
        await settle()
        assert [message["name"] for message in client.sent] == ["close", "accept", "websocket_send"]

    @pytest.mark.parametrize(
        "name",
        ["forward", "overflow", "concurrency", "handler_timeout", "max_backlog", "idle_timeout", "raise_after_close"],
    )
    async def test_a_handler_that_is_named_like_a_setting_is_called_and_is_no_setting(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, name: str
    ) -> None:
        async def handler(self: Any, event: dict[str, Any]) -> None:
            self.log.append(f"called {event['n']}")
            await self.send(text_data="frame")

        consumer = type("Named", (Recorder,), {name: handler})()
        client = wire(consumer)
        client.connect("hello")
        await settle()
        await layer.group_send("all", {"type": name, "n": 1})
        await layer.group_send("all", {"type": name, "n": 2})
        await settle()
        client.leave()
        await client.end()
        assert consumer.log == ["hello", "called 1", "called 2", "disconnect 1001"]
        assert client.texts == ["frame", "frame"]
