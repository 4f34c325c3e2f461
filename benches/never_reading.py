"""What does a room of clients that never read cost: the memory of the server, and how late others get their echo?

A server in a process of its own, uvicorn with one room, gets long texts for the room as fast as the layer takes them.
The clients of the room read nothing after the handshake. Beside them one client sends a frame, waits until it comes
back, and sends the next.

Each client of the room may hold, by docs/explanation/security.md: one text in the buffer of the server, and in its
mailbox one text and ``capacity_bytes`` behind it. The mailboxes share one copy of each text.

Python's cyclic garbage collector stops the server while it looks at all that a thousand connections are made of:
``--no-collector`` tells what is late without it.
"""

import argparse
import gc
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benches.compare import server, stubs
from benches.compare.sockets import connect, masked
from headrace import channel_layers
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.typing import Receive, Scope, Send

ROOM, ECHO, CONTROL = "room", "echo", "control"
CAPACITY_BYTES = 1 << 20
# Of the kernel, on either side: what a client does not read is to be in the server's process, where it can be measured.
BUFFER = 4096
# Echoes before the first text, and seconds of them behind the last.
CALM, AFTER = 200, 2.0


class Member(AsyncWebsocketConsumer):
    """Sends its client each message of the room."""

    groups = (ROOM,)

    async def chat_message(self, event: dict[str, str]) -> None:
        """Send a text."""
        await self.send(text_data=event["text"])


class Control(AsyncWebsocketConsumer):
    """Sends the room a text for each frame, and answers."""

    text = ""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send the text."""
        await self.channel_layer.group_send(ROOM, {"type": "chat.message", "text": self.text})
        await self.send(text_data="sent")


def serve(descriptor: int, size: int) -> None:
    """Serve on a listening socket until told to stop by a signal."""
    channel_layers.set("default", InMemoryChannelLayer(capacity_bytes=CAPACITY_BYTES))
    Control.text = "x" * size
    echo = stubs.echo(AsyncWebsocketConsumer)
    consumers = {ROOM: Member.as_asgi(), ECHO: echo.as_asgi(), CONTROL: Control.as_asgi()}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await consumers[scope["path"].strip("/")](scope, receive, send)

    server.run(application, descriptor)


def connected(port: int, path: str, receives: int | None = None) -> socket.socket:
    """Open a WebSocket, with a buffer of so many bytes for what it does not read."""
    client = connect(port, path)
    if receives is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    return client


def answered(client: socket.socket) -> float:
    """Send a frame, and return the seconds until the answer is there."""
    start = time.perf_counter()
    client.sendall(masked("tick"))
    if not client.recv(128):
        raise ConnectionError("the server has closed the connection")
    return time.perf_counter() - start


def memory(process: int, field: str) -> int:
    """Read the size of a process in bytes: ``VmRSS`` is what it has now, ``VmHWM`` the most that it had."""
    lines = Path("/proc", str(process), "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def measure(port: int, clients: int, texts: int, process: int) -> tuple[list[float], list[float], int, int]:
    """Return the seconds of the echoes without texts and beside them, and the size of the server before and at most."""
    with ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(connected(port, ROOM, BUFFER))
        control, echoes = (stack.enter_context(connected(port, path)) for path in (CONTROL, ECHO))
        calm = [answered(echoes) for _ in range(CALM)]
        before = memory(process, "VmRSS")
        beside, end = [], None
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(lambda: [answered(control) for _ in range(texts)])
            while end is None or time.monotonic() < end:
                beside.append(answered(echoes))
                if end is None and sending.done():
                    end = time.monotonic() + AFTER
            sending.result()
        return calm, beside, before, memory(process, "VmHWM")


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benches.never_reading", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of a text")
    parser.add_argument("--no-collector", action="store_true", help="switch the server's garbage collector off")
    parser.add_argument("--serve", type=int, help="serve on the listening socket with this descriptor")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.serve is not None:
        if arguments.no_collector:
            gc.disable()
        serve(arguments.serve, arguments.size)
        return
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        words = [f"--serve={listener.fileno()}", f"--size={arguments.size}"]
        words += ["--no-collector"] if arguments.no_collector else []
        command = [sys.executable, "-m", "benches.never_reading", *words]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            try:
                port = listener.getsockname()[1]
                calm, beside, before, largest = measure(port, arguments.clients, arguments.texts, process.pid)
            finally:
                process.kill()
    bound = arguments.clients * (2 * arguments.size + CAPACITY_BYTES)
    print(f"{arguments.clients} clients that never read, {arguments.texts} texts of {arguments.size} bytes")
    print(f"the server: {before >> 20} MiB before, {(largest - before) >> 20} MiB more at most; {bound >> 20} allowed")
    for when, echoes in (("without texts", calm), ("beside them", beside)):
        times = sorted(echoes)
        print(
            f"echo {when}: median {1e3 * times[len(times) // 2]:.1f} ms, worst {1e3 * times[-1]:.1f} ms of {len(times)}"
        )


if __name__ == "__main__":
    main()
