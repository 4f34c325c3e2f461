"""SIGTERM to real servers whose application drains its process then."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server

    Run = Callable[[str, str, dict[str, str]], AbstractContextManager[Server]]
    Begin = Callable[..., Any]

SECONDS = 30
LONG = "600 0"
"""Longer than any test: what ends before does not wait for it."""

OF_UVICORN = ("uvicorn-websockets-asyncio", "uvicorn-websockets-sansio-uvloop", "uvicorn-wsproto-asyncio")
ONE_PROCESS = (*OF_UVICORN, "hypercorn-alone-asyncio", "hypercorn-alone-uvloop", "daphne")
SERVERS = (*ONE_PROCESS, "uvicorn-workers", "gunicorn", "granian-asyncio", "granian-uvloop")
# Those that are here on asyncio's loop as well.
AGAIN = ("hypercorn-alone-uvloop", "granian-uvloop")
# The libraries of uvicorn's for WebSockets have no part in how its signals are taken.
ALIKE = (*OF_UVICORN[1:], *AGAIN)


def each(*names: str, but: Collection[str] = AGAIN) -> pytest.MarkDecorator:
    """Run a test on these servers; on some of them with ``--deep`` alone."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[pytest.mark.deep] if name in but else []) for name in names]
    )


class Drained:
    """A server that is to be drained, and its clients."""

    def __init__(self, server: "Server", client: "Client", folder: Path) -> None:
        self.server = server
        self.client = client
        self._folder = folder

    async def open(self, *kinds: str) -> list[Any]:
        """Open sockets, and wait until each is served."""
        sockets = [await self.client.open(kind) for kind in kinds]
        for socket in sockets:
            await socket.send('"hello"')
            assert await asyncio.wait_for(socket.recv(), SECONDS) == '"hello"'
        return sockets

    def terminate(self) -> None:
        self.server.process.terminate()

    def open_gate(self) -> None:
        (self._folder / "gate").touch()

    async def code(self, socket: Any) -> int:
        """Wait until a socket is closed; return the code."""
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), SECONDS)
        code: int = socket.close_code
        return code

    async def ends(self) -> list[list[Any]]:
        """Wait until the server has ended; return who has taken leave, and with which code."""
        await asyncio.to_thread(self.server.process.wait, SECONDS)
        return sorted(json.loads(line) for line in (self._folder / "reports").read_text().splitlines())


@pytest.fixture
async def begin(run: "Run", client_of: Any, tmp_path: Path) -> "AsyncIterator[Begin]":
    """Give ``begin(server, "seconds spread")``, which runs a server while the test lasts."""
    (tmp_path / "reports").touch()
    async with AsyncExitStack() as stack:

        def make(name: str, drain: str) -> Drained:
            if name == "gunicorn" and importlib.util.find_spec("uvicorn_worker") is None:
                pytest.skip("gunicorn and uvicorn-worker are not installed")
            environment = {
                "HEADRACE_TEST_DRAIN": drain,
                "HEADRACE_TEST_REPORTS": str(tmp_path / "reports"),
                "HEADRACE_TEST_GATE": str(tmp_path / "gate"),
            }
            server = stack.enter_context(run(name, "served_drain:application", environment))
            return Drained(server, client_of(server, stack), tmp_path)

        yield make


@each(*SERVERS)
async def test_each_socket_is_closed_with_1012_and_takes_leave_before_the_server_ends(
    begin: "Begin", name: str
) -> None:
    drained = begin(name, "60 0.2")
    polite, *others = await drained.open("polite", "plain", "sync", "socket")
    drained.terminate()
    assert await asyncio.wait_for(polite.recv(), SECONDS) == "back in a moment"
    codes = [await drained.code(socket) for socket in (polite, *others)]
    # Daphne can send no code from 1001 to 2999.
    expected = 1000 if name == "daphne" else 1012
    assert codes == [expected] * 4
    left = await drained.ends()
    assert [who for who, _ in left] == ["Plain", "Polite", "Socket", "Sync"]
    assert {code for _, code in left} == {1012}


@each(*SERVERS)
async def test_newcomers_are_refused_while_it_lasts(begin: "Begin", name: str) -> None:
    drained = begin(name, LONG)
    sockets = await drained.open("held")
    # Each process of several has one.
    sockets += await drained.open(*["held"] * 7) if name in ("uvicorn-workers", "gunicorn") else []
    drained.terminate()
    for socket in sockets:
        assert await asyncio.wait_for(socket.recv(), SECONDS) == "draining"
    if name == "gunicorn":
        pass  # its workers take no connections any more
    else:
        with pytest.raises(InvalidStatus) as refused:
            await drained.client.open("plain")
        assert refused.value.response.status_code == (403 if name == "daphne" else 503)
    drained.open_gate()
    for socket in sockets:
        await drained.code(socket)
    assert len(await drained.ends()) == len(sockets)


@each(*SERVERS, but=ALIKE)
async def test_an_on_drain_that_hangs_is_cut_off(begin: "Begin", name: str) -> None:
    drained = begin(name, "1 0")
    sockets = await drained.open("held", "plain")
    drained.terminate()
    for socket in sockets:
        if socket is sockets[0]:
            assert await asyncio.wait_for(socket.recv(), SECONDS) == "draining"
        await drained.code(socket)
    assert await drained.ends() == [["Held", 1012], ["Plain", 1012]]


@each(*ONE_PROCESS, but=ALIKE)
async def test_a_second_signal_ends_it_at_once(begin: "Begin", name: str) -> None:
    if name == "hypercorn-alone-asyncio" and sys.version_info >= (3, 12):
        pytest.skip("hypercorn does not end while a client is connected: asyncio's servers wait for that since 3.12")
    drained = begin(name, LONG)
    (socket,) = await drained.open("held")
    drained.terminate()
    assert await asyncio.wait_for(socket.recv(), SECONDS) == "draining"
    drained.terminate()
    await drained.code(socket)
    await drained.ends()


@each(*SERVERS, but=ALIKE)
async def test_a_server_without_sockets_ends_at_once(begin: "Begin", name: str) -> None:
    drained = begin(name, LONG.replace(" 0", " 600"))
    (socket,) = await drained.open("plain")
    await socket.close()
    drained.terminate()
    await drained.ends()
