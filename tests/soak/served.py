"""What the soak serves: rooms over Redis, and what the process holds, at ``/state``."""

import asyncio
import gc
import json
import logging
import os
import resource
from pathlib import Path
from typing import Any

from tests.soak.model import TEXT

from headrace import AsyncHttpConsumer, AsyncWebsocketConsumer, ProtocolTypeRouter, URLRouter, configure, path
from headrace.layers import RedisChannelLayer

LAYER = RedisChannelLayer([os.environ["SOAK_URL"]])
configure(layers={"default": LAYER})
# That connections are lost is what is wanted here.
logging.getLogger("headrace").setLevel(logging.ERROR)
# Everybody is in it.
LOBBY = "lobby"


class Room(AsyncWebsocketConsumer):
    """A member of the lobby, and of a group that nobody else ever has."""

    overflow = "drop_old"
    grace_period = 1.0

    async def connect(self) -> None:
        await self.channel_layer.group_add(self.scope["url_route"]["kwargs"]["name"], self.channel_name)
        await self.channel_layer.group_add(LOBBY, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "all":
            await self.channel_layer.group_send(LOBBY, {"type": "room.text", "text": TEXT})
        else:
            await self.send(text_data)

    async def room_text(self, message: dict[str, Any]) -> None:
        await self.send(message["text"])


class State(AsyncHttpConsumer):
    """What the process holds, as JSON."""

    async def handle(self, body: bytes) -> None:
        gc.collect()
        stats = LAYER.stats()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        state = {
            "memory": pages * resource.getpagesize(),
            "tasks": len(asyncio.all_tasks()),
            "descriptors": len(os.listdir("/proc/self/fd")),
            # That of this consumer is one of them.
            "channels": stats.channels - 1,
            "groups": stats.groups,
            "messages": stats.depth,
            "connected": stats.connection.state == "up",
        }
        await self.send_response(200, json.dumps(state).encode())


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter([path("<str:name>/", Room.as_asgi())]),
        "http": URLRouter([path("state/", State.as_asgi())]),
    }
)
