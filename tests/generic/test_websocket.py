"""What is only ours in the WebSocket consumers: arguments that are checked, and JSON for all four."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from headrace.generic import websocket
from headrace.generic._connection import BaseWebsocketConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import WebsocketCommunicator

MakeConsumer = Callable[[type[Any]], tuple[Any, list[Any]]]

ALL: list[type[Any]] = [
    AsyncWebsocketConsumer,
    WebsocketConsumer,
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
]


async def call(consumer: Any, name: str, *args: Any, **kwargs: Any) -> None:
    """Call a method of an async or of a sync consumer."""
    result = getattr(consumer, name)(*args, **kwargs)
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("kind", ALL)
class TestArguments:
    """Arguments of the wrong kind: an error that names the consumer's class and method, and nothing is sent."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"subprotocol": 3}, "subprotocol must be a str or None, got 3"),
            ({"subprotocol": b"chat"}, "subprotocol must be a str or None, got b'chat'"),
            ({"subprotocol": ["chat"]}, "subprotocol must be a str or None"),
            ({"headers": {b"a": b"b"}}, "headers must be pairs of bytes"),
            ({"headers": [b"a"]}, "headers must be pairs of bytes"),
            ({"headers": [(b"a",)]}, "headers must be pairs of bytes"),
            ({"headers": [("a", "b")]}, "headers must be pairs of bytes"),
            ({"headers": [(b"a", "b")]}, "headers must be pairs of bytes"),
            ({"headers": [(b"a", None)]}, "headers must be pairs of bytes"),
            ({"headers": 3}, "headers must be pairs of bytes"),
        ],
    )
    async def test_of_accept(
        self, unconnected: MakeConsumer, kind: type[Any], arguments: dict[str, Any], expected: str
    ) -> None:
        consumer, sent = unconnected(kind)
        with pytest.raises(TypeError) as caught:
            await call(consumer, "accept", **arguments)
        assert str(caught.value).startswith(f"{kind.__name__}.accept(): {expected}")
        assert sent == []

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"text_data": b"x"}, "text_data must be a str (bytes go into bytes_data), got b'x'"),
            ({"text_data": {"a": 1}}, "text_data must be a str"),
            ({"text_data": 0}, "text_data must be a str"),
            ({"bytes_data": [1]}, "bytes_data must be bytes, got [1]"),
        ],
    )
    async def test_of_send(
        self, unconnected: MakeConsumer, kind: type[Any], arguments: dict[str, Any], expected: str
    ) -> None:
        consumer, sent = unconnected(kind)
        with pytest.raises(TypeError) as caught:
            await call(consumer, "send", **arguments)
        assert str(caught.value).startswith(f"{kind.__name__}.send(): {expected}")
        assert sent == []

    @pytest.mark.parametrize(
        ("arguments", "error", "expected"),
        [
            (("4000",), TypeError, "code must be an int, got '4000'"),
            ((4000.0,), TypeError, "code must be an int, got 4000.0"),
            ((4000, b"why"), TypeError, "reason must be a str, got b'why'"),
            ((4000, 3), TypeError, "reason must be a str, got 3"),
            ((4000, "x" * 124), ValueError, "reason must have at most 123 bytes, got 124"),
            ((4000, "\u00e4" * 62), ValueError, "reason must have at most 123 bytes, got 124"),
        ],
    )
    async def test_of_close(
        self,
        unconnected: MakeConsumer,
        kind: type[Any],
        arguments: tuple[Any, ...],
        error: type[Exception],
        expected: str,
    ) -> None:
        consumer, sent = unconnected(kind)
        with pytest.raises(error) as caught:
            await call(consumer, "close", *arguments)
        assert expected in str(caught.value)
        assert sent == []
        # It has not closed: what is right is sent.
        await call(consumer, "close", 4000, "x" * 123)
        assert sent == [{"type": "websocket.close", "code": 4000, "reason": "x" * 123}]

    @pytest.mark.parametrize("code", [403, 999, 1004, 1005, 1006, 1015, 2000, 5000, -1])
    async def test_a_code_that_no_frame_can_carry_is_refused_before_anything_is_sent(
        self, unconnected: MakeConsumer, kind: type[Any], code: int
    ) -> None:
        consumer, sent = unconnected(kind)
        await call(consumer, "accept")
        refused = f"a WebSocket cannot be closed with code {code}: take 1000"
        with pytest.raises(ValueError, match=refused):
            await call(consumer, "close", code)
        with pytest.raises(ValueError, match=refused):
            await call(consumer, "send", text_data="x", close=code)
        assert [message["type"] for message in sent] == ["websocket.accept"]

    @pytest.mark.parametrize("code", [1000, 1003, 1011, 3000, 4999])
    async def test_any_other_code_is_sent(self, unconnected: MakeConsumer, kind: type[Any], code: int) -> None:
        consumer, sent = unconnected(kind)
        await call(consumer, "accept")
        await call(consumer, "close", code)
        assert sent[-1] == {"type": "websocket.close", "code": code}

    async def test_before_it_is_accepted_any_code_refuses(self, unconnected: MakeConsumer, kind: type[Any]) -> None:
        consumer, sent = unconnected(kind)
        await call(consumer, "close", 403)
        assert sent == [{"type": "websocket.close", "code": 403}]

    async def test_text_in_the_place_of_bytes_is_its_utf8(self, unconnected: MakeConsumer, kind: type[Any]) -> None:
        consumer, sent = unconnected(kind)
        await call(consumer, "send", bytes_data="H\u00e9llo")
        assert sent == [{"type": "websocket.send", "bytes": "H\u00e9llo".encode()}]

    async def test_buffers_are_bytes(self, unconnected: MakeConsumer, kind: type[Any]) -> None:
        consumer, sent = unconnected(kind)
        for data in (bytearray(b"x"), memoryview(b"x")):
            await call(consumer, "send", bytes_data=data)
        assert [bytes(message["bytes"]) for message in sent] == [b"x", b"x"]


