"""How many bytes does an idle channel with one waiting receiver take, how many a membership, and how many a consumer?

Rust's memory is invisible to tracemalloc, so what counts is the resident size of a process, before and after, and each
figure has a process of its own: ``python -m benches.compare.memory WHAT NUMBER LOOP``. A waiting task is memory too,
and not ours: the same tasks, waiting for a bare future each, are measured and taken off. What such a future takes is
taken off with them, so the note of the row says what remains when the tasks taken off wait for nothing at all.

A consumer is measured beside an application that accepts its client and waits for it: the same task, the same queue
of the server's, and the scope, are taken off. Its threads, where it has some, were started before the first reading.

Names are made before the first reading, because an application holds its own. What the layer keeps of them counts.

Changed by the answer: channels, groups and memberships know each other by places in slabs, not by names or pointers.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn, Self

from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsAsyncConsumer
from channels.generic.websocket import WebsocketConsumer as ChannelsConsumer
from channels.layers import InMemoryChannelLayer as ChannelsLayer

from benches.compare import stubs
from benches.compare.loops import LOOPS
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer

Wait = Callable[[str], Awaitable[object]]
LAYERS: dict[str, Callable[[], Any]] = {"headrace": InMemoryChannelLayer, "channels": ChannelsLayer}
# Each channel is in ten groups, each group has a hundred members.
GROUPS_EACH = 10
MEMBERS_EACH = 100
# Channels takes a time that grows with the square of the number.
FEW = 2000
# Consumers that are there before the first reading: enough to start every thread of a pool.
EARLY = 100

CONSUMERS: dict[str, Any] = {
    "AsyncWebsocketConsumer": AsyncWebsocketConsumer,
    "WebsocketConsumer": WebsocketConsumer,
    "Channels' AsyncWebsocketConsumer": ChannelsAsyncConsumer,
    "Channels' WebsocketConsumer": ChannelsConsumer,
}


class Nothing:
    """A future that never comes, shared by all and forgetful of who waits: a wait that takes no memory."""

    _asyncio_future_blocking = False

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which a task compares with its own."""
        return self._loop

    def add_done_callback(self, callback: object, *, context: object = None) -> None:
        """Forget who waits."""

    def __await__(self) -> Generator[Any, None, None]:
        return self  # type: ignore[return-value]  # an iterator is enough for await

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Self:
        self._asyncio_future_blocking = True
        return self


def resident() -> int:
    """Return the resident size of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(**reading: object) -> NoReturn:
    """Print the reading and end the process at once: there are tasks that wait for ever."""
    print(json.dumps(reading), flush=True)
    os._exit(0)


def ways_to_wait() -> dict[str, Wait]:
    """Return what a task may wait for."""
    loop, nothing = asyncio.get_running_loop(), Nothing()
    layers = {way: make().receive for way, make in LAYERS.items()}
    return {"nothing": lambda _: nothing, "futures": lambda _: loop.create_future(), **layers}


async def receivers(way: str, number: int) -> None:
    """Report the bytes that a waiting task takes, with what it waits for."""
    wait = ways_to_wait()[way]

    async def task(name: str) -> None:
        await wait(name)

    names = [await InMemoryChannelLayer().new_channel() for _ in range(number)]
    tasks: list[asyncio.Task[None]] = []
    before = resident()
    tasks.extend(asyncio.create_task(task(name)) for name in names)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    report(bytes=(resident() - before) / number)


async def memberships(way: str, number: int) -> None:
    """Report the bytes that memberships take: of channels that are in a group already, and all in all."""
    layer = LAYERS[way]()
    channels = [await layer.new_channel() for _ in range(number // GROUPS_EACH)]
    groups = [f"group.{index}" for index in range(number // MEMBERS_EACH)]
    stride = len(groups) // GROUPS_EACH
    readings, start = [resident()], time.perf_counter()
    for step in range(GROUPS_EACH):
        for index, channel in enumerate(channels):
            await layer.group_add(groups[(index + step * stride) % len(groups)], channel)
        readings.append(resident())
    seconds = time.perf_counter() - start
    marginal = (readings[-1] - readings[1]) / (number - len(channels))
    report(bytes=marginal, all=(readings[-1] - readings[0]) / number, seconds=seconds)


async def plain(_scope: Any, receive: Any, send: Any) -> None:
    """Serve a connection as the least application does: accept it, and wait for the client."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


