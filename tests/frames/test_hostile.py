"""Clients and surroundings that do what they should not: each client gets what it was sent, in order, or its end."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tests.frames.consumers import Member, frames_in, met
from tests.frames.serving import SECONDS, serving
from websockets.asyncio.client import connect

from headrace.consumer import consumer_stats
from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.frames.conftest import Serve

ROOT = Path(__file__).parents[2]


async def test_a_client_that_reads_a_byte_at_a_time_gets_all_that_was_accepted(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            # Little is on its way to it: the rest is in the transport, and then in the mailbox.
            transport = send.__self__.transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            transport.set_write_buffer_limits(4096)
        await Member.as_asgi()(scope, receive, send)

    loop = asyncio.get_running_loop()
    async with serve(application) as served:
        quick, slow = await served.open(), await served.open_raw("slow", receive_buffer=4096)
        while layer.stats().waiters < 2:
            await asyncio.sleep(0)
        number, read, accepted, came = 0, b"", list[bytes](), list[bytes]()
        while number < 600 or len(came) < len(accepted):
            if number < 600:
                text = f"{number:06}{'x' * 300}"
                report = await layer.group_send("all", {"type": "plain", "text": text})
                number += 1
                assert await quick.recv() == text
                # Where one of two refuses, it is the slow one: the quick one has its own.
                accepted += [text.encode()] if report.dropped_full == 0 else []
            for _ in range(100):
                if len(came) == len(accepted):
                    break
                read += await loop.sock_recv(slow, 1)
                if found := frames_in(read):
                    came += [payload for _, payload in found]
                    read = b""
        assert len(accepted) < 600
        assert came == accepted


async def test_connections_that_a_handler_ends_in_the_middle_of_a_pass_hurt_no_other(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    transports: list[Any] = []
    channels: list[str] = []

    class Ended(Member):
        async def connect(self) -> None:
            channels.append(self.channel_name)
            await self.accept()

        async def killed(self, event: dict[str, Any]) -> None:
            for transport in transports[::2]:
                transport.abort()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        transports.append(send.__self__.transport)
        await Ended.as_asgi()(scope, receive, send)

    async with serve(application) as served:
        clients = [await served.open_raw() for _ in range(101)]
        stays = [await served.open() for _ in range(2)]
        await met(layer, *stays, waiters=103)
        for text in ("1", "2"):
            await layer.group_send("all", {"type": "plain", "text": text})
        # Its own connection is in the middle of the others, and not among those that end.
        await layer.send(channels[51], {"type": "killed"})
        for text in ("3", "4"):
            await layer.group_send("all", {"type": "plain", "text": text})
        # The last two came last: the first of them is at an odd place.
        assert [await stays[0].recv() for _ in range(4)] == ["1", "2", "3", "4"]
        while consumer_stats(Ended).open > 51:
            await asyncio.sleep(0)
        await layer.group_send("all", {"type": "plain", "text": "5"})
        assert await stays[0].recv() == "5"
        for place, client in enumerate(clients):
            got = await texts_of(client, 6 if place % 2 else None)
            expected = [b"first", b"1", b"2", b"3", b"4", b"5"]
            assert got == (expected if place % 2 else expected[: len(got)])


async def texts_of(client: socket.socket, number: int | None) -> list[bytes]:
    """Read so many texts, or until the end."""
    loop, data = asyncio.get_running_loop(), b""
    while number is None or len(frames_in(data)) < number:
        try:
            part = await loop.sock_recv(client, 1 << 16)
        except ConnectionResetError:
            break
        if not part:
            break
        data += part
    return [payload for opcode, payload in frames_in(data) if opcode == 1]


async def test_clients_that_go_while_a_pass_runs_hurt_no_other(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    class Gone(Member):
        """Has counters of its own."""

    async with serve(Gone.as_asgi()) as served:
        stays = [await served.open() for _ in range(3)]
        for _ in range(5):
            leaves = [await served.open_raw() for _ in range(60)]
            while layer.group_count("all") < 63:
                await asyncio.sleep(0)
            begun = threading.Event()

            def leave(leaves: list[socket.socket] = leaves, begun: threading.Event = begun) -> None:
                begun.wait(SECONDS)
                for number, client in enumerate(leaves):
                    if number % 2:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()

            # In a thread: a pass is made with the interpreter's lock released.
            thread = threading.Thread(target=leave)
            thread.start()
            begun.set()
            for number in range(30):
                await layer.group_send("all", {"type": "plain", "text": str(number)})
                for client in stays:
                    assert await client.recv() == str(number)
            await asyncio.to_thread(thread.join)
            while consumer_stats(Gone).open > 3:
                await asyncio.sleep(0)


class BufferingProxy:
    """Passes on what a server sends only when it has so much of it, or is told to.

    Args:
        port: The server's.
        size: How many bytes it waits for.
    """

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._size = size
        self._tasks: list[asyncio.Task[None]] = []
        self._held = bytearray()
        self._writer: asyncio.StreamWriter | None = None
        self.passes_all = True

    async def serve(self, stack: AsyncExitStack) -> int:
        """Serve until the end of a context; return the port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        stack.push_async_callback(self._end)
        return int(server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer = writer
        self._tasks.append(asyncio.create_task(self._pass_on(reader, to_server)))
        self._tasks.append(asyncio.create_task(self._hold(from_server, writer)))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(1 << 16):
            writer.write(part)
        writer.close()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(1 << 16):
            self._held += part
            if self.passes_all or len(self._held) >= self._size:
                self.let_go()
        self.let_go()
        writer.close()

    def let_go(self) -> None:
        """Pass on what it has."""
        if self._writer is not None:
            self._writer.write(bytes(self._held))
        self._held.clear()

    @property
    def held(self) -> int:
        """The bytes that it holds."""
        return len(self._held)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_proxy_that_buffers_changes_nothing(
    serve: "Serve", layer: InMemoryChannelLayer, compression: str | None
) -> None:
    async with serve(Member.as_asgi()) as served:
        proxy = BufferingProxy(served.port, 100_000)
        port = await proxy.serve(served.stack)
        client = await served.stack.enter_async_context(
            connect(f"ws://127.0.0.1:{port}/", compression=compression, open_timeout=SECONDS, ping_interval=None)
        )
        direct = await served.open()
        await met(layer, client, direct)
        proxy.passes_all = False
        texts = [f"{number} {'long ' * (number * 10 % 500)}" for number in range(400)]
        for text in texts:
            assert (await layer.group_send("all", {"type": "plain", "text": text})).dropped_full == 0
            assert await direct.recv() == text
        # Nothing more comes: what it holds is the end of it.
        proxy.passes_all = True
        await client.send("echo")
        assert [await client.recv() for _ in (*texts, "echo")] == [*texts, "echo"]


class Stopping(Member):
    """One in the middle stops the loop when all are told to."""

    told = 0

    async def stopped(self, event: dict[str, Any]) -> None:
        Stopping.told += 1
        if Stopping.told % 100 == 50:
            asyncio.get_running_loop().stop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("where", ["before the pass", "in the pass"])
def test_a_loop_that_is_stopped_goes_on_where_it_was(layer: InMemoryChannelLayer, name: str, where: str) -> None:
    loop = LOOPS[name]()

    async def broadcast(*messages: dict[str, Any]) -> None:
        for message in messages:
            await layer.group_send("all", message)
        if where == "before the pass":
            asyncio.get_running_loop().stop()

    try:
        stack = AsyncExitStack()
        served = loop.run_until_complete(stack.enter_async_context(serving(Stopping.as_asgi())))
        clients = [loop.run_until_complete(served.open_raw()) for _ in range(100)]
        while layer.stats().waiters < 100:
            loop.run_until_complete(asyncio.sleep(0))
        stops = [{"type": "stopped"}] if where == "in the pass" else []
        for number in range(20):
            messages = [{"type": "plain", "text": f"{number}{part}"} for part in "ab"]
            task = loop.create_task(broadcast(messages[0], *stops, messages[1]))
            # It returns because the loop was stopped.
            loop.run_forever()
            loop.run_until_complete(task)
        texts = [f"{number}{part}".encode() for number in range(20) for part in "ab"]
        for client in clients:
            assert loop.run_until_complete(texts_of(client, len(texts))) == texts
        loop.run_until_complete(stack.aclose())
    finally:
        loop.close()


FORKING = """
import os
from typing import Any

from tests.frames.consumers import Member

from headrace import configure
from headrace.layers import InMemoryChannelLayer

layer = InMemoryChannelLayer()
configure(layers={"default": layer})


class Forking(Member):
    async def receive(self, text_data=None, bytes_data=None):
        # Something waits to be written, to all clients, in the process and in its child.
        await layer.group_send("all", {"type": "plain", "text": f"{text_data} before"})
        child = os.fork()
        if child == 0:
            try:
                layer.group_send_sync("all", {"type": "plain", "text": "of the child"})
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        await layer.group_send("all", {"type": "plain", "text": f"{text_data} behind"})


application = Forking.as_asgi()
"""


@pytest.mark.one_loop
@pytest.mark.parametrize("name", LOOPS)
async def test_the_child_of_a_fork_writes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    options = ["--ws", "headrace.uvicorn:WebSocketProtocol", "--loop", name, "--log-level", "critical"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--fd", str(listening.fileno()), *options, "forking:application"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
            pass_fds=[listening.fileno()],
        )
        try:
            async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
                address = f"ws://127.0.0.1:{listening.getsockname()[1]}/"
                clients = [await stack.enter_async_context(connect(address, open_timeout=SECONDS)) for _ in range(5)]
                for number in range(10):
                    await clients[number % 5].send(str(number))
                    for client in clients:
                        got = [await client.recv() for _ in range(2)]
                        assert got == [f"{number} before", f"{number} behind"]
        finally:
            process.terminate()
            process.wait(SECONDS)
