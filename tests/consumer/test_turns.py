"""Turns of the loop: between two messages of a consumer, and while one that is busy has more."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle
from headrace.typing import Message

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

MANY = 100


class Starter(AsyncWebsocketConsumer):
    """Starts a task at one message, and cancels it at the next."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.waits = False
        self.gate = asyncio.Event()

    async def do(self, order: str) -> None:
        if order in ("wait", "start late"):
            self.waits = True
            await self.gate.wait()
        if order in ("start", "start late"):
            self.job = asyncio.ensure_future(self.work())
        if order == "stop":
            self.job.cancel()

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.send(text_data="stopped")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.do(str(text_data))

    async def order(self, event: dict[str, Any]) -> None:
        await self.do(event["order"])


async def hears_that_it_stopped(client: "Wire") -> None:
    """See that the task began before it was cancelled, and nothing else was sent."""
    await client.heard(1)
    client.leave()
    await client.end()
    assert client.texts == ["stopped"]


class ConcurrentStarter(Starter):
    """The same, several messages at a time."""

    concurrency = 3


def give(client: "Wire", layer: InMemoryChannelLayer, way: str, order: str) -> None:
    """Give an order, by the client or by the layer."""
    if way == "client":
        client.write(order)
    else:
        layer.group_send_sync("all", {"type": "order", "order": order})


every_two_ways = pytest.mark.parametrize(
    ("first", "second"), [("client", "client"), ("client", "layer"), ("layer", "client"), ("layer", "layer")]
)


@pytest.mark.parametrize(("first", "second"), [("client", "client"), ("client", "layer"), ("layer", "layer")])
@pytest.mark.parametrize("base", [Starter, ConcurrentStarter])
async def test_what_a_message_starts_runs_before_the_next_is_handled(
    wire: "MakeWire", layer: InMemoryChannelLayer, base: type[Starter], first: str, second: str
) -> None:
    """Both messages are there at once; if they come by different ways, the client's is handled first."""
    client = wire(base())
    client.connect()
    await settle()
    give(client, layer, first, "start")
    give(client, layer, second, "stop")
    await hears_that_it_stopped(client)


@pytest.mark.parametrize("way", ["client", "layer"])
async def test_so_it_does_behind_a_message_whose_handler_waits(
    wire: "MakeWire", layer: InMemoryChannelLayer, way: str
) -> None:
    """The task of the consumer handles the others then, and nobody in its place."""
    consumer = Starter()
    client = wire(consumer)
    client.connect()
    await settle()
    for order in ("wait", "start", "stop"):
        give(client, layer, way, order)
    await settle()
    consumer.gate.set()
    await hears_that_it_stopped(client)


@every_two_ways
async def test_so_does_what_a_handler_starts_that_has_waited(
    wire: "MakeWire", layer: InMemoryChannelLayer, first: str, second: str
) -> None:
    """The next message comes while it waits."""
    consumer = Starter()
    client = wire(consumer)
    client.connect()
    await settle()
    give(client, layer, first, "start late")
    while not consumer.waits:
        await asyncio.sleep(0)
    give(client, layer, second, "stop")
    await settle()
    consumer.gate.set()
    await hears_that_it_stopped(client)


@every_two_ways
async def test_so_it_does_if_the_next_comes_while_the_first_is_handled(
    wire: "MakeWire", layer: InMemoryChannelLayer, first: str, second: str
) -> None:
    class Hasty(Starter):
        async def do(self, order: str) -> None:
            await super().do(order)
            if order == "start":
                give(client, layer, second, "stop")

    client = wire(Hasty())
    client.connect()
    await settle()
    give(client, layer, first, "start")
    await hears_that_it_stopped(client)


class Busy(AsyncWebsocketConsumer):
    """Takes a millisecond for each message, and never waits."""

    groups = ("all",)
    forward = ("forwarded",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=str(text_data))

    async def note(self, event: dict[str, Any]) -> None:
        await self.send(text_data="x")


class Turns:
    """Counts what is sent between two turns of the loop."""

    def __init__(self) -> None:
        self.sent = 0
        self.most = 0
        self.counting = asyncio.ensure_future(self.count())

    async def count(self) -> None:
        while True:
            before = self.sent
            await asyncio.sleep(0)
            self.most = max(self.most, self.sent - before)

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            end = time.perf_counter() + 0.001
            while time.perf_counter() < end:
                pass
            self.sent += 1


@pytest.fixture
async def turns() -> Any:
    turns = Turns()
    yield turns
    turns.counting.cancel()


