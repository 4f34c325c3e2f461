"""What both type checkers have to accept. Nobody runs it."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette

from headrace import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    BaseSocketServer,
    Broadcaster,
    History,
    Inbox,
    InMemoryChannelLayer,
    JsonWebsocketConsumer,
    LayerStats,
    ProtocolTypeRouter,
    RedisChannelLayer,
    RedisStats,
    SendReport,
    SyncConsumer,
    URLRouter,
    WebsocketConsumer,
    channel_layers,
    configure,
    get_channel_layer,
    group_name,
    include,
    lifespan,
    path,
    re_path,
)
from headrace.layers import BaseChannelLayer
from headrace.security.tokens import TokenAuthMiddleware
from headrace.testing import FaultyLayer, WebsocketCommunicator
from headrace.typing import AnyChannelLayer, Application, ChannelLayer, Message, Receive, Scope, Send
from headrace.worker import Worker


class Said(TypedDict):
    """A message whose fields are known."""

    type: Literal["chat.message"]
    text: str


# Layers.


def every_layer_of_headrace_is_one(
    memory: InMemoryChannelLayer, redis: RedisChannelLayer, faulty: FaultyLayer
) -> list[ChannelLayer]:
    return [memory, redis, faulty]


class PlainLayer:
    """A layer that somebody else has written, by Channels' specification."""

    async def send(self, channel: str, message: dict[str, Any]) -> None: ...
    async def receive(self, channel: str) -> dict[str, Any]:
        return {"type": channel}

    async def new_channel(self, prefix: str = "specific") -> str:
        return prefix

    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...


def every_layer_is_taken(native: ChannelLayer, base: BaseChannelLayer, application: Application) -> None:
    layers: list[AnyChannelLayer] = [native, base, PlainLayer()]
    configure({"default": PlainLayer(), "other": native, "third": {"BACKEND": "a.Layer", "CONFIG": {"capacity": 1}}})
    Worker(application, ["work"], layers[0])
    channel_layers.set("default", PlainLayer())


async def a_layer_can_do_all_that_headraces_layers_can(said: Said, mapping: Mapping[str, Any]) -> None:
    layer = channel_layers["default"]
    assert_type(layer, ChannelLayer)
    assert_type(get_channel_layer(), ChannelLayer | Any)
    channel = await layer.new_channel("mine")
    await layer.group_add(group_name("room", 1), channel)
    await layer.send(channel, said)
    await layer.send(channel, mapping)
    await layer.send(channel, {"type": "chat.message", "nested": [1, {"a": b"c"}]})
    assert_type(await layer.receive(channel), dict[str, Any])
    assert_type(await layer.group_send("room", said, exclude=channel), SendReport)
    assert_type(await layer.group_send("room", said, exclude={channel}), SendReport)
    assert_type(await layer.send_many([(channel, said), (channel, {"type": "a"})]), SendReport)
    assert_type(await layer.group_send_many(("room", said) for _ in range(2)), SendReport)
    assert_type(await layer.receive_many(channel, 10), list[dict[str, Any]])
    async with layer.subscription("a", "b") as inbox:
        assert_type(inbox, Inbox)
        async for message in inbox:
            assert_type(message, dict[str, Any])
    position = (await layer.group_send("room", said)).position
    assert_type(position, str | None)
    assert_type(await layer.group_add("room", channel, since=position), bool | None)
    assert_type(await layer.group_position("room"), str | None)
    found = await layer.group_history("room", since=position, limit=10)
    assert_type((found.messages, found.position, found.complete), tuple[list[dict[str, Any]], str, bool])
    async with layer.subscription("room", since=10) as inbox:
        assert_type(inbox.complete, bool | None)
    await layer.flush()
    await layer.close()


def a_layer_is_used_without_a_loop(layer: ChannelLayer, said: Said) -> None:
    layer.send_sync("work", said, True)
    channel = layer.new_channel_sync()
    layer.group_add_sync("room", channel)
    layer.send_sync(channel, said)
    assert_type(layer.group_send_sync("room", said, exclude=[channel]), SendReport)
    assert_type(layer.receive_sync(channel, 1.0), dict[str, Any])
    assert_type(layer.receive_nowait(channel), dict[str, Any])
    layer.group_discard_sync("room", channel)
    layer.close_channel(channel)
    assert_type(layer.group_channels("room"), list[str])
    assert_type(layer.group_count("room"), int)
    assert_type(layer.channel_groups(channel), list[str])
    assert_type(layer.stats(), LayerStats | RedisStats)
    assert_type(layer.stats().dropped_full, int)
    assert_type(layer.channel_stats(channel).depth, int)
    assert_type(layer.group_stats("room").members, int)
    assert_type(layer.get_capacity(channel), int)
    assert_type((layer.capacity, layer.capacity_bytes, layer.history_bytes), tuple[int, int, int])
    assert_type(layer.group_add_sync("room", channel, since="position"), bool | None)
    assert_type(layer.group_history_sync("room", limit=3), History)
    assert_type((layer.expiry, layer.group_expiry), tuple[float, float])


