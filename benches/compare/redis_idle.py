"""What does a process pay for members of a group over Redis that get nothing: bytes for each, and processor time?

Each reading has a process of its own: ``python -m benches.compare.redis_idle WAY MEMBERS LOOP URL SECONDS``. As in
`memory.py`, what counts is the resident size, and the same tasks on bare futures are taken off. The processor time is
that of a second in which nothing is sent, all threads: channels_redis.pubsub looks for messages ten times in it, ours
asks the server once whether it is there. It is taken over more than five seconds, because that is how long
channels_redis.core waits for a message before it asks again; what its receivers are told meanwhile is counted.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.support.servers import Server

from benches.compare.fanout import Arrivals
from benches.compare.loops import LOOPS
from benches.compare.memory import report, resident
from benches.compare.redis_ways import CORE, HEADRACE, PUBSUB, Failures, Room, join, layer_of
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

FUTURES = "futures"
# Time for what was begun to settle.
SETTLE = 0.3
PAGE = resource.getpagesize()


async def idle(way: str, members: int, url: str, seconds: float) -> None:
    """Report the bytes that a member takes, and the processor time of a second with all of them."""
    tasks: list[asyncio.Task[None]] = []
    if way == FUTURES:
        loop = asyncio.get_running_loop()

        async def wait() -> None:
            await loop.create_future()

        before = resident()
        tasks.extend(asyncio.create_task(wait()) for _ in range(members))
        await asyncio.sleep(0)
        report(bytes=(resident() - before) / members)
    async with layer_of(way, url) as layer:
        # One that is there already has opened whatever connections there are.
        here = Room(layer, Arrivals(), Failures())
        tasks.extend(map(asyncio.create_task, await join(layer, 1, here)))
        await asyncio.sleep(SETTLE)
        before = resident()
        tasks.extend(map(asyncio.create_task, await join(layer, members, here)))
        await asyncio.sleep(SETTLE)
        after, start = resident(), time.process_time_ns()
        await asyncio.sleep(seconds)
        spent = (time.process_time_ns() - start) / seconds
        report(bytes=(after - before) / members, ns=spent, told=here.failures.note)


def fresh(way: str, members: int, loop: str, url: str, seconds: float) -> dict[str, Any]:
    """Take a reading in a process of its own."""
    command = [sys.executable, "-m", "benches.compare.redis_idle", way, str(members), loop, url, str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    reading: dict[str, Any] = json.loads(done.stdout)
    return reading


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure members that wait."""
    members = scale.consumers
    with Server() as server:
        ways = (FUTURES, HEADRACE, PUBSUB, CORE)
        readings = {way: fresh(way, members, loop, server.url, scale.redis_idle) for way in ways}
    bare, ours = readings[FUTURES]["bytes"], readings[HEADRACE]
    for versus in (PUBSUB, CORE):
        # Less than a page for all of them cannot be told.
        mine, theirs = (max(reading["bytes"] - bare, PAGE / members) for reading in (ours, readings[versus]))
        case, note = "Redis, idle member of a group", f"{members:,} of them; the task and its future apart"
        ratio = Spread.exactly(mine / theirs)
        yield Row(case, loop, Spread.exactly(mine), "bytes", versus, theirs, ratio, note=note)
    for versus in (PUBSUB, CORE):
        case, theirs = f"Redis, a second of {members:,} idle members, processor time", readings[versus]["ns"]
        ratio = Spread.exactly(ours["ns"] / theirs)
        told = readings[versus]["told"]
        note = f"in {scale.redis_idle:g} s {told}" if told else ""
        yield Row(case, loop, Spread.exactly(ours["ns"]), "ns", versus, theirs, ratio, note=note)


def main() -> None:
    """Take one reading and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=(FUTURES, HEADRACE, PUBSUB, CORE))
    parser.add_argument("members", type=int)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(idle(arguments.way, arguments.members, arguments.url, arguments.seconds))


if __name__ == "__main__":
    main()
