"""JSON consumers over whole connections."""

import json
from typing import Any

import pytest

from headrace.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import WebsocketCommunicator


class Echo(AsyncJsonWebsocketConsumer):
    """Sends back what it gets, to its group."""

    groups = ("all",)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.group_send("all", {"type": "echo", "content": content})

    async def echo(self, event: dict[str, Any]) -> None:
        await self.send_json(event["content"])


class SyncEcho(JsonWebsocketConsumer):
    """The same in threads."""

    groups = ("all",)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        layer: Any = self.channel_layer
        layer.group_send_sync("all", {"type": "echo", "content": content})

    def echo(self, event: dict[str, Any]) -> None:
        self.send_json(event["content"])


KINDS: list[type[Any]] = [Echo, SyncEcho]


@pytest.mark.parametrize("kind", KINDS)
class TestFrames:
    """What goes in and comes out."""

    @pytest.mark.parametrize("content", [{"a": [1, 2.5, None, True, "\u00e4"]}, [], "x", 0, None])
    async def test_any_json_comes_back(self, layer: InMemoryChannelLayer, kind: type[Any], content: Any) -> None:
        async with WebsocketCommunicator(kind, "/") as client:
            await client.send_json_to(content)
            assert await client.receive_json_from() == content

    @pytest.mark.parametrize("frame", [{"text": ""}, {"bytes": b"{}"}, {"text": None, "bytes": b"{}"}])
    async def test_a_frame_without_text_has_channels_text(
        self, layer: InMemoryChannelLayer, kind: type[Any], frame: dict[str, Any]
    ) -> None:
        client = WebsocketCommunicator(kind, "/")
        await client.connect()
        await client.send_input({"type": "websocket.receive", **frame})
        with pytest.raises(ValueError, match=r"^No text section for incoming WebSocket frame!$"):
            await client.receive_output()

    async def test_what_is_no_json_is_the_decoders_error(self, layer: InMemoryChannelLayer, kind: type[Any]) -> None:
        client = WebsocketCommunicator(kind, "/")
        await client.connect()
        await client.send_to("{")
        with pytest.raises(ValueError, match="Expecting property name"):
            await client.receive_output()

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("[" * 100_000, "the JSON is nested too deep"),
            ('{"a": ' * 100_000, "the JSON is nested too deep"),
            ("NaN", "NaN is no JSON"),
            ('{"price": Infinity}', "Infinity is no JSON"),
            ("[-Infinity]", "-Infinity is no JSON"),
        ],
        ids=["lists", "objects", "NaN", "Infinity", "-Infinity"],
    )
    async def test_what_other_parsers_do_not_read_is_a_bad_frame(
        self, layer: InMemoryChannelLayer, kind: type[Any], text: str, error: str
    ) -> None:
        client = WebsocketCommunicator(kind, "/")
        await client.connect()
        await client.send_to(text)
        with pytest.raises(ValueError, match=f"^{error}$"):
            await client.receive_output()

    @pytest.mark.parametrize("text", ["NaN", "[" * 100_000], ids=["NaN", "deep"])
    async def test_a_bad_frame_is_the_clients_fault(
        self, layer: InMemoryChannelLayer, kind: type[Any], text: str
    ) -> None:
        """Behind a real server it is closed with 1003, and the server logs no traceback."""
        client = WebsocketCommunicator(kind, "/")
        client.scope["asgi"] = {"version": "3.0"}
        await client.connect()
        await client.send_to(text)
        assert await client.receive_output() == {"type": "websocket.close", "code": 1003}
        await client.wait()

    async def test_so_is_one_that_a_decoder_of_ones_own_is_too_deep_in(
        self, layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        if kind is Echo:

            async def decode_json(text_data: str) -> Any:
                return json.loads(text_data)
        else:

            def decode_json(text_data: str) -> Any:  # type: ignore[misc]  # the sync twin
                return json.loads(text_data)

        own_class = type("Own", (kind,), {"decode_json": staticmethod(decode_json)})
        client = WebsocketCommunicator(own_class, "/")
        client.scope["asgi"] = {"version": "3.0"}
        await client.connect()
        await client.send_to("[" * 100_000)
        assert await client.receive_output() == {"type": "websocket.close", "code": 1003}
        await client.wait()


async def test_a_plain_decode_json_of_an_async_consumer_is_an_error(layer: InMemoryChannelLayer) -> None:
    class Wrong(Echo):
        @classmethod
        def decode_json(cls, text_data: str) -> Any:
            return {}

    client = WebsocketCommunicator(Wrong, "/")
    await client.connect()
    await client.send_to("{}")
    with pytest.raises(TypeError, match="Wrong: "):
        await client.receive_output()
