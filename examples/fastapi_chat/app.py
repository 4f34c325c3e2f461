"""A chat in FastAPI: its endpoints for HTTP, a consumer of headrace's for the sockets."""

import json
from pathlib import Path

from fastapi import FastAPI
from fastapi.datastructures import QueryParams
from fastapi.responses import FileResponse
from pydantic import BaseModel

from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, URLRouter, configure, path

layer = InMemoryChannelLayer()
configure({"default": layer})
app = FastAPI()


class Chat(AsyncWebsocketConsumer):
    """Everyone in a room hears what anyone in it says."""

    # Goes to the socket as it is, without a handler.
    forward = ("chat.message",)

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = QueryParams(self.scope["query_string"]).get("name") or "guest"
        await layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            await layer.group_send(self.room, chat_message(text_data, self.name))


def chat_message(text: str, name: str | None = None) -> dict[str, str]:
    """Return a message whose text is what the pages get: JSON, encoded once for all of them."""
    return {"type": "chat.message", "text": json.dumps({"name": name, "text": text})}


app.mount("/ws", URLRouter([path("<slug:room>/", Chat)]))


class Announcement(BaseModel):
    """What everyone in the lobby is to hear."""

    text: str


@app.get("/")
def page() -> FileResponse:
    """Serve the page."""
    return FileResponse(Path(__file__).with_name("chat.html"))


@app.post("/announce")
async def announce(announcement: Announcement) -> int:
    """Send from the event loop; return how many heard it."""
    report = await layer.group_send("lobby", chat_message(announcement.text))
    return report.delivered_here


@app.post("/announce-from-thread")
def announce_from_thread(announcement: Announcement) -> int:
    """Send from the thread that a plain endpoint runs in; return how many heard it."""
    report = layer.group_send_sync("lobby", chat_message(announcement.text))
    return report.delivered_here
