"""Consumers in the forms in which chats are often written, which are not all Channels'. They have no types."""

# mypy: ignore-errors

import os

from headrace import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    ProtocolTypeRouter,
    URLRouter,
    WebsocketConsumer,
    database_sync_to_async,
    get_channel_layer,
)

NOTES = os.environ["FORMS_NOTES"]


def note(text):
    with open(NOTES, "a") as notes:
        notes.write(f"{text}\n")


class Parrot(WebsocketConsumer):
    def connect(self):
        self.accept()

    def disconnect(self, close_code):
        note(f"parrot left with {close_code}")

    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=f"squawk {text_data}")


class AsyncParrot(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

    async def disconnect(self, close_code):
        note(f"async parrot left with {close_code}")

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=f"squawk {text_data}")


class Counter(JsonWebsocketConsumer):
    """Greets in connect(); its receive_json() takes no keywords."""

    def connect(self):
        self.accept()
        self.send_json({"type": "greeting", "count": 0})

    def receive_json(self, content):
        if content.get("type") == "count.up":
            self.send_json({"type": "counted", "count": content.get("by") + 1})

    def disconnect(self, close_code):
        note(f"counter left with {close_code}")


class Board(AsyncJsonWebsocketConsumer):
    """Finds its layer and names its channel itself, and hears what comes there."""

    async def connect(self):
        self.board = "notices"
        self.channel_layer = get_channel_layer()
        self.channel_name = await self.channel_layer.new_channel("board")
        await self.channel_layer.group_add(self.board, self.channel_name)
        await self.accept()
        await self.send_json({"type": "system", "channel": self.channel_name})

    async def disconnect(self, close_code):
        if hasattr(self, "channel_layer"):
            await self.channel_layer.group_discard(self.board, self.channel_name)
        note(f"board left with {close_code}, {self.channel_layer.group_count(self.board)} remain")

    async def receive_json(self, content):
        await self.channel_layer.group_send(self.board, {"type": "board.pinned", "note": content.get("note", "")})

    async def board_pinned(self, event):
        await self.send_json({"type": "pinned", "note": event["note"]})


class TextOnly(WebsocketConsumer):
    def connect(self):
        self.accept()

    def receive(self, text_data=None):
        self.send(text_data=f"text {text_data}")


class OtherTextOnly(WebsocketConsumer):
    def connect(self):
        self.accept()

    def receive(self, text_data=None):
        self.send(text_data=f"other text {text_data}")


class Greeter(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()


class Customer(AsyncJsonWebsocketConsumer):
    """Sends what a method has found in a thread."""

    async def connect(self):
        await self.accept()
        customer = await self.look_up(7)
        await self.send_json({"type": "customer", "customer": customer})

    @database_sync_to_async
    def look_up(self, number):
        return {"number": number, "name": "ada"}


class Pub(AsyncJsonWebsocketConsumer):
    """Tells everybody who comes, what they say, and who leaves."""

    async def connect(self):
        self.pub = f"pub_{self.scope.get('room', 'snug')}"
        self.channel_layer = get_channel_layer()
        self.channel_name = await self.channel_layer.new_channel("pub")
        await self.channel_layer.group_add(self.pub, self.channel_name)
        await self.accept()
        await self.channel_layer.group_send(self.pub, {"type": "guest.came", "guest": "somebody"})

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.pub, self.channel_name)
        await self.channel_layer.group_send(self.pub, {"type": "guest.left", "guest": "somebody"})

    async def receive_json(self, content):
        if content.get("type") == "speech":
            await self.channel_layer.group_send(
                self.pub,
                {"type": "guest.spoke", "guest": content.get("guest", "somebody"), "text": content.get("text", "")},
            )

    async def guest_spoke(self, event):
        await self.send_json({"type": "speech", "guest": event["guest"], "text": event["text"], "pub": self.pub})

    async def guest_came(self, event):
        await self.send_json({"type": "came", "guest": event["guest"]})

    async def guest_left(self, event):
        await self.send_json({"type": "left", "guest": event["guest"]})


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                ("/parrot/", Parrot),
                ("/parrot/async/", AsyncParrot),
                ("/counter/", Counter),
                ("/board/", Board),
                ("/texts/", TextOnly),
                ("/texts/other/", OtherTextOnly),
                ("/greeter/", Greeter),
                ("/customer/", Customer),
                ("/pub/", Pub),
            ]
        )
    }
)
