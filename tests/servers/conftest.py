"""Real servers that serve ``served.py`` on free ports, talked to by a real WebSocket client."""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.groups import one_process_each
from tests.support.ports import HOST, Port
from tests.support.waiting import SECONDS, eventually
from websockets.asyncio.client import ClientConnection, connect

HERE = Path(__file__).parent

UVICORN = ["uvicorn", "--log-level", "critical", "--fd", "{fd}"]
HYPERCORN = ["hypercorn", "--log-level", "critical", "--graceful-timeout", "1", "--bind", "fd://{fd}"]
DAPHNE = ["daphne", "--verbosity", "0", "--fd", "{fd}"]
GRANIAN = ["granian", "--log-level", "critical", "--interface", "asgi", "--host", "{host}", "--port", "{port}"]
GRANIAN += ["--workers-kill-timeout", "10"]

SERVERS = {
    **{
        f"uvicorn-{websockets}-{loop}": [*UVICORN, "--ws", websockets, "--loop", loop]
        for websockets in ("websockets", "websockets-sansio", "wsproto")
        for loop in ("asyncio", "uvloop")
    },
    **{f"hypercorn-{loop}": [*HYPERCORN, "--worker-class", loop] for loop in ("asyncio", "uvloop")},
    "daphne": DAPHNE,
    **{f"granian-{loop}": [*GRANIAN, "--loop", loop] for loop in ("asyncio", "uvloop")},
}
FOR_DRAINS = {
    # Its workers are not told of a SIGTERM; without workers it is told itself.
    **{f"hypercorn-alone-{loop}": [*SERVERS[f"hypercorn-{loop}"], "--workers", "0"] for loop in ("asyncio", "uvloop")},
    "uvicorn-workers": [*UVICORN, "--workers", "2"],
    "gunicorn": [
        *("gunicorn", "--log-level", "critical", "--bind", "fd://{fd}", "--workers", "2", "--graceful-timeout", "60"),
        *("--worker-class", "uvicorn_worker.UvicornWorker"),
    ],
}
"""Servers that only the tests of the drain run on."""
ONLY_DEEP = {
    *("uvicorn-websockets-uvloop", "uvicorn-websockets-sansio-asyncio", "uvicorn-wsproto-uvloop"),
    *("hypercorn-uvloop", "granian-uvloop"),
}
"""What ``make test-deep`` adds: in the gate each server, each library of uvicorn's and each loop has its turn, but not
each with each."""
EAGER = "-eager"
"""At the end of a server's name: its tasks start eagerly."""

ONE_OF_EACH = ["uvicorn-websockets-asyncio", "hypercorn-asyncio", "daphne", "granian-asyncio"]
if sys.version_info >= (3, 14):
    # uvloop tells the factory of tasks something that the eager one of earlier versions does not take.
    ONE_OF_EACH.append("uvicorn-websockets-uvloop")
if sys.version_info >= (3, 12):
    SERVERS |= {f"{name}{EAGER}": SERVERS[name] for name in ONE_OF_EACH}


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    address: str
    process: subprocess.Popen[bytes]

    def is_(self, *names: str) -> bool:
        """Tell whether it is one of these kinds of server, which a test treats by itself."""
        return self.name.startswith(names)


