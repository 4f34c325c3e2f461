"""Messages from the layer whose types name methods of headrace's own classes, as projects on Channels send them."""

from typing import Any

import pytest

from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import HttpCommunicator, WebsocketCommunicator

ALL = ["all"]


class Json(AsyncJsonWebsocketConsumer):
    groups = ALL

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"got": content})


class SyncJson(JsonWebsocketConsumer):
    groups = ALL

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json({"got": content})


class Typeless(AsyncJsonWebsocketConsumer):
    """Its ``send_json`` takes off the type of a message from the layer."""

    groups = ALL

    async def send_json(self, content: Any, close: Any = False) -> None:
        await super().send_json({key: content[key] for key in content if key != "type"}, close)


class SyncTypeless(JsonWebsocketConsumer):
    """The same in a thread."""

    groups = ALL

    def send_json(self, content: Any, close: Any = False) -> None:
        super().send_json({key: content[key] for key in content if key != "type"}, close)


@pytest.mark.parametrize("kind", ["send_json", "send.json"])
class TestSendJson:
    """The consumer passes a message on to its client, without a handler."""

    @pytest.mark.parametrize("consumer", [Json, SyncJson])
    async def test_it_sends_the_message(self, layer: InMemoryChannelLayer, consumer: type[Any], kind: str) -> None:
        async with WebsocketCommunicator(consumer, "/") as client:
            await layer.group_send("all", {"type": kind, "data": 1})
            assert await client.receive_json_from() == {"type": kind, "data": 1}

    @pytest.mark.parametrize("consumer", [Typeless, SyncTypeless])
    async def test_it_may_be_overridden(self, layer: InMemoryChannelLayer, consumer: type[Any], kind: str) -> None:
        async with WebsocketCommunicator(consumer, "/") as client:
            await layer.group_send("all", {"type": kind, "data": 1})
            assert await client.receive_json_from() == {"data": 1}


@pytest.mark.parametrize("consumer", [Json, SyncJson])
class TestReceiveJson:
    """What a client would send comes from the layer."""

    async def test_content_goes_to_receive_json(self, layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
        async with WebsocketCommunicator(consumer, "/") as client:
            await layer.group_send("all", {"type": "receive_json", "n": 1})
            assert await client.receive_json_from() == {"got": {"type": "receive_json", "n": 1}}

    async def test_a_frame_is_decoded(self, layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
        async with WebsocketCommunicator(consumer, "/") as client:
            await layer.group_send("all", {"type": "websocket.receive", "text": "[1]"})
            assert await client.receive_json_from() == {"got": [1]}


class Hooks(AsyncWebsocketConsumer):
    """Overrides what headrace's methods call."""

    groups = ALL

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(text_data=f"got {text_data or bytes_data}")

    async def disconnect(self, code: Any) -> None:
        await self.base_send({"type": "test.left", "code": code})


class SyncHooks(WebsocketConsumer):
    """The same in threads."""

    groups = ALL

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.send(text_data=f"got {text_data or bytes_data}")

    def disconnect(self, code: Any) -> None:
        self.base_send({"type": "test.left", "code": code})


class Methods(AsyncWebsocketConsumer):
    """Overrides the methods themselves."""

    groups = ALL

    async def websocket_receive(self, message: Any) -> None:
        await self.send(text_data=f"mine {message['text']}")

    async def websocket_disconnect(self, message: Any) -> None:
        await self.send(text_data=f"stays in spite of {message['code']}")

    async def close(self, code: Any = None, reason: str | None = None) -> None:
        await self.send(text_data=f"closes for {code['who']}")


class SyncMethods(WebsocketConsumer):
    """The same in threads."""

    groups = ALL

    def websocket_receive(self, message: Any) -> None:
        self.send(text_data=f"mine {message['text']}")

    def websocket_disconnect(self, message: Any) -> None:
        self.send(text_data=f"stays in spite of {message['code']}")

    def close(self, code: Any = None, reason: str | None = None) -> None:
        self.send(text_data=f"closes for {code['who']}")


class TestTheClientsTypes:
    """``websocket.receive`` and ``websocket.disconnect``."""

    @pytest.mark.parametrize("consumer", [Hooks, SyncHooks])
    async def test_frames_reach_receive(self, layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
        client = WebsocketCommunicator(consumer, "/")
        await client.connect()
        await layer.group_send("all", {"type": "websocket.receive", "text": "x"})
        assert await client.receive_from() == "got x"
        await layer.group_send("all", {"type": "websocket.receive", "bytes": b"x"})
        assert await client.receive_from() == "got b'x'"
        await client.disconnect(1001)
        assert client.output_queue.get_nowait() == {"type": "test.left", "code": 1001}

    @pytest.mark.parametrize("consumer", [Hooks, SyncHooks])
    async def test_a_disconnect_ends_the_consumer(self, layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
        client = WebsocketCommunicator(consumer, "/")
        await client.connect()
        await layer.group_send("all", {"type": "websocket.disconnect", "code": 4001})
        assert await client.receive_output() == {"type": "test.left", "code": 4001}
        await client.wait()
        assert client.future.done()
        assert client.output_queue.empty()

    @pytest.mark.parametrize("consumer", [Methods, SyncMethods])
    async def test_methods_of_ones_own_are_called(self, layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
        client = WebsocketCommunicator(consumer, "/")
        await client.connect()
        await layer.group_send("all", {"type": "websocket.receive", "text": "x"})
        assert await client.receive_from() == "mine x"
        await layer.group_send("all", {"type": "websocket.disconnect", "code": 4001})
        assert await client.receive_from() == "stays in spite of 4001"
        await layer.group_send("all", {"type": "close", "who": "the layer"})
        assert await client.receive_from() == "closes for the layer"
        client.future.cancel()
        await client.wait()


class LongPoll(AsyncHttpConsumer):
    """Goes on after ``handle``."""

    async def handle(self, body: bytes) -> None:
        await self.channel_layer.group_add("all", self.channel_name)
        await self.send_headers()
        await self.send_body(b"begun ", more_body=True)

    async def http_disconnect(self, message: Any) -> None:
        await self.send_body(b"told by the layer" if message.get("n") else b"")


async def test_http_methods_of_ones_own_are_called(layer: InMemoryChannelLayer) -> None:
    client = HttpCommunicator(LongPoll.as_asgi(), "GET", "/")
    await client.send_input({"type": "http.request", "body": b""})
    assert (await client.receive_output())["type"] == "http.response.start"
    assert (await client.receive_output())["body"] == b"begun "
    await layer.group_send("all", {"type": "http.disconnect", "n": 1})
    assert (await client.receive_output())["body"] == b"told by the layer"
    await client.wait()
