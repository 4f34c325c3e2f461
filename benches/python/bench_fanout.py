"""What does it cost to wake a task for each member of a group, and does `wake="future"` cost more?

A round is as many sends as make 1,000 deliveries; it ends when every task waits again. benches/compare sets this beside
Channels and beside bare futures; here the two ways of waking stand side by side.

Changed by the answer: `wake="direct"` is the default.
"""

import asyncio
from typing import Literal

import pytest

from benches.python.timing import MESSAGE, TIMES, Stopwatch
from headrace.layers import InMemoryChannelLayer

GROUP = "room"


class Room:
    """Tasks that receive for ever, and a way to wait until all have received."""

    def __init__(self, layer: InMemoryChannelLayer, members: int) -> None:
        self.layer, self.members = layer, members
        self.missing = 0
        self.complete = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def member(self, channel: str) -> None:
        """Receive for ever."""
        while True:
            await self.layer.receive(channel)
            self.missing -= 1
            if not self.missing:
                self.complete.set()

    async def open(self) -> None:
        """Start the tasks."""
        for number in range(self.members):
            channel = f"member.{number}"
            await self.layer.group_add(GROUP, channel)
            self.tasks.append(asyncio.create_task(self.member(channel)))
        await asyncio.sleep(0)

    async def send(self) -> None:
        """Send to all, and wait until all have received."""
        self.missing = self.members
        self.complete.clear()
        await self.layer.group_send(GROUP, MESSAGE)
        await self.complete.wait()

    async def close(self) -> None:
        """End the tasks."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.benchmark(group="group_send to waiting tasks, 1,000 deliveries")
@pytest.mark.parametrize("stopwatch", ["asyncio", "uvloop"], indirect=True)
@pytest.mark.parametrize("wake", ["direct", "future"])
@pytest.mark.parametrize("members", [1, 10, 100, 1000])
def bench_fan_out(stopwatch: Stopwatch, wake: Literal["direct", "future"], members: int) -> None:
    room = Room(InMemoryChannelLayer(wake=wake), members)
    sends = range(len(TIMES) // members)

    async def work() -> None:
        for _ in sends:
            await room.send()

    stopwatch.loop.run_until_complete(room.open())
    stopwatch.time_async(work)
    stopwatch.loop.run_until_complete(room.close())
