"""One message at a time, in order, in one task."""

import asyncio
import contextvars
import gc
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Recorder(AsyncWebsocketConsumer):
    """Writes down what it handles, in a group that all are in."""

    groups = ("all",)

    def __init__(self, log: list[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log: list[Any] = [] if log is None else log

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["n"])

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


class TestOrder:
    """One at a time, as they came, the client first."""

    async def test_the_clients_messages_keep_their_order(self, wire: "MakeWire") -> None:
        consumer = Recorder()
        client = wire(consumer)
        client.connect(*map(str, range(100)))
        client.leave()
        await client.end()
        assert consumer.log == [*map(str, range(100)), "disconnect 1001"]

    async def test_the_layers_messages_keep_their_order(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        consumer = Recorder()
        client = wire(consumer)
        client.connect()
        await settle()
        for n in range(90):
            await layer.group_send("all", {"type": "note", "n": n})
        await settle()
        assert consumer.log == list(range(90))
        client.leave()
        await client.end()

    async def test_the_client_goes_first_when_both_wait(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Busy(Recorder):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await super().receive(text_data, bytes_data)
                if text_data == "block":
                    await gate.wait()

        gate = asyncio.Event()
        consumer = Busy()
        client = wire(consumer)
        client.connect("block")
        await settle()
        for n in range(3):
            await layer.group_send("all", {"type": "note", "n": n})
        client.write("late")
        await settle()
        gate.set()
        await settle()
        assert consumer.log == ["block", "late", 0, 1, 2]
        client.leave()
        await client.end()

    async def test_a_flood_of_the_layer_lets_the_client_in_within_a_hundred_messages(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Flooded(Recorder):
            max_backlog = 10_000

        consumer = Flooded()
        client = wire(consumer)
        client.connect()
        await settle()
        for n in range(5000):
            await layer.group_send("all", {"type": "note", "n": n})
        client.write("me")
        async with asyncio.timeout(20):
            while len(consumer.log) < 5001:
                await asyncio.sleep(0)
        assert consumer.log.index("me") < 100
        client.leave()
        await client.end()
        assert [item for item in consumer.log if isinstance(item, int)] == list(range(5000))

    async def test_a_flood_of_one_consumer_lets_the_others_run(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Endless(Recorder):
            async def note(self, event: dict[str, Any]) -> None:
                self.log.append(event["n"])
                if event["n"] < 20_000:
                    await layer.send(self.channel_name, {"type": "note", "n": event["n"] + 1})

        endless, other = Endless(), Recorder()
        flooded = wire(endless)
        flooded.connect()
        await settle()
        await layer.send(endless.channel_name, {"type": "note", "n": 0})
        client = wire(other)
        client.connect("hello")
        while "hello" not in other.log:
            await asyncio.sleep(0)
        assert len(endless.log) < 2000
        for one in (flooded, client):
            one.leave()
        await flooded.end()
        await client.end()

    async def test_a_client_that_never_pauses_lets_the_loop_turn(self) -> None:
        """The server's receive never waits, as with frames that are in its buffer."""
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        left = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "x"}] * 2000]

        async def receive() -> Any:
            return left.pop(0) if left else {"type": "websocket.disconnect", "code": 1001}

        async def send(message: Any) -> None:
            pass

        counter = asyncio.ensure_future(count())
        consumer = Recorder()
        await consumer({"type": "websocket"}, receive, send)
        counter.cancel()
        await asyncio.wait([counter])
        assert len(consumer.log) == 2001
        assert turns > 50

    async def test_one_handler_runs_at_a_time_whatever_they_await(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        dice = random.Random(4)
        running: list[Any] = []

        class Slow(Recorder):
            async def note(self, event: dict[str, Any]) -> None:
                running.append(event["n"])
                assert len(running) == 1
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                self.log.append(running.pop())

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await self.note({"n": text_data})

        consumer = Slow()
        client = wire(consumer)
        client.connect()
        await settle()
        for n in range(60):
            await layer.group_send("all", {"type": "note", "n": n})
            client.write(str(n))
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
        await settle()
        client.leave()
        await client.end()
        assert [item for item in consumer.log if isinstance(item, int)] == list(range(60))
        assert [item for item in consumer.log if isinstance(item, str)][:-1] == list(map(str, range(60)))


class TestContext:
    """Where handlers run."""

    async def test_all_handlers_run_in_one_task_and_see_its_context_variables(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
        tasks, seen, tokens = [], [], []

        class Contextual(Recorder):
            async def connect(self) -> None:
                await self.accept()
                tasks.append(asyncio.current_task())
                tokens.append(who.set("somebody"))

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                tasks.append(asyncio.current_task())
                seen.append(who.get())

            async def note(self, event: dict[str, Any]) -> None:
                tasks.append(asyncio.current_task())
                seen.append(who.get())

            async def disconnect(self, code: int) -> None:
                tasks.append(asyncio.current_task())
                who.reset(tokens[0])
                seen.append(who.get())

        client = wire(Contextual())
        client.connect("a")
        await settle()
        await layer.group_send("all", {"type": "note"})
        await settle()
        client.leave()
        await client.end()
        assert seen == ["somebody", "somebody", "nobody"]
        assert set(tasks) == {client.task}

    async def test_disconnect_after_an_error_runs_in_the_same_task(self, wire: "MakeWire") -> None:
        who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
        tokens, tasks = [], []

        class Failing(Recorder):
            async def connect(self) -> None:
                tokens.append(who.set("me"))
                await self.accept()

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                raise RuntimeError("failed")

            async def disconnect(self, code: int) -> None:
                who.reset(tokens[0])
                tasks.append(asyncio.current_task())

        client = wire(Failing())
        client.connect("x")
        assert str(await client.outcome()) == "failed"
        assert tasks == [client.task]

    @pytest.mark.parametrize("rate", [None, "10/s"])
    async def test_a_consumer_that_has_ended_is_freed_at_once(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, rate: str | None
    ) -> None:
        references: list[weakref.ref[Any]] = []

        class Remembered(Recorder):
            rate_limit = rate

            def __init__(self) -> None:
                super().__init__()
                references.append(weakref.ref(self))

        gc.collect()
        gc.disable()
        try:
            for cancel in (False, True):
                client = wire(Remembered.as_asgi())
                client.connect("x")
                await settle()
                client.task.cancel() if cancel else client.leave()
                with suppress(asyncio.CancelledError):
                    await client.task
                await settle()
                # A task that is written in Python keeps the error that has cancelled it.
                if not cancel or isinstance(client.task, asyncio.Task):
                    assert references[-1]() is None, cancel
        finally:
            gc.enable()
