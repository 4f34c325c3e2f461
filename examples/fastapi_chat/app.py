"""A chat in FastAPI: its endpoints for HTTP, a consumer of headrace's for the sockets."""

from pathlib import Path

from fastapi import FastAPI
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
        await layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data:
            await layer.group_send(self.room, {"type": "chat.message", "text": text_data})


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
    report = await layer.group_send("lobby", {"type": "chat.message", "text": announcement.text})
    return report.delivered


@app.post("/announce-from-thread")
def announce_from_thread(announcement: Announcement) -> int:
    """Send from the thread that a plain endpoint runs in; return how many heard it."""
    report = layer.group_send_sync("lobby", {"type": "chat.message", "text": announcement.text})
    return report.delivered
