"""What does a process pay for socket servers that are subscribed to a topic and get nothing: bytes, processor time?

As in `redis_idle.py` each reading has a process of its own, ``python -m benches.compare.redis_idle_sockets WAY SOCKETS
LOOP URL SECONDS``, and what counts is the resident size. What is taken off is what `memory.py` takes off for consumers:
an application that accepts its client and waits for it, with its task, its queue and its scope.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator

from tests.support.servers import Server

from benches.compare import memory
from benches.compare.loops import LOOPS
from benches.compare.redis_idle import SETTLE
from benches.compare.redis_socket_ways import DJANGO_SOCKETS, HEADRACE, IN_PROCESS, WAYS, Crowd, open_files
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale

# Those that are there before the first reading have opened and started what all of them share.
EARLY = 20
# The resident size counts in pages, which fewer sockets may not fill.
FEWEST = 100


async def idle(way: str, sockets: int, url: str, seconds: float) -> None:
    """Report the bytes that a socket server takes, and the processor time of a second with all of them."""
    crowd = Crowd(way, url)
    await crowd.connect(EARLY)
    await asyncio.sleep(SETTLE)
    before = memory.resident()
    await crowd.connect(sockets)
    await asyncio.sleep(SETTLE)
    after, start = memory.resident(), time.process_time_ns()
    await asyncio.sleep(seconds)
    spent = (time.process_time_ns() - start) / seconds
    memory.report(bytes=(after - before) / sockets, ns=spent)


def fresh(way: str, sockets: int, loop: str, url: str, seconds: float) -> dict[str, float]:
    """Take a reading in a process of its own."""
    command = [sys.executable, "-m", "benches.compare.redis_idle_sockets", way, str(sockets), loop, url, str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    reading: dict[str, float] = json.loads(done.stdout)
    return reading


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure socket servers that wait."""
    sockets = max(FEWEST, *scale.socket_servers)
    with Server() as server:
        readings = {way: fresh(way, sockets, loop, server.url, scale.redis_idle) for way in WAYS}
    bare = memory.fresh("consumers", "plain", sockets, loop)["bytes"]
    theirs = readings[DJANGO_SOCKETS]
    for way, place in ((HEADRACE, ""), (IN_PROCESS, ", in process")):
        ours, beside = readings[way]["bytes"] - bare, theirs["bytes"] - bare
        case, note = f"Redis, subscribed socket server, idle{place}", f"{sockets} of them; apart {bare:,.0f} bytes"
        ratio = Spread.exactly(ours / beside)
        yield Row(case, loop, Spread.exactly(ours), "bytes", DJANGO_SOCKETS, beside, ratio, note=note)
    case = f"Redis, a second of {sockets} idle socket servers, processor time"
    ours, beside = readings[HEADRACE]["ns"], theirs["ns"]
    ratio = Spread.exactly(ours / beside)
    yield Row(case, loop, Spread.exactly(ours), "ns", DJANGO_SOCKETS, beside, ratio)


def main() -> None:
    """Take one reading and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("sockets", type=int)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    open_files()
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(idle(arguments.way, arguments.sockets, arguments.url, arguments.seconds))


if __name__ == "__main__":
    main()
