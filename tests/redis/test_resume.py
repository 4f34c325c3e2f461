"""Clients that come again over Redis: what another process sent meanwhile is there, once and in order."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer, channel_layers
from headrace.layers import RedisChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import WebsocketCommunicator

MakeLayer = Callable[..., RedisChannelLayer]

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


@pytest.fixture
def here(make_layer: MakeLayer) -> Iterator[RedisChannelLayer]:
    """Give the layer of the consumers, which is the default one."""
    layer = make_layer(history=HISTORY)
    replaced: Any = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)


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
