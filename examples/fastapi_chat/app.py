"""A chat in FastAPI: its endpoints for HTTP, a consumer of headrace's for the sockets."""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.datastructures import QueryParams
from fastapi.responses import FileResponse
from pydantic import BaseModel

from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, URLRouter, configure, path

layer = InMemoryChannelLayer(history={"*": {"size": 50, "ttl": 3600}})
configure({"default": layer})
app = FastAPI()


class Chat(AsyncWebsocketConsumer):
    """Everyone in a room hears what anyone in it says, and whoever joins what was said last."""

    # A page that comes again says where it was, and gets what it has missed.
    resume = True

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.name = QueryParams(self.scope["query_string"]).get("name") or "guest"
        await self.join_group(self.room, newest=50)
        await self.accept()
        # For a page that hears nothing before it comes again.
        await self.send(json.dumps({"at": self.position}))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            await layer.group_send(self.room, said(text_data, self.name))

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps({"name": event["name"], "text": event["text"], "at": self.position}))

    async def resumed(self, group: str, complete: bool) -> None:
        if not complete:
            # Nobody knows what it has missed: it begins anew, with what was said last.
            await self.send(json.dumps({"anew": True}))


def said(text: str, name: str | None = None) -> dict[str, Any]:
    """Return the message for a room."""
    return {"type": "chat.message", "name": name, "text": text}


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
    report = await layer.group_send("lobby", said(announcement.text))
    return report.delivered_here


@app.post("/announce-from-thread")
def announce_from_thread(announcement: Announcement) -> int:
    """Send from the thread that a plain endpoint runs in; return how many heard it."""
    report = layer.group_send_sync("lobby", said(announcement.text))
    return report.delivered_here
