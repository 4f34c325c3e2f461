"""The demo as a command: bind, serve, check, and stay until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from headrace._demo.clients import TIMEOUT, Print, self_check
from headrace._signals import stop_on_signals
from headrace.typing import Application
from headrace.uvicorn import WebSocketProtocol

# Far above what the page sends and far below what would hurt; a larger frame ends its socket.
_LARGEST_FRAME = 256 * 1024
SHUTDOWN_SECONDS = 3


class CannotServe(RuntimeError):
    """The address cannot be served; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for.

    Attributes:
        once: Stop after the check, and take a free port if `port` is taken.
        clients: How many clients the check connects.
        within: How many seconds the check may take.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    once: bool = False
    clients: int = 5
    within: float = TIMEOUT


def demo(app: Application, options: Options, say: Print) -> int:
    """Run the demo in an event loop of its own until it is done or told to stop.

    Returns:
        The exit code: 1 if `options.once` and a client missed the message, else 0.

    Raises:
        CannotServe: The address is taken or cannot be listened on.
    """
    try:
        return asyncio.run(_until_signalled(app, options, say))
    except KeyboardInterrupt:
        # A second Ctrl-C where the loop does not handle signals itself (Windows).
        return 0


async def run(app: Application, options: Options, say: Print) -> int:
    """Serve `app`, check it, and go on serving unless `options.once`, until cancelled.

    Raises:
        CannotServe: The address is taken or cannot be listened on.
    """
    with bind(options.host, options.port, or_any=options.once) as listener:
        where = address(listener)
        async with serving(app, listener) as served:
            say(f"headrace demo on http://{where}")
            passed = await self_check(f"ws://{where}/ws", options.clients, say, within=options.within)
            if not options.once:
                say("serving until Ctrl-C")
                await asyncio.wait([served])
    return 1 if options.once and not passed else 0


def bind(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """Return a socket that listens on the address; port 0 takes any free one.

    Done here and not by the server, so that a taken port is known before anything starts.

    Args:
        host: An address or name of this machine.
        port: The port.
        or_any: Take a free port if `port` is taken.

    Raises:
        CannotServe: The port is taken (and not `or_any`), or the address is not ours to serve.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise CannotServe(f"cannot listen on {host}:{port}: {error.strerror}") from error
        if or_any:
            return bind(host, 0)
        hint = "choose another with --port, or --port 0 for any free one"
        raise CannotServe(f"port {port} on {host} is taken; {hint}") from error


def _listen(host: str, port: int) -> socket.socket:
    # Not socket.create_server: asyncio turns Nagle's algorithm off only on sockets that name
    # TCP as their protocol, and with it on, the second of two small frames waits 40 ms.
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last server has just gone is free. On Windows the option would share it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def serving(app: Application, *listeners: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """Serve `app` on `listeners` inside the block; leaving it closes every connection.

    Yields:
        The server's task, once it accepts connections.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        # The process's logging is not ours to set up; what uvicorn warns of still gets out.
        log_config=None,
        log_level="warning",
        access_log=False,
        ws=WebSocketProtocol,
        ws_max_size=_LARGEST_FRAME,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=list(listeners)))
    try:
        await server.wait_started(task)
        yield task
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn as a guest in our loop: it says when it has started, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._up.set()

    async def wait_started(self, serve: asyncio.Task[None]) -> None:
        """Wait until connections are accepted; if `serve` fails before, its error comes out."""
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait({up, serve}, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            up.cancel()
            await serve

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again once it has stopped, and the process would end
        # by it; Ctrl-C is the ordinary end of a demo.
        yield


async def _until_signalled(app: Application, options: Options, say: Print) -> int:
    return await until_signalled(lambda: run(app, options, say))


async def until_signalled(start: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run, and take SIGINT and SIGTERM as a request to stop in order; a second one hurries it."""
    running = asyncio.ensure_future(start())
    with stop_on_signals(running.cancel):
        try:
            return await running
        except asyncio.CancelledError:
            return 0


def address(listener: socket.socket) -> str:
    """Return `host:port` as it stands in a URL that reaches the listener from this machine."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
