"""A chat room for channels' async and sync consumers, a lobby, and a task for a worker."""

from typing import Any

from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)

Event = dict[str, Any]


class ChatConsumer(AsyncWebsocketConsumer):
    """Tells everybody in the room what anybody says, and who has left."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = self.scope["url_route"]["kwargs"]["name"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.tell(f"{self.name}: {text_data}")

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.tell(f"{self.name} left")

    async def tell(self, text: str) -> None:
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": text})

    async def chat_message(self, event: Event) -> None:
        await self.send(text_data=event["text"])


class SyncChatConsumer(WebsocketConsumer):
    """The same, in threads."""

    def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = self.scope["url_route"]["kwargs"]["name"]
        async_to_sync(self.channel_layer.group_add)(self.room, self.channel_name)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.tell(f"{self.name}: {text_data}")

    def disconnect(self, code: int) -> None:
        async_to_sync(self.channel_layer.group_discard)(self.room, self.channel_name)
        self.tell(f"{self.name} left")

    def tell(self, text: str) -> None:
        async_to_sync(self.channel_layer.group_send)(self.room, {"type": "chat.message", "text": text})

    def chat_message(self, event: Event) -> None:
        self.send(text_data=event["text"])


class LobbyConsumer(AsyncJsonWebsocketConsumer):
    """Joins its group by the class attribute, and passes on what is sent to its channel."""

    groups = ["lobby"]  # noqa: RUF012  # channels' way of saying it

    async def connect(self) -> None:
        await self.accept()
        await self.send_json({"channel": self.channel_name, "user": str(self.scope["user"])})

    async def lobby_event(self, event: Event) -> None:
        await self.send_json(event["content"])


class SumConsumer(AsyncConsumer):
    """Adds numbers up for whoever sends them to a worker."""

    async def sum_numbers(self, message: Event) -> None:
        await self.channel_layer.send(message["reply"], {"type": "sum.done", "sum": sum(message["numbers"])})
