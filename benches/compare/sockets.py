"""What does a text to hundreds of WebSockets cost the server, beside an application that does no more than send it?

The processor time of the server's process for each message that its clients have got: kernel, server, layer and
consumer. The clients are sockets of this process, on another processor, and read as little as they can.

Shown by the answer: more than half of what stands above the loop is the waking of a task for each connection, and not
the consumer. With ready-made frames what is left is little more than the system's work for each socket.

Beside it other servers, each in a process of its own and in the same rounds, where they are installed; and what it
costs to answer a client.
"""

import os
import random
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from tests.support.ports import HOST, Port

from benches.compare.others import ALL, BROADCAST, OTHERS, Other
from benches.compare.rounds import Rounds
from benches.compare.rows import Row
from benches.compare.scale import Scale
from benches.compare.server import (
    CHANNELS,
    CLOCK,
    CONSUMER_ECHO,
    CONTROL,
    ECHO,
    FORWARD,
    FRAMES_ECHO,
    FRAMES_FORWARD,
    FRAMES_HANDLER,
    HANDLER,
    PLAIN,
)

WAYS = (PLAIN, HANDLER, FORWARD, FRAMES_HANDLER, FRAMES_FORWARD, CHANNELS)
FRAMED = (PLAIN, FRAMES_HANDLER, FRAMES_FORWARD)
ECHOES = (ECHO, CONSUMER_ECHO, FRAMES_ECHO)
NAMES = {
    PLAIN: "a loop that awaits each send",
    CHANNELS: "Channels",
    FRAMES_HANDLER: "handler, headrace.uvicorn",
    FRAMES_FORWARD: "forward, headrace.uvicorn",
    ECHO: "an echo that awaits each send",
    CONSUMER_ECHO: "echo of a consumer",
    FRAMES_ECHO: "echo of a consumer, headrace.uvicorn",
}
DELIVERIES = 2400
"""So many are a slice; one broadcast of Channels takes as long as a dozen of the others."""
MOST_CLIENTS = 15_000
"""The clients of all ways: the server and this process have a descriptor for each."""
FORWARD_LIMITS = {"asyncio": 0.6, "uvloop": 0.5}
"""What a message that is forwarded may cost, beside a loop that awaits each send."""
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
        others: Other servers.
    """

    clients: int
    loop: str = "uvloop"
    size: int = 100
    deflate: bool = False
    ways: tuple[str, ...] = WAYS
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f"{self.size} B" if self.size < 1024 else f"{self.size // 1024} KiB"
        apart = [size] if self.size != 100 else []
        apart += ["deflate"] if self.deflate else []
        return ", ".join([f"uvicorn, {self.clients:,} clients", *apart])

    def broadcasts(self, way: str) -> int:
        """Tell how many broadcasts a slice is."""
        return 1 if way == CHANNELS else max(1, DELIVERIES // self.clients)


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

    def say(self, word: str) -> None:
        """Send a word from each."""
        frame = masked(word)
        for client in self._sockets:
            client.sendall(frame)

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


@contextmanager
def serving_other(other: Other, for_server: int, case: Case) -> Iterator[int]:
    """Run another server; tell the port."""
    port = Port()
    options = [str(port.number), str(for_server), case.loop, str(case.size), *(["--deflate"] if case.deflate else [])]
    process = subprocess.Popen(
        [*other.command, *options], env={**os.environ, **(other.environment or {})}, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(ConnectionRefusedError):
                socket.create_connection((HOST, port.number)).close()
                break
            time.sleep(0.01)
        yield port.number
    finally:
        # Not killed: a server may have a process of its own for its clients.
        process.terminate()
        process.wait()
        port.release()


@dataclass(frozen=True)
class Way:
    """One way to send, which is measured.

    Attributes:
        control: The connection by which its server is told what to do.
        clients: Those that are sent to.
        word: What its server is told.
        broadcasts: How many broadcasts are a slice.
        number: How many clients there are.
    """

    control: Control
    clients: Clients
    word: str
    broadcasts: int
    number: int

    def slice(self) -> float:
        """Broadcast some times; return what the server took for each message, without what it takes to be told to."""
        first = self.control.clock()
        start = self.control.clock()
        for _ in range(self.broadcasts):
            if self.word in ECHOES:
                self.clients.say("x" * 100)
            else:
                self.control.say(self.word)
            self.clients.read(self.number)
        end = self.control.clock()
        told = 1 if self.word in ECHOES else self.broadcasts + 1
        return (end - start - (start - first) * told) / (self.broadcasts * self.number)


def ways_of(case: Case, stack: ExitStack) -> dict[str, Way]:
    """Start the servers of a case, and connect the clients of all ways."""
    for_server, for_clients = processors()
    sleepless, ways = for_server != for_clients, {}
    port = stack.enter_context(serving(for_server, for_clients, case))
    control = Control(port)
    stack.callback(control.close)
    for name in case.ways:
        clients = Clients(port, name, case.clients, sleepless=sleepless, deflate=case.deflate)
        stack.callback(clients.close)
        ways[name] = Way(control, clients, name, case.broadcasts(name), case.clients)
    for name in case.others:
        port = stack.enter_context(serving_other(OTHERS[name], for_server, case))
        clients = Clients(port, ALL, case.clients, sleepless=sleepless, deflate=case.deflate)
        stack.callback(clients.close)
        control = Control(port)
        stack.callback(control.close)
        ways[name] = Way(control, clients, BROADCAST, case.broadcasts(name), case.clients)
    return ways


def alternate(ways: dict[str, Way], rounds: int) -> Rounds:
    """Let all ways take turns; the times are the servers' for each message."""
    times, order = Rounds(ways), random.Random(rounds)
    for turn in range(-1, rounds):
        for name in order.sample(list(ways), len(ways)):
            spent = ways[name].slice()
            if turn >= 0:
                times.times[name].wall.append(spent)
    return times


