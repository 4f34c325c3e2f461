"""The demo over several processes: workers that serve one port, on a layer that connects them.

A worker is a process of its own with a server and a layer. It listens on the port of all, where the operating system
chooses among the workers, and on one of its own, so that the check can tell which worker a client is at. It ends when
its parent does: then the pipe between them is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import signal
import socket
from collections.abc import AsyncIterator, MutableSequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from headrace import LayerUnavailable
from headrace._demo.app import HISTORY, PRESENCE, make_app
from headrace._demo.board import Board
from headrace._demo.clients import Print, fleet_check
from headrace._demo.serve import SHUTDOWN_SECONDS, CannotServe, Options, address, bind, serving, until_signalled
from headrace._demo.server import PROGRAMS, OwnServer
from headrace._layers.hosts import parse_hosts
from headrace.layers import RedisChannelLayer

PREFIX = "headrace-demo"
# How old the counters of another worker may be.
POST_SECONDS = 0.5


def demo_fleet(where: str, workers: int, options: Options, say: Print) -> int:
    """Run the demo in workers until it is done or told to stop; the exit codes and errors are those of `demo`."""
    try:
        return asyncio.run(until_signalled(lambda: run_fleet(where, workers, options, say)))
    except KeyboardInterrupt:
        # A second Ctrl-C where the loop does not handle signals itself (Windows).
        return 0


async def run_fleet(where: str, workers: int, options: Options, say: Print) -> int:
    """Serve the demo by workers, check it, and go on serving unless `options.once`, until cancelled or a worker ends.

    Args:
        where: The URL of the layer's server, or the name of a program: then the demo has a server of its own.
        workers: How many processes serve.
        options: As for `run`.
        say: Told each line.

    Raises:
        CannotServe: The address cannot be listened on, or the layer's server cannot be reached.
        CannotStart: The program is not there, or does not start.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(OwnServer(where)) if where in PROGRAMS else None
        url = where if server is None else server.url
        restart = None if server is None else functools.partial(asyncio.to_thread, server.restart)
        shared = stack.enter_context(bind(options.host, options.port, or_any=options.once))
        own = [stack.enter_context(bind("127.0.0.1", 0)) for _ in range(workers)]
        async with _fleet(url, [(shared, listener) for listener in own]) as processes:
            plural = "" if workers == 1 else "s"
            place = str(parse_hosts([url])[0]) if server is None else f"a {where} of its own"
            say(f"headrace demo on http://{address(shared)}, {workers} worker{plural} on {place}")
            urls = [f"ws://{address(listener)}/ws" for listener in own]
            passed = await fleet_check(urls, options.clients, say, within=options.within, restart=restart)
            if options.once:
                return 0 if passed else 1
            say("serving until Ctrl-C")
            await asyncio.to_thread(multiprocessing.connection.wait, [process.sentinel for process in processes])
            say("a worker has ended by itself")
            return 1


@contextlib.asynccontextmanager
async def _fleet(url: str, listeners: list[tuple[socket.socket, ...]]) -> AsyncIterator[list[SpawnProcess]]:
    """Start a worker for each group of listeners, and end all when the context ends."""
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        cells = context.RawArray(ctypes.c_double, Board.size(len(listeners)))
        for number, group in enumerate(listeners, 1):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            # By the pipe of the child's start and not by its command line: a URL may have a password.
            processes.append(context.Process(target=serve_worker, args=(theirs, url, group, number, cells)))
            processes[-1].start()
            theirs.close()
        for pipe in pipes:
            await asyncio.to_thread(_wait_ready, pipe)
        yield processes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            await asyncio.to_thread(_end, process)


def _wait_ready(pipe: Connection) -> None:
    try:
        refusal = pipe.recv()
    except EOFError:
        refusal = "a worker has ended before it served"
    if refusal is not None:
        raise CannotServe(refusal)


def _end(process: SpawnProcess) -> None:
    process.join(SHUTDOWN_SECONDS + 2)
    if process.is_alive():
        process.kill()
        process.join()


def serve_worker(
    parent: Connection, url: str, listeners: tuple[socket.socket, ...], number: int, cells: MutableSequence[float]
) -> None:
    """Serve the demo on listeners in this process, until the parent closes its end of the pipe; count in `cells`."""
    # Ctrl-C reaches every process of the terminal, and the parent says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(parent, url, listeners, number, cells))


async def _serve(
    parent: Connection, url: str, listeners: tuple[socket.socket, ...], number: int, cells: MutableSequence[float]
) -> None:
    layer = RedisChannelLayer(hosts=[url], prefix=PREFIX, history=HISTORY, presence=PRESENCE)
    # Where the parent has gone, or given up, nobody is left to be told.
    with contextlib.suppress(EOFError, OSError):
        try:
            await layer.connect()
        except LayerUnavailable as error:
            parent.send(str(error))
            return
        board = Board(layer, number, cells)
        posting = asyncio.create_task(_post(board))
        try:
            async with serving(make_app(layer, board), *listeners):
                parent.send(None)
                await asyncio.to_thread(parent.recv)
        finally:
            posting.cancel()
    await layer.close()


async def _post(board: Board) -> None:
    while True:
        board.post()
        await asyncio.sleep(POST_SECONDS)
