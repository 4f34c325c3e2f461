"""Several layers as several processes have them, and numbers that flow between them while something happens."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Any, Self

from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

PATIENT = 30
"""How long a layer waits for its server where a test does not say it: one that is busy with other tests."""
GAP = "a gap"
GROUP = "room"
QUEUE = "work"
# Between two numbers: what flows has to be many, and has to leave the machine time for the servers.
_PACE = 0.001
_PAUSE = 0.005
_EXCHANGED = 20


async def soon(ask: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Ask until the answer is true, and return it; as ``eventually``, but other tasks run meanwhile."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what} (the last answer was {answer!r})")
        await asyncio.sleep(_PAUSE)
    return answer


class Fleet:
    """Layers that share their servers and their prefix; all are closed when the context ends."""

    def __init__(self, hosts: list[Any], prefix: str, **settings: Any) -> None:
        self._settings = {"hosts": hosts, "prefix": prefix, "send_timeout": PATIENT, **settings}
        self._layers: list[RedisChannelLayer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for layer in self._layers:
            await layer.close()

    def layer(self, **settings: Any) -> RedisChannelLayer:
        """Make another one."""
        layer = RedisChannelLayer(**{**self._settings, **settings})
        self._layers.append(layer)
        return layer


class Log:
    """Who receives from a channel of a layer: the numbers as they come, and a ``GAP`` where the layer told of one."""

    def __init__(self, layer: RedisChannelLayer, channel: str) -> None:
        self.entries: list[int | str] = []
        self._layer = layer
        self._channel = channel

    @property
    def numbers(self) -> list[int]:
        """Give the numbers, without the gaps."""
        return [entry for entry in self.entries if isinstance(entry, int)]

    def has(self, number: int) -> bool:
        """Tell whether this number has come, or a later one."""
        return any(isinstance(entry, int) and entry >= number for entry in self.entries[-100:])

    def disorder(self) -> list[list[int]]:
        """List what came around each number that is not above the one before it."""
        pairs = enumerate(pairwise(self.numbers))
        return [self.numbers[max(0, place - 3) : place + 5] for place, (one, next_) in pairs if next_ <= one]

    async def keep(self) -> None:
        """Receive until cancelled."""
        while True:
            message = await self._layer.receive(self._channel)
            self.entries.append(message["number"] if message["type"] == "number" else GAP)

    def missing(self, taken: list[int]) -> list[int]:
        """List those of these numbers that did not come, though later ones did."""
        got, last = set(self.numbers), max(self.numbers)
        return [number for number in taken if number < last and number not in got]

    def untold(self, taken: list[int]) -> list[int]:
        """List what is missing of these numbers, and of which no gap tells that came after them or instead."""
        missing = self.missing(taken)
        if GAP not in self.entries:
            return missing
        last = len(self.entries) - self.entries[::-1].index(GAP)
        behind = min((entry for entry in self.entries[last:] if isinstance(entry, int)), default=None)
        return [] if behind is None else [number for number in missing if number > behind]


class Stream:
    """Who sends numbers, one after the other: from 0, each when the one before it was taken or given up.

    Attributes:
        taken: Those that the server took.
        failed: Those that were given up.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
        self.taken: list[int] = []
        self.failed: list[int] = []
        self._send = send

    @property
    def next(self) -> int:
        """Give the number that is sent next, or is on its way."""
        return len(self.taken) + len(self.failed)

    async def flow(self) -> None:
        """Send until cancelled."""
        while True:
            number = self.next
            try:
                await self._send({"type": "number", "number": number})
            except LayerUnavailable:
                self.failed.append(number)
            else:
                self.taken.append(number)
            await asyncio.sleep(_PACE)


async def member(layer: RedisChannelLayer, group: str) -> str:
    """Make a channel that is in a group."""
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


async def exchange(
    fleet: Fleet,
    of_here: dict[str, Any] | None = None,
    of_there: dict[str, Any] | None = None,
    *,
    here: RedisChannelLayer | None = None,
    there: RedisChannelLayer | None = None,
) -> tuple[RedisChannelLayer, RedisChannelLayer]:
    """Have messages go in all ways from one process to another: to a channel, to a group, through a queue.

    Args:
        fleet: Makes the layers.
        of_here: Settings of the one that sends.
        of_there: Settings of the one that receives.
        here: The one that sends, if it is there already.
        there: The one that receives, if it is there already.

    Returns:
        Both layers.
    """
    here = here or fleet.layer(**(of_here or {}))
    there = there or fleet.layer(**(of_there or {}))
    channel = await member(there, GROUP)
    ways: list[tuple[str, Callable[[dict[str, Any]], Awaitable[Any]]]] = [
        (channel, lambda message: here.send(channel, message)),
        (channel, lambda message: here.group_send(GROUP, message)),
        (QUEUE, lambda message: here.send(QUEUE, message)),
    ]
    for source, send in ways:
        for number in range(_EXCHANGED):
            await send({"type": "number", "number": number})
        got = [await asyncio.wait_for(there.receive(source), SECONDS) for _ in range(_EXCHANGED)]
        assert [message["number"] for message in got] == list(range(_EXCHANGED))
    await there.group_discard(GROUP, channel)
    return here, there


class Busy:
    """Numbers that flow from one process to another while the context lasts, through a group and through a queue.

    Attributes:
        here: The layer that sends.
        there: The one that receives; its ``on_gap`` is to be told.
        group: What is sent to the group.
        queue: What is sent to the queue.
        members: What comes to the group's member.
        workers: What comes out of the queue.
        excused: Numbers that may be missing from the queue, because the server died that took them.
    """

    def __init__(self, fleet: Fleet) -> None:
        # What waits in the queue while its receiver finds the next master is no reason to refuse more.
        self.here, self.there = fleet.layer(capacity=10_000), fleet.layer(capacity=10_000)
        self.group = Stream(lambda message: self.here.group_send(GROUP, message))
        self.queue = Stream(lambda message: self.here.send(QUEUE, message))
        self.workers = Log(self.there, QUEUE)
        self.excused: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.members = Log(self.there, await member(self.there, GROUP))
        jobs = (self.members.keep(), self.workers.keep(), self.group.flow(), self.queue.flow())
        self._tasks = [asyncio.create_task(job) for job in jobs]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    @property
    def next(self) -> int:
        """Give the number that is sent next, to the group or to the queue."""
        return max(self.group.next, self.queue.next)

    async def flows(self) -> None:
        """Wait until some of what is sent from now on has come."""
        for stream, log in ((self.group, self.members), (self.queue, self.workers)):
            wanted = stream.next + 10
            await soon(partial(log.has, wanted), f"{wanted} or a later number comes")

    def report(self) -> None:
        """Print what became of the numbers, for whoever reads why a test failed."""
        for name, stream, log in (("group", self.group, self.members), ("queue", self.queue, self.workers)):
            lost = sorted(set(stream.taken) - set(log.numbers))
            gaps = log.entries.count(GAP)
            print(f"{name}: {stream.next} sent, {stream.failed} failed, {lost} lost, {gaps} gaps")
            print(log.disorder())

    def check(self) -> None:
        """Check that nothing came twice or late, and that nothing which the server took is missing without a word."""
        for log in (self.members, self.workers):
            assert log.numbers == sorted(set(log.numbers))
        assert not self.members.untold(self.group.taken)
        assert not set(self.workers.missing(self.queue.taken)) - self.excused
