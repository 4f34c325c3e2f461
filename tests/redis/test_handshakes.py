"""A WebSocket that is opened while the server is away: it is refused in time, and the log has one line for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from tests.support.ports import HOST, Port
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace import channel_layers
from headrace.exceptions import LayerUnavailable
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import RedisChannelLayer
from headrace.sockets import BaseSocketServer

SERVER = {"asgi": {"version": "3.0"}}
WITH_RESPONSES = {**SERVER, "extensions": {"websocket.http.response": {}}}
CONNECT = {"type": "websocket.connect"}


class WithoutGroups(AsyncWebsocketConsumer):
    """It needs the layer for the name of its channel."""


class WithGroups(AsyncWebsocketConsumer):
    groups = ("room",)


class JoinsInConnect(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_send("room", {"type": "came"})
        await self.accept()


class FailsWhenOpen(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        raise LayerUnavailable("the server is away")


class SyncFailsWhenOpen(WebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        raise LayerUnavailable("the server is away")


class SyncWithGroups(WebsocketConsumer):
    groups = ("room",)


class SyncJoinsInConnect(WebsocketConsumer):
    def connect(self) -> None:
        async_to_sync(self.channel_layer.group_send)("room", {"type": "came"})
        self.accept()


class AuthorizesByLayer(BaseSocketServer):
    async def authorize(self) -> bool:
        await self.scope["layer"].group_send("room", {"type": "came"})
        return True


@pytest.fixture
async def away() -> AsyncIterator[RedisChannelLayer]:
    """A layer whose server is not there, as the default one."""
    port = Port()
    # Who waited for so long would not have heard of the refusal.
    layer = RedisChannelLayer([f"redis://{HOST}:{port.number}"], send_timeout=600)
    before = channel_layers.set("default", layer)
    yield layer
    if before is None:
        del channel_layers.backends["default"]
    else:
        channel_layers.set("default", before)
    await layer.close()
    port.release()


async def opened(app: Any, extra: dict[str, Any]) -> list[dict[str, Any]]:
    """Open a connection to an application; give what it sent."""
    sent: list[dict[str, Any]] = []
    events = [CONNECT]

    async def receive() -> Any:
        if events:
            return events.pop()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws/", "headers": [], "subprotocols": [], **extra}
    async with asyncio.timeout(SECONDS):
        await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "consumer",
    [WithoutGroups, WithGroups, JoinsInConnect, SyncWithGroups, SyncJoinsInConnect],
    ids=lambda consumer: consumer.__name__,
)
@pytest.mark.usefixtures("away")
async def test_a_handshake_is_refused_in_time_with_one_line(consumer: Any, caplog: pytest.LogCaptureFixture) -> None:
    start, body = await opened(consumer.as_asgi(), WITH_RESPONSES)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert body == {"type": "websocket.http.response.body", "body": b""}
    lines = [record for record in caplog.records if record.name == "headrace.consumer"]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    assert f"{consumer.__name__} at /ws/ " in lines[0].getMessage()
    assert "because headrace's channel layer is away: no server could be reached" in lines[0].getMessage()
    assert await opened(consumer.as_asgi(), SERVER) == [{"type": "websocket.close", "code": 1013}]


@pytest.mark.parametrize("consumer", [FailsWhenOpen, SyncFailsWhenOpen])
async def test_a_connection_that_was_accepted_is_closed_for_now(
    consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    accept, close = await opened(consumer.as_asgi(), WITH_RESPONSES)
    assert accept["type"] == "websocket.accept"
    assert close == {"type": "websocket.close", "code": 1013}
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info is None


async def test_without_a_server_the_exception_is_seen() -> None:
    with pytest.raises(LayerUnavailable, match="the server is away"):
        await opened(FailsWhenOpen.as_asgi(), {})


async def test_a_socket_server_refuses_in_the_same_way(
    away: RedisChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    start, _ = await opened(AuthorizesByLayer.as_asgi(layer=away), {**WITH_RESPONSES, "layer": away})
    assert start["status"] == 503
    (line,) = [
        record for record in caplog.records if record.name == "headrace.sockets" and record.levelno == logging.ERROR
    ]
    assert line.exc_info is None
    assert "because headrace's channel layer is away" in line.getMessage()


async def test_a_server_that_was_lost_is_no_other_matter(
    start_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """The layer has names for channels by then, and what fails is to join a group, or to send."""
    consumers: list[Any] = [WithGroups, JoinsInConnect, SyncWithGroups, SyncJoinsInConnect]
    server = start_redis()
    layer = RedisChannelLayer([server.url], send_timeout=5)
    before = channel_layers.set("default", layer)
    try:
        await layer.connect()
        server.stop()
        # Side by side: each waits until its time for a send is over.
        sent = await asyncio.gather(*(opened(consumer.as_asgi(), WITH_RESPONSES) for consumer in consumers))
    finally:
        if before is None:
            del channel_layers.backends["default"]
        else:
            channel_layers.set("default", before)
        await layer.close()
    assert [first["status"] for first, *_ in sent] == [503] * len(consumers)
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.exc_info for line in lines] == [None] * len(consumers)
    failed = "failed on 'websocket.connect', because headrace's channel layer is away"
    assert all(failed in line.getMessage() for line in lines)
    assert {line.getMessage().partition(" ")[0] for line in lines} == {consumer.__name__ for consumer in consumers}
