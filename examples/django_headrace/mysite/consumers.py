"""The consumer of the chat."""

import json

from headrace import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    """Everyone in a room hears what anyone in it says, under the name in the speaker's session."""

    # Goes to the socket as it is, without a handler.
    forward = ("chat.message",)

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = self.scope["session"].get("name") or "guest"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            text = json.dumps({"name": self.name, "text": text_data})
            await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": text})
