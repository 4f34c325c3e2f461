"""Consumers and workers on the Redis layer: headrace's, Channels', and those with ``headrace.django``."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import channels_redis.core
import pytest
from channels_redis.pubsub import RedisPubSubChannelLayer
from tests.support.peers import Peer
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    ChannelNameRouter,
    JsonWebsocketConsumer,
    WebsocketConsumer,
    channel_layers,
)
from headrace._dispatch.incoming import receives_natively
from headrace.layers import RedisChannelLayer
from headrace.testing import WebsocketCommunicator
from headrace.worker import Worker

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]
Event = dict[str, Any]

TESTS = Path(__file__).parents[1]


class Chat(AsyncJsonWebsocketConsumer):
    """Tells the room what it hears, and has work done by a worker."""

    groups = ["room"]  # noqa: RUF012  # channels' way of saying it

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if "square" in content:
            work = {"type": "square", "n": content["square"], "reply": self.channel_name}
            await self.channel_layer.send("squares", work)
        else:
            await self.channel_layer.group_send("room", {"type": "said", "text": content["text"]})

    async def said(self, event: Event) -> None:
        await self.send_json({"text": event["text"]})

    async def squared(self, event: Event) -> None:
        await self.send_json({"n": event["n"]})


class SyncChat(WebsocketConsumer):
    """The same, in threads."""

    groups = ["room"]  # noqa: RUF012  # channels' way of saying it

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        layer: Any = self.channel_layer
        layer.group_send_sync("room", {"type": "said", "text": text_data})

    def said(self, event: Event) -> None:
        self.send(text_data=event["text"])


class Squares(AsyncConsumer):
    """What a worker does."""

    async def square(self, event: Event) -> None:
        await self.channel_layer.send(event["reply"], {"type": "squared", "n": event["n"] ** 2})


@pytest.fixture(params=["headrace", "channels_redis"])
async def default(request: pytest.FixtureRequest, make_layer: MakeLayer) -> AsyncIterator[RedisChannelLayer]:
    """Make the layer the default one, on each wire."""
    layer = make_layer(wire=None if request.param == "headrace" else request.param)
    channel_layers.set("default", layer)
    yield layer
    channel_layers.backends.pop("default")


class TestHeadraceConsumers:
    async def test_they_wait_at_the_native_inbox(self, default: RedisChannelLayer, redis_server: Server) -> None:
        assert receives_natively(default)
        client = WebsocketCommunicator(Chat.as_asgi(), "/")
        await client.connect()
        assert default.stats().waiters == 1
        assert default.group_count("room") == 1
        await client.disconnect()
        assert (default.stats().waiters, default.group_count("room")) == (0, 0)

    async def test_a_room_spans_processes(self, default: RedisChannelLayer, make_peer: MakePeer) -> None:
        peer = make_peer(wire=default._settings.wire)
        theirs = peer.call("new_channel")
        peer.call("group_add", "room", theirs)
        clients = [WebsocketCommunicator(consumer.as_asgi(), "/") for consumer in (Chat, SyncChat)]
        for client in clients:
            await client.connect()
        await clients[0].send_json_to({"text": "from a socket"})
        await asyncio.to_thread(peer.call, "receive", theirs)
        await asyncio.to_thread(peer.call, "group_send", "room", {"type": "said", "text": "from a process"})
        await clients[1].receive_from()
        assert await clients[1].receive_from() == "from a process"
        await clients[1].send_to(text_data="from a thread")
        heard = [(await clients[0].receive_json_from())["text"] for _ in range(3)]
        assert heard == ["from a socket", "from a process", "from a thread"]
        for client in clients:
            await client.disconnect()

    async def test_another_process_sends_to_one_consumer(self, default: RedisChannelLayer, make_peer: MakePeer) -> None:
        peer = make_peer(wire=default._settings.wire)
        client = WebsocketCommunicator(Chat.as_asgi(), "/")
        await client.connect()
        (channel,) = default.group_channels("room")
        await asyncio.to_thread(peer.call, "send", channel, {"type": "said", "text": "to you"})
        assert await client.receive_json_from() == {"text": "to you"}
        await client.disconnect()

    async def test_a_quiet_consumer_stays_subscribed(
        self, make_layer: MakeLayer, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        """On the wire of channels_redis each channel has a subscription, which must last while a handler works."""
        layer, peer = make_layer(wire="channels_redis", subscription_linger=0.1), make_peer(wire="channels_redis")
        working, go_on, names = asyncio.Event(), asyncio.Event(), list[str]()

        class Busy(Chat):
            groups = []  # noqa: RUF012  # channels' way of saying it

            async def connect(self) -> None:
                names.append(self.channel_name)
                await self.accept()

            async def work(self, _event: Event) -> None:
                await self.channel_layer.group_add("left", self.channel_name)
                await self.channel_layer.group_discard("left", self.channel_name)
                working.set()
                await go_on.wait()

        channel_layers.set("default", layer)
        try:
            client = WebsocketCommunicator(Busy.as_asgi(), "/")
            await client.connect()
            (channel,) = names
            await layer.send(channel, {"type": "work"})
            await working.wait()
            plain = await layer.new_channel()
            # What was unused for as long is left by now.
            topic = f"{redis_prefix}__group__left"
            await asyncio.to_thread(
                eventually, lambda: redis_server.cli("PUBSUB", "NUMSUB", topic)[1] == 0, "the group is left"
            )
            await asyncio.to_thread(peer.call, "send", channel, {"type": "said", "text": "still there?"})
            await asyncio.to_thread(peer.call, "send", plain, {"n": 1})
            go_on.set()
            assert await client.receive_json_from() == {"text": "still there?"}
            assert await asyncio.wait_for(layer.receive(plain), SECONDS) == {"n": 1}
            await client.disconnect()
        finally:
            channel_layers.backends.pop("default")


async def test_a_worker_of_headrace_serves_another_process(
    make_layer: MakeLayer, make_peer: MakePeer, redis_prefix: str
) -> None:
    layer, peer = make_layer(), make_peer()
    channel_layers.set("default", layer)
    worker = Worker(ChannelNameRouter({"squares": Squares.as_asgi()}), ["squares"], layer)
    task = asyncio.create_task(worker.handle())
    try:
        reply = await asyncio.to_thread(peer.call, "new_channel")
        for number in range(20):
            await asyncio.to_thread(peer.call, "send", "squares", {"type": "square", "n": number, "reply": reply})
        answers = [await asyncio.to_thread(peer.call, "receive", reply) for _ in range(20)]
        assert [answer["n"] for answer in answers] == [number**2 for number in range(20)]
    finally:
        worker.stop()
        await asyncio.wait_for(task, SECONDS)
        channel_layers.backends.pop("default")


def run(command: list[str], **environment: str) -> None:
    """Run a program in an interpreter of its own, where Django is set up."""
    process = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert process.returncode == 0, process.stdout


def test_the_consumers_and_the_worker_of_channels_run_on_it(redis_server: Server, redis_prefix: str) -> None:
    """The cases of ``tests/channels_project`` that do not look into a layer."""
    cases = TESTS / "channels_project" / "cases"
    options = [
        *("-q", "-p", "no:cacheprovider", "--confcutdir", str(cases), "--timeout", "100"),
        # That one reads the attributes of an in-memory layer.
        *("-k", "not test_who_leaves_is_in_the_group_no_more"),
        *("--import-mode", "importlib", "-W", "error"),
        *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
    ]
    run(
        ["-m", "pytest", *options, str(cases / "test_consumers.py"), str(cases / "test_worker.py")],
        PYTHONPATH=os.pathsep.join([str(TESTS / "channels_project" / "project"), *sys.path]),
        DJANGO_SETTINGS_MODULE="chat.settings",
        CHAT_BACKEND="headrace.layers.RedisChannelLayer",
        CHAT_CONFIG=json.dumps({"hosts": [redis_server.url], "prefix": redis_prefix}),
        CHAT_OUTCOMES=os.devnull,
    )


PATCHED = """
import asyncio
import json
import sys

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["headrace.django", "channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.RedisChannelLayer", "CONFIG": json.loads(sys.argv[1])}},
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer

