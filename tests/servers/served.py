"""What the servers here serve: consumers that do as a test says, and tell who watches what became of them.

The path of a connection has a key that its test made up. Who watches a key, at ``/watch/<key>/``, is sent a report
of each ``disconnect()`` under that key, and of the end of each application: nothing has to be asked for until it is so.
With ``HEADRACE_TEST_REPORTS`` in the environment the reports go to that file as well, for when the server itself ends.
With ``HEADRACE_TEST_EAGER`` the tasks of the server's loop start eagerly.
"""

import asyncio
import json
import os
import time
from typing import Any

from headrace import (
    AsyncHttpConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    DenyConnection,
    InMemoryChannelLayer,
    JsonWebsocketConsumer,
    ProtocolTypeRouter,
    URLRouter,
    WebsocketConsumer,
    configure,
    path,
)
from headrace.typing import Application, Message, Receive, Scope, Send

LAYER = InMemoryChannelLayer(history={"kept.*": {"size": 100, "ttl": 300}})
configure(layers={"default": LAYER})


def key_of(scope: Scope) -> str:
    key: str = scope["url_route"]["kwargs"]["key"]
    return key


def room_of(scope: Scope) -> str:
    return f"room.{key_of(scope)}"


def report(scope: Scope, **what: Any) -> None:
    LAYER.group_send_sync(f"watch.{key_of(scope)}", {"type": "watch.report", "text": json.dumps(what)})
    if file := os.environ.get("HEADRACE_TEST_REPORTS"):
        with open(file, "a", encoding="utf-8") as reports:
            reports.write(json.dumps(what) + "\n")


