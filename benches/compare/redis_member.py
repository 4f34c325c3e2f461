"""A process of `redis_fleet.py`: ``python -m benches.compare.redis_member WAY URL MEMBERS LOOP``.

It joins the group with so many members and says so, and then reads numbers from its standard input: how many messages
its members are to get from then on. It says that it has read one, and when they have come, how many were lost so far.
"""

import argparse
import asyncio
import gc
import sys
import threading

from benches.compare.loops import LOOPS
from benches.compare.redis_ways import room


async def serve(way: str, url: str, members: int) -> None:
    """Join, and count as told until the input ends."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(told.put_nowait, line)
        loop.call_soon_threadsafe(told.put_nowait, "")

    async def ready() -> None:
        print("ready", flush=True)

    async with room(way, url, members) as here:
        threading.Thread(target=read, daemon=True).start()
        gc.collect()
        gc.freeze()
        await ready()
        while line := await told.get():
            await here.expect(int(line), ready)
            print(here.failures.lost, flush=True)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way")
    parser.add_argument("url")
    parser.add_argument("members", type=int)
    parser.add_argument("loop", choices=LOOPS)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(serve(arguments.way, arguments.url, arguments.members))


if __name__ == "__main__":
    main()
