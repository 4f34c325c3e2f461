"""Several consumers on one WebSocket, each with frames of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer


class Echo(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "leave":
            await self.close()
        else:
            await self.send_json({"echo": content})


class SyncEcho(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json({"sync echo": content})


class Member(AsyncJsonWebsocketConsumer):
    groups: ClassVar = ["news"]
    left: ClassVar[list[int]] = []

    async def news(self, event: dict[str, Any]) -> None:
        await self.send_json(event["text"])

    async def disconnect(self, code: int) -> None:
        self.left.append(code)


class Refusing(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()


@asynccontextmanager
async def connected(**applications: Any) -> AsyncIterator[Any]:
    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        pass

    Demultiplexer.applications = applications
    communicator = WebsocketCommunicator(Demultiplexer.as_asgi(), "/")
    accepted, _ = await communicator.connect()
    assert accepted
    yield communicator
    await communicator.disconnect()


def frame(stream: str, payload: Any) -> dict[str, Any]:
    return {"stream": stream, "payload": payload}


async def test_each_stream_has_frames_of_its_own() -> None:
    async with connected(echo=Echo.as_asgi(), sync=SyncEcho.as_asgi()) as client:
        for number in range(3):
            await client.send_json_to(frame("echo", number))
            assert await client.receive_json_from() == frame("echo", {"echo": number})
            await client.send_json_to(frame("sync", number))
            assert await client.receive_json_from() == frame("sync", {"sync echo": number})


async def test_a_stream_gets_what_is_sent_to_its_group() -> None:
    async with connected(member=Member.as_asgi(), echo=Echo.as_asgi()) as client:
        await client.send_json_to(frame("echo", "ready"))
        await client.receive_json_from()
        await get_channel_layer().group_send("news", {"type": "news", "text": "hello"})
        assert await client.receive_json_from() == frame("member", "hello")


async def test_each_stream_is_told_that_the_client_has_gone() -> None:
    Member.left.clear()
    async with connected(one=Member.as_asgi(), two=Member.as_asgi()):
        pass
    assert Member.left == [1000, 1000]


async def test_a_stream_that_refuses_leaves_the_others() -> None:
    async with connected(echo=Echo.as_asgi(), no=Refusing.as_asgi()) as client:
        await client.send_json_to(frame("echo", 1))
        assert await client.receive_json_from() == frame("echo", {"echo": 1})


async def test_the_last_stream_that_closes_closes_the_connection() -> None:
    async with connected(echo=Echo.as_asgi()) as client:
        await client.send_json_to(frame("echo", "leave"))
        assert (await client.receive_output())["type"] == "websocket.close"


@pytest.mark.parametrize("content", [{"stream": "none", "payload": 1}, {"no": "stream"}])
async def test_a_frame_for_no_stream_is_an_error(content: dict[str, Any]) -> None:
    communicator = WebsocketCommunicator(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Echo.as_asgi()), "/")
    assert (await communicator.connect())[0]
    await communicator.send_json_to(content)
    with pytest.raises(ValueError, match="Invalid multiplexed"):
        await communicator.wait()