def compare(case: Case, rounds: int) -> Rounds:
    """Measure all ways of a case."""
    with ExitStack() as stack:
        return alternate(ways_of(case, stack), rounds)


def others_for(case: Case) -> tuple[str, ...]:
    """Name the other servers that take part in a case, and say why one does not."""
    taken = []
    for name, other in OTHERS.items():
        if case.deflate and not other.deflate:
            continue
        if (lack := other.lacks()) is None:
            taken.append(name)
        else:
            print(f"{case}: {name} is left out: {lack}", file=sys.stderr)
    return tuple(taken)


def row(case: Case, rounds: Rounds, *, way: str, versus: str, limit: float | None = None) -> Row:
    """Make the row of one way against another."""
    return Row(
        f"{case}, {NAMES.get(way, way)}",
        case.loop,
        rounds.spread(way),
        versus=NAMES.get(versus, versus),
        theirs=rounds.median(versus),
        ratio=rounds.ratio(way, versus),
        limit=limit,
    )


def few(case: Case, rounds: int) -> Iterator[Row]:
    """Compare all ways, and the other servers."""
    if case.size == 100:
        case = replace(case, others=others_for(case))
    times, is_usual = compare(case, rounds), case.size == 100 and not case.deflate
    limits: dict[str, float] = {}
    if is_usual:
        limits = {HANDLER: 1.35, FORWARD: 1.2, FRAMES_HANDLER: 1.0, FRAMES_FORWARD: FORWARD_LIMITS[case.loop]}
    elif case.deflate and case.size == 100:
        limits = {FRAMES_FORWARD: 0.35}
    for versus in (PLAIN, CHANNELS):
        for way in WAYS:
            if way not in (PLAIN, CHANNELS):
                yield row(case, times, way=way, versus=versus, limit=limits.get(way) if versus == PLAIN else None)
    for name in case.others:
        limit = 1.0 if is_usual and name in ("picows", "Node's ws") else None
        yield row(case, times, way=FRAMES_FORWARD, versus=name, limit=limit)


def many(case: Case, rounds: int) -> Iterator[Row]:
    """Compare with as many clients as there are descriptors for."""
    if case.clients * len(WAYS) <= MOST_CLIENTS:
        times = compare(case, rounds)
        yield from (row(case, times, way=way, versus=PLAIN) for way in (HANDLER, FORWARD))
    else:
        times = compare(replace(case, ways=FRAMED), rounds)
    yield from (row(case, times, way=way, versus=PLAIN) for way in (FRAMES_HANDLER, FRAMES_FORWARD))
    if CHANNELS in times.times:
        yield row(case, times, way=FRAMES_FORWARD, versus=CHANNELS)
    else:
        print(f"{case}: Channels is left out: a broadcast to so many takes it longer than {SECONDS} s", file=sys.stderr)


def growth(loop: str, numbers: tuple[int, ...], rounds: int) -> Row:
    """Compare what a message costs with many clients and with few, in two processes."""
    with ExitStack() as stack:
        ways = {
            str(number): ways_of(Case(number, loop, ways=(FRAMES_FORWARD,)), stack)[FRAMES_FORWARD]
            for number in numbers
        }
        times = alternate(ways, rounds)
    one, other = map(str, numbers)
    return Row(
        f"uvicorn, {numbers[1]:,} clients beside {numbers[0]:,}, {NAMES[FRAMES_FORWARD]}",
        loop,
        times.spread(other),
        versus=f"{numbers[0]:,} clients",
        theirs=times.median(one),
        ratio=times.ratio(other, one),
        limit=1.2,
    )


def echoes(case: Case, rounds: int) -> Iterator[Row]:
    """Compare what it costs to answer a client."""
    times = compare(replace(case, ways=ECHOES), rounds)
    yield row(case, times, way=CONSUMER_ECHO, versus=ECHO)
    yield row(case, times, way=FRAMES_ECHO, versus=ECHO)
    yield row(case, times, way=FRAMES_ECHO, versus=CONSUMER_ECHO, limit=1.0)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare over sockets."""
    if loop not in FORWARD_LIMITS:
        return
    fewest = scale.clients[0]
    for number in scale.clients:
        # As many deliveries of each way, however many clients there are.
        rounds = max(2, scale.socket_rounds * fewest // number)
        for deflate in (False, True):
            # To compress takes so long that the whole would take twice the time.
            turns = max(2, rounds // 3) if deflate else rounds
            for size in (100, 4096):
                case = Case(number, loop, size, deflate)
                for each in few(case, turns) if number == fewest else many(case, turns):
                    yield each
    yield growth(loop, (fewest, scale.clients[-1]), max(2, scale.socket_rounds * fewest // scale.clients[-1]))
    for each in echoes(Case(fewest, loop), scale.socket_rounds):
        yield each
