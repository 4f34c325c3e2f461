"""Channels' unchanged consumers, opened while the server of their layer is away."""

import asyncio
import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from headrace import channel_layers
from headrace.django import _patch as patch
from headrace.exceptions import LayerUnavailable
from headrace.layers import InMemoryChannelLayer

SERVER = {"asgi": {"version": "3.0"}}
WITH_RESPONSES = {**SERVER, "extensions": {"websocket.http.response": {}}}


class Joins(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()


class SyncJoins(WebsocketConsumer):  # type: ignore[misc]  # channels has no types
    def connect(self) -> None:
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
        self.accept()


class JoinsLate(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        await self.accept()
        await self.channel_layer.group_add("room", self.channel_name)


class SyncJoinsLate(WebsocketConsumer):  # type: ignore[misc]  # channels has no types
    def connect(self) -> None:
        self.accept()
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        await self.accept()
        # Nothing of ours is between the consumer and its server any more.
        assert self.base_send is self.scope["send"]

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class Away(InMemoryChannelLayer):
    """Raises what a layer raises while its server is away."""

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> None:
        raise LayerUnavailable("no server could be reached")


class AwayForAll(Away):
    """Has no names for channels either."""

    async def new_channel(self, prefix: str = "specific") -> str:
        raise LayerUnavailable("no server could be reached")


@pytest.fixture(params=[Away, AwayForAll])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    layer = request.param()
    monkeypatch.setitem(channel_layers.backends, "default", layer)
    return layer


async def opened(consumer: Any, extra: dict[str, Any], *texts: str) -> list[dict[str, Any]]:
    """Open a connection, send it texts, and end it; give what it sent."""
    sent: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": text} for text in texts),
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws/", "headers": [], "subprotocols": [], "send": send, **extra}
    async with asyncio.timeout(60):
        await consumer.as_asgi()(scope, receive, send)
    return sent


@pytest.mark.parametrize("consumer", [Joins, SyncJoins])
@pytest.mark.usefixtures("away")
async def test_a_handshake_is_refused_with_one_line(consumer: Any, caplog: pytest.LogCaptureFixture) -> None:
    start, _ = await opened(consumer, WITH_RESPONSES)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info is None
    assert f"{consumer.__name__} at /ws/ failed on 'websocket.connect', because headrace's" in line.getMessage()
    assert await opened(consumer, SERVER) == [{"type": "websocket.close", "code": 1013}]


@pytest.mark.parametrize("consumer", [JoinsLate, SyncJoinsLate])
async def test_what_comes_after_the_accept_is_the_servers_to_report(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(channel_layers.backends, "default", Away())
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        await opened(consumer, WITH_RESPONSES)


@pytest.mark.parametrize("consumer", [Joins, SyncJoins])
@pytest.mark.usefixtures("away")
async def test_without_a_server_the_exception_is_seen(consumer: Any) -> None:
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        await opened(consumer, {})


@pytest.mark.usefixtures("away")
async def test_without_the_patch_channels_lets_the_exception_through() -> None:
    patch.revert()
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        await opened(Joins, WITH_RESPONSES)


async def test_a_connection_that_is_open_sends_straight_to_its_server() -> None:
    accept, *echoes = await opened(Echo, WITH_RESPONSES, "a", "b")
    assert accept["type"] == "websocket.accept"
    assert [echo["text"] for echo in echoes] == ["a", "b"]


class Leaves(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Does not answer, and fails when the client has gone."""

    async def connect(self) -> None:
        """Leave the client waiting."""

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_add("left", self.channel_name)


class Late(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Accepts in a task of its own, and fails before."""

    async def connect(self) -> None:
        async def accept() -> None:
            await self.scope["go on"].wait()
            await self.accept()

        self.scope["tasks"].append(asyncio.ensure_future(accept()))
        await self.channel_layer.group_add("room", self.channel_name)


class Catches(Joins):
    """Has its own way with the exception."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except LayerUnavailable:
            await send({"type": "websocket.close", "code": 4500})


@pytest.mark.usefixtures("away")
async def test_a_consumer_that_catches_the_exception_gets_it() -> None:
    assert await opened(Catches, WITH_RESPONSES) == [{"type": "websocket.close", "code": 4500}]


async def test_what_fails_when_the_client_has_gone_is_no_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(channel_layers.backends, "default", Away())
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        await opened(Leaves, WITH_RESPONSES)


async def test_nothing_is_sent_to_a_client_that_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(channel_layers.backends, "default", Away())
    tasks: list[asyncio.Future[None]] = []
    go_on = asyncio.Event()
    sent = await opened(Late, {**WITH_RESPONSES, "tasks": tasks, "go on": go_on})
    go_on.set()
    await asyncio.gather(*tasks)
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
