"""The ways over Redis that are compared: our layer, those of channels_redis, and clients that do no more than PUBLISH.

Each has its own connections, and its own names on the server. A layer has the settings that it comes with, but for
one: ours gets room for as many messages as a case sends at once, because channels_redis.pubsub has no bound.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack
from channels_redis.core import RedisChannelLayer as CoreLayer
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSubLayer
from redis.asyncio import Redis

from benches.compare.fanout import Arrivals
from benches.compare.rounds import MESSAGE, Variant
from headrace.layers import RedisChannelLayer

HEADRACE, PUBSUB, CORE = "headrace", "channels_redis.pubsub", "channels_redis.core"
KEPT = "headrace with history"
HISTORY = {"size": 100, "ttl": 3600}
CLIENT, SOCKETS = "redis-py, bare", "sockets, bare"
GROUP = "room"
# A message that has not come by then will not come.
LOST_AFTER = 10.0


class Layer(Protocol):
    """What all layers have in common."""

    async def new_channel(self) -> str: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> Any: ...


@asynccontextmanager
async def layer_of(way: str, url: str, capacity: int = 100) -> AsyncIterator[Any]:
    """Have a layer on the server, as it is used in a process."""
    prefix = way.replace("_", "-").replace(" ", "-")
    if way in (HEADRACE, KEPT):
        history = {"*": HISTORY} if way == KEPT else None
        ours = RedisChannelLayer(hosts=[url], prefix=prefix, capacity=capacity, capacity_bytes=1 << 40, history=history)
        try:
            yield ours
        finally:
            await ours.close()
        return
    theirs = PubSubLayer(hosts=[url], prefix=prefix) if way == PUBSUB else CoreLayer(hosts=[url], prefix=prefix)
    try:
        yield theirs
    finally:
        await theirs.flush()


@dataclass
class Failures:
    """What receivers were told instead of a message, and what never came.

    A consumer ends by such an exception. Here it is counted, and the receiver asks again, so that there is something to
    measure.
    """

    raised: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    @property
    def note(self) -> str:
        """Say it, or nothing if all went well."""
        words = [f"{times:,} {name} from receive()" for name, times in self.raised.items()]
        words += [f"{self.lost:,} messages lost"] if self.lost else []
        return ", ".join(words)


@dataclass
class Room:
    """A group of a layer, and tasks in it that receive."""

    layer: Any
    arrivals: Arrivals
    failures: Failures

    async def expect(self, messages: int, send: Callable[[], Awaitable[object]]) -> None:
        """Send, and wait until so many messages have come, or are given up."""
        arrivals = self.arrivals
        arrivals.expect(messages)
        guard = asyncio.get_running_loop().call_later(LOST_AFTER, self._give_up, arrivals.complete)
        await send()
        await arrivals.complete
        guard.cancel()

    def _give_up(self, complete: asyncio.Future[None]) -> None:
        if not complete.done():
            self.failures.lost += self.arrivals.missing
            complete.set_result(None)


@asynccontextmanager
async def room(way: str, url: str, members: int, capacity: int = 100) -> AsyncIterator[Room]:
    """Have members of one group, each a task in a loop around `receive`."""
    async with layer_of(way, url, capacity) as layer:
        here = Room(layer, Arrivals(), Failures())
        async with running(await join(layer, members, here)):
            yield here


async def join(layer: Layer, members: int, here: Room) -> list[Coroutine[Any, Any, None]]:
    """Put new channels in the group, and make what receives from each."""
    arrivals, failures = here.arrivals, here.failures

    async def member(channel: str) -> None:
        while True:
            try:
                await layer.receive(channel)
            except Exception as error:  # whatever their layer raises
                failures.raised[type(error).__name__] += 1
                continue
            arrivals.missing -= 1
            if not arrivals.missing and not arrivals.complete.done():
                arrivals.complete.set_result(None)

    channels = [await layer.new_channel() for _ in range(members)]
    for channel in channels:
        await layer.group_add(GROUP, channel)
    return [member(channel) for channel in channels]


@asynccontextmanager
async def running(tasks: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run tasks while the context lasts; when it begins they have had time to ask the server for what they need."""
    started = [asyncio.create_task(task) for task in tasks]
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


@asynccontextmanager
async def client(url: str, sends: int) -> AsyncIterator[Variant]:
    """Publish with redis-py, and await the push in a task: what a layer on it cannot go below."""
    arrivals, topic, payload = Arrivals(), "redis-py", msgpack.packb(MESSAGE)
    redis = Redis.from_url(url)
    pubsub = redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(topic)

    async def receive() -> None:
        while True:
            if await pubsub.get_message(timeout=None):  # without end
                arrivals.complete.set_result(None)

    async def run() -> None:
        for _ in range(sends):
            arrivals.expect(1)
            await redis.publish(topic, payload)
            await arrivals.complete

    async with redis, pubsub, running([receive()]):
        yield Variant(CLIENT, run, sends)


def command(*words: str | bytes) -> bytes:
    """Write a command as the server reads it."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@asynccontextmanager
async def sockets(port: int, sends: int) -> AsyncIterator[Variant]:
    """Publish on one socket, wait for the push on another: the time of the server, the kernel and the loop."""
    arrivals, loop = Arrivals(), asyncio.get_running_loop()
    sender, receiver = (socket.create_connection(("127.0.0.1", port), LOST_AFTER) for _ in range(2))
    for each in (sender, receiver):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    receiver.sendall(command("SUBSCRIBE", "sockets"))
    receiver.recv(4096)
    publish = command("PUBLISH", "sockets", msgpack.packb(MESSAGE))

    def read(readable: socket.socket) -> None:
        readable.recv(4096)
        arrivals.missing -= 1
        if not arrivals.missing:
            arrivals.complete.set_result(None)

    async def run() -> None:
        for _ in range(sends):
            # The server's answer to the one, and the message to the other.
            arrivals.expect(2)
            sender.send(publish)
            await arrivals.complete

    with sender, receiver:
        for each in (sender, receiver):
            each.setblocking(False)
            loop.add_reader(each, read, each)
        try:
            yield Variant(SOCKETS, run, sends)
        finally:
            for each in (sender, receiver):
                loop.remove_reader(each)