class Reported:
    """Reports how an application ended, and how many are left in the room of its key."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = "as it should"
        try:
            await self.application(scope, receive, send)
        except BaseException as error:
            ended = type(error).__name__
            raise
        finally:
            report(scope, ended=ended, left_in_room=LAYER.group_count(room_of(scope)))


class Watch(AsyncWebsocketConsumer):
    forward = frozenset({"watch.report"})

    async def connect(self) -> None:
        await LAYER.group_add(f"watch.{key_of(self.scope)}", self.channel_name)
        await self.accept()


class Echo(AsyncWebsocketConsumer):
    """Takes the last subprotocol that is offered."""

    async def connect(self) -> None:
        offered = self.scope["subprotocols"]
        await self.accept(offered[-1] if offered else None, headers=[(b"x-accepted-by", b"echo")])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class SyncEcho(WebsocketConsumer):
    def connect(self) -> None:
        offered = self.scope["subprotocols"]
        self.accept(offered[-1] if offered else None, headers=[(b"x-accepted-by", b"echo")])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data, bytes_data)

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Ordered(AsyncJsonWebsocketConsumer):
    """Does what it is told to, in a room."""

    async def connect(self) -> None:
        await LAYER.group_add(room_of(self.scope), self.channel_name)
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        match content:
            case {"close": code, "reason": reason}:
                await self.close(code, reason)
            case {"fail": what}:
                raise RuntimeError(what)
            case {"say": text}:
                await LAYER.group_send(room_of(self.scope), {"type": "said", "text": text})

    async def said(self, event: Message) -> None:
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Forwarding(Ordered):
    """Says what is said in the room without a handler."""

    forward = frozenset({"said"})


class SyncOrdered(JsonWebsocketConsumer):
    """Does what it is told to, in a room."""

    def connect(self) -> None:
        LAYER.group_add_sync(room_of(self.scope), self.channel_name)
        self.accept()

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        match content:
            case {"close": code, "reason": reason}:
                self.close(code, reason)
            case {"fail": what}:
                raise RuntimeError(what)
            case {"say": text}:
                LAYER.group_send_sync(room_of(self.scope), {"type": "said", "text": text})

    def said(self, event: Message) -> None:
        self.send(text_data=event["text"])

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Limited(AsyncWebsocketConsumer):
    """Answers two frames at once, and one more in thirty seconds."""

    rate_limit = "2/m"

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class SyncLimited(WebsocketConsumer):
    rate_limit = "2/m"

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data, bytes_data)

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Strict(Limited):
    rate_limit_overflow = "close"


class SyncStrict(SyncLimited):
    rate_limit_overflow = "close"


class Resuming(AsyncJsonWebsocketConsumer):
    """Says what is said in a room with history, and where its client is."""

    resume = True

    async def connect(self) -> None:
        await self.join_group(f"kept.{key_of(self.scope)}")
        offered = self.scope["subprotocols"]
        await self.accept(offered[-1] if offered else None)
        await self.send_json({"at": self.position})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await LAYER.group_send(f"kept.{key_of(self.scope)}", {"type": "said", "text": content})

    async def said(self, event: Message) -> None:
        await self.send_json({"text": event["text"], "at": self.position})

    async def resumed(self, group: str, complete: bool) -> None:
        await self.send_json({"resumed": complete})

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class SyncResuming(JsonWebsocketConsumer):
    """The same in threads."""

    resume = True

    def connect(self) -> None:
        self.join_group(f"kept.{key_of(self.scope)}")
        offered = self.scope["subprotocols"]
        self.accept(offered[-1] if offered else None)
        self.send_json({"at": self.position})

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        LAYER.group_send_sync(f"kept.{key_of(self.scope)}", {"type": "said", "text": content})

    def said(self, event: Message) -> None:
        self.send_json({"text": event["text"], "at": self.position})

    def resumed(self, group: str, complete: bool) -> None:
        self.send_json({"resumed": complete})

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Refused(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Denied(WebsocketConsumer):
    def connect(self) -> None:
        raise DenyConnection

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Ticks(AsyncWebsocketConsumer):
    """Ticks without end from its connect() on."""

    grace_period = 0.1

    async def connect(self) -> None:
        await self.accept()
        while True:
            await self.send(text_data="tick")
            await asyncio.sleep(0.01)

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class SyncTicks(WebsocketConsumer):
    """The same in a thread."""

    grace_period = 0.1

    def connect(self) -> None:
        self.accept()
        while True:
            self.send(text_data="tick")
            time.sleep(0.01)

    def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class FailsToConnect(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await LAYER.group_add(room_of(self.scope), self.channel_name)
        raise RuntimeError("nobody gets in")

    async def disconnect(self, code: int) -> None:
        report(self.scope, disconnect=code)


class Plain(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(201, b"got " + body, headers=[(b"content-type", b"text/plain")])

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


class Parts(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers={b"content-type": b"text/plain"})
        for part in (b"one\n", b"two\n"):
            await self.send_body(part, more_body=True)
        await self.send_body(b"three\n")

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


class LongPoll(AsyncHttpConsumer):
    """Is answered by what is said in the room."""

    async def handle(self, body: bytes) -> None:
        await LAYER.group_add(room_of(self.scope), self.channel_name)
        await self.send_headers(headers={b"content-type": b"text/plain"})
        await self.send_body(b"", more_body=True)
        report(self.scope, polling=True)

    async def said(self, event: Message) -> None:
        await self.send_body(event["text"].encode())

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


class Endless(AsyncHttpConsumer):
    """Ticks for ever, a hundred times a second."""

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers={b"content-type": b"text/event-stream"})
        while True:
            await self.send_body(b"tick\n", more_body=True)
            await asyncio.sleep(0.01)

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


class Sleeps(AsyncHttpConsumer):
    """Begins a response, and waits without end."""

    grace_period = 0.1

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers={b"content-type": b"text/event-stream"})
        await self.send_body(b"tick\n", more_body=True)
        await asyncio.Event().wait()

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


class FailsToHandle(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        raise RuntimeError("no answer")

    async def disconnect(self) -> None:
        report(self.scope, disconnect=None)


WEBSOCKETS = {
    "echo": Echo,
    "sync-echo": SyncEcho,
    "ordered": Ordered,
    "forwarding": Forwarding,
    "sync-ordered": SyncOrdered,
    "resuming": Resuming,
    "sync-resuming": SyncResuming,
    "limited": Limited,
    "sync-limited": SyncLimited,
    "strict": Strict,
    "sync-strict": SyncStrict,
    "ticks": Ticks,
    "sync-ticks": SyncTicks,
    "refused": Refused,
    "denied": Denied,
    "fails": FailsToConnect,
}
PAGES = {"plain": Plain, "parts": Parts, "poll": LongPoll, "endless": Endless, "sleeps": Sleeps, "fails": FailsToHandle}

router = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("watch/<str:key>/", Watch.as_asgi()),
                *(path(f"{name}/<str:key>/", Reported(consumer.as_asgi())) for name, consumer in WEBSOCKETS.items()),
            ]
        ),
        "http": URLRouter(
            [path(f"{name}/<str:key>/", Reported(consumer.as_asgi())) for name, consumer in PAGES.items()]
        ),
    }
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if "HEADRACE_TEST_EAGER" in os.environ:
        # Set here because not every server has a setting for its loop, or a lifespan.
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    await router(scope, receive, send)
