"""The names on a broadcaster and a socket server are their author's: headrace keeps those that begin with its own."""

import asyncio
import gc
import weakref
from typing import Any, ClassVar

import pytest
from tests.sockets.conftest import Client
from tests.support.waiting import SECONDS

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import WebsocketCommunicator

# What headrace once kept there itself.
ONCE_OURS = (
    *("_backend", "_begin", "_call", "_check_send", "_close", "_code", "_count", "_deliver", "_end", "_finish"),
    *("_flush", "_frame", "_hooks", "_later", "_lock", "_loop", "_look", "_mailbox", "_next", "_open", "_phase"),
    *("_process", "_read", "_receive", "_refuse", "_send_all", "_send_frame", "_sends", "_serve", "_start", "_task"),
    *("_take", "_try", "_turns"),
)


class Attributes(BaseSocketServer):
    """Has attributes of these names, and its own helper ``_send``."""

    left: ClassVar[list[int]] = []

    def configure(self) -> None:
        vars(self).update(dict.fromkeys(ONCE_OURS, "mine"))

    async def connect(self) -> None:
        await self.async_subscribe("all")

    async def receive(self, data: Any) -> None:
        await self._send(data)
        await self.async_broadcast("all", {"to": "all"})

    async def _send(self, data: Any) -> None:
        await self.async_send({"echo": data})

    async def disconnect(self, code: int) -> None:
        self.left.append(code)


class Methods(Attributes):
    """Has methods of these names too."""

    left: ClassVar[list[int]] = []

    def configure(self) -> None:
        """Leave the attributes alone, which would stand before the methods."""


async def mine(self: Any, *arguments: Any) -> None:
    raise AssertionError("headrace called a method of the user's own")


for name in ONCE_OURS:
    setattr(Methods, name, mine)


def private(names: Any) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("server_class", [Attributes, Methods])
async def test_names_of_ones_own_do_not_meet_headraces(
    client: Client, memory: InMemoryChannelLayer, server_class: type[Attributes]
) -> None:
    server_class.left.clear()
    server = await client.connects(server_class, layer=memory)
    client.says("hello")
    assert await client.hears(2) == [{"echo": "hello"}, {"to": "all"}]
    client.gives("disconnect", code=1001)
    await server._headrace_connection.incoming.task  # type: ignore[misc]  # it has one
    assert server_class.left == [1001]


async def test_all_that_is_private_begins_with_the_name_of_headrace(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    server = await client.connects(BaseSocketServer, layer=memory)
    await server.async_subscribe("all")
    broadcaster = Broadcaster(layer=memory)
    await broadcaster.async_broadcast("all", 1)
    await client.hears(1)
    assert private(dir(server)) == {"_headrace_connection", "_headrace_hub", "_headrace_hooks"}
    assert private(dir(broadcaster)) == {"_headrace_hub"}


async def test_a_server_that_has_ended_needs_no_garbage_collector(client: Client, memory: InMemoryChannelLayer) -> None:
    await client.connects(Attributes, layer=memory)
    client.says("hello")
    await client.hears(2)
    server = weakref.ref(client.server)
    serving = client.server._headrace_connection.incoming.task
    gc.collect()
    gc.disable()
    try:
        client.server = None
        client.gives("disconnect", code=1001)
        await serving
        # What ends with it has its turns of the loop.
        async with asyncio.timeout(SECONDS):
            while server() is not None:
                await asyncio.sleep(0)
    finally:
        gc.enable()


class Both(Broadcaster, AsyncWebsocketConsumer):
    """A consumer that broadcasts by itself."""

    def __init__(self, layer: InMemoryChannelLayer) -> None:
        Broadcaster.__init__(self, layer=layer)
        AsyncWebsocketConsumer.__init__(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.async_broadcast("all", text_data)


async def test_a_consumer_may_be_a_broadcaster_too(memory: InMemoryChannelLayer) -> None:
    ears = Broadcaster(layer=memory)
    await ears.async_subscribe("all")
    async with WebsocketCommunicator(Both.as_asgi(layer=memory), "/") as client:
        await client.send_to("hello")
        assert await asyncio.wait_for(ears.async_receive_broadcast(), SECONDS) == ("all", "hello")


async def test_a_method_that_is_replaced_later_is_called(client: Client, memory: InMemoryChannelLayer) -> None:
    class Traced(Attributes):
        pass

    async def traced(self: Traced, channel: str, data: Any) -> None:
        await self.async_send({"traced": data})

    Traced.async_handle_received_broadcast = traced  # type: ignore[assignment,method-assign]
    server = await client.connects(Traced, layer=memory)
    while "all" not in server.subscriptions:
        await asyncio.sleep(0)
    await Broadcaster(layer=memory).async_broadcast("all", 1)
    assert await client.hears(1) == [{"traced": 1}]


async def test_a_repr_of_ones_own_is_what_the_log_says(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Room(BaseSocketServer):
        def __repr__(self) -> str:
            return "<the room of ada>"

        def configure(self) -> None:
            assert super().__repr__() == "<Room at /ws/>"

        async def receive(self, data: Any) -> None:
            raise ValueError("no")

    server = await client.connects(Room, layer=memory)
    client.says("hello")
    while not server.stats().errors:
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == [
        "<the room of ada>: receive() failed: ValueError('no')"
    ]
