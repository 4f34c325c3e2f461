"""A chat with no framework: headrace's routers and consumers are the ASGI application."""

from headrace import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    InMemoryChannelLayer,
    ProtocolTypeRouter,
    URLRouter,
    configure,
    path,
)

layer = InMemoryChannelLayer()
configure({"default": layer})


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


class Announce(AsyncHttpConsumer):
    """Says the body of a POST in a room."""

    async def handle(self, body: bytes) -> None:
        if self.scope["method"] != "POST":
            await self.send_response(405, b"", headers=[(b"allow", b"POST")])
            return
        room = self.scope["url_route"]["kwargs"]["room"]
        text = body.decode(errors="replace")
        report = await layer.group_send(room, {"type": "chat.message", "text": text})
        await self.send_response(200, b"heard by %d\n" % report.delivered_here)


application = ProtocolTypeRouter(
    {
        "http": URLRouter([path("rooms/<slug:room>/", Announce)]),
        "websocket": URLRouter([path("ws/<slug:room>/", Chat)]),
    }
)
