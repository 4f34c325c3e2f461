"""uvicorn in the loop of the test, with headrace's protocol, and clients of it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from headrace.uvicorn import WebSocketProtocol

SECONDS = 60


class _Server(uvicorn.Server):
    """uvicorn as a guest in the loop of the test."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class Served:
    """An application that is served.

    Attributes:
        port: Its port on 127.0.0.1.
        stack: What is closed before the server is.
        scheme: ``ws`` or ``wss``.
    """

    port: int
    stack: AsyncExitStack
    scheme: str = "ws"

    async def open(self, path: str = "", **options: Any) -> ClientConnection:
        """Open a WebSocket, which is closed in the end; it compresses nothing unless it is told to."""
        options = {"compression": None, "open_timeout": SECONDS, "max_size": None, "ping_interval": None, **options}
        client = connect(f"{self.scheme}://127.0.0.1:{self.port}/{path}", **options)
        return await self.stack.enter_async_context(client)

    async def open_raw(self, path: str = "", *, receive_buffer: int | None = None) -> socket.socket:
        """Open a WebSocket whose bytes the test reads itself, or does not."""
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.stack.callback(client.close)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        await loop.sock_sendall(
            client,
            f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(client, 1)
        assert head.startswith(b"HTTP/1.1 101")
        return client


@asynccontextmanager
async def serving(application: Any, **options: Any) -> AsyncIterator[Served]:
    """Serve an application while a context lasts; the arguments are those of ``uvicorn.Config``."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    # Other than by default nothing waits for a client that does not answer a close.
    options = {"ws": WebSocketProtocol, "ws_ping_interval": None, "timeout_graceful_shutdown": 1, **options}
    config = uvicorn.Config(application, lifespan="off", log_config=None, log_level="critical", **options)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
            while not server.started:
                await asyncio.sleep(0)
            yield Served(listener.getsockname()[1], stack, "wss" if config.is_ssl else "ws")
    finally:
        server.should_exit = True
        await task
