"""The garbage collector, while the driver delivers: a task that waits for messages of other processes is no garbage."""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.servers import Server

from headrace.layers import RedisChannelLayer

MEMBERS = 2000
COLLECTIONS = 20

SENDER = """
import asyncio, sys
from headrace.layers import RedisChannelLayer

async def main():
    layer = RedisChannelLayer([sys.argv[1]], prefix=sys.argv[2])
    while True:
        await layer.group_send("group", {"type": "note"})

asyncio.run(main())
"""


@contextmanager
def sender(server: Server, prefix: str) -> Iterator[None]:
    """Have another process send to a group, one message after the other."""
    with subprocess.Popen([sys.executable, "-c", SENDER, server.url, prefix]) as process:
        yield
        process.kill()


@pytest.fixture
def ballast() -> list[list[int]]:
    """Give the collector so much to look at that messages come while it does."""
    return [[n] for n in range(200_000)]


@pytest.mark.usefixtures("ballast")
async def test_a_task_that_only_its_own_frame_refers_to_is_not_collected(
    redis_server: Server, redis_prefix: str
) -> None:
    """It waits at a channel that gets nothing, while others of its layer get much."""
    joined, flows = asyncio.Event(), asyncio.Event()

    async def receive() -> None:
        layer = RedisChannelLayer([redis_server.url], prefix=redis_prefix, capacity=10)
        try:
            for _ in range(MEMBERS):
                channel = await layer.new_channel()
                await layer.group_add("group", channel)
            joined.set()
            await layer.receive(channel)
            flows.set()
            await layer.receive(await layer.new_channel())
        finally:
            await layer.close()

    task = weakref.ref(asyncio.ensure_future(receive()))
    async with asyncio.timeout(60):
        await joined.wait()
    # Not before: the memberships would take most of the time.
    with sender(redis_server, redis_prefix):
        async with asyncio.timeout(60):
            await flows.wait()
        for _ in range(COLLECTIONS):
            gc.collect()
            assert task() is not None
            await asyncio.sleep(0)
    waiting = task()
    assert waiting is not None
    waiting.cancel()
    await asyncio.wait([waiting])
