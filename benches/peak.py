"""How much memory does a process give back after a peak: a million channels with a message and a group each?

Resident sizes before the peak, at it, and when all channels are gone again, by each way in which they go; every way has
a process of its own. What the layer frees, the allocator of the C library may keep: in the end it is asked to return it
(`malloc_trim`), so that the last column shows what is in use. No page that still holds anything is returned.

Changed by the answer: tables that are less than a quarter full are made smaller (`rust/core/src/shrink.rs`).
"""

import argparse
import asyncio
import ctypes
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

from benches.compare.memory import report, resident
from headrace.layers import InMemoryChannelLayer

MESSAGE = {"type": "peak.message"}
MEMBERS_EACH = 100
# Seconds after which nothing expires while a reading is taken.
DAY = 86_400.0


def names(number: int) -> Iterator[tuple[str, str]]:
    """Make the names of channels, each with the name of its group."""
    for index in range(number):
        yield f"specific.inmemory!{index:012}", f"group.{index // MEMBERS_EACH}"


async def receive_and_leave(layer: InMemoryChannelLayer, number: int) -> None:
    """Receive each message, and take each channel out of its group."""
    for channel, group in names(number):
        await layer.receive(channel)
        await layer.group_discard(group, channel)


async def flush(layer: InMemoryChannelLayer, _number: int) -> None:
    """Throw everything away at once."""
    await layer.flush()


async def expire(layer: InMemoryChannelLayer, number: int) -> None:
    """Wait until everything has expired, and do as many other things as it takes to sweep it up."""
    await asyncio.sleep(layer.expiry)
    for _ in range(number):
        await layer.send("other", MESSAGE)
        await layer.receive("other")


END: dict[str, Callable[[InMemoryChannelLayer, int], Awaitable[None]]] = {
    "receive and leave": receive_and_leave,
    "flush": flush,
    "expire": expire,
}


async def peak(way: str, number: int, lasting: float) -> None:
    """Report the resident sizes around a peak, in bytes."""
    lasts = lasting if way == "expire" else DAY
    layer = InMemoryChannelLayer(expiry=lasts, group_expiry=lasts)
    before = resident()
    for channel, group in names(number):
        layer.send_sync(channel, MESSAGE)
        layer.group_add_sync(group, channel)
    at = resident()
    await END[way](layer, number)
    after = resident()
    if layer.stats().channels:
        raise RuntimeError(f"{layer.stats().channels} channels are left")
    ctypes.CDLL(None).malloc_trim(0)
    report(before=before, at=at, after=after, trimmed=resident())


def main() -> None:
    """Print a line for each way, or, with the name of one, take its reading."""
    parser = argparse.ArgumentParser(prog="python -m benches.peak", description=__doc__)
    parser.add_argument("--channels", type=int, default=1_000_000)
    parser.add_argument("--lasting", type=float, default=60, help="seconds after which all expires, where it does")
    parser.add_argument("--way", choices=END, help="take the reading of this way in this process, and print it as JSON")
    arguments = parser.parse_args()
    size = ("--channels", str(arguments.channels), "--lasting", str(arguments.lasting))
    if arguments.way:
        asyncio.run(peak(arguments.way, arguments.channels, arguments.lasting))
    columns = ("before", "at", "after", "trimmed")
    print(f"{'MB':20}  {'  '.join(f'{column:>7}' for column in columns)}")
    for way in END:
        command = [sys.executable, "-m", "benches.peak", "--way", way, *size]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        reading: dict[str, float] = json.loads(done.stdout)
        sizes = (f"{reading[column] / 1e6:7.0f}" for column in columns)
        print(f"{way:20}  {'  '.join(sizes)}", flush=True)


if __name__ == "__main__":
    main()
