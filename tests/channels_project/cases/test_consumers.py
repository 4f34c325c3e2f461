"""Channels' own consumers on the project's layer, through Channels' own communicator."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from channels.layers import channel_layers, get_channel_layer
from channels.testing import WebsocketCommunicator
from chat.asgi import application

import headrace

Connect = Callable[[str], Awaitable[WebsocketCommunicator]]


@asynccontextmanager
async def connected(path: str) -> AsyncIterator[WebsocketCommunicator]:
    """Connect to the project, and disconnect at the end."""
    communicator = WebsocketCommunicator(application, path)
    accepted, _ = await communicator.connect()
    assert accepted
    yield communicator
    await communicator.disconnect()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect to the project as often as one likes."""
    async with AsyncExitStack() as stack:

        async def connect(path: str) -> WebsocketCommunicator:
            return await stack.enter_async_context(connected(path))

        yield connect


@pytest.mark.parametrize("kind", ["chat", "sync-chat"])
async def test_everybody_in_a_room_hears_what_is_said(connect: Connect, kind: str) -> None:
    ada, bob = await connect(f"/{kind}/room/ada/"), await connect(f"/{kind}/room/bob/")
    await ada.send_to(text_data="hello")
    assert await ada.receive_from() == "ada: hello"
    assert await bob.receive_from() == "ada: hello"


async def test_async_and_sync_consumers_share_a_room(connect: Connect) -> None:
    ada, bob = await connect("/chat/room/ada/"), await connect("/sync-chat/room/bob/")
    await ada.send_to(text_data="hello")
    assert await bob.receive_from() == "ada: hello"
    await bob.send_to(text_data="good day")
    assert [await ada.receive_from() for _ in range(2)] == ["ada: hello", "bob: good day"]


async def test_rooms_do_not_hear_each_other(connect: Connect) -> None:
    ada, bob = await connect("/chat/here/ada/"), await connect("/chat/there/bob/")
    await ada.send_to(text_data="hello")
    assert await ada.receive_from() == "ada: hello"
    await bob.send_to(text_data="anybody?")
    assert await bob.receive_from() == "bob: anybody?"


@pytest.mark.parametrize("kind", ["chat", "sync-chat"])
async def test_who_leaves_is_in_the_group_no_more(kind: str) -> None:
    async with connected("/chat/room/ada/") as ada:
        async with connected(f"/{kind}/room/bob/"):
            assert len(get_channel_layer().groups["room"]) == 2
        assert await ada.receive_from() == "bob left"
        assert len(get_channel_layer().groups["room"]) == 1
    assert len(get_channel_layer().groups) == 0


async def test_a_group_send_from_outside_reaches_the_sockets(connect: Connect) -> None:
    ada, bob = await connect("/chat/room/ada/"), await connect("/sync-chat/room/bob/")
    layer = get_channel_layer()
    for number in range(20):
        await layer.group_send("room", {"type": "chat.message", "text": str(number)})
    for socket in (ada, bob):
        assert [await socket.receive_from() for _ in range(20)] == list(map(str, range(20)))


async def test_groups_of_the_class_and_the_channel_of_the_consumer_are_reached(
    connect: Connect,
) -> None:
    ada, bob = await connect("/lobby/"), await connect("/lobby/")
    hello = await ada.receive_json_from()
    assert hello["user"] == "AnonymousUser"
    assert hello["channel"] != (await bob.receive_json_from())["channel"]
    layer = get_channel_layer()
    await layer.group_send("lobby", {"type": "lobby.event", "content": "to all"})
    await layer.send(hello["channel"], {"type": "lobby.event", "content": "to ada"})
    await layer.group_send("lobby", {"type": "lobby.event", "content": "to all again"})
    assert [await ada.receive_json_from() for _ in range(3)] == ["to all", "to ada", "to all again"]
    assert [await bob.receive_json_from() for _ in range(2)] == ["to all", "to all again"]


def test_headrace_and_channels_hand_out_the_same_layer() -> None:
    layer = headrace.get_channel_layer()
    assert layer is get_channel_layer()
    other = object()
    assert channel_layers.set("default", other) is layer
    assert headrace.get_channel_layer() is other
