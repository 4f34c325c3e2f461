"""Messages that expire behind a busy handler: counted, and told to the log once for each consumer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.waiting import SECONDS

from headrace import InMemoryChannelLayer, channel_layers
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.testing import ManualClock

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

EXPIRY = 10

begun, go_on = threading.Semaphore(0), threading.Semaphore(0)


async def acquired(semaphore: threading.Semaphore) -> None:
    """Acquire a semaphore, and give the loop turns meanwhile."""
    async with asyncio.timeout(SECONDS):
        while not semaphore.acquire(blocking=False):
            await asyncio.sleep(0.001)


class Room(AsyncWebsocketConsumer):
    """Works for as long as it is told to."""

    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.work({})

    async def work(self, _event: dict[str, Any]) -> None:
        begun.release()
        await acquired(go_on)
        await self.send(text_data="worked")


class SyncRoom(WebsocketConsumer):
    """The same in a thread."""

    groups = ("room",)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.work({})

    def work(self, _event: dict[str, Any]) -> None:
        begun.release()
        assert go_on.acquire(timeout=SECONDS)
        self.send(text_data="worked")


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands still."""
    return ManualClock()


@pytest.fixture
def layer(clock: ManualClock) -> Iterator[InMemoryChannelLayer]:
    """Make a layer with that clock the default one."""
    layer = InMemoryChannelLayer(expiry=EXPIRY, clock=clock)
    channel_layers.set("default", layer)
    yield layer
    channel_layers.backends.pop("default", None)


@pytest.mark.parametrize("by_client", [False, True])
@pytest.mark.parametrize("room", [Room, SyncRoom])
async def test_they_are_told_once(
    room: Any,
    by_client: bool,
    wire: "MakeWire",
    layer: InMemoryChannelLayer,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    socket = wire(room.as_asgi())
    socket.connect()
    while not layer.group_count("room"):
        await asyncio.sleep(0)
    for number in range(1, 3):
        if by_client:
            socket.write("work")
        else:
            await layer.group_send("room", {"type": "work"})
        await acquired(begun)
        await layer.group_send("room", {"type": "never"})
        clock.advance(EXPIRY)
        go_on.release()
        await socket.heard(number)
    socket.leave()
    await socket.end()
    assert layer.stats().dropped_expired == 2
    (told,) = [record.getMessage() for record in caplog.records if record.name == "headrace.consumer"]
    assert told.startswith(f"{room.__name__} at '/ws/' was busy for longer than messages live: 1 expired")