@contextmanager
def serve(name: str, application: str, environment: Mapping[str, str] = {}) -> Iterator[Server]:
    """Run a server while the context lasts.

    It inherits a socket that listens already: its port cannot be taken by another process, and a client that comes
    before the server is ready waits instead of being refused. Granian cannot inherit one.

    At the end it gets SIGTERM, because the workers of some servers outlive a parent that is killed. daphne has no
    workers and is killed: on SIGTERM it stops its event loop and then joins the threads of consumers, and a thread that
    waits for the loop never ends.
    """
    if name.endswith(EAGER):
        environment = {**environment, "HEADRACE_TEST_EAGER": "1"}
    with ExitStack() as stack:
        if name.startswith("granian"):
            port = Port()
            stack.callback(port.release)
            number, fds = port.number, []
        else:
            listening = stack.enter_context(socket.create_server((HOST, 0)))
            number, fds = listening.getsockname()[1], [listening.fileno()]
        words = [
            word.format(fd=fds[0] if fds else None, host=HOST, port=number) for word in (SERVERS | FOR_DRAINS)[name]
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", *words, application],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), **environment},
            pass_fds=fds,
        )
        try:
            if name.startswith("granian"):
                _wait_until_it_listens(process, number)
            else:
                listening.close()
            yield Server(name, f"{HOST}:{number}", process)
        finally:
            if name.startswith("daphne"):
                process.kill()
            else:
                process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with suppress(ConnectionRefusedError):
            socket.create_connection((HOST, port)).close()
            return True
        return False

    eventually(listens, "the server listens")


@pytest.fixture(scope="session")
def run() -> Callable[..., AbstractContextManager[Server]]:
    """Run a server while a context lasts."""
    return serve


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str, str], Server]]:
    """Run each server once, when the first test asks for it."""
    with ExitStack() as stack:
        running: dict[tuple[str, str], Server] = {}

        def server(name: str, application: str) -> Server:
            if (name, application) not in running:
                running[name, application] = stack.enter_context(serve(name, application))
            return running[name, application]

        yield server


@pytest.fixture(scope="session", params=one_process_each("server", SERVERS, deep=ONLY_DEEP))
def server(request: pytest.FixtureRequest, servers: Callable[[str, str], Server]) -> Server:
    """Give each server, with ``served.py`` on it."""
    return servers(request.param, "served:application")


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.deep] if name in ONLY_DEEP else []) for name in SERVERS])
def run_server(request: pytest.FixtureRequest) -> Callable[[dict[str, str]], AbstractContextManager[Server]]:
    """Run each server with ``served.py`` on it and with a changed environment, for a test that ends it."""
    return lambda environment: serve(request.param, "served:application", environment)


@pytest.fixture
def key() -> str:
    """Make up a key of the test's own."""
    return uuid.uuid4().hex


class Client:
    """Opens connections to one server, which end with the test."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self._stack = stack

    async def open(self, path: str, query: str = "", **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        url = f"ws://{self.server.address}/{path}/{query}"
        client = connect(url, open_timeout=SECONDS, compression=None, **options)
        return await self._stack.enter_async_context(client)

    async def watch(self, key: str) -> "Watch":
        """Watch what becomes of the connections with a key."""
        return Watch(await self.open(f"watch/{key}"))

    async def request(self, path: str, body: bytes = b"") -> http.client.HTTPResponse:
        """Send a request; return the response as soon as it begins."""
        return await self._stack.enter_async_context(self.responding(path, body))

    @asynccontextmanager
    async def responding(self, path: str, body: bytes = b"") -> AsyncIterator[http.client.HTTPResponse]:
        """Send a request; give the response as soon as it begins, and leave in the end, whether it is whole or not."""
        with closing(http.client.HTTPConnection(self.server.address, timeout=SECONDS)) as connection:

            def begin() -> http.client.HTTPResponse:
                connection.request("POST", f"/{path}/" if "?" not in path else f"/{path}", body)
                return connection.getresponse()

            with closing(await asyncio.to_thread(begin)) as response:
                yield response


class Watch:
    """Hears what becomes of the connections with one key."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def next(self) -> dict[str, Any]:
        """Wait for the next report."""
        report: dict[str, Any] = json.loads(await asyncio.wait_for(self._socket.recv(), SECONDS))
        return report

    async def until_the_end(self) -> list[dict[str, Any]]:
        """Collect reports until an application has ended."""
        reports = [await self.next()]
        while "ended" not in reports[-1]:
            reports.append(await self.next())
        return reports


@pytest.fixture
def client_of() -> Callable[[Server, AsyncExitStack], Client]:
    """Talk to a server that the test runs itself."""
    return Client


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Talk to each server."""
    async with AsyncExitStack() as stack:
        yield Client(server, stack)
