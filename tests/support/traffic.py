"""Several layers as several processes have them, and numbers that flow between them while something happens."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

GAP = "a gap"
# Between two numbers: what flows has to be many, and has to leave the machine time for the servers.
_PACE = 0.001
_PAUSE = 0.005


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
        self._settings = {"hosts": hosts, "prefix": prefix, **settings}
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

    async def keep(self) -> None:
        """Receive until cancelled."""
        while True:
            message = await self._layer.receive(self._channel)
            self.entries.append(message["number"] if message["type"] == "number" else GAP)

    def untold(self, sent: list[int]) -> list[int]:
        """List the numbers that did not come, and of which no gap behind them tells."""
        got, told = set(self.numbers), -1
        for entry in self.entries:
            if entry == GAP:
                told = max(told, *(n for n in self.entries[: self.entries.index(entry)] if isinstance(n, int)), -1)
        last_gap = max((place for place, entry in enumerate(self.entries) if entry == GAP), default=None)
        if last_gap is None:
            return [number for number in sent if number not in got]
        behind = [entry for entry in self.entries[last_gap:] if isinstance(entry, int)]
        return [number for number in sent if number not in got and behind and number > behind[0]]


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


@asynccontextmanager
async def running(*jobs: Awaitable[None]) -> AsyncIterator[list["asyncio.Future[None]"]]:
    """Run these while the context lasts; what one of them raised is raised at its end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
