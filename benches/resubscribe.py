"""What does it cost a process with very many groups to subscribe to all of them again after it lost its connection?

``python -m benches.resubscribe`` starts a server, joins 100,000 groups, has the server end the connection that
subscribes, and waits. It prints how long that took, the processor time of the thread that does the input and output,
how often the server was asked for a topic, and the resident size before and after.
"""

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path

from tests.support.servers import Server

from benches.io_thread import processor_seconds
from headrace.layers import RedisChannelLayer

GROUPS = 100_000
TOGETHER = 1_000


def resident_mebibytes() -> float:
    """Return the resident size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)


def subscribes(server: Server) -> int:
    """Return how often the server was asked for a topic."""
    lines = (line for line in str(server.cli("INFO", "commandstats")).splitlines() if "cmdstat_subscribe:" in line)
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)


async def measure(server: Server, groups: int) -> None:
    """Join, lose the connection, wait until all is back, and print."""
    layer = RedisChannelLayer([server.url])
    channel = await layer.new_channel()
    for first in range(0, groups, TOGETHER):
        names = range(first, min(first + TOGETHER, groups))
        await asyncio.gather(*(layer.group_add(f"group-{name}", f"{channel}{name}") for name in names))
    asked, before = subscribes(server), resident_mebibytes()
    busy, began = processor_seconds(), time.perf_counter()
    server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    while layer.stats().connection.reconnects == 0:
        await asyncio.sleep(0.01)
    print(f"{groups:,} groups: all confirmed again after {time.perf_counter() - began:.2f} s")
    print(f"processor time of the thread: {processor_seconds() - busy:.2f} s")
    print(f"SUBSCRIBE for each topic: {(subscribes(server) - asked) / (groups + 3):.3f}")
    print(f"resident: {before:.0f} MiB before, {resident_mebibytes():.0f} MiB after")
    await layer.close()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benches.resubscribe", description=__doc__)
    parser.add_argument("--groups", type=int, default=GROUPS)
    groups = parser.parse_args().groups
    logging.getLogger("headrace.redis").setLevel(logging.ERROR)
    with Server() as server:
        print(f"CPython {sys.version.split()[0]}, {server.binary}")
        asyncio.run(measure(server, groups))


if __name__ == "__main__":
    main()
