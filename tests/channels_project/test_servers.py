"""The project served by real servers on free ports, talked to by a real websocket client."""

import asyncio
import itertools
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from tests.support.groups import one_process_each
from tests.support.waiting import SECONDS
from websockets.asyncio.client import ClientConnection, connect

SERVERS = {
    "daphne": ["daphne", "--verbosity", "0"],
    "uvicorn": ["uvicorn", "--log-level", "warning", "--lifespan", "off"],
}


@contextmanager
def serve(server: str, environment: dict[str, str]) -> Iterator[str]:
    """Serve the project while the context lasts; give the host and the port.

    The server inherits a socket that listens already: its port cannot be taken by another process,
    and a client that comes before the server is ready waits instead of being refused.

    The server is killed at the end. daphne stops its event loop as soon as it is terminated, and then
    waits for the threads of synchronous consumers. A thread that leaves its group at that moment waits
    for the loop: the process would hang.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", *SERVERS[server]),
                *("--fd", str(listening.fileno()), "chat.asgi:application"),
            ],
            env=environment,
            pass_fds=[listening.fileno()],
        )
    try:
        yield f"{host}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(
    scope="module",
    params=one_process_each("project", itertools.product(SERVERS, ("headrace", "channels"))),
)
def address(request: pytest.FixtureRequest, project_environment: Callable[[str], dict[str, str]]) -> Iterator[str]:
    """Run each server on each layer."""
    server, package = request.param
    with serve(server, project_environment(package)) as address:
        yield address


@pytest.fixture(scope="module", params=one_process_each("project", SERVERS))
def headrace_address(
    request: pytest.FixtureRequest, project_environment: Callable[[str], dict[str, str]]
) -> Iterator[str]:
    """Run each server on headrace's layer."""
    with serve(request.param, project_environment("headrace")) as address:
        yield address


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close what the test has opened."""
    async with AsyncExitStack() as stack:
        yield stack


async def join(stack: AsyncExitStack, address: str, path: str) -> ClientConnection:
    """Connect to a room."""
    client = connect(f"ws://{address}/{path}/", open_timeout=SECONDS)
    return await stack.enter_async_context(client)


async def hear(client: ClientConnection) -> str | bytes:
    """Wait for the next message."""
    return await asyncio.wait_for(client.recv(), SECONDS)


async def get(address: str, path: str, text: str) -> int:
    """Ask for a page of the Django project; return the status."""
    url = f"http://{address}/{path}/?{urllib.parse.urlencode({'text': text})}"

    def read() -> int:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            status: int = response.status
            return status

    return await asyncio.to_thread(read)


async def test_everybody_in_a_room_hears_what_is_said(stack: AsyncExitStack, address: str) -> None:
    paths = ["chat/heard/ada", "chat/heard/bob", "sync-chat/heard/cleo", "sync-chat/heard/dan"]
    clients = [await join(stack, address, path) for path in paths]
    for client in clients:
        await client.send("hello")
    for client in clients:
        heard = sorted([str(await hear(client)) for _ in clients])
        assert heard == ["ada: hello", "bob: hello", "cleo: hello", "dan: hello"]


async def test_messages_of_one_sender_are_heard_in_order(stack: AsyncExitStack, address: str) -> None:
    ada, bob = [await join(stack, address, f"chat/order/{name}") for name in ("ada", "bob")]
    for number in range(50):
        await ada.send(str(number))
    for client in (ada, bob):
        assert [await hear(client) for _ in range(50)] == [f"ada: {n}" for n in range(50)]


@pytest.mark.parametrize("kind", ["chat", "sync-chat"])
async def test_a_closed_socket_leaves_its_room(stack: AsyncExitStack, address: str, kind: str) -> None:
    ada = await join(stack, address, f"chat/left-{kind}/ada")
    bob = await join(stack, address, f"{kind}/left-{kind}/bob")
    await bob.close()
    assert await hear(ada) == "bob left"
    await ada.send("alone")
    assert await hear(ada) == "ada: alone"


async def test_a_django_view_reaches_the_sockets(stack: AsyncExitStack, address: str) -> None:
    ada = await join(stack, address, "chat/view/ada")
    bob = await join(stack, address, "sync-chat/view/bob")
    assert await get(address, "from-view/view", "from a view") == 204
    assert [await hear(ada), await hear(bob)] == ["from a view"] * 2


async def test_a_plain_thread_reaches_the_sockets(stack: AsyncExitStack, headrace_address: str) -> None:
    """Not asked of Channels' own layer, whose queues belong to one event loop."""
    ada = await join(stack, headrace_address, "chat/thread/ada")
    bob = await join(stack, headrace_address, "sync-chat/thread/bob")
    assert await get(headrace_address, "from-thread/thread", "from a thread") == 204
    assert [await hear(ada), await hear(bob)] == ["from a thread"] * 2
