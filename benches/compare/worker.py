"""One family of cases on one event loop, in a process of its own: ``python -m benches.compare.worker FAMILY LOOP``.

Writes each row as a line of JSON as soon as it is there.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable

from benches.compare import (
    busy,
    consumers,
    fanout,
    history,
    memory,
    ready,
    redis_broadcasters,
    redis_fleet,
    redis_history,
    redis_idle,
    redis_idle_sockets,
    redis_joins,
    redis_sends,
    redis_socket_servers,
    sockets,
    threads,
)
from benches.compare.loops import LOOPS
from benches.compare.rows import Row
from benches.compare.scale import FULL, QUICK, Scale

FAMILIES: dict[str, Callable[[str, Scale], AsyncIterator[Row]]] = {
    "ready": ready.measure,
    "fanout": fanout.measure,
    "consumers": consumers.measure,
    "busy": busy.measure,
    "sockets": sockets.measure,
    "threads": threads.measure,
    "memory": memory.measure,
    "history": history.measure,
    "redis-sends": redis_sends.measure,
    "redis-history": redis_history.measure,
    "redis-joins": redis_joins.measure,
    "redis-fleet": redis_fleet.measure,
    "redis-idle": redis_idle.measure,
    "redis-socket-servers": redis_socket_servers.measure,
    "redis-broadcasters": redis_broadcasters.measure,
    "redis-idle-sockets": redis_idle_sockets.measure,
}
# Names for several of them.
SETS = {
    "redis": [name for name in FAMILIES if name.startswith("redis-")],
    "socket-servers": ["redis-socket-servers", "redis-broadcasters", "redis-idle-sockets"],
}
# These need no more than one processor, and are steadier if they stay on it.
PINNED = {"ready", "fanout", "consumers", "busy", "history"}


async def run(family: str, loop: str, scale: Scale) -> None:
    """Measure, and write the rows."""
    async for row in FAMILIES[family](loop, scale):
        print(json.dumps(row.to_json()), flush=True)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.family in PINNED and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(run(arguments.family, arguments.loop, QUICK if arguments.quick else FULL))


if __name__ == "__main__":
    main()
