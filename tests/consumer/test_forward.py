"""Messages that go to the socket without a handler."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from headrace._layers.registry import channel_layers
from headrace.consumer import AsyncConsumer, consumer_stats
from headrace.exceptions import ConnectionClosed
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer, encode_once
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Forwarding(AsyncWebsocketConsumer):
    """Forwards, and fails if a handler is called."""

    groups = ("all",)
    forward: ClassVar[Any] = ("chat.message",)

    async def chat_message(self, event: dict[str, Any]) -> None:
        raise AssertionError("a handler was called")

    async def disconnect(self, code: int) -> None:
        self.code = code


class SyncForwarding(WebsocketConsumer):
    """The same, sync."""

    groups = ("all",)
    forward: ClassVar[Any] = ("chat.message",)

    def chat_message(self, event: dict[str, Any]) -> None:
        raise AssertionError("a handler was called")


class ConcurrentForwarding(Forwarding):
    """The same, several at a time."""

    concurrency = 3


async def opened(client: "Wire") -> None:
    client.connect()
    while not client.sent:
        await settle()


@pytest.mark.parametrize("kind", [Forwarding, SyncForwarding, ConcurrentForwarding])
class TestFields:
    """What is sent."""

    @pytest.mark.parametrize(
        "forward", [{"chat.message"}, ["chat.message"], ("chat.message",), frozenset({"chat.message"})]
    )
    async def test_text_or_bytes_of_a_type_that_is_named(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any], forward: Any
    ) -> None:
        client = wire(type("Here", (kind,), {"forward": forward})())
        await opened(client)
        events: list[dict[str, Any]] = [
            {"text": "a"},
            {"bytes": b"b"},
            {"text": None, "bytes": b"c"},
            {"text": "", "bytes": b"d"},
        ]
        for number, event in enumerate(events, 1):
            await layer.group_send("all", {"type": "chat.message", "rest": 1, **event})
            await client.heard(number)
        assert client.sent[1:] == [
            {"type": "websocket.send", "text": "a"},
            {"type": "websocket.send", "bytes": b"b"},
            {"type": "websocket.send", "bytes": b"c"},
            {"type": "websocket.send", "text": ""},
        ]
        client.leave()
        await client.end()

    async def test_a_mapping_names_the_field(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = wire(type("Here", (kind,), {"forward": {"chat.message": "body", "binary": "data"}})())
        await opened(client)
        await layer.group_send("all", {"type": "chat.message", "text": "not this", "body": "this"})
        await client.heard(1)
        await layer.group_send("all", {"type": "binary", "data": b"and this"})
        await client.heard(2)
        assert client.texts == ["this", b"and this"]
        client.leave()
        await client.end()

    @pytest.mark.parametrize("event", [{}, {"text": 3}, {"text": ["x"]}, {"bytes": None}, {"other": "x"}])
    async def test_a_message_that_lacks_the_field_is_an_error_that_names_it_and_ends_nobody(
        self,
        wire: "MakeWire",
        layer: InMemoryChannelLayer,
        kind: type[Any],
        event: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        here = type("Here", (kind,), {})
        client = wire(here())
        await opened(client)
        await layer.group_send("all", {"type": "chat.message", **event})
        await layer.group_send("all", {"type": "chat.message", "text": "the next"})
        await client.heard(1)
        assert client.texts == ["the next"]
        assert consumer_stats(here).errors == 1
        (told,) = [record.getMessage() for record in caplog.records if record.name == "headrace.consumer"]
        assert "Here forwards 'chat.message'" in told
        client.leave()
        await client.end()

    async def test_the_client_cannot_have_something_forwarded(self, wire: "MakeWire", kind: type[Any]) -> None:
        client = wire(kind())
        await opened(client)
        client.say({"type": "chat.message", "text": "from the client"})
        assert isinstance(await client.outcome(), AssertionError)
        assert client.texts == []

    async def test_from_another_layer_too(self, wire: "MakeWire", kind: type[Any]) -> None:
        from channels.layers import InMemoryChannelLayer as Theirs

        theirs: Any = Theirs()
        channel_layers.set("default", theirs)
        client = wire(kind())
        await opened(client)
        await theirs.group_send("all", {"type": "chat.message", "text": "a"})
        await client.heard(1)
        await theirs.group_send("all", {"type": "chat.message", "text": "b"})
        await client.heard(2)
        assert client.texts == ["a", "b"]
        client.leave()
        await client.end()


class TestRest:
    """What else there is to know."""

    async def test_it_works_with_a_timeout_and_a_dispatch_of_the_users_own(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Forwarding):
            handler_timeout = 60

            async def dispatch(self, message: Any) -> None:
                await super().dispatch(message)

        client = wire(Here())
        await opened(client)
        await layer.group_send("all", {"type": "chat.message", "text": "a"})
        await settle()
        assert client.texts == ["a"]
        client.leave()
        await client.end()

    async def test_types_that_are_not_named_have_their_handlers(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Forwarding):
            async def note(self, event: dict[str, Any]) -> None:
                await self.send(text_data="handled")

        client = wire(Here())
        await opened(client)
        for kind in ("note", "chat.message", "note"):
            await layer.group_send("all", {"type": kind, "text": "forwarded"})
        await settle()
        assert client.texts == ["handled", "forwarded", "handled"]
        client.leave()
        await client.end()

    async def test_a_subclass_inherits_it(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        client = wire(type("Heir", (Forwarding,), {})())
        await opened(client)
        await layer.group_send("all", {"type": "chat.message", "text": "a"})
        await settle()
        assert client.texts == ["a"]
        client.leave()
        await client.end()

    async def test_a_consumer_that_has_closed_forwards_nothing(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Forwarding):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await self.close()

        client = wire(Here())
        await opened(client)
        client.write("x")
        await settle()
        await layer.group_send("all", {"type": "chat.message", "text": "late"})
        await settle()
        assert [message["type"] for message in client.sent] == ["websocket.accept", "websocket.close"]
        client.leave()
        await client.end()

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("gone")])
    async def test_a_client_that_has_gone_is_dropped_and_counted(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, error: Exception
    ) -> None:
        class Here(Forwarding):
            pass

        class Strict(Forwarding):
            raise_after_close = True

        consumer = Here()
        client = wire(consumer)
        await opened(client)
        client.broken = error
        await layer.group_send("all", {"type": "chat.message", "text": "late"})
        client.leave()
        await client.end()
        assert consumer.code == 1001
        assert consumer_stats(Here).dropped_after_close + consumer_stats(Here).dropped_unhandled <= 1

        client = wire(Strict())
        await opened(client)
        client.broken = OSError("gone")
        await layer.group_send("all", {"type": "chat.message", "text": "late"})
        assert isinstance(await client.outcome(), ConnectionClosed)

    async def test_an_error_of_the_servers_own_is_one(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        client = wire(Forwarding())
        await opened(client)
        client.broken = RuntimeError("a fault of the server")
        await layer.group_send("all", {"type": "chat.message", "text": "x"})
        error = await client.outcome()
        assert str(error) == "a fault of the server"

    async def test_a_consumer_without_a_websocket_cannot_forward(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Plain(AsyncConsumer):
            forward = ("chat.message",)

            async def start(self, message: Any) -> None:
                await layer.group_add("all", self.channel_name)

        client = wire(Plain())
        client.say({"type": "start"})
        await settle()
        await layer.group_send("all", {"type": "chat.message", "text": "x"})
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert "Plain" in str(error)

    async def test_all_receivers_get_the_same_text(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        text = encode_once({"n": list(range(10))})
        assert json.loads(text) == {"n": list(range(10))}
        clients = [wire(Forwarding()) for _ in range(3)]
        for client in clients:
            await opened(client)
        await layer.group_send("all", {"type": "chat.message", "text": text})
        await settle()
        assert all(client.texts[0] is text for client in clients)
        for client in clients:
            client.leave()
            await client.end()

    def test_encode_once_is_the_encoding_of_send_json(self) -> None:
        contents: list[Any] = [{"a": [1, None, "\u00e9"]}, [], "x", 3]
        for content in contents:
            assert encode_once(content) == json.dumps(content)
        with pytest.raises(TypeError):
            encode_once({1, 2})


class AnyName(AsyncWebsocketConsumer):
    """Forwards types that no method can have."""

    groups = ("all",)
    forward: ClassVar[Any] = ("chat-message", "_x", "class", "a b")


async def test_a_type_that_no_method_can_have_is_forwarded(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    client = wire(AnyName())
    await opened(client)
    for number, kind in enumerate(AnyName.forward, 1):
        await layer.group_send("all", {"type": kind, "text": kind})
        await client.heard(number)
    assert client.texts == list(AnyName.forward)
    client.leave()
    await client.end()