@pytest.mark.parametrize("kind", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_send_json_sends_json_and_closes(unconnected: MakeConsumer, kind: type[Any]) -> None:
    consumer, sent = unconnected(kind)
    await call(consumer, "send_json", {"a": "\u00e4"}, close=4000)
    assert sent == [
        {"type": "websocket.send", "text": json.dumps({"a": "\u00e4"})},
        {"type": "websocket.close", "code": 4000},
    ]


class TestTwins:
    """The sync and the async class have the same methods."""

    @pytest.mark.parametrize(
        ("asynchronous", "synchronous"),
        [(AsyncWebsocketConsumer, WebsocketConsumer), (AsyncJsonWebsocketConsumer, JsonWebsocketConsumer)],
    )
    def test_public_methods_and_their_parameters_are_the_same(
        self, asynchronous: type[Any], synchronous: type[Any]
    ) -> None:
        def signatures(kind: type[Any]) -> dict[str, list[tuple[str, Any]]]:
            return {
                name: [(each.name, each.default) for each in inspect.signature(getattr(kind, name)).parameters.values()]
                for name in dir(kind)
                if not name.startswith("_") and name != "base_send" and callable(getattr(kind, name))
            }

        assert signatures(asynchronous) == signatures(synchronous)

    def test_what_is_async_is_sync_in_the_other(self) -> None:
        for name in dir(AsyncWebsocketConsumer):
            method = getattr(AsyncWebsocketConsumer, name)
            if name.startswith("_") or not inspect.iscoroutinefunction(method) or name in ("dispatch", "on_error"):
                continue
            assert not inspect.iscoroutinefunction(getattr(WebsocketConsumer, name)), name

    def test_all_are_connections(self) -> None:
        assert all(issubclass(kind, BaseWebsocketConsumer) for kind in ALL)
        assert {kind.__name__ for kind in ALL} < set(websocket.__all__)


class TestSeed:
    """Forms that Channels does not have."""

    async def test_receive_without_bytes_data(self, layer: InMemoryChannelLayer) -> None:
        class Chat(AsyncWebsocketConsumer):
            async def receive(self, text_data: str | None = None) -> None:  # type: ignore[override]  # as in tests/consumer_forms
                await self.send(json.dumps({"got": text_data}))

        async with WebsocketCommunicator(Chat.as_asgi(), "/ws/") as client:
            await client.send_to("x")
            assert await client.receive_json_from() == {"got": "x"}

    async def test_receive_without_bytes_data_says_so_when_bytes_come(self, layer: InMemoryChannelLayer) -> None:
        class Chat(AsyncWebsocketConsumer):
            async def receive(self, text_data: str | None = None) -> None:  # type: ignore[override]  # as in tests/consumer_forms
                await self.send(json.dumps({"got": text_data}))

        client = WebsocketCommunicator(Chat.as_asgi(), "/ws/")
        await client.connect()
        await client.send_to(bytes_data=b"x")
        with pytest.raises(TypeError, match="bytes_data"):
            await client.receive_output()


class TestUnaccepted:
    """A client that waits for an accept that does not come is told of when it has gone."""

    @pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
    @pytest.mark.parametrize(("root_path", "told"), [("", ""), ("/sub", " (root_path '/sub')")])
    async def test_a_connect_that_forgets_it(
        self, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture, base: type[Any], root_path: str, told: str
    ) -> None:
        def connect(self: Any) -> Any:
            return None if base is WebsocketConsumer else settled()

        client = WebsocketCommunicator(type("Chat", (base,), {"connect": connect}), "/ws/")
        client.scope |= {"path": "/ws/\n", "root_path": root_path}
        await client.send_input({"type": "websocket.connect"})
        await client.send_input({"type": "websocket.disconnect", "code": 1006})
        await client.wait()
        [record] = [record for record in caplog.records if record.name == "headrace.consumer"]
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            "Chat at '/ws/\\n': its client has gone without having been accepted; connect() has to await self.accept() "
            f"or self.close(){told}"
        )

    @pytest.mark.parametrize("method", ["accept", "close"])
    async def test_a_connect_that_decides(
        self, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture, method: str
    ) -> None:
        class Chat(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await getattr(self, method)()

        client = WebsocketCommunicator(Chat, "/ws/")
        await client.connect()
        await client.disconnect()
        assert caplog.records == []


async def settled() -> None:
    """Stand for a coroutine method that does nothing."""
