"""A process of `redis_socket_servers.py`: ``python -m benches.compare.redis_socket_member WAY URL SOCKETS LOOP``.

It starts so many socket servers and says so, and then reads words from its standard input. Two numbers, BURSTS and
BROADCASTS, are so many bursts of so many broadcasts; it says in JSON what they took, in nanoseconds, and how many
deliveries were lost so far. ``everybody`` has each socket broadcast once.
"""

import argparse
import asyncio
import gc
import json
import sys
import threading
import time

from benches.compare.loops import LOOPS
from benches.compare.redis_socket_ways import Crowd, open_files

EVERYBODY = "everybody"
# SUBSCRIBE is on its way when theirs call themselves subscribed.
SETTLE = 0.3


def say(**words: int) -> None:
    """Tell the other end of the pipe."""
    print(json.dumps(words), flush=True)


async def serve(way: str, url: str, sockets: int) -> None:
    """Start them, and do as told until the input ends."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(told.put_nowait, line.strip())
        loop.call_soon_threadsafe(told.put_nowait, "")

    crowd = Crowd(way, url)
    await crowd.connect(sockets)
    await asyncio.sleep(SETTLE)
    threading.Thread(target=read, daemon=True).start()
    gc.collect()
    gc.freeze()
    say()
    while line := await told.get():
        if line == EVERYBODY:
            await crowd.everybody()
            say()
            continue
        bursts, broadcasts = map(int, line.split())
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(bursts):
            await crowd.burst(broadcasts)
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        say(wall=wall, cpu=cpu, lost=crowd.lost)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way")
    parser.add_argument("url")
    parser.add_argument("sockets", type=int)
    parser.add_argument("loop", choices=LOOPS)
    arguments = parser.parse_args()
    open_files()
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(serve(arguments.way, arguments.url, arguments.sockets))


if __name__ == "__main__":
    main()
