"""A FastAPI application with headrace's consumers mounted in it, and a page that speaks to them."""

from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, URLRouter, WebsocketConsumer, configure, path
from headrace.typing import Message

LAYER = InMemoryChannelLayer()
configure(layers={"default": LAYER})


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def said(self, event: Message) -> None:
        await self.send(text_data=event["text"])


class SyncRoom(WebsocketConsumer):
    groups = ("room",)

    def said(self, event: Message) -> None:
        self.send(text_data=event["text"])


application = FastAPI()
application.mount("/sockets", URLRouter([path("room/", Room.as_asgi()), path("sync-room/", SyncRoom.as_asgi())]))
application.router.routes.append(WebSocketRoute("/room/", Room.as_asgi()))


@application.post("/say/")
async def say(text: str) -> dict[str, int]:
    report = await LAYER.group_send("room", {"type": "said", "text": text})
    return {"heard": report.delivered_here}
