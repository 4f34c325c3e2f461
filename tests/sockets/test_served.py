"""Socket servers behind a real ASGI server, with real clients."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvicorn
from tests.support.waiting import SECONDS
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from headrace import ProtocolTypeRouter, URLRouter, path
from headrace._demo.serve import bind, serving
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.typing import Application

Connect = Callable[..., Any]


class Room(BaseSocketServer):
    """Everyone in a room hears what anyone in it says. Tells the servers that are alive."""

    alive: list["Room"]

    def connect(self) -> None:
        self.alive.append(self)
        self.subscribe(self.scope["url_route"]["kwargs"]["room"])
        self.send("joined")

    def receive(self, data: Any) -> None:
        self.broadcast(self.scope["url_route"]["kwargs"]["room"], data)

    def disconnect(self, code: int = 1000) -> None:
        self.alive.remove(self)


@pytest.fixture
def room_class() -> type[Room]:
    return type("Room", (Room,), {"alive": []})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def serve(stack: AsyncExitStack, application: Application) -> str:
    """Serve an application until the test is over; return its address."""
    listener = stack.enter_context(bind("127.0.0.1", 0))
    await stack.enter_async_context(serving(application, listener))
    host, port = listener.getsockname()
    return f"ws://{host}:{port}"


def routed(server: Any, **settings: Any) -> Application:
    """Return the application that has a server at /ws/<room>/."""
    return ProtocolTypeRouter({"websocket": URLRouter([path("ws/<str:room>/", server.as_asgi(**settings))])})


async def join(stack: AsyncExitStack, url: str, **options: Any) -> ClientConnection:
    return await stack.enter_async_context(connect(url, open_timeout=SECONDS, **options))


async def hear(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), SECONDS))


async def enter(stack: AsyncExitStack, url: str, **options: Any) -> ClientConnection:
    """Join a room, and wait until its broadcasts come here."""
    client = await join(stack, url, **options)
    assert await hear(client) == "joined"
    return client


async def test_clients_of_a_room_hear_each_other_in_order(
    stack: AsyncExitStack, room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    url = await serve(stack, routed(room_class, layer=memory))
    ada, bob = [await enter(stack, f"{url}/ws/lobby/") for _ in range(2)]
    eve = await enter(stack, f"{url}/ws/garden/")
    for number in range(50):
        await ada.send(json.dumps({"number": number}))
    for client in (ada, bob):
        assert [await hear(client) for _ in range(50)] == [{"number": number} for number in range(50)]
    await eve.send('"alone"')
    assert await hear(eve) == "alone"


async def test_plain_code_broadcasts_to_clients(
    stack: AsyncExitStack, room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    url = await serve(stack, routed(room_class, layer=memory))
    ada = await enter(stack, f"{url}/ws/lobby/")
    await asyncio.to_thread(Broadcaster(layer=memory).broadcast, "lobby", "from a view")
    assert await hear(ada) == "from a view"


async def test_a_handshake_is_refused_with_a_status_that_says_why(stack: AsyncExitStack) -> None:
    class Guarded(BaseSocketServer):
        def authorize(self) -> Any:
            return int(self.scope["url_route"]["kwargs"]["room"])

    url = await serve(stack, routed(Guarded))
    for code, status in ((4401, 401), (4403, 403)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}/ws/{code}/", open_timeout=SECONDS)
        assert refused.value.response.status_code == status


async def test_bad_frames_are_answered_and_the_socket_stays(
    stack: AsyncExitStack, room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    url = await serve(stack, routed(room_class, layer=memory))
    ada = await enter(stack, f"{url}/ws/lobby/")
    for frame in ("{", "", b"\xff"):
        await ada.send(frame)
        assert await hear(ada) == {"error": "the message could not be decoded"}
    await ada.send("1")
    assert await hear(ada) == 1


async def test_ten_mebibytes_go_round_in_one_piece(
    stack: AsyncExitStack, room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    url = await serve(stack, routed(room_class, layer=memory))
    ada = await enter(stack, f"{url}/ws/lobby/", max_size=None, compression=None)
    data = {"payload": "x" * 10 * 1024 * 1024}
    await Broadcaster(layer=memory).async_broadcast("lobby", data)
    assert await hear(ada) == data


async def test_who_goes_away_leaves_nothing_behind(
    stack: AsyncExitStack, room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    url = await serve(stack, routed(room_class, layer=memory))
    ada, bob = [await enter(stack, f"{url}/ws/lobby/") for _ in range(2)]
    await ada.send("1")
    assert [await hear(ada), await hear(bob)] == [1, 1]
    servers = list(room_class.alive)
    # One closes, the other just goes.
    await ada.close()
    bob.transport.abort()
    for server in servers:
        assert server._headrace_connection.incoming.task is not None
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({server._headrace_connection.incoming.task})
    assert room_class.alive == []
    assert (memory.stats().memberships, memory.stats().channels) == (0, 0)


async def test_the_end_of_the_asgi_server_is_the_end_of_each_socket(
    room_class: type[Room], memory: InMemoryChannelLayer
) -> None:
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as serving_stack:
            url = await serve(serving_stack, routed(room_class, layer=memory))
            clients = [await enter(stack, f"{url}/ws/lobby/") for _ in range(3)]
            await clients[0].send("1")
            assert [await hear(client) for client in clients] == [1, 1, 1]
            assert len(room_class.alive) == 3
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await hear(client)
    assert room_class.alive == []
    assert memory.stats().memberships == 0


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_closed_if_the_server_says_so(
    stack: AsyncExitStack, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict(BaseSocketServer):
        max_backlog = 10
        overflow = "close"

        async def connect(self) -> None:
            await self.async_subscribe("news")
            await self.async_send("joined")

    url = await serve(stack, routed(Strict, layer=memory))
    reader = await join(stack, f"{url}/ws/a/", compression=None, max_size=None)
    sleeper = await join(stack, f"{url}/ws/b/", compression=None, max_size=None, max_queue=1)
    assert [await hear(client) for client in (reader, sleeper)] == ["joined"] * 2
    mouth = Broadcaster(layer=memory)
    for number in range(200):
        await mouth.async_broadcast("news", [number, "x" * 100_000])
        assert (await hear(reader))[0] == number
        if "its client does not keep up" in caplog.text:
            break
    assert "its client does not keep up" in caplog.text
    assert memory.group_count("socket.t.news") == 1
    sleeper.transport.abort()


async def test_a_server_may_be_the_whole_application(stack: AsyncExitStack) -> None:
    class Echo(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            await self.async_send(data)

    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(Echo.as_asgi(), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listener]))
        try:
            async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/anything") as client:
                await client.send("[1]")
                assert await hear(client) == [1]
        finally:
            server.should_exit = True
            await running


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_hook_without_end_ends_when_its_client_leaves(
    stack: AsyncExitStack, memory: InMemoryChannelLayer, asynchronous: bool
) -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Ticks(BaseSocketServer):
        grace_period = 0.1

        async def connect(self) -> None:
            while True:
                await self.async_send("tick")
                await asyncio.sleep(0.01)

        def disconnect(self, code: int) -> None:
            loop.call_soon_threadsafe(left.set)

    class PlainTicks(Ticks):
        def connect(self) -> None:  # type: ignore[override]  # hooks are of either kind
            while True:
                self.send("tick")
                time.sleep(0.01)

    url = await serve(stack, routed(Ticks if asynchronous else PlainTicks, layer=memory))
    client = await join(stack, f"{url}/ws/lobby/")
    assert await hear(client) == "tick"
    await client.close()
    await asyncio.wait_for(left.wait(), SECONDS)