async def consumers(way: str, number: int) -> None:
    """Report the bytes that a connection takes whose client is silent, with the application that serves it."""
    tasks: list[asyncio.Task[None]] = []
    accepted = asyncio.Semaphore(0)

    async def send(_message: object) -> None:
        accepted.release()

    async def connect(number: int) -> None:
        for _ in range(number):
            inbound: asyncio.Queue[Any] = asyncio.Queue()
            inbound.put_nowait(stubs.CONNECT)
            serving: Coroutine[Any, Any, None] = app()(stubs.scope(), inbound.get, send)
            tasks.append(asyncio.create_task(serving))
            # One after the other, or what passes while they connect would be counted as many times.
            await accepted.acquire()

    app = CONSUMERS.get(way, lambda: plain)
    theirs = way.startswith("Channels")
    if theirs:
        stubs.use_django()
    with stubs.default_layer(ChannelsLayer()) if theirs else nullcontext():
        await connect(EARLY)
        before = resident()
        await connect(number)
        report(bytes=(resident() - before) / number)


def fresh(what: str, way: str, number: int, loop: str) -> dict[str, float]:
    """Take a reading in a process of its own."""
    command = [sys.executable, "-m", "benches.compare.memory", what, way, str(number), loop]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    reading: dict[str, float] = json.loads(done.stdout)
    return reading


def row(case: str, loop: str, *, ours: float, theirs: float, limit: float, note: str) -> Row:
    """Make a row of bytes, ours and Channels'."""
    ratio = Spread.exactly(ours / theirs)
    return Row(case, loop, Spread.exactly(ours), "bytes", "Channels", theirs, ratio, limit, absolute=True, note=note)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure receivers on this loop; memberships, which have no loop, along with the first."""
    waits = {way: fresh("receivers", way, scale.receivers, loop)["bytes"] for way in ("headrace", "futures", "nothing")}
    theirs = fresh("receivers", "channels", FEW, loop)["bytes"] - fresh("receivers", "futures", FEW, loop)["bytes"]
    ours, strict = waits["headrace"] - waits["futures"], waits["headrace"] - waits["nothing"]
    note = f"{scale.receivers:,} of them; the task and its future apart; with the future's share {strict:,.0f} bytes"
    yield row("idle channel with a waiting receiver", loop, ours=ours, theirs=theirs, limit=700, note=note)
    for line in measure_consumers(loop, scale):
        yield line
    if loop == "asyncio":
        for line in measure_memberships(scale):
            yield line


def measure_consumers(loop: str, scale: Scale) -> Iterator[Row]:
    """Measure connected consumers beside Channels'."""
    few = min(scale.consumers, FEW)
    bare, bare_few = (fresh("consumers", "plain", number, loop)["bytes"] for number in (scale.consumers, few))
    for name in ("AsyncWebsocketConsumer", "WebsocketConsumer"):
        ours = fresh("consumers", name, scale.consumers, loop)["bytes"] - bare
        theirs = fresh("consumers", f"Channels' {name}", few, loop)["bytes"] - bare_few
        note = f"{scale.consumers:,} of them; apart what a plain application takes, {bare:,.0f} bytes"
        yield row(f"connected {name}, idle", loop, ours=ours, theirs=theirs, limit=3072, note=note)


def measure_memberships(scale: Scale) -> Iterator[Row]:
    """Measure memberships beside Channels', and once a great many."""
    ours = fresh("memberships", "headrace", scale.memberships, "asyncio")
    theirs = fresh("memberships", "channels", scale.memberships, "asyncio")
    note = f"{GROUPS_EACH} for each channel; all in all, channels and groups too, {ours['all']:.0f} bytes"
    yield row("membership", "", ours=ours["bytes"], theirs=theirs["bytes"], limit=150, note=note)
    many = fresh("memberships", "headrace", scale.many_memberships, "asyncio")
    size, seconds = many["all"] * scale.many_memberships / 1e6, many["seconds"]
    note = f"all in all, channels and groups too, {size:,.0f} MB; added in {seconds:.1f} s"
    spread = Spread.exactly(many["bytes"])
    yield Row(f"{scale.many_memberships:,} memberships, each", "", spread, "bytes", limit=150, note=note)


TAKE: dict[str, Callable[[str, int], Coroutine[Any, Any, None]]] = {
    "receivers": receivers,
    "memberships": memberships,
    "consumers": consumers,
}


def main() -> None:
    """Take one reading and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=TAKE)
    parser.add_argument("way")
    parser.add_argument("number", type=int)
    parser.add_argument("loop", choices=LOOPS)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
        runner.run(TAKE[arguments.what](arguments.way, arguments.number))


if __name__ == "__main__":
    main()
