"""Handlers of the layer's messages that run while their task waits: nobody can tell that they do."""

import asyncio
import contextvars
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.support.loops import cancels_after_a_group_failed

from headrace.consumer import consumer_stats
from headrace.exceptions import StopConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class OfTheTest(Exception):
    """What a handler raises."""


class Doing(AsyncWebsocketConsumer):
    """Does what a message of the layer brings: a function of the consumer."""

    groups: Any = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []

    async def do(self, event: dict[str, Any]) -> None:
        await ACTIONS[event["action"]](self)

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["n"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)
        if text_data in ACTIONS:
            await ACTIONS[text_data](self)

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


Action = Callable[[Doing], Awaitable[None]]
ACTIONS: dict[str, Action] = {}


@pytest.fixture(autouse=True)
def _actions() -> Iterator[None]:
    yield
    ACTIONS.clear()


def action(function: Action) -> Action:
    """Let consumers do this."""
    ACTIONS[function.__name__] = function
    return function


async def opened(client: "Wire", consumer: Doing) -> None:
    client.connect()
    while not client.sent:
        await asyncio.sleep(0)
    await settle()


async def tell(layer: InMemoryChannelLayer, name: str) -> None:
    await layer.group_send("all", {"type": "do", "action": name})


async def finish(client: "Wire") -> None:
    client.leave()
    await client.end()


