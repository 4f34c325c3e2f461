"""A chat in Starlette: its routes for HTTP, a consumer of headrace's for the sockets."""

import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Mount, Route

from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, URLRouter, configure, path

layer = InMemoryChannelLayer(history={"*": {"size": 50, "ttl": 3600}})
configure({"default": layer})


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


def page(request: Request) -> FileResponse:
    """Serve the page."""
    return FileResponse(Path(__file__).with_name("chat.html"))


async def announce(request: Request) -> PlainTextResponse:
    """Say the body of a request to everyone in the lobby."""
    text = (await request.body()).decode(errors="replace")
    report = await layer.group_send("lobby", said(text))
    return PlainTextResponse(f"heard by {report.delivered_here}\n")


app = Starlette(
    routes=[
        Route("/", page),
        Route("/announce", announce, methods=["POST"]),
        Mount("/ws", URLRouter([path("<slug:room>/", Chat)])),
    ]
)
