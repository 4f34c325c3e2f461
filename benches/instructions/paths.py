"""The hot paths, each done so many times: ``python -m benches.instructions.paths PATH TIMES``.

This is the program that runs under callgrind. It sets up the same however often the path is then taken, so that the
difference between two runs is the path alone.
"""

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial

from benches.compare import consumers, stubs
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer

MESSAGE = {"type": "chat.message", "room": "lobby", "user": "ada", "text": "the quick brown fox"}
CHANNEL, GROUP = "specific.inmemory!0123456789abcdef01234567", "room"
MEMBERS = 100


async def ready(times: int) -> None:
    """Send to a mailbox and receive from it."""
    layer = InMemoryChannelLayer()
    for _ in range(times):
        await layer.send(CHANNEL, MESSAGE)
        await layer.receive(CHANNEL)


async def queue(times: int) -> None:
    """Do the same with an asyncio.Queue."""
    fifo: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    for _ in range(times):
        await fifo.put(MESSAGE)
        await fifo.get()


async def send_sync(times: int) -> None:
    """Send without a loop; the mailbox holds all of it."""
    layer = InMemoryChannelLayer(capacity=max(times, 1), capacity_bytes=1 << 40)
    for _ in range(times):
        layer.send_sync(CHANNEL, MESSAGE)


async def group_add(times: int) -> None:
    """Join a group and leave it, so that each time is like the first."""
    layer = InMemoryChannelLayer()
    for _ in range(times):
        await layer.group_add(GROUP, CHANNEL)
        await layer.group_discard(GROUP, CHANNEL)


class Arrivals:
    """Counts the tasks that still lack the message."""

    def __init__(self) -> None:
        self.missing = 0
        self.complete = asyncio.Event()

    def one(self) -> None:
        """Count one."""
        self.missing -= 1
        if not self.missing:
            self.complete.set()


async def fan_out(times: int) -> None:
    """Send to a group of waiting tasks until this many deliveries are made."""
    layer, arrivals = InMemoryChannelLayer(), Arrivals()

    async def member(channel: str) -> None:
        while True:
            await layer.receive(channel)
            arrivals.one()

    channels = [f"member.{number}" for number in range(MEMBERS)]
    for channel in channels:
        await layer.group_add(GROUP, channel)
    tasks = [asyncio.create_task(member(channel)) for channel in channels]
    await asyncio.sleep(0)
    for _ in range(times // MEMBERS):
        arrivals.missing = MEMBERS
        arrivals.complete.clear()
        await layer.group_send(GROUP, MESSAGE)
        await arrivals.complete.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def exchange(application: consumers.App, times: int) -> None:
    """Send a frame and wait until it comes back."""
    async with consumers.echoes("", application, InMemoryChannelLayer(), times) as variant:
        await variant.run()


PATHS: dict[str, Callable[[int], Awaitable[None]]] = {
    "ready send + receive": ready,
    "asyncio.Queue put + get": queue,
    "send_sync": send_sync,
    "group_add + group_discard": group_add,
    f"fan-out to {MEMBERS} tasks, each": fan_out,
    "echo through one consumer": partial(exchange, stubs.echo(AsyncWebsocketConsumer).as_asgi()),
    "plain ASGI application": partial(exchange, consumers.plain_echo),
}


async def take(path: str, times: int) -> None:
    """Take a path, once in vain so that what is made at the first time is there."""
    await PATHS[path](MEMBERS)
    await PATHS[path](times)


def main() -> None:
    """Take the path that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", choices=PATHS)
    parser.add_argument("times", type=int)
    arguments = parser.parse_args()
    gc.disable()
    asyncio.run(take(arguments.path, arguments.times))


if __name__ == "__main__":
    main()