@asynccontextmanager
async def busy_room(
    layer: InMemoryChannelLayer, turns: Turns, consumers: int
) -> AsyncIterator[list[asyncio.Queue[Any]]]:
    """Have so many busy consumers in the group, each with its queue, and wait at the end until ``MANY`` were sent."""
    scope = {"type": "websocket", "path": "/"}
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(consumers)]
    tasks = [asyncio.ensure_future(Busy.as_asgi()(scope, queue.get, turns.send)) for queue in queues]
    for queue in queues:
        queue.put_nowait({"type": "websocket.connect"})
    while layer.group_count("all") < consumers:
        await asyncio.sleep(0)
    yield queues
    async with asyncio.timeout(20):
        while turns.sent < MANY:
            await asyncio.sleep(0)
    for queue in queues:
        queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await asyncio.wait(tasks)


@pytest.mark.parametrize(
    ("kind", "consumers"), [("note", 1), ("forwarded", 1), ("note", 20), ("forwarded", 20), ("", 1)]
)
async def test_a_busy_consumer_gives_the_loop_its_turns(
    layer: InMemoryChannelLayer, turns: Turns, kind: str, consumers: int
) -> None:
    """A handler holds the loop for as long as it takes, and not one after the other."""
    async with busy_room(layer, turns, consumers) as queues:
        for _ in range(MANY // consumers):
            if kind:
                await layer.group_send("all", {"type": kind, "text": "x"})
            else:
                queues[0].put_nowait({"type": "websocket.receive", "text": "x"})
    # A look at the clock comes after at most four. Tasks that are not asyncio's own are resumed by handles of the loop.
    limit = 4 if type(asyncio.current_task()) is asyncio.Task else consumers
    assert turns.most <= min(limit, consumers)


class Echo(AsyncWebsocketConsumer):
    forward = ("forwarded",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=str(text_data))

    async def note(self, event: dict[str, Any]) -> None:
        await self.send(text_data="x")


@pytest.fixture
async def room(layer: InMemoryChannelLayer, turns: Turns) -> Any:
    """Have busy consumers in the group."""
    async with busy_room(layer, turns, MANY):
        yield turns


@pytest.mark.parametrize("groups", [[], ["all"]])
@pytest.mark.parametrize("kind", ["note", "forwarded"])
async def test_a_client_does_not_wait_until_a_whole_group_has_been_served(
    wire: "MakeWire", layer: InMemoryChannelLayer, room: Turns, kind: str, groups: list[str]
) -> None:
    """A client that is in the group waits no longer: the group's message for it is handled early too."""
    consumer = Echo()
    consumer.groups = groups
    client = wire(consumer)
    client.connect()
    while not client.sent:
        await asyncio.sleep(0)
    await layer.group_send("all", {"type": kind, "text": "x"})
    client.write("hello")
    await client.heard(1 + len(groups))
    served = room.sent
    assert sorted(client.texts) == ["hello", "x"][: 1 + len(groups)]
    client.leave()
    await client.end()
    # Tasks that are not asyncio's own are resumed by handles of the loop, all in one turn.
    if type(asyncio.current_task()) is asyncio.Task:
        assert served < MANY // 4


async def test_clients_that_send_without_pause_do_not_hold_up_a_group(
    wire: "MakeWire", layer: InMemoryChannelLayer
) -> None:
    served: list[str] = []
    frames = 0

    class Quick(AsyncWebsocketConsumer):
        groups = ("all",)

        async def note(self, event: dict[str, Any]) -> None:
            served.append(self.channel_name)

    class Talks(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            nonlocal frames
            frames += 1
            end = time.perf_counter() + 0.0002
            while time.perf_counter() < end:
                pass
            if len(served) < MANY:
                client_of[self].write("again")

    members = [wire(Quick()) for _ in range(MANY)]
    talkers = [Talks() for _ in range(MANY // 5)]
    client_of = {consumer: wire(consumer) for consumer in talkers}
    for client in members:
        client.connect()
    for client in client_of.values():
        client.connect("hello")
    while layer.group_count("all") < MANY or frames < len(talkers):
        await asyncio.sleep(0)
    await layer.group_send("all", {"type": "note"})
    turns = 0
    async with asyncio.timeout(20):
        while len(served) < MANY:
            turns += 1
            await asyncio.sleep(0)
    clients = [*members, *client_of.values()]
    for client in clients:
        client.leave()
    for client in clients:
        await client.end()
    assert turns < MANY // 4


class Talkative(AsyncWebsocketConsumer):
    """Handles frames without ever waiting, and sends to its group at the first."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.told_at: int | None = None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.frames += 1
        if self.frames == 1:
            await self.channel_layer.group_send("all", {"type": "stop"})

    async def stop(self, event: dict[str, Any]) -> None:
        self.told_at = self.frames


async def test_a_client_that_sends_without_pause_does_not_keep_the_layer_waiting(wire: "MakeWire") -> None:
    consumer = Talkative()
    client = wire(consumer)
    client.connect(*map(str, range(1000)))
    client.leave()
    await client.end()
    assert consumer.frames == 1000
    assert consumer.told_at is not None
    # What was read ahead goes first, and what comes while that is handled.
    assert consumer.told_at < 50