def a_send_over_redis_may_be_confirmed(layer: RedisChannelLayer, said: Said) -> None:
    layer.send_sync("work", said, confirm=True)
    report = layer.group_send_sync("room", said, confirm=True)
    assert_type(report, SendReport)
    assert_type((report.delivered, report.delivered_here, report.processes), tuple[int | None, int, int | None])
    assert_type(report + layer.send_many_sync([("work", said)]), SendReport)
    assert_type(layer.stats().connection.reconnects, int)


class LoudLayer(InMemoryChannelLayer):
    """A subclass that changes what is sent."""

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        await super().send(channel, {**message, "loud": True})


# Consumers.


class Chat(AsyncJsonWebsocketConsumer):
    """Hooks with the arguments that people write."""

    groups = ["lobby"]  # noqa: RUF012  # as people write it
    forward = {"chat.text": "text"}  # noqa: RUF012
    overflow = "coalesce"
    max_backlog = 10
    idle_timeout = 60

    async def connect(self) -> None:
        await self.accept(subprotocol="chat", headers=[(b"a", b"b")])

    async def receive_json(self, content: dict[str, Any]) -> None:
        said: Said = {"type": "chat.message", "text": content["text"]}
        assert_type(await self.channel_layer.group_send("lobby", said, exclude=self.channel_name), SendReport)
        await self.channel_layer.send(self.channel_name, said)

    async def chat_message(self, event: Said) -> None:
        await self.send_json({"text": event["text"]})

    async def disconnect(self, code: int) -> None:
        await self.close(1000, reason="bye")

    async def on_error(self, exc: Exception, message: Message) -> None:
        await super().on_error(exc, message)


class ChatWithMore(AsyncJsonWebsocketConsumer):
    """The signature of Channels."""

    forward = ("chat.text",)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await super().receive_json(content, **kwargs)


class PlainChat(JsonWebsocketConsumer):
    """The sync twin."""

    groups = ("lobby",)
    forward = frozenset({"chat.text"})
    thread_sensitive = False

    def receive_json(self, content: list[int]) -> None:
        self.channel_layer.group_send_sync("lobby", {"type": "chat.message", "numbers": content})

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send_json(event["numbers"], close=True)


class Text(AsyncWebsocketConsumer):
    """Text and bytes."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)
        await self.send(bytes_data=bytes_data, close=4000)


class PlainText(WebsocketConsumer):
    """The sync twin."""

    def connect(self) -> None:
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)

    def disconnect(self, code: int) -> None:
        self.close()


class Work(AsyncConsumer):
    """A consumer of a worker."""

    async def work_start(self, message: dict[str, Any]) -> None:
        done: Said = {"type": "chat.message", "text": "done"}
        await self.send(done)
        await self.base_send({"type": "work.done"})


class PlainWork(SyncConsumer):
    """The sync twin."""

    def work_start(self, message: Said) -> None:
        self.send(message)
        self.base_send({"type": "work.done"})


# Socket servers.


class News(BaseSocketServer):
    """Hooks that are coroutine functions."""

    overflow = "close"

    async def authorize(self) -> bool:
        return bool(await super().authorize())

    async def connect(self) -> None:
        await self.async_subscribe("news")
        await super().connect()

    async def receive(self, data: dict[str, Any]) -> None:
        await self.async_broadcast(["news", 2], data)
        await super().receive(data)

    async def disconnect(self, code: int) -> None: ...
    async def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
        await super().on_bad_message(raw, error)

    async def on_error(self, error: Exception, data: Any) -> None: ...


class PlainNews(BaseSocketServer):
    """Hooks that are plain functions."""

    def configure(self) -> None:
        self.hosts = [{"address": "redis://localhost:6379"}]

    def authorize(self) -> int:
        return 4401

    def connect(self) -> None:
        self.subscribe("news")

    def receive(self, data: Any) -> None:
        self.send({"data": data})

    def disconnect(self) -> None: ...
    def on_bad_message(self, raw: str | bytes, error: Exception) -> None: ...


def a_server_takes_a_layer(layer: ChannelLayer, memory: InMemoryChannelLayer) -> None:
    Broadcaster(layer=layer).broadcast("news", {"text": "hello"})
    Broadcaster(layer="default")
    Broadcaster(hosts=[("localhost", 6379), "redis://other"])
    application: Application = News.as_asgi(layer=memory)
    path("a/", application)


# Routers, middleware and tests.


class KeyAuth(TokenAuthMiddleware):
    """A look-up of one's own."""

    async def get_user(self, token: str) -> str | None:
        return token or None


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})


def routes() -> Application:
    inner = URLRouter([path("a/<int:b>/", Chat), re_path("^c$", Text.as_asgi(), {"extra": 1}), path("d/", plain)])
    more = include([path("e/", PlainChat)])
    return ProtocolTypeRouter({"websocket": KeyAuth(URLRouter([path("f/", more), path("g/", inner)])), "http": plain})


def a_lifespan_fits_where_frameworks_want_one() -> list[Application]:
    return [ProtocolTypeRouter({"lifespan": lifespan}), FastAPI(lifespan=lifespan), Starlette(lifespan=lifespan)]


async def a_test_speaks_to_an_application() -> None:
    async with WebsocketCommunicator(routes(), "/a/1/") as client:
        await client.send_json_to({"text": "hello"})
        said: Any = await client.receive_json_from()
        await client.send_input({"type": "websocket.receive", "text": said["text"]})
