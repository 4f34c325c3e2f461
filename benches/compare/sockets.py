"""What does a text to hundreds of WebSockets cost the server, beside an application that does no more than send it?

The processor time of the server's process for each message that its clients have got: kernel, server, layer and
consumer. The clients are sockets of this process, on another processor, and read as little as they can.

Shown by the answer: more than half of what stands above the loop is the waking of a task for each connection, and not
the consumer. With ready-made frames what is left is little more than the system's work for each socket.
"""

import os
import random
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benches.compare.rounds import Rounds
from benches.compare.rows import Row
from benches.compare.scale import Scale
from benches.compare.server import (
    CHANNELS,
    CLOCK,
    CONTROL,
    FORWARD,
    FRAMES_FORWARD,
    FRAMES_HANDLER,
    HANDLER,
    PLAIN,
)

# So many broadcasts of each way are a slice; one of Channels takes as long as a dozen of the others.
BROADCASTS = {PLAIN: 8, HANDLER: 8, FORWARD: 8, FRAMES_HANDLER: 8, FRAMES_FORWARD: 8, CHANNELS: 1}
NAMES = {
    PLAIN: "a loop that awaits each send",
    CHANNELS: "Channels",
    FRAMES_HANDLER: "handler, headrace.uvicorn",
    FRAMES_FORWARD: "forward, headrace.uvicorn",
}
SECONDS = 30
# As Chromium asks for compression.
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        clients: How many there are of each way.
        loop: The event loop of the server.
        size: The bytes of a text.
        deflate: Whether the clients ask for compression, as browsers do.
        ways: The ways to send.
    """

    clients: int
    loop: str = "uvloop"
    size: int = 100
    deflate: bool = False
    ways: tuple[str, ...] = tuple(BROADCASTS)

    def __str__(self) -> str:
        size = f"{self.size} B" if self.size < 1024 else f"{self.size // 1024} KiB"
        apart = [size] if self.size != 100 else []
        apart += ["deflate"] if self.deflate else []
        return ", ".join([f"uvicorn, {self.clients} clients", *apart])


class Stream:
    """Counts the frames in what one client reads: of compressed ones nobody knows the length before."""

    def __init__(self) -> None:
        self._head = b""
        # Bytes of the payload that are still to come.
        self._left = 0

    def count(self, data: memoryview) -> int:
        """Count the frames that end in what has been read."""
        frames = 0
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                frames += self._left == 0
                continue
            self._head += bytes(data[:1])
            data = data[1:]
            if len(self._head) >= 2 and len(self._head) == (length := {126: 4, 127: 10}.get(self._head[1], 2)):
                self._left = self._head[1] if length == 2 else int.from_bytes(self._head[2:])
                self._head = b""
                frames += self._left == 0
        return frames


class Clients:
    """Connected WebSockets that read whatever comes.

    Those on a processor of their own never sleep: to wake them would be work of the server's, the more of it the slower
    the server is, and with clients on other machines it is not there.
    """

    def __init__(self, port: int, path: str, number: int, *, sleepless: bool, deflate: bool = False) -> None:
        self._wait = 0 if sleepless else SECONDS
        self._sockets = [connect(port, path, deflate=deflate) for _ in range(number)]
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(65536)
        for client in self._sockets:
            self._selector.register(client, selectors.EVENT_READ, Stream())

    def read(self, frames: int) -> None:
        """Read so many frames, whichever clients they are for.

        Raises:
            TimeoutError: They do not come.
        """
        buffer, deadline = memoryview(self._buffer), time.monotonic() + SECONDS
        while frames > 0:
            ready = self._selector.select(self._wait)
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(f"the clients still lack {frames} frames")
            for key, _ in ready:
                size = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]  # a socket
                frames -= key.data.count(buffer[:size])

    def close(self) -> None:
        """Go without a word."""
        self._selector.close()
        for client in self._sockets:
            client.close()


class Control:
    """The connection by which the server is told what to do."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port, CONTROL)

    def say(self, word: str) -> None:
        """Send a word."""
        self._socket.sendall(masked(word))

    def clock(self) -> int:
        """Ask for the server's processor time, in nanoseconds."""
        return self.ask(CLOCK)

    def ask(self, word: str) -> int:
        """Send a word that is answered with a number."""
        self.say(word)
        frame = self._socket.recv(128)
        return int(frame[2:])

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()