class TestTask:
    """The task that a handler sees is the consumer's, and behaves like it."""

    async def test_current_task_is_the_consumers_before_and_after_an_await(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def look(consumer: Doing) -> None:
            consumer.log.append(asyncio.current_task())
            await asyncio.sleep(0)
            consumer.log.append(asyncio.current_task())

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "look")
        await settle()
        assert consumer.log == [client.task, client.task]
        await finish(client)

    async def test_the_senders_task_is_its_own_again(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        me = asyncio.current_task()
        await layer.group_send("all", {"type": "note", "n": 1})
        assert asyncio.current_task() is me
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        await settle()
        assert consumer.log == [1]
        await finish(client)

    async def test_a_context_variable_lives_on_and_its_token_is_good(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
        tokens: list[Any] = []

        @action
        async def begin(consumer: Doing) -> None:
            tokens.append(who.set("somebody"))

        @action
        async def begin_and_wait(consumer: Doing) -> None:
            tokens.append(who.set("somebody else"))
            await asyncio.sleep(0)
            consumer.log.append(who.get())

        @action
        async def end(consumer: Doing) -> None:
            consumer.log.append(who.get())
            who.reset(tokens.pop())
            consumer.log.append(who.get())

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        for name in ("begin", "begin_and_wait"):
            await tell(layer, name)
            await settle()
        client.write("end")
        await settle()
        await tell(layer, "end")
        await settle()
        assert consumer.log == ["somebody else", "end", "somebody else", "somebody", "somebody", "nobody"]
        assert who.get() == "nobody"
        await finish(client)

    async def test_a_handler_may_use_timeouts_and_groups_of_tasks(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        if cancels_after_a_group_failed():
            pytest.skip("Python 3.12 cancels a task again after a group of eager tasks in it has failed")

        @action
        async def time_out(consumer: Doing) -> None:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                consumer.log.append("timed out")

        @action
        async def time_out_at_once(consumer: Doing) -> None:
            try:
                async with asyncio.timeout(-1):
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            except TimeoutError:
                consumer.log.append("timed out")

        @action
        async def group(consumer: Doing) -> None:
            async def child(n: int) -> None:
                consumer.log.append(n)
                if n == 2:
                    raise OfTheTest

            try:
                async with asyncio.TaskGroup() as tasks:
                    for n in range(3):
                        tasks.create_task(child(n))
            except* OfTheTest:
                consumer.log.append("failed")

        @action
        async def scope(consumer: Doing) -> None:
            with anyio.move_on_after(0):
                await anyio.sleep_forever()
            consumer.log.append("moved on")
            with anyio.CancelScope() as cancel_scope:
                cancel_scope.cancel()
                await anyio.sleep(0)
            consumer.log.append(cancel_scope.cancelled_caught)

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        for name in ("time_out", "time_out_at_once", "group", "scope"):
            await tell(layer, name)
        await layer.group_send("all", {"type": "note", "n": "after"})
        while "after" not in consumer.log:
            await asyncio.sleep(0)
        assert consumer.log == ["timed out", "timed out", 0, 1, 2, "failed", "moved on", True, "after"]
        await finish(client)

    @pytest.mark.parametrize("awaiting", ["turn", "future", "task", "queue"])
    async def test_it_may_wait_for_anything(self, wire: "MakeWire", layer: InMemoryChannelLayer, awaiting: str) -> None:
        loop = asyncio.get_running_loop()

        async def answer() -> str:
            await asyncio.sleep(0)
            return "answer"

        def awaitable() -> Any:
            future = loop.create_future()
            if awaiting == "future":
                loop.call_soon(future.set_result, "answer")
                return future
            if awaiting == "task":
                return asyncio.ensure_future(answer())
            if awaiting == "queue":
                queue: asyncio.Queue[str] = asyncio.Queue()
                loop.call_soon(queue.put_nowait, "answer")
                return queue.get()
            return answer()

        @action
        async def wait(consumer: Doing) -> None:
            for _ in range(3):
                consumer.log.append(await awaitable())

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "wait")
        await layer.group_send("all", {"type": "note", "n": "after"})
        await settle()
        assert consumer.log == ["answer"] * 3 + ["after"]
        await finish(client)


class TestCancel:
    """A cancel that finds a handler begun and its task not yet resumed."""

    @pytest.mark.parametrize("how", ["itself", "soon", "itself twice"])
    async def test_it_arrives_at_the_handlers_await(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, how: str
    ) -> None:
        @action
        async def cancelled(consumer: Doing) -> None:
            task: Any = asyncio.current_task()
            if how == "soon":
                asyncio.get_running_loop().call_soon(task.cancel)
            else:
                for _ in how.split():
                    task.cancel()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                consumer.log.append("cancelled")
                raise

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "cancelled")
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["cancelled", "disconnect 1006"]

    async def test_the_handler_may_refuse_it(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        @action
        async def refuse(consumer: Doing) -> None:
            task: Any = asyncio.current_task()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            task.uncancel()
            await asyncio.sleep(0)
            consumer.log.append("refused")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "refuse")
        await layer.group_send("all", {"type": "note", "n": 1})
        await settle()
        assert consumer.log == ["refused", 1]
        await finish(client)

    async def test_a_handler_that_cancels_itself_and_ends_is_ended_afterwards(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def end(consumer: Doing) -> None:
            task: Any = asyncio.current_task()
            task.cancel()
            consumer.log.append("ended")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "end")
        await layer.group_send("all", {"type": "note", "n": "not handled"})
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        # A message that is there already is taken without waiting, and only a wait can be cancelled.
        assert consumer.log in (["ended", "disconnect 1006"], ["ended", "not handled", "disconnect 1006"])

    async def test_at_any_turn_every_handler_that_began_comes_to_its_end(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def balanced(consumer: Doing) -> None:
            consumer.log.append("begin")
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
            finally:
                consumer.log.append("end")

        for turns in range(60):
            consumer = Doing()
            client = wire(consumer)
            await opened(client, consumer)
            for _ in range(3):
                await tell(layer, "balanced")
            for _ in range(turns):
                await asyncio.sleep(0)
            client.task.cancel()
            assert isinstance(await client.outcome(), asyncio.CancelledError)
            handled = consumer.log[:-1]
            assert handled == ["begin", "end"] * (len(handled) // 2), turns
            assert consumer.log[-1] == "disconnect 1006"
        assert len(handled) == 6

    async def test_no_begun_handler_is_left_to_the_garbage_collector(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        """A handler that is closed instead of cancelled could not await in its finally."""

        @action
        async def careful(consumer: Doing) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                consumer.log.append(sys.exc_info()[0])
                await asyncio.sleep(0)
                consumer.log.append("cleaned up")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "careful")
        await asyncio.sleep(0)
        client.task.cancel()
        await client.outcome()
        gc.collect()
        if consumer.log[:-1]:
            assert consumer.log[:-1] == [asyncio.CancelledError, "cleaned up"]


class TestErrors:
    """A handler that fails at once, and one that fails later."""

    @pytest.mark.parametrize("waits", [False, True])
    @pytest.mark.parametrize("error", [OfTheTest, StopConsumer, SystemError])
    async def test_the_error_goes_the_usual_way(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, waits: bool, error: type[BaseException]
    ) -> None:
        @action
        async def fail(consumer: Doing) -> None:
            if waits:
                await asyncio.sleep(0)
            raise error

        class Here(Doing):
            async def on_error(self, exc: Exception, message: Any) -> None:
                self.log.append((type(exc), message["action"]))
                await super().on_error(exc, message)

        consumer = Here()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "fail")
        outcome = await client.outcome()
        if error is StopConsumer:
            assert outcome is None
            assert consumer.log == ["disconnect 1006"]
        else:
            assert isinstance(outcome, error)
            assert consumer.log == [(error, "fail"), "disconnect 1006"]
            assert consumer_stats(Here).errors == 1

    async def test_the_traceback_leads_to_the_handler(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        @action
        async def fail(consumer: Doing) -> None:
            raise OfTheTest

        client = wire(Doing())
        await opened(client, Doing())
        await tell(layer, "fail")
        error = await client.outcome()
        names, traceback = [], error.__traceback__ if error else None
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-2:] == ["do", "fail"]

    async def test_a_consumer_that_goes_on_after_an_error_gets_the_next_message(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def fail(consumer: Doing) -> None:
            raise OfTheTest

        class Tolerant(Doing):
            async def on_error(self, exc: Exception, message: Any) -> None:
                self.log.append("excused")

        consumer = Tolerant()
        client = wire(consumer)
        await opened(client, consumer)
        for n in range(3):
            await tell(layer, "fail")
            await layer.group_send("all", {"type": "note", "n": n})
            await settle()
        assert consumer.log == ["excused", 0, "excused", 1, "excused", 2]
        await finish(client)


class TestOrder:
    """One at a time, in order, whoever sends and whenever."""

    async def test_a_handler_that_sends_to_its_own_channel_is_not_entered_again(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def send(consumer: Doing) -> None:
            consumer.log.append("begin")
            for n in range(3):
                await layer.send(consumer.channel_name, {"type": "note", "n": n})
                layer.group_send_sync("all", {"type": "note", "n": 10 + n})
            consumer.log.append("end")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "send")
        await settle()
        assert consumer.log == ["begin", "end", 0, 10, 1, 11, 2, 12]
        await finish(client)

    async def test_messages_that_come_while_a_handler_waits_stay_in_order(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        gate = asyncio.Event()

        @action
        async def wait(consumer: Doing) -> None:
            consumer.log.append("begin")
            await gate.wait()
            consumer.log.append("end")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "wait")
        for n in range(5):
            await layer.group_send("all", {"type": "note", "n": n})
            await asyncio.sleep(0)
        client.write("frame")
        await settle()
        assert consumer.log == ["begin"]
        gate.set()
        await settle()
        assert consumer.log == ["begin", "end", "frame", 0, 1, 2, 3, 4]
        await finish(client)

    async def test_consumers_that_answer_each_other_do_not_recurse(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Player(Doing):
            async def ball(self, event: dict[str, Any]) -> None:
                self.log.append(event["n"])
                if event["n"] < 3000:
                    await layer.group_send("all", {"type": "ball", "n": event["n"] + 1}, exclude=[self.channel_name])

        players = [Player(), Player()]
        clients = [wire(player) for player in players]
        for client, player in zip(clients, players, strict=True):
            await opened(client, player)
        await layer.send(players[0].channel_name, {"type": "ball", "n": 0})
        while len(players[0].log) + len(players[1].log) < 3001:
            await asyncio.sleep(0)
        assert players[0].log == list(range(0, 3001, 2))
        assert players[1].log == list(range(1, 3001, 2))
        for client in clients:
            await finish(client)

    async def test_a_handler_that_closes_stops_the_rest(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        @action
        async def close(consumer: Doing) -> None:
            await consumer.close(4000)

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "close")
        for n in range(3):
            await layer.group_send("all", {"type": "note", "n": n})
        await settle()
        assert consumer.log == []
        assert client.sent[1:] == [{"type": "websocket.close", "code": 4000}]
        await finish(client)

    @pytest.mark.parametrize("waits", [False, True])
    async def test_a_handler_that_floods_its_own_channel_is_closed_if_it_asks_for_that(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, waits: bool
    ) -> None:
        class Limited(Doing):
            max_backlog = 3
            overflow = "close"

        @action
        async def flood(consumer: Doing) -> None:
            for n in range(10):
                await layer.group_send("all", {"type": "note", "n": n})
            if waits:
                try:
                    await asyncio.Event().wait()
                finally:
                    consumer.log.append("cut off")

        consumer = Limited()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "flood")
        await client.end()
        assert client.sent[-1] == {"type": "websocket.close", "code": 1013}
        assert consumer.log[-1] == "disconnect 1013"
        assert ("cut off" in consumer.log) == waits

    async def test_a_channel_that_a_handler_names_is_listened_to(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        @action
        async def move(consumer: Doing) -> None:
            consumer.channel_name = "mine"
            await layer.group_add("room", "mine")

        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)
        await tell(layer, "move")
        await settle()
        await layer.group_send("room", {"type": "note", "n": 1})
        await settle()
        client.write("frame")
        await settle()
        assert sorted(map(str, consumer.log)) == ["1", "frame"]
        await finish(client)

    async def test_from_other_threads_too(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        consumer = Doing()
        client = wire(consumer)
        await opened(client, consumer)

        def send() -> None:
            for n in range(50):
                layer.group_send_sync("all", {"type": "note", "n": n})

        await asyncio.to_thread(send)
        while len(consumer.log) < 50:
            await asyncio.sleep(0)
        assert consumer.log == list(range(50))
        await finish(client)
