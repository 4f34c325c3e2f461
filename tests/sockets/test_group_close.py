"""``close_sockets``: who is subscribed to a topic is closed, in all processes."""

import asyncio
from typing import Any

import pytest

from headrace.layers import InMemoryChannelLayer
from headrace.sockets import Broadcaster
from headrace.testing import settle

from .conftest import Client
from .noting import Noting, Subscribed


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_each_subscriber_is_closed_behind_what_was_broadcast(
    memory: InMemoryChannelLayer, is_awaited: bool
) -> None:
    clients = [Client() for _ in range(3)]
    servers = [await client.connects(Subscribed, layer=memory) for client in clients[:2]]
    other = await clients[2].connects(Noting, layer=memory)
    await settle()
    broadcaster = Broadcaster(layer=memory)
    await broadcaster.async_broadcast("news", "before")
    if is_awaited:
        await broadcaster.async_close_sockets("news", 4401, "signed out")
    else:
        broadcaster.close_sockets(["news"], 4401, "signed out")
    await broadcaster.async_broadcast("news", "behind")
    for client, server in zip(clients, servers, strict=False):
        await client.ends()
        assert client.heard == ["before"]
        assert client.sent[-1] == {"type": "websocket.close", "code": 4401, "reason": "signed out"}
        assert server.noted == [("disconnect", 4401)]
    assert other.is_alive
    await clients[2].leaves()


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
async def test_a_full_mailbox_does_not_swallow_it(client: Client, memory: InMemoryChannelLayer, overflow: Any) -> None:
    class Full(Subscribed):
        max_backlog = 2

    Full.overflow = overflow
    server = await client.connects(Full, layer=memory)
    await settle()
    client.open.clear()
    for number in range(5):
        await server.async_broadcast("news", number)
    await server.async_close_sockets("news")
    await server.async_broadcast("news", "late")
    client.open.set()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 4403}
    assert server.noted == [("disconnect", 4403)]


async def test_a_broadcaster_passes_it_by(memory: InMemoryChannelLayer) -> None:
    broadcaster = Broadcaster(layer=memory)
    await broadcaster.async_subscribe("news")
    await broadcaster.async_close_sockets("news")
    await broadcaster.async_broadcast("news", "behind")
    async with asyncio.timeout(20):
        assert await broadcaster.async_receive_broadcast() == ("news", "behind")


async def test_what_cannot_be_sent_is_refused(memory: InMemoryChannelLayer) -> None:
    broadcaster = Broadcaster(layer=memory)
    with pytest.raises(TypeError, match="a topic must be"):
        broadcaster.close_sockets(None)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match="code must be one that may be sent"):
        await broadcaster.async_close_sockets("news", 5)


async def test_a_client_that_does_not_read_delays_it_for_a_time_and_is_not_listened_to_meanwhile(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace._websocket.ending.END_SECONDS", 1)
    monkeypatch.setattr("headrace._websocket.closing.CLOSE_TIMEOUT", 0.1)
    server = await client.connects(Subscribed, layer=memory)
    client.says("first")
    await settle()
    client.open.clear()
    await server.async_broadcast("news", "stuck")
    await settle()
    await server.async_broadcast("news", "waits")
    client.says("before")
    await settle()
    await server.async_close_sockets("news", 4401)
    await settle()
    client.says("behind")
    await client.ends()
    assert server.noted == ["first", "before", ("disconnect", 4401)]
    assert client.sent == [{"type": "websocket.accept"}]
    stats = server.stats()
    assert (stats.unhandled, stats.errors) == (1, 1)
    assert "did not come to what close_sockets() has told it in 1 s; it is cut off" in caplog.text


async def test_a_close_that_came_before_its_broadcasts_were_delivered_is_noticed(
    client: Client, memory: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace._websocket.ending.END_SECONDS", 0.1)

    class Early(Subscribed):
        async def authorize(self) -> bool:
            await self.async_subscribe("news")
            await self.async_broadcast("news", "stuck")
            await self.async_close_sockets("news", 4401)
            return True

        async def async_handle_received_broadcast(self, topic: str, data: Any) -> None:
            await asyncio.Event().wait()

    server = await client.connects(Early, layer=memory)
    await client.ends()
    assert server.noted == [("disconnect", 4401)]
    assert client.sent[-1] == {"type": "websocket.close", "code": 4401}