def masked(word: str) -> bytes:
    """Make the frame of a short text, masked by zeros, as a client must mask."""
    payload = word.encode()
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def connect(port: int, path: str, *, deflate: bool = False) -> socket.socket:
    """Open a WebSocket; when this returns the application has accepted it.

    Raises:
        ConnectionError: The server refused.
    """
    client = socket.create_connection(("127.0.0.1", port), SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    client.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"{DEFLATE if deflate else ''}\r\n".encode()
    )
    # Nobody sends more before all have come, so what is read ends with the head of the response.
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = client.recv(4096)
        if not part:
            break
        head += part
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"no WebSocket at /{path}: {head[:80]!r}")
    return client


def processors() -> tuple[int, int]:
    """Choose a processor for the server and one for the clients: the same if there is only one."""
    if not hasattr(os, "sched_getaffinity"):
        return 0, 0
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


@contextmanager
def serving(for_server: int, for_clients: int, case: Case) -> Iterator[int]:
    """Run the server on one processor and put this process on the other; tell the port."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {for_clients})
    # The protocol is named: asyncio and uvloop turn Nagle's algorithm off only on sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port, descriptor = listener.getsockname()[1], listener.fileno()
    options = [str(descriptor), str(for_server), case.loop, str(case.size), *(["--deflate"] if case.deflate else [])]
    command = [sys.executable, "-m", "benches.compare.server", *options]
    with listener:
        process = subprocess.Popen(command, pass_fds=[descriptor], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def compare(case: Case, rounds: int) -> Rounds:
    """Let all ways take turns; the times are the server's for each message."""
    times, order = Rounds(case.ways), random.Random(rounds)
    for_server, for_clients = processors()
    with serving(for_server, for_clients, case) as port, ExitStack() as stack:
        groups = {}
        for name in case.ways:
            alone = for_server != for_clients
            groups[name] = Clients(port, name, case.clients, sleepless=alone, deflate=case.deflate)
            stack.callback(groups[name].close)
        control = Control(port)
        stack.callback(control.close)
        for turn in range(-1, rounds):
            for name in order.sample(list(case.ways), len(case.ways)):
                spent = slice_of(control, name, groups[name], case.clients) / (BROADCASTS[name] * case.clients)
                if turn >= 0:
                    times.times[name].wall.append(spent)
    return times


def slice_of(control: Control, name: str, clients: Clients, frames: int) -> int:
    """Broadcast some times; return what the server took for it, without what it takes to be told to."""
    first = control.clock()
    start = control.clock()
    for _ in range(BROADCASTS[name]):
        control.say(name)
        clients.read(frames)
    end = control.clock()
    return end - start - (start - first) * (BROADCASTS[name] + 1)


def row(case: Case, rounds: Rounds, *, way: str, versus: str, limit: float | None = None) -> Row:
    """Make the row of one way against another."""
    return Row(
        f"{case}, {NAMES.get(way, way)}",
        case.loop,
        rounds.spread(way),
        versus=NAMES[versus],
        theirs=rounds.median(versus),
        ratio=rounds.ratio(way, versus),
        limit=limit,
    )


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare over sockets."""
    framed = (PLAIN, FRAMES_HANDLER, FRAMES_FORWARD)
    if loop not in ("asyncio", "uvloop"):
        return
    usual = Case(scale.clients, loop)
    rounds = compare(usual, scale.socket_rounds)
    limits = {HANDLER: 1.35, FORWARD: 1.2, FRAMES_HANDLER: 1.0, FRAMES_FORWARD: 0.5 if loop == "uvloop" else 0.6}
    for way, limit in limits.items():
        yield row(usual, rounds, way=way, versus=PLAIN, limit=limit)
    for way in limits:
        yield row(usual, rounds, way=way, versus=CHANNELS)
    for case, most in (
        (Case(scale.clients, loop, 4096, ways=framed), None),
        (Case(scale.clients, loop, deflate=True, ways=framed), 0.35),
        (Case(scale.clients, loop, 4096, deflate=True, ways=framed), None),
        (Case(scale.many_clients, loop, ways=framed), None),
    ):
        rounds = compare(case, scale.socket_rounds)
        yield row(case, rounds, way=FRAMES_HANDLER, versus=PLAIN)
        yield row(case, rounds, way=FRAMES_FORWARD, versus=PLAIN, limit=most)
