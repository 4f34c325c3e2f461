"""What does it cost a process that many requests wait for a server that is away?

``python -m benches.outage`` starts a server, connects, and kills it. Then it sends to a group without waiting, 100,000
times in all. At several sizes of what waits it prints which share of a core the thread that does the input and output
takes in two seconds: while nothing more is sent, and while 200 more messages are, one after the other.
"""

import argparse
import asyncio
import logging
import sys
import time

from tests.support.servers import Server

from benches.io_thread import processor_seconds
from headrace.layers import RedisChannelLayer

WAITING = (0, 10_000, 50_000, 100_000)
MORE = 200
SECONDS = 2.0
MESSAGE = {"type": "outage.message"}
# What waits for a server that was lost waits as long as this, which is longer than the bench takes.
SEND_TIMEOUT = 600.0


async def share(layer: RedisChannelLayer, more: int, seconds: float) -> float:
    """Return which share of a core the thread takes in so many seconds, in which so many messages are sent."""
    busy, began = processor_seconds(), time.perf_counter()
    for _ in range(more):
        layer.group_send_sync("room", MESSAGE)
        await asyncio.sleep(seconds / more)
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    return (processor_seconds() - busy) / (time.perf_counter() - began)


async def measure(server: Server, most: int, seconds: float) -> None:
    """Lose the server, let more and more messages wait, and print."""
    layer = RedisChannelLayer([server.url], send_timeout=SEND_TIMEOUT)
    await layer.connect()
    await asyncio.to_thread(server.kill)
    waiting = 0
    for size in (size for size in WAITING if size <= most):
        while waiting < size:
            layer.group_send_sync("room", MESSAGE)
            waiting += 1
            if waiting % 1_000 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        idle = await share(layer, 0, seconds)
        busy = await share(layer, MORE, seconds)
        waiting += MORE
        print(f"{size:7,} messages wait: {idle:.1%} of a core, {busy:.1%} while {MORE} more are sent")
    unsent = layer.stats().connection.unsent
    print(f"given up: {unsent}")
    await layer.close()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benches.outage", description=__doc__)
    parser.add_argument("--most", type=int, default=WAITING[-1])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    logging.getLogger("headrace.redis").setLevel(logging.ERROR)
    with Server() as server:
        print(f"CPython {sys.version.split()[0]}, {server.binary}")
        asyncio.run(measure(server, arguments.most, arguments.seconds))


if __name__ == "__main__":
    main()
