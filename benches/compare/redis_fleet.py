"""How many messages a second do four processes with a thousand members each get, and how many could be published?

This process sends, so that there are five. A slice is a burst that mailboxes have room for, timed until every member in
every process has it. The processes of both layers are there all the time, and those whose turn it is not, wait.

The server's limit is what redis-benchmark gets from it with PUBLISH, the same bytes, pipelined, and nobody subscribed.
"""

import asyncio
import csv
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import msgpack
from tests.support.servers import Server

from benches.compare.redis_ways import GROUP, HEADRACE, PUBSUB, layer_of
from benches.compare.rounds import MESSAGE, Variant, alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

BURST = 50
# What a message of ours has around it on the wire.
ENVELOPE = 27
SECONDS = 60


class Members:
    """A process with members, at the other end of two pipes."""

    def __init__(self, out: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
        self._out, self._into = out, into
        self.lost = 0

    async def said(self) -> str:
        """Read what it says next.

        Raises:
            RuntimeError: It has ended.
            TimeoutError: It says nothing.
        """
        async with asyncio.timeout(SECONDS):
            line = await self._out.readline()
        if not line:
            raise RuntimeError("a process with members has ended; its own words went to the terminal")
        return line.decode()

    async def expect(self, messages: int) -> None:
        """Tell it how many messages will come."""
        self._into.write(b"%d\n" % messages)
        await self.said()

    async def done(self) -> None:
        """Wait until it has them, or has given them up."""
        self.lost = int(await self.said())


@asynccontextmanager
async def members(way: str, url: str, number: int, loop: str) -> AsyncIterator[Members]:
    """Start a process with so many members; it says when it has them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benches.compare.redis_member", way, url, str(number), loop),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    here = Members(process.stdout, process.stdin)
    try:
        yield here
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def fleet(way: str, url: str, scale: Scale, loop: str) -> AsyncIterator[tuple[Variant, list[Members]]]:
    """Have processes with members, and a layer here that sends to them."""
    async with AsyncExitStack() as stack:
        layer = await stack.enter_async_context(layer_of(way, url))
        starting = [members(way, url, scale.redis_members, loop) for _ in range(scale.redis_processes)]
        processes = [await stack.enter_async_context(each) for each in starting]
        for process in processes:
            await process.said()
        messages = BURST * scale.redis_members

        async def run() -> None:
            for process in processes:
                await process.expect(messages)
            for _ in range(BURST):
                await layer.group_send(GROUP, MESSAGE)
            for process in processes:
                await process.done()

        yield Variant(way, run, messages * len(processes)), processes


def ceiling(port: int, publishes: int) -> Spread | None:
    """Ask redis-benchmark how long a PUBLISH takes the server, in nanoseconds; None where there is no such program."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return None
    payload = "x" * (ENVELOPE + len(msgpack.packb(MESSAGE)))
    command = [program, "-p", str(port), "-n", str(publishes), "-P", "16", "--csv", "PUBLISH", "ceiling", payload]
    done = [subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS) for _ in range(3)]
    return Spread.of([1e9 / float(next(csv.reader(each.stdout.splitlines()[-1:]))[1]) for each in done])


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure bursts to all processes, and the server alone."""
    case = f"Redis, {scale.redis_processes} processes of {scale.redis_members:,} members, each delivery"
    with Server() as server:
        async with AsyncExitStack() as stack:
            fleets = {
                way: await stack.enter_async_context(fleet(way, server.url, scale, loop)) for way in (HEADRACE, PUBSUB)
            }
            rounds = await alternate(scale.slow_rounds, *(nullcontext(variant) for variant, _ in fleets.values()))
            lost = {way: sum(each.lost for each in processes) for way, (_, processes) in fleets.items()}
        rates = [f"{1e9 / rounds.median(way):,.0f}" for way in (HEADRACE, PUBSUB)]
        note = f"{rates[0]} a second, against {rates[1]}"
        if any(lost.values()):
            note += f"; {lost[HEADRACE]:,} lost, against {lost[PUBSUB]:,}"
        yield rounds.row(case, loop, HEADRACE, PUBSUB, note=note)
        limit = ceiling(server.port, scale.flood)
        if limit is not None:
            ratio = Spread.exactly(rounds.median(HEADRACE) / limit.median)
            everybody = scale.redis_processes * scale.redis_members
            sends = 1e9 / (rounds.median(HEADRACE) * everybody)
            note = f"the server takes {1e9 / limit.median:,.0f} a second; ours are {sends:,.0f} group_sends a second"
            versus = "redis-benchmark's PUBLISH"
            yield Row(case, loop, rounds.spread(HEADRACE), "ns", versus, limit.median, ratio, note=note)
