"""What does a text to hundreds of WebSockets cost the server, beside an application that does no more than send it?

The processor time of the server's process for each message that its clients have got: kernel, server, layer and
consumer. The clients are sockets of this process, on another processor, and read as little as they can.

Shown by the answer: more than half of what stands above the loop is the waking of a task for each connection, and not
the consumer.
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

from benches.compare.rounds import Rounds
from benches.compare.rows import Row
from benches.compare.scale import Scale
from benches.compare.server import CHANNELS, CLOCK, CONTROL, FORWARD, HANDLER, PLAIN, TEXT

# So many broadcasts of each way are a slice; one of Channels takes as long as a dozen of the others.
BROADCASTS = {PLAIN: 8, HANDLER: 8, FORWARD: 8, CHANNELS: 1}
NAMES = {PLAIN: "a loop that awaits each send", CHANNELS: "Channels"}
# Its head and the text, as the server sends it: one frame, not masked.
FRAME = 2 + len(TEXT)
SECONDS = 30


class Clients:
    """Connected WebSockets that read whatever comes.

    Those on a processor of their own never sleep: to wake them would be work of the server's, the more of it the slower
    the server is, and with clients on other machines it is not there.
    """

    def __init__(self, port: int, path: str, number: int, *, sleepless: bool) -> None:
        self._wait = 0 if sleepless else SECONDS
        self._sockets = [connect(port, path) for _ in range(number)]
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(65536)
        for client in self._sockets:
            self._selector.register(client, selectors.EVENT_READ)

    def read(self, size: int) -> None:
        """Read so many bytes, whichever clients they are for.

        Raises:
            TimeoutError: They do not come.
        """
        buffer, deadline = self._buffer, time.monotonic() + SECONDS
        while size > 0:
            ready = self._selector.select(self._wait)
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(f"the clients still lack {size} bytes")
            for key, _ in ready:
                size -= key.fileobj.recv_into(buffer)  # type: ignore[union-attr]  # a socket

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
        self.say(CLOCK)
        frame = self._socket.recv(128)
        return int(frame[2:])

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()


def masked(word: str) -> bytes:
    """Make the frame of a short text, masked by zeros, as a client must mask."""
    payload = word.encode()
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def connect(port: int, path: str) -> socket.socket:
    """Open a WebSocket; when this returns the application has accepted it.

    Raises:
        ConnectionError: The server refused.
    """
    client = socket.create_connection(("127.0.0.1", port), SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    client.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
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
def serving(for_server: int, for_clients: int) -> Iterator[int]:
    """Run the server on one processor and put this process on the other; tell the port."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {for_clients})
    # The protocol is named: asyncio and uvloop turn Nagle's algorithm off only on sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port, descriptor = listener.getsockname()[1], listener.fileno()
    command = [sys.executable, "-m", "benches.compare.server", str(descriptor), str(for_server)]
    with listener:
        process = subprocess.Popen(command, pass_fds=[descriptor], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def compare(clients: int, rounds: int) -> Rounds:
    """Let all ways take turns; the times are the server's for each message."""
    times, order = Rounds(BROADCASTS), random.Random(rounds)
    for_server, for_clients = processors()
    with serving(for_server, for_clients) as port, ExitStack() as stack:
        groups = {}
        for name in BROADCASTS:
            groups[name] = Clients(port, name, clients, sleepless=for_server != for_clients)
            stack.callback(groups[name].close)
        control = Control(port)
        stack.callback(control.close)
        for turn in range(-1, rounds):
            for name in order.sample(list(BROADCASTS), len(BROADCASTS)):
                spent = slice_of(control, name, groups[name], clients * FRAME) / (BROADCASTS[name] * clients)
                if turn >= 0:
                    times.times[name].wall.append(spent)
    return times


def slice_of(control: Control, name: str, clients: Clients, size: int) -> int:
    """Broadcast some times; return what the server took for it, without what it takes to be told to."""
    first = control.clock()
    start = control.clock()
    for _ in range(BROADCASTS[name]):
        control.say(name)
        clients.read(size)
    end = control.clock()
    return end - start - (start - first) * (BROADCASTS[name] + 1)


def row(loop: str, rounds: Rounds, clients: int, *, way: str, versus: str, limit: float | None = None) -> Row:
    """Make the row of one way against another."""
    return Row(
        f"uvicorn, {clients} clients, {way}",
        loop,
        rounds.spread(way),
        versus=NAMES[versus],
        theirs=rounds.median(versus),
        ratio=rounds.ratio(way, versus),
        limit=limit,
    )


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare over sockets; once, because the loop is the server's."""
    if loop != "uvloop":
        return
    rounds = compare(scale.clients, scale.socket_rounds)
    for way, limit in ((HANDLER, 1.35), (FORWARD, 1.2)):
        yield row(loop, rounds, scale.clients, way=way, versus=PLAIN, limit=limit)
    for way in (HANDLER, FORWARD):
        yield row(loop, rounds, scale.clients, way=way, versus=CHANNELS)
