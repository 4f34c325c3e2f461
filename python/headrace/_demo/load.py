"""A load for the demo: members whom the server simulates, all in one group, each a task that waits in `receive`.

Whoever is in the chat goes on: a load has a thread and an event loop of its own. It is bounded. A process runs one at a
time, of at most `MOST` members, for at most `SECONDS`, and ends it when the browser that began it has gone.

A round is one `group_send`, and lasts until the last member has its message. Channels' layer plays by the same rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from headrace.exceptions import HeadraceError
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.typing import AnyChannelLayer

__all__ = ["LAYERS", "MOST", "SECONDS", "Busy", "LayerName", "Load", "Loads", "Reading"]

LayerName = Literal["headrace", "channels"]
LAYERS: tuple[LayerName, ...] = ("headrace", "channels")
MOST = 5000
SECONDS = 20.0
_MESSAGE = {"type": "load"}
# Of the time of each round, so much is left to others.
_REST = 0.1
_logger = logging.getLogger("headrace.demo")


class Busy(RuntimeError):
    """There is a load already; the text is fit to be shown."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a load is.

    Attributes:
        delivered: Messages that members have received.
        at: When that was so, by `time.monotonic`.
        seconds: How long messages have been sent.
        latency: Seconds until the last member had its message, in the last round; None before its end.
        waiting: Seconds since the present round began.
        left: Seconds after which the load ends.
    """

    delivered: int
    at: float
    seconds: float
    latency: float | None
    waiting: float
    left: float


class Load:
    """One load, which runs from `start` until its time is over or `stop`."""

    def __init__(self, make_layer: Callable[[], AnyChannelLayer], members: int, seconds: float = SECONDS) -> None:
        self._make_layer = make_layer
        self._members = members
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        # The end of the process waits for it, which is safer than to end in the middle of it.
        self._thread = threading.Thread(target=self._run, name="headrace-demo-load")
        self._stopped = asyncio.Event()
        # Set by whoever stops it: what is ready to run at once may run for seconds, and looks at this.
        self._over = False
        # Written by the thread of the load, read by others.
        self._ends = time.monotonic() + seconds
        self._delivered = 0
        self._latency: float | None = None
        self._began = time.monotonic()
        self.error = ""

    def start(self) -> None:
        """Begin; a load that was made is started."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, from any thread; more than once is as good as once."""
        self._over = True
        # Where it has ended its loop is closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopped.set)

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended yet."""
        return self._thread.is_alive()

    async def wait_ended(self) -> None:
        """Wait until it has ended, without holding up a loop."""
        await asyncio.to_thread(self._thread.join)

    def reading(self) -> Reading:
        """Tell how far it is."""
        now = time.monotonic()
        left = max(0.0, self._ends - now)
        return Reading(self._delivered, now, self._seconds - left, self._latency, now - self._began, left)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._play())
        except HeadraceError as error:
            self.error = str(error)
        except Exception as error:
            _logger.exception("a load of %d members failed", self._members)
            self.error = f"the load failed: {error!r}"

    async def _play(self) -> None:
        rounds = asyncio.create_task(self._rounds())
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({rounds, stopped}, return_when=asyncio.FIRST_COMPLETED)
        self._over = True
        self._stopped.set()
        await stopped
        rounds.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rounds

    async def _rounds(self) -> None:
        layer = self._make_layer()
        # One of its own also where several processes share a server.
        group = f"demo.load.{secrets.token_hex(8)}"
        channels = [await layer.new_channel() for _ in range(self._members)]
        members: list[asyncio.Task[None]] = []
        try:
            for channel in channels:
                if self._is_over():
                    return
                await layer.group_add(group, channel)
            everybody = _Countdown()
            members += [asyncio.create_task(self._member(layer, channel, everybody)) for channel in channels]
            # Once each of them waits.
            await asyncio.sleep(0)
            self._ends = time.monotonic() + self._seconds
            asyncio.get_running_loop().call_later(self._seconds, self._stopped.set)
            while True:
                everybody.restart(self._members)
                self._began = time.monotonic()
                await layer.group_send(group, _MESSAGE)
                await everybody.done.wait()
                self._latency = time.monotonic() - self._began
                await asyncio.sleep(self._latency * _REST)
        finally:
            for member in members:
                member.cancel()
            await asyncio.gather(*members, return_exceptions=True)
            if isinstance(layer, InMemoryChannelLayer | RedisChannelLayer):
                for channel in channels:
                    layer.close_channel(channel)

    def _is_over(self) -> bool:
        return self._over or time.monotonic() >= self._ends

    async def _member(self, layer: AnyChannelLayer, channel: str, everybody: _Countdown) -> None:
        while not self._is_over():
            await layer.receive(channel)
            self._delivered += 1
            everybody.one_less()


class _Countdown:
    """How many members have not got a message yet."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self._left = 0

    def restart(self, members: int) -> None:
        self._left = members
        self.done.clear()

    def one_less(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.done.set()


class Loads:
    """The loads of a process, of which one runs at a time."""

    def __init__(self, layer: InMemoryChannelLayer | RedisChannelLayer) -> None:
        self._layer = layer
        self._running: Load | None = None

    @property
    def layers(self) -> list[LayerName]:
        """The layers that a load can be on. Channels' own is beside one that, like it, is in memory."""
        beside = isinstance(self._layer, InMemoryChannelLayer) and importlib.util.find_spec("channels") is not None
        return ["headrace", "channels"] if beside else ["headrace"]

    def begin(self, members: int, on: LayerName, seconds: float = SECONDS) -> Load:
        """Start a load.

        Raises:
            Busy: There is one already.
        """
        if self._running is not None and self._running.running:
            left = self._running.reading().left
            raise Busy(f"somebody else's load is running on this worker; it ends within {left + 1:.0f} s")
        self._running = Load((lambda: self._layer) if on == "headrace" else _channels_layer, members, seconds)
        self._running.start()
        return self._running


def _channels_layer() -> Any:
    return import_module("channels.layers").InMemoryChannelLayer()