from headrace.django import _dispatch as dispatch

taken = []


class Incoming(dispatch.Incoming):
    def __init__(self, layer, channel):
        super().__init__(layer, channel)
        taken.append(channel)


dispatch.Incoming = Incoming


class Chat(AsyncWebsocketConsumer):
    groups = ["room"]

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(text_data=event["text"])


async def main():
    sockets = []
    for _ in range(2):
        inputs, outputs = asyncio.Queue(), asyncio.Queue()
        application = Chat.as_asgi()({"type": "websocket"}, inputs.get, outputs.put)
        sockets.append((asyncio.ensure_future(application), inputs, outputs))
        inputs.put_nowait({"type": "websocket.connect"})
        assert (await outputs.get())["type"] == "websocket.accept"
    sockets[0][1].put_nowait({"type": "websocket.receive", "text": "hello"})
    for _, _, outputs in sockets:
        assert (await outputs.get())["text"] == "hello"
    for task, inputs, _ in sockets:
        inputs.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task
    layer = get_channel_layer()
    assert len(set(taken)) == 2 and layer.group_count("room") == 0, taken
    await layer.close()


asyncio.run(asyncio.wait_for(main(), 50))
"""


def test_the_app_takes_their_messages_natively(redis_server: Server, redis_prefix: str) -> None:
    run(["-W", "error", "-c", PATCHED, json.dumps({"hosts": [redis_server.url], "prefix": redis_prefix})])


class Grouped(AsyncJsonWebsocketConsumer):
    """In a group of its class."""

    groups = ["grouped"]  # noqa: RUF012  # channels' way of saying it

    async def note(self, event: Event) -> None:
        await self.send_json(event["n"])


class SyncGrouped(JsonWebsocketConsumer):
    """The same, in threads."""

    groups = ["grouped"]  # noqa: RUF012  # channels' way of saying it

    def note(self, event: Event) -> None:
        self.send_json(event["n"])


@pytest.mark.parametrize("consumer", [Grouped, SyncGrouped])
@pytest.mark.parametrize("layer_class", [channels_redis.core.RedisChannelLayer, RedisPubSubChannelLayer])
async def test_groups_of_a_class_on_the_layers_of_channels_redis(
    redis_server: Server, redis_prefix: str, consumer: type[Any], layer_class: type[Any]
) -> None:
    layer = layer_class(hosts=[{"address": redis_server.url, "socket_timeout": None}], prefix=redis_prefix)
    before = channel_layers.set("default", layer)
    try:
        async with WebsocketCommunicator(consumer, "/") as client:
            await layer.group_send("grouped", {"type": "note", "n": 1})
            assert await client.receive_json_from() == 1
    finally:
        await layer.flush()
        await layer.close_pools() if hasattr(layer, "close_pools") else None
        channel_layers.backends.pop("default")
        if before is not None:
            channel_layers.set("default", before)
