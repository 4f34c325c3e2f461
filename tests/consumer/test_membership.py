"""A consumer stays in its groups as long as it lives, however long that is."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from headrace import InMemoryChannelLayer, channel_layers
from headrace._layers.native import Message
from headrace.django._dispatch import await_many_dispatch
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.testing import ManualClock, settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

GROUP_EXPIRY = 100


class Relayed(InMemoryChannelLayer):
    """A layer whose messages do not come through the inbox."""

    async def receive(self, channel: str) -> Message:
        return await super().receive(channel)


class Room(AsyncWebsocketConsumer):
    """In a group of its class, and in one that it joins when it is told to."""

    groups: tuple[str, ...] = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_add("joined", self.channel_name)
        await self.send(text_data="joined")

    async def say(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class ConcurrentRoom(Room):
    """The same, several messages at a time."""

    concurrency = 3


class Renamed(Room):
    """The same, at a channel that it has chosen itself."""

    groups = ()

    async def connect(self) -> None:
        self.channel_name = "chosen"
        await self.channel_layer.group_add("room", "chosen")
        await self.accept()


class SyncRoom(WebsocketConsumer):
    """The same in threads."""

    groups = ("room",)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        layer: Any = self.channel_layer
        layer.group_add_sync("joined", self.channel_name)
        self.send(text_data="joined")

    def say(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands still."""
    return ManualClock()


@pytest.fixture(params=[InMemoryChannelLayer, Relayed])
def layer(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[InMemoryChannelLayer]:
    """Make a layer with that clock the default one."""
    layer = request.param(group_expiry=GROUP_EXPIRY, clock=clock)
    channel_layers.set("default", layer)
    yield layer
    channel_layers.backends.pop("default", None)


@pytest.mark.parametrize("room", [Room, ConcurrentRoom, Renamed, SyncRoom])
async def test_it_outlives_the_group_expiry(
    room: Any, wire: "MakeWire", layer: InMemoryChannelLayer, clock: ManualClock
) -> None:
    socket = wire(room.as_asgi())
    socket.connect("join")
    await socket.heard(1)
    await layer.group_add("room", "of-nobody")
    for group in ("room", "joined"):
        clock.advance(10 * GROUP_EXPIRY)
        await layer.group_send(group, {"type": "say", "text": group})
        await socket.heard(2 if group == "room" else 3)
    assert socket.texts == ["joined", "room", "joined"]
    assert "of-nobody" not in layer.group_channels("room")
    socket.leave()
    await socket.end()
    layer.close_channel("of-nobody")


async def test_a_consumer_of_channels_is_kept_as_long_as_the_app_serves_it(clock: ManualClock) -> None:
    layer = InMemoryChannelLayer(group_expiry=GROUP_EXPIRY, clock=clock)
    channel, handled = await layer.new_channel(), asyncio.Queue[Any]()
    sources: list[Any] = [asyncio.Event().wait, partial(layer.receive, channel)]
    serving = asyncio.ensure_future(await_many_dispatch(await_many_dispatch, sources, handled.put))
    await settle()
    await layer.group_add("room", channel)
    clock.advance(10 * GROUP_EXPIRY)
    await layer.group_send("room", {"type": "say"})
    assert await asyncio.wait_for(handled.get(), 20) == {"type": "say"}
    serving.cancel()
    await asyncio.wait({serving})
    clock.advance(GROUP_EXPIRY)
    assert layer.group_channels("room") == []
