"""What does a Sentinel have to do for a process with several layers, and how soon do they follow a new master?

``python -m benches.sentinel`` starts a master, a replica and a Sentinel, and connects 1, 4 and 16 layers of this
process. It prints how many connections the Sentinel has for them, how many they made, and how many commands it carries
out in a second while nothing happens. Then it has the Sentinel replace the master, and prints how long after that the
last of the layers is connected to the new one.
"""

import argparse
import asyncio
import logging
import sys
import time
from contextlib import AsyncExitStack

from tests.support.ports import HOST
from tests.support.sentinel import Sentinel, Sentinels
from tests.support.servers import Server
from tests.support.waiting import eventually

from headrace.layers import RedisChannelLayer

LAYERS = (1, 4, 16)
SECONDS = 20.0


def clients(sentinel: Sentinel) -> int:
    """Return how many connections there are to a Sentinel, without that of the question."""
    return int(sentinel.info("clients")["connected_clients"]) - 1


def counted(sentinel: Sentinel) -> tuple[int, int]:
    """Return how many connections and commands a Sentinel has counted; a call adds one connection and two commands."""
    stats = sentinel.info("stats")
    return int(stats["total_connections_received"]), int(stats["total_commands_processed"])


def connected(server: Server) -> int:
    """Return how many layers have a connection to a server on which they send."""
    return str(server.ask("CLIENT", "LIST")).count(" name=headrace-")


async def measure(sentinels: Sentinels, layers: int, seconds: float) -> None:
    """Connect, count for so many seconds, replace the master, and print."""
    sentinel = sentinels.sentinels[0]
    host = {"sentinels": [(HOST, sentinel.port)], "master_name": sentinels.name}
    async with AsyncExitStack() as stack:
        there, (before, _) = clients(sentinel), counted(sentinel)
        for _ in range(layers):
            layer = RedisChannelLayer([host])
            stack.push_async_callback(layer.close)
            await layer.connect()
        # The first second has what is done at the start.
        await asyncio.sleep(1)
        connections, (made, first) = clients(sentinel) - there, counted(sentinel)
        # Two were those of this process.
        made -= before + 2
        await asyncio.sleep(seconds)
        commands = counted(sentinel)[1] - first - 2
        print(f"{layers:2} layers: {connections} connections, {made} made, {commands / seconds:.2f} commands/s", end="")
        new = sentinels.replica()
        waiting = asyncio.create_task(asyncio.to_thread(followed, sentinel, new, layers))
        await asyncio.to_thread(sentinels.failover, kill=False)
        print(f", all at the new master after {await waiting * 1000:.0f} ms")
    await asyncio.to_thread(sentinels.heal)


def followed(sentinel: Sentinel, new: Server, layers: int) -> float:
    """Wait until the layers have a connection to the new master; return how long after the Sentinel named it."""
    eventually(lambda: sentinel.names() == new.port, "the Sentinel names the new master")
    named = time.perf_counter()
    eventually(lambda: connected(new) >= layers, "the layers are connected to it")
    return time.perf_counter() - named


async def run(seconds: float) -> None:
    """Measure with more and more layers."""
    with Sentinels(quorums=(1,)) as sentinels:
        print(f"CPython {sys.version.split()[0]}, {sentinels.servers[0].binary}")
        for layers in LAYERS:
            await measure(sentinels, layers, seconds)


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benches.sentinel", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    seconds = parser.parse_args().seconds
    logging.getLogger("headrace.redis").setLevel(logging.ERROR)
    asyncio.run(run(seconds))


if __name__ == "__main__":
    main()
