"""What does it cost that all of a message is authenticated, and not its body alone?

``python -m benches.encryption`` sends to a group with one member, encrypted as in version 1 and as in version 2, on one
server, in rounds that go to and fro. It prints the microseconds of a message, and the median of the rounds' ratios.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from tests.support.servers import Server

from headrace.layers import RedisChannelLayer

SIZES = {40: 2000, 4096: 2000, 262_144: 40}
"""Bytes of text in a message, and how many messages a round sends."""
VERSIONS = (1, 2)

Way = Callable[[RedisChannelLayer, str, int, int], Awaitable[float]]


async def awaited(layer: RedisChannelLayer, channel: str, size: int, count: int) -> float:
    """Send and receive one after the other."""
    message = {"type": "said", "text": "x" * size}
    started = time.perf_counter()
    for _ in range(count):
        await layer.group_send("group", message)
        await layer.receive(channel)
    return time.perf_counter() - started


async def at_once(layer: RedisChannelLayer, channel: str, size: int, count: int) -> float:
    """Send all at once, and receive them."""
    message = {"type": "said", "text": "x" * size}
    started = time.perf_counter()
    await asyncio.gather(*(layer.group_send("group", message) for _ in range(count)))
    for _ in range(count):
        await layer.receive(channel)
    return time.perf_counter() - started


async def unconfirmed(layer: RedisChannelLayer, channel: str, size: int, count: int) -> float:
    """Send without waiting; only the calls are timed."""
    message = {"type": "said", "text": "x" * size}
    started = time.perf_counter()
    for _ in range(count):
        layer.group_send_sync("group", message)
    took = time.perf_counter() - started
    for _ in range(count):
        await layer.receive(channel)
    return took


WAYS: tuple[Way, ...] = (awaited, at_once, unconfirmed)


async def measure(url: str, rounds: int) -> None:
    """Print a line for each size and way."""
    layers = [
        RedisChannelLayer(
            [url],
            prefix=f"version-{version}",
            capacity=100_000,
            capacity_bytes=1 << 40,
            symmetric_encryption_keys=["a key"],
            encryption_versions=[version],
        )
        for version in VERSIONS
    ]
    channels = [await layer.new_channel() for layer in layers]
    for layer, channel in zip(layers, channels, strict=True):
        await layer.group_add("group", channel)
    for size, count in SIZES.items():
        for way in WAYS:
            times: list[list[float]] = [[], []]
            for turn in range(rounds):
                for place in (0, 1) if turn % 2 else (1, 0):
                    took = await way(layers[place], channels[place], size, count)
                    times[place].append(took / count * 1e6)
            one, two = map(statistics.median, times)
            ratio = statistics.median(after / before for before, after in zip(*times, strict=True))
            name = way.__name__.replace("_", " ")
            print(f"{size:7} bytes, {name:11}: {one:8.1f} us in version 1, {two:8.1f} in 2, ratio {ratio:.2f}")
    for layer in layers:
        await layer.close()


def main() -> None:
    """Measure on a server of its own."""
    parser = argparse.ArgumentParser(prog="python -m benches.encryption", description=__doc__)
    parser.add_argument("--rounds", type=int, default=14)
    rounds = parser.parse_args().rounds
    with Server() as server:
        asyncio.run(measure(server.url, rounds))


if __name__ == "__main__":
    main()
