"""The consumer of the chat."""

import json
from typing import Any

from headrace import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    """Everyone in a room hears what anyone in it says, under the name in the speaker's session.

    Whoever joins gets what was said last, and a page that comes again what it has missed.
    """

    resume = True

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = self.scope["session"].get("name") or "guest"
        await self.join_group(self.room, newest=50)
        await self.accept()
        # For a page that hears nothing before it comes again.
        await self.send(json.dumps({"at": self.position}))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            message = {"type": "chat.message", "name": self.name, "text": text_data}
            await self.channel_layer.group_send(self.room, message)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps({"name": event["name"], "text": event["text"], "at": self.position}))

    async def resumed(self, group: str, complete: bool) -> None:
        if not complete:
            # Nobody knows what it has missed: it begins anew, with what was said last.
            await self.send(json.dumps({"anew": True}))
