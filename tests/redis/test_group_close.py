"""``group_close`` of a whole fleet: one PUBLISH, whatever the number of its processes and members."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.servers import Server

from headrace import AsyncWebsocketConsumer, BaseSocketServer, channel_layers, consumer_stats
from headrace.layers import RedisChannelLayer
from headrace.testing import WebsocketCommunicator

MakeLayer = Callable[..., RedisChannelLayer]


class Member(AsyncWebsocketConsumer):
    groups = ("room",)
    max_backlog = 1
    gate: Any = None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data="at work")
        await self.gate.wait()

    async def note(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


@pytest.fixture
def layers(make_layer: MakeLayer) -> Any:
    """Give two layers, as two processes have; the first is the default one."""
    first, second = make_layer(), make_layer()
    before = channel_layers.set("default", first)
    yield first, second
    channel_layers.set("default", before)  # type: ignore[arg-type]  # what was there


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
async def test_another_process_closes_full_mailboxes_too_with_one_publish(
    layers: Any, redis_server: Server, redis_prefix: str, overflow: Any
) -> None:
    here, other = layers

    class Full(Member):
        gate = asyncio.Event()

    Full.overflow = overflow
    members = [WebsocketCommunicator(Full, "/") for _ in range(3)]
    for member in members:
        await member.connect()
        await member.send_to(text_data="hold")
        assert await member.receive_from() == "at work"
    await other.group_send("room", {"type": "note", "text": "before"})
    with redis_server.monitor() as monitor:
        report = await other.group_close("room", 4401, "signed out")
        seen = [each for each in monitor.seen() if redis_prefix.encode() in b" ".join(each.words)]
    # Memberships may be read again meanwhile.
    assert [each.name for each in seen if each.name != "HGETALL"] == ["PUBLISH"]
    assert report.processes == 1
    await other.group_send("room", {"type": "note", "text": "behind"})
    # What has been sent before it has come too, by the time that this has.
    await here.close_pools()
    Full.gate.set()
    for member in members:
        output = await member.receive_output()
        if output["type"] == "websocket.send":
            assert output["text"] in ("before", "behind")
            output = await member.receive_output()
        assert output == {"type": "websocket.close", "code": 4401, "reason": "signed out"}
        await member.disconnect()


async def test_socket_servers_of_another_process_are_closed(layers: Any) -> None:
    class Socket(BaseSocketServer):
        async def connect(self) -> None:
            await self.async_subscribe("user.7")
            await self.async_send("ready")

    here, other = layers
    async with WebsocketCommunicator(Socket.as_asgi(layer=here), "/") as member:
        assert await member.receive_json_from() == "ready"
        elsewhere = BaseSocketServer({"type": "websocket"}, None, None, layer=other)
        await elsewhere.async_close_sockets("user.7", 4401, "signed out")
        assert await member.receive_output() == {"type": "websocket.close", "code": 4401, "reason": "signed out"}


async def test_a_process_that_is_excluded_in_part_keeps_the_excluded(layers: Any) -> None:
    here, other = layers
    told, spared = await here.new_channel(), await here.new_channel()
    for channel in (told, spared):
        await here.group_add("room", channel)
    await other.group_close("room", exclude=spared)
    assert (await here.receive(told))["type"] == "headrace.close"
    await other.group_send("room", {"type": "next"})
    assert (await here.receive(spared))["type"] == "next"


async def test_another_process_closes_who_does_not_come_to_it(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace._websocket.ending.END_SECONDS", 0.1)
    _, other = layers

    class Busy(Member):
        gate = asyncio.Event()

    member = WebsocketCommunicator(Busy, "/")
    await member.connect()
    await member.send_to(text_data="hold")
    assert await member.receive_from() == "at work"
    await other.group_close("room", 4401, "signed out")
    assert await member.receive_output(60) == {"type": "websocket.close", "code": 4401, "reason": "signed out"}
    await member.disconnect()
    stats = consumer_stats(Busy)
    assert (stats.closed_by_group, stats.cut_off) == (1, 1)
