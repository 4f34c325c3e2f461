"""Classes of consumers that are put together of several, in whichever order: GraphQL's libraries do that."""

from typing import Any

import pytest

from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import HttpCommunicator, WebsocketCommunicator


class Listening(AsyncConsumer):
    """What its consumers share, whatever they serve."""

    async def news(self, event: dict[str, Any]) -> None:
        await self.send_json(event["text"])  # type: ignore[attr-defined]  # the other base has it


class SyncListening(SyncConsumer):
    """The same in threads."""

    def news(self, event: dict[str, Any]) -> None:
        self.send_json(event["text"])  # type: ignore[attr-defined]  # the other base has it


class Chat(Listening, AsyncJsonWebsocketConsumer):
    groups = ("news",)


class ChatBefore(AsyncJsonWebsocketConsumer, Listening):
    groups = ("news",)


class SyncChat(SyncListening, JsonWebsocketConsumer):
    groups = ("news",)


class Page(Listening, AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, b"page")


@pytest.mark.parametrize("consumer", [Chat, ChatBefore, SyncChat])
async def test_a_websocket_consumer_behind_a_consumer_of_ones_own(
    layer: InMemoryChannelLayer, consumer: type[Any]
) -> None:
    async with WebsocketCommunicator(consumer, "/") as client:
        layer.group_send_sync("news", {"type": "news", "text": "hello"})
        assert await client.receive_json_from() == "hello"


async def test_an_http_consumer_behind_a_consumer_of_ones_own(layer: InMemoryChannelLayer) -> None:
    response = await HttpCommunicator(Page.as_asgi(), "GET", "/").get_response()
    assert response["body"] == b"page"
