"""What type checkers have to refuse: each line says which of their rules does. Nobody runs it.

A line that is accepted fails, as its comment is not needed then.
"""

from typing import Any

from headrace import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    Broadcaster,
    InMemoryChannelLayer,
    ProtocolTypeRouter,
    RedisChannelLayer,
    SyncConsumer,
    URLRouter,
    configure,
    consumer_stats,
    get_channel_layer,
    path,
    re_path,
)
from headrace.middleware import BaseMiddleware
from headrace.security.websocket import OriginValidator
from headrace.typing import AnyChannelLayer, ChannelLayer
from headrace.worker import Worker

# Routes.

path("a/", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
path("a/", "a.view")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
path(b"a/", AsyncConsumer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
re_path("a/", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
URLRouter(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ProtocolTypeRouter({"http": 3})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
OriginValidator(3, ["*"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
BaseMiddleware("inner")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Layers.


async def a_message_is_a_mapping_with_names(layer: ChannelLayer, foreign: AnyChannelLayer) -> None:
    await layer.send("channel", "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await layer.send("channel", [("type", "a")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await layer.send("channel", {1: "a"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await layer.send({"type": "a"}, "channel")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await layer.group_send("group", b"bytes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await layer.group_send("group", {}, exclude=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await layer.send_many({"channel": {}})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    layer.send_sync("channel", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    layer.receive_sync("channel", "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    foreign.send_sync("channel", {})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def a_layer_of_an_alias_has_no_other_methods() -> None:
    get_channel_layer().group_sent()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


def settings_have_types(foreign: AnyChannelLayer) -> None:
    InMemoryChannelLayer(capacity="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    InMemoryChannelLayer(capacitiy=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RedisChannelLayer(hosts=6379)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisChannelLayer(topology="ring")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    configure({"default": 3})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    Broadcaster(layer=foreign)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Worker(AsyncConsumer.as_asgi(), ["a"], "default")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class NoLayer:
    """Lacks groups."""

    async def send(self, channel: str, message: dict[str, Any]) -> None: ...


configure({"default": NoLayer()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


# Consumers.


class Chat(AsyncJsonWebsocketConsumer):
    """Settings and hooks that are none."""

    overflow = "drop"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    max_backlog = "10"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    forward = 3  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def receive_json(self, content: Any) -> None: ...  # type: ignore[override]

    async def disconnect(self) -> None: ...  # type: ignore[override]


class Socket(AsyncWebsocketConsumer):
    """Sends what is no frame."""

    async def connect(self) -> None:
        await self.send({"type": "websocket.send"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.send(bytes_data=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.accept(headers={"a": "b"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        await self.close("1000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Work(SyncConsumer):
    """Sends what is no message."""

    def work_start(self, message: dict[str, Any]) -> None:
        self.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


consumer_stats(URLRouter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
