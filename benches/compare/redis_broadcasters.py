"""What does it cost to broadcast from plain code, without a loop: the call, and until a subscriber has it?

`Broadcaster(hosts=...).broadcast(topic, data)` is how a view, a signal handler or a task of a queue would write it. Or
it keeps the broadcaster. django_sockets' gets the loop that is measured; where there is none it makes one of asyncio's
itself. Either way each of theirs runs a loop in a thread of its own that never ends, with a connection of its own; what
a slice of theirs leaves is ended before the next, because a process would soon have no more threads.

The subscriber is a bare socket that reads all topics, and does so when all calls were made.
"""

import asyncio
import gc
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.support.servers import Server

from benches.compare.loops import LOOPS
from benches.compare.redis_sends import processor
from benches.compare.redis_socket_ways import BROADCASTERS, DJANGO_SOCKETS, HEADRACE, IN_PROCESS, TOPIC, WAYS, settings
from benches.compare.redis_ways import LOST_AFTER, command
from benches.compare.rounds import MESSAGE, Rounds, Times
from benches.compare.rows import Row
from benches.compare.scale import Scale

# By which a message is known among what is read.
TEXT = MESSAGE["text"].encode()
# A loop in a thread, and ours, have gone to sleep by then.
PAUSE = 0.002
# Theirs, each with a thread and a loop, would be slow by their number alone.
FEW = 20


class Subscriber:
    """A socket that is subscribed to all topics."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LOST_AFTER)
        self._socket.sendall(command("PSUBSCRIBE", "*"))
        self._socket.recv(4096)

    def read(self, messages: int) -> None:
        """Wait until so many messages have come.

        Raises:
            TimeoutError: They do not come.
        """
        read = b""
        while messages:
            read = read[1 - len(TEXT) :] + self._socket.recv(1 << 20)
            messages -= read.count(TEXT)

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()


class Way:
    """Who makes broadcasters, in whatever thread, and ends them.

    Args:
        name: Whose.
        url: Where the server is.
        loop: What theirs run on.

    Attributes:
        kept: A broadcaster that is there all the time.
    """

    def __init__(self, name: str, url: str, loop: str) -> None:
        self.name, self._settings = name, settings(name, url)
        self._new_loop = LOOPS[loop]
        self._make: Callable[..., Any] = BROADCASTERS[name]
        self.kept = self.make()

    @property
    def on_server(self) -> bool:
        """Tell whether what is broadcast goes to the server."""
        return self.name != IN_PROCESS

    def make(self) -> Any:
        """Make one, as it is made where no loop runs."""
        if self.name == DJANGO_SOCKETS:
            return self._make(**self._settings, loop=self._new_loop())
        return self._make(**self._settings)

    def end(self, broadcaster: Any) -> None:
        """Close what one of theirs has open, and end its loop and thread; those of ours have nothing of their own."""
        if self.name != DJANGO_SOCKETS:
            return
        loop = broadcaster.__loop__
        asyncio.run_coroutine_threadsafe(disconnect(broadcaster), loop).result(LOST_AFTER)
        loop.call_soon_threadsafe(loop.stop)
        while loop.is_running():
            time.sleep(0)
        loop.close()

    def close(self) -> None:
        """End the one that was kept; with ours the layer, too, which all of them share."""
        self.end(self.kept)
        if self.name == HEADRACE:
            asyncio.run(self.kept.layer.close())


async def disconnect(broadcaster: Any) -> None:
    """Close the connections of one of theirs."""
    await broadcaster.pubsub_layer.flush()
    for shard in broadcaster.pubsub_layer.shards:
        await shard.connection_pool.disconnect()


@dataclass(frozen=True)
class Slice:
    """Calls in a row.

    Attributes:
        calls: How many.
        kept: All are of the broadcaster that is there; else each makes its own.
        pause: Seconds before, for all threads to go to sleep.
    """

    calls: int
    kept: bool
    pause: float = 0

    def take(self, way: Way, subscriber: Subscriber, call: Times, whole: Times) -> None:
        """Note what the calls took, and what it took until the subscriber had all of them."""
        made = []
        time.sleep(self.pause)
        cpu, start = time.process_time_ns(), time.perf_counter_ns()
        if self.kept:
            for _ in range(self.calls):
                way.kept.broadcast(TOPIC, MESSAGE)
        else:
            for _ in range(self.calls):
                broadcaster = way.make()
                broadcaster.broadcast(TOPIC, MESSAGE)
                made.append(broadcaster)
        call.wall.append((time.perf_counter_ns() - start) / self.calls)
        if way.on_server:
            subscriber.read(self.calls)
        whole.wall.append((time.perf_counter_ns() - start) / self.calls)
        whole.cpu.append((time.process_time_ns() - cpu) / self.calls)
        for broadcaster in made:
            way.end(broadcaster)


def take_turns(part: Slice, ways: list[Way], subscriber: Subscriber, rounds: int) -> tuple[Rounds, Rounds]:
    """Let all ways take turns; return the times of a call, and those until the subscriber had it."""
    names = [way.name for way in ways]
    call, whole, order = Rounds(names), Rounds(names), random.Random(rounds)
    gc.collect()
    for turn in range(-1, rounds):
        for way in order.sample(ways, len(ways)):
            times = (call.times[way.name], whole.times[way.name]) if turn >= 0 else (Times(), Times())
            part.take(way, subscriber, *times)
    return call, whole


def making(ways: list[Way], rounds: int) -> Rounds:
    """Let all ways take turns in making broadcasters, with which nothing is done."""
    times, order = Rounds([way.name for way in ways]), random.Random(rounds)
    for turn in range(-1, rounds):
        for way in order.sample(ways, len(ways)):
            start = time.perf_counter_ns()
            made = [way.make() for _ in range(FEW)]
            spent = time.perf_counter_ns() - start
            if turn >= 0:
                times.times[way.name].wall.append(spent / FEW)
            for broadcaster in made:
                way.end(broadcaster)
    return times


def compare(loop: str, scale: Scale, server: Server) -> Iterator[Row]:
    """Measure in a thread that has no loop."""
    with closing(Subscriber(server.port)) as subscriber:
        ways = [Way(name, server.url, loop) for name in WAYS]
        for case, kept, calls in (
            ("Redis, Broadcaster(hosts=...).broadcast() in plain code", False, FEW),
            ("Redis, broadcast() of a kept Broadcaster in plain code", True, scale.broadcasts),
        ):
            call, whole = take_turns(Slice(calls, kept), ways, subscriber, scale.slow_rounds)
            single, _ = take_turns(Slice(1, kept, PAUSE), ways, subscriber, scale.rounds)
            note = f"{calls:,} calls in a row"
            yield call.row(case, loop, HEADRACE, DJANGO_SOCKETS, None if kept else 1 / 50, note)
            yield whole.row(
                "the same, until a subscriber has it", loop, HEADRACE, DJANGO_SOCKETS, None if kept else 1 / 50, note
            )
            yield processor("the same, until a subscriber has it, processor time", loop, whole, DJANGO_SOCKETS)
            yield single.row("the same, a single call", loop, HEADRACE, DJANGO_SOCKETS, note="after a pause")
            yield call.row("the same, in process", loop, IN_PROCESS, DJANGO_SOCKETS, note=note)
        made = making(ways, scale.slow_rounds)
        yield made.row("Redis, making a Broadcaster in plain code", loop, HEADRACE, DJANGO_SOCKETS)
        for way in ways:
            way.close()


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Measure calls from a thread that has no loop."""
    with Server() as server:
        for line in await asyncio.to_thread(lambda: list(compare(loop, scale, server))):
            yield line
