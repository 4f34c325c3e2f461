"""Turns of the loop between two frames of a client, and while one socket is busy."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer

if TYPE_CHECKING:
    from tests.sockets.conftest import Client

MANY = 50


class Starter(BaseSocketServer):
    """Starts a task at one message, and cancels it at the next."""

    gate: asyncio.Event

    async def connect(self) -> None:
        self.gate = asyncio.Event()
        await self.async_subscribe("orders")

    async def receive(self, data: Any) -> None:
        if data == "hello":
            await self.async_send("hello")
        if data == "wait":
            await self.gate.wait()
        if data == "start":
            self.job = asyncio.ensure_future(self.work())
        if data == "stop":
            self.job.cancel()

    async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
        await self.receive(data)

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.async_send("stopped")


@pytest.mark.parametrize(("way", "before"), [("client", 0), ("topic", 0), ("topic", 2)])
async def test_what_a_message_starts_runs_before_the_next_is_handled(
    client: "Client", memory: InMemoryChannelLayer, way: str, before: int
) -> None:
    """With others before them it is known what the task waits at, and the handler is called in its place."""

    async def give(order: str) -> None:
        if way == "client":
            client.says(order)
        else:
            await server.async_broadcast("orders", order)

    server = await client.connects(Starter, layer=memory)
    while not server.subscriptions:
        await asyncio.sleep(0)
    for n in range(before):
        await give("hello")
        await client.hears(n + 1)
    await give("start")
    await give("stop")
    assert await client.hears(before + 1) == [*["hello"] * before, "stopped"]
    await client.leaves()


async def test_so_it_does_where_messages_were_read_ahead(client: "Client", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace._sockets.incoming.LONG", 0.0)
    server = await client.connects(Starter, layer=InMemoryChannelLayer())
    for order in ("wait", "start", "stop"):
        client.says(order)
    async with asyncio.timeout(20):
        while len(server._headrace_connection.incoming._read_ahead or ()) < 2:
            await asyncio.sleep(0)
    server.gate.set()
    assert await client.hears(1) == ["stopped"]
    await client.leaves()


class Busy(BaseSocketServer):
    """Takes a millisecond for each frame and each broadcast, and never waits."""

    sent = 0

    async def connect(self) -> None:
        await self.async_subscribe("all")

    async def receive(self, data: Any) -> None:
        await self.async_send(data)


class Handling(Busy):
    """Changes what becomes of a broadcast."""

    async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
        await self.async_send(data)


@pytest.mark.parametrize(("server_class", "way"), [(Busy, "client"), (Busy, "topic"), (Handling, "topic")])
async def test_a_busy_socket_gives_the_loop_its_turns(
    client: "Client", memory: InMemoryChannelLayer, server_class: type[Busy], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(message: Any) -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        client.sent.append(message)

    server = await client.connects(server_class, layer=memory)
    while not server.subscriptions:
        await asyncio.sleep(0)
    monkeypatch.setattr(server._headrace_connection.outgoing, "asgi_send", send)
    client.sent.clear()
    for n in range(MANY):
        if way == "client":
            client.says(n)
        else:
            await server.async_broadcast("all", n)
    most = before = 0
    async with asyncio.timeout(20):
        while len(client.sent) < MANY:
            await asyncio.sleep(0)
            most, before = max(most, len(client.sent) - before), len(client.sent)
    assert client.heard == list(range(MANY))
    assert most <= 2
    await client.leaves()
