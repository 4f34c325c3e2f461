"""Clients that come again over Redis: what another process sent meanwhile is there, once and in order."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.traffic import soon

from headrace import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer, channel_layers
from headrace.layers import RedisChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import WebsocketCommunicator

MakeLayer = Callable[..., RedisChannelLayer]
StartProxy = Callable[[Server], Proxy]

HISTORY = {"room.*": {"size": 20, "ttl": 300}, "socket.t.room.*": {"size": 20, "ttl": 300}}
SECONDS = 20


class Room(AsyncJsonWebsocketConsumer):
    groups: tuple[str, ...] = ("room.a", "room.b")
    resume = True

    async def connect(self) -> None:
        await self.accept()
        await self.send_json({"at": self.position})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send_json({"text": event["text"], "at": self.position})

    async def resumed(self, group: str, complete: bool) -> None:
        await self.send_json({"resumed": group, "complete": complete})


class SyncRoom(JsonWebsocketConsumer):
    groups: tuple[str, ...] = ("room.a", "room.b")
    resume = True

    def connect(self) -> None:
        self.accept()
        self.send_json({"at": self.position})

    def said(self, event: dict[str, Any]) -> None:
        self.send_json({"text": event["text"], "at": self.position})

    def resumed(self, group: str, complete: bool) -> None:
        self.send_json({"resumed": group, "complete": complete})


@contextmanager
def use_as_default(layer: RedisChannelLayer) -> Iterator[None]:
    replaced: Any = channel_layers.set("default", layer)
    yield
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)


@pytest.fixture
def here(make_layer: MakeLayer) -> Iterator[RedisChannelLayer]:
    """Give the layer of the consumers, which is the default one."""
    layer = make_layer(history=HISTORY)
    with use_as_default(layer):
        yield layer


async def hear(client: WebsocketCommunicator, frames: int) -> list[Any]:
    return [await client.receive_json_from(SECONDS) for _ in range(frames)]


@pytest.mark.parametrize("kind", [Room, SyncRoom])
async def test_what_another_process_sent_meanwhile_comes_once_and_in_order(
    make_layer: MakeLayer, here: RedisChannelLayer, kind: type[Any]
) -> None:
    there = make_layer(history=HISTORY)
    async with WebsocketCommunicator(kind, "/") as client:
        (greeting,) = await hear(client, 1)
    position, sent = greeting["at"], 0
    for _turn in range(3):
        missed = [str(number) for number in range(sent, sent + 4)]
        for text in missed:
            await there.group_send("room.a", {"type": "said", "text": text})
        async with WebsocketCommunicator(kind, f"/?resume={position}") as client:
            heard = await hear(client, 7)
            assert [frame["text"] for frame in heard if "text" in frame] == missed
            tells = [frame for frame in heard if "resumed" in frame]
            assert sorted(tells, key=lambda frame: frame["resumed"]) == [
                {"resumed": group, "complete": True} for group in ("room.a", "room.b")
            ]
            assert heard.index({"resumed": "room.a", "complete": True}) > heard.index(
                next(frame for frame in heard if frame.get("text") == missed[-1])
            )
            await there.group_send("room.b", {"type": "said", "text": "live"})
            (live,) = await hear(client, 1)
            assert live["text"] == "live"
        position, sent = live["at"], sent + 4


@pytest.mark.parametrize("kind", [Room, SyncRoom])
async def test_what_the_server_has_lost_is_not_complete(here: RedisChannelLayer, kind: type[Any]) -> None:
    async with WebsocketCommunicator(kind, "/") as client:
        (greeting,) = await hear(client, 1)
        await here.group_send("room.a", {"type": "said", "text": "before"})
        (heard,) = await hear(client, 1)
    await here.flush()
    await here.group_send("room.a", {"type": "said", "text": "after"})
    for position in greeting["at"], heard["at"], "nonsense":
        async with WebsocketCommunicator(kind, f"/?resume={position}") as client:
            frames = await hear(client, 3)
            assert {"resumed": "room.a", "complete": False} in frames
            assert not any("text" in frame for frame in frames)


async def test_groups_that_are_joined_at_the_same_time_are_all_resumed(here: RedisChannelLayer) -> None:
    class Joins(Room):
        groups = ()

        async def connect(self) -> None:
            await self.accept()
            await asyncio.gather(*(self.join_group(f"room.{number}") for number in range(8)))
            await self.send_json({"at": self.position})

    async with WebsocketCommunicator(Joins, "/") as client:
        (greeting,) = await hear(client, 1)
    assert greeting["at"].count(".") == 7
    for number in range(8):
        await here.group_send(f"room.{number}", {"type": "said", "text": str(number)})
    async with WebsocketCommunicator(Joins, f"/?resume={greeting['at']}") as client:
        frames = await hear(client, 17)
    assert sorted(frame["text"] for frame in frames if "text" in frame) == [str(number) for number in range(8)]
    assert [frame["complete"] for frame in frames if "resumed" in frame] == [True] * 8


async def test_a_hole_that_cannot_be_healed_holds_the_position(
    redis_server: Server, start_proxy: StartProxy, make_layer: MakeLayer, redis_prefix: str
) -> None:
    proxy, there = start_proxy(redis_server), make_layer(history=HISTORY)
    here = RedisChannelLayer([proxy.url], prefix=redis_prefix, history=HISTORY)

    async def say(text: str) -> None:
        await there.group_send("room.a", {"type": "said", "text": text})

    async def cut_off(*, and_lose: bool) -> None:
        proxy.refuse()
        proxy.cut()
        await soon(lambda: here.stats().connection.state != "up", "it is cut off")
        await say("missed")
        if and_lose:
            redis_server.cli("DEL", f"{redis_prefix}:h:{{{redis_prefix}:g:room.a}}")
        proxy.accept()
        await soon(lambda: here.stats().connection.state == "up", "it is back")

    with use_as_default(here):
        async with WebsocketCommunicator(Room, "/") as client:
            await hear(client, 1)
            await say("before")
            await hear(client, 1)
            await cut_off(and_lose=False)
            (healed,) = await hear(client, 1)
            assert healed["text"] == "missed"
            await cut_off(and_lose=True)
            await say("after")
            (after,) = await hear(client, 1)
            assert after == {"text": "after", "at": healed["at"]}
        async with WebsocketCommunicator(Room, f"/?resume={after['at']}") as client:
            frames = await hear(client, 3)
        assert {"resumed": "room.a", "complete": False} in frames
    await here.close()


class Live(BaseSocketServer):
    async def connect(self) -> None:
        complete = await self.async_subscribe("room.a", since=self.client_position or 0)
        await self.async_send({"complete": complete, "at": self.position})

    async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
        await self.async_send({"data": data, "at": self.position})


async def test_a_socket_gets_what_was_broadcast_meanwhile(make_layer: MakeLayer, here: RedisChannelLayer) -> None:
    broadcaster = Broadcaster(layer=make_layer(history=HISTORY))
    application = Live.as_asgi(layer=here)
    async with WebsocketCommunicator(application, "/") as client:
        (greeting,) = await hear(client, 1)
        assert greeting["complete"] is True
    told = [await broadcaster.async_broadcast("room.a", number) for number in range(3)]
    async with WebsocketCommunicator(application, f"/?resume={greeting['at']}") as client:
        frames = await hear(client, 4)
        assert [frame["data"] for frame in frames if "data" in frame] == [0, 1, 2]
        assert [frame["at"] for frame in frames if "data" in frame] == told
    async with WebsocketCommunicator(application, f"/?resume={told[1]}") as client:
        frames = await hear(client, 2)
        assert [frame["data"] for frame in frames if "data" in frame] == [2]
    # It is not waited for, so that nobody knows.
    assert await asyncio.to_thread(broadcaster.broadcast, "room.a", 3) is None
    await broadcaster.async_flush()
