"""What does a join cost a process that is in many groups already, and a channel that is?

``python -m benches.joins`` starts a server and joins up to 32,000 groups, each by a channel of its own, then up to
8,000 by one channel. At each size it prints the processor time of one more ``group_add`` of a new group: in the thread
of the loop, and in the one that does the input and output. It is the mean of 400, each awaited before the next.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable

from tests.support.servers import Server

from benches.io_thread import processor_seconds
from headrace.layers import RedisChannelLayer

GROUPS = (0, 1_000, 4_000, 16_000, 32_000)
GROUPS_OF_ONE = (0, 1_000, 4_000, 8_000)
TOGETHER = 1_000
JOINS = 400


async def measure(server: Server, sizes: list[int], prefix: str, channel_of: Callable[[str, str], str]) -> None:
    """Join more and more groups; at each size join some one after the other, and print."""
    layer = RedisChannelLayer([server.url], prefix=prefix)
    channel = await layer.new_channel()
    joined = 0
    for size in sizes:
        for first in range(joined, size, TOGETHER):
            names = [str(name) for name in range(first, min(first + TOGETHER, size))]
            await asyncio.gather(*(layer.group_add(name, channel_of(channel, name)) for name in names))
        joined = size
        there, here = processor_seconds(), time.thread_time()
        for number in range(JOINS):
            name = f"one-more-{size}-{number}"
            await layer.group_add(name, channel_of(channel, name))
        there, here = processor_seconds() - there, time.thread_time() - here
        print(f"{size:6,} groups: {here / JOINS * 1e6:4.0f} us in the loop, {there / JOINS * 1e6:4.0f} us beside it")
    await layer.close()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benches.joins", description=__doc__)
    parser.add_argument("--most", type=int, default=GROUPS[-1])
    most = parser.parse_args().most
    with Server() as server:
        print(f"CPython {sys.version.split()[0]}, {server.binary}")
        print("a channel for each group")
        sizes = [size for size in GROUPS if size <= most]
        asyncio.run(measure(server, sizes, "many", lambda channel, name: f"{channel}{name}"))
        print("one channel for all groups")
        sizes = [size for size in GROUPS_OF_ONE if size <= most]
        asyncio.run(measure(server, sizes, "one", lambda channel, _name: channel))


if __name__ == "__main__":
    main()
