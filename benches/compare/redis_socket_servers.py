"""What does a broadcast cost each of 50 or 500 socket servers that are subscribed to a topic, and how many connections?

The socket servers of each way are in a process of their own with who broadcasts, because django_sockets' wake up twenty
times a second even when nothing comes, which would be in our time. The processes take turns; each tells its own time.
A burst is as many broadcasts as nobody drops, and is over when every socket has sent all of them to its client.

Changed by the answer: a good fifth of a delivery of ours, which hands on a text that is there, was an asyncio.Lock.
headrace._sockets.turns has taken its place.
"""

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import IO

from tests.support.servers import Server

from benches.compare.redis_sends import processor
from benches.compare.redis_socket_member import EVERYBODY
from benches.compare.redis_socket_ways import DJANGO_SOCKETS, HEADRACE, IN_PROCESS, WAYS
from benches.compare.rounds import Rounds
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

BURST = 20
# Bursts, and broadcasts in each.
TOGETHER, APART = (1, BURST), (BURST, 1)
# As many times that much are a slice: theirs takes as long as a dozen of ours, which would spend it on warming caches.
SLICES = {HEADRACE: 5, IN_PROCESS: 5, DJANGO_SOCKETS: 1}


@dataclass
class Crowd:
    """A process with socket servers, at the other end of two pipes.

    Attributes:
        connections: How many it has to the server, when the first broadcast has come.
        lost: Deliveries that never came.
    """

    out: IO[str]
    into: IO[str]
    connections: int = 0
    lost: int = 0

    def said(self) -> dict[str, int]:
        """Read what it says next.

        Raises:
            RuntimeError: It has ended.
        """
        line = self.out.readline()
        if not line:
            raise RuntimeError("a process with socket servers has ended; its own words went to the terminal")
        said: dict[str, int] = json.loads(line)
        return said

    def told(self, *words: object) -> dict[str, int]:
        """Tell it something, and read what it says to it."""
        print(*words, file=self.into, flush=True)
        return self.said()

    def bursts(self, bursts: int, broadcasts: int) -> tuple[int, int]:
        """Have it broadcast, and return what that took: on the clock, and on all processors."""
        said = self.told(bursts, broadcasts)
        self.lost = said["lost"]
        return said["wall"], said["cpu"]


@contextmanager
def crowd(way: str, server: Server, sockets: int, loop: str) -> Iterator[Crowd]:
    """Start a process with so many socket servers; when the context begins, they have got a broadcast."""
    before = len(server.clients())
    command = [sys.executable, "-m", "benches.compare.redis_socket_member", way, server.url, str(sockets), loop]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    try:
        here = Crowd(process.stdout, process.stdin)
        here.said()
        here.bursts(*APART)
        here.connections = len(server.clients()) - before
        yield here
    finally:
        process.kill()
        process.wait()


def take_turns(crowds: dict[str, Crowd], kind: tuple[int, int], sockets: int, rounds: int) -> Rounds:
    """Let all ways take turns; the times are for each delivery."""
    times, order = Rounds(crowds), random.Random(rounds)
    for turn in range(-1, rounds):
        for way in order.sample(list(crowds), len(crowds)):
            bursts, broadcasts = kind[0] * SLICES[way], kind[1]
            wall, cpu = crowds[way].bursts(bursts, broadcasts)
            if turn >= 0:
                deliveries = bursts * broadcasts * sockets
                times.times[way].wall.append(wall / deliveries)
                times.times[way].cpu.append(cpu / deliveries)
    return times


def rates(rounds: Rounds, way: str, crowds: dict[str, Crowd]) -> str:
    """Say how many deliveries a second that is, and whether any were lost."""
    note = f"{1e9 / rounds.median(way):,.0f} a second, against {1e9 / rounds.median(DJANGO_SOCKETS):,.0f}"
    lost = [crowds[each].lost for each in (way, DJANGO_SOCKETS)]
    return f"{note}; {lost[0]:,} lost, against {lost[1]:,}" if any(lost) else note


def deliveries(crowds: dict[str, Crowd], sockets: int, loop: str, rounds: int) -> Iterator[Row]:
    """Compare broadcasts to all sockets, twenty in a row and one by one."""
    case = f"Redis, {sockets} socket servers on a topic, each delivery"
    together = take_turns(crowds, TOGETHER, sockets, rounds)
    yield together.row(case, loop, HEADRACE, DJANGO_SOCKETS, 1 / 10, rates(together, HEADRACE, crowds))
    yield processor(f"{case}, processor time", loop, together, DJANGO_SOCKETS)
    yield together.row(
        f"{case}, in process", loop, IN_PROCESS, DJANGO_SOCKETS, note=rates(together, IN_PROCESS, crowds)
    )
    apart = take_turns(crowds, APART, sockets, rounds)
    note = f"{BURST} at a time above, here one, and the next when all have it"
    yield apart.row(f"{case}, broadcasts one by one", loop, HEADRACE, DJANGO_SOCKETS, note=note)


def connections(crowds: dict[str, Crowd], server: Server, sockets: int, loop: str, limit: int) -> Iterator[Row]:
    """Compare how many connections the server has from a process."""
    case = f"Redis, connections of a process with {sockets} socket servers"
    ours, theirs = crowds[HEADRACE].connections, crowds[DJANGO_SOCKETS].connections
    one = Row(case, loop, Spread.exactly(ours), "connections", DJANGO_SOCKETS, theirs, limit=limit)
    yield one
    for way in (HEADRACE, DJANGO_SOCKETS):
        before = len(server.clients())
        crowds[way].told(EVERYBODY)
        crowds[way].connections += len(server.clients()) - before
    ours, theirs = crowds[HEADRACE].connections, crowds[DJANGO_SOCKETS].connections
    yield replace(one, case=f"{case} that broadcast too", ours=Spread.exactly(ours), theirs=theirs)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure few and many socket servers."""
    limit = 0
    with Server() as server:
        for sockets in scale.socket_servers:
            with ExitStack() as stack:
                crowds = {way: stack.enter_context(crowd(way, server, sockets, loop)) for way in WAYS}
                for line in deliveries(crowds, sockets, loop, scale.slow_rounds):
                    yield line
                # However many sockets there are: no more than the few have.
                limit = limit or crowds[HEADRACE].connections
                for line in connections(crowds, server, sockets, loop, limit):
                    yield line
