"""A chat in Starlette: its routes for HTTP, a consumer of headrace's for the sockets."""

import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Mount, Route

from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, URLRouter, configure, path

layer = InMemoryChannelLayer()
configure({"default": layer})


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


def page(request: Request) -> FileResponse:
    """Serve the page."""
    return FileResponse(Path(__file__).with_name("chat.html"))


async def announce(request: Request) -> PlainTextResponse:
    """Say the body of a request to everyone in the lobby."""
    text = (await request.body()).decode(errors="replace")
    report = await layer.group_send("lobby", chat_message(text))
    return PlainTextResponse(f"heard by {report.delivered_here}\n")


app = Starlette(
    routes=[
        Route("/", page),
        Route("/announce", announce, methods=["POST"]),
        Mount("/ws", URLRouter([path("<slug:room>/", Chat)])),
    ]
)
