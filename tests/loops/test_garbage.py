"""Nothing is kept longer than it is needed: tasks, contexts, messages, layers."""

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from headrace.layers import InMemoryChannelLayer

pytestmark = pytest.mark.usefixtures("little_to_collect")

NewLoop = Callable[[], asyncio.AbstractEventLoop]

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


eagerly = pytest.mark.asyncio(loop_factories=["eager"])


class Thing:
    """An object of which it can be told whether it is still there."""


async def wait_in(layer: InMemoryChannelLayer, channel: str = "channel") -> asyncio.Future[Any]:
    """Start a receive, and return its task once it waits."""
    waiting = layer.stats().waiters
    task = asyncio.ensure_future(layer.receive(channel))
    while layer.stats().waiters == waiting:
        await asyncio.sleep(0)
    return task


async def some_turns() -> None:
    """Let the loop run what was left to its next turns."""
    for _ in range(5):
        await asyncio.sleep(0)


class TestTasks:
    """A task that is done is not kept, nor anything that it held."""

    async def received(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        task = await wait_in(layer)
        await layer.send("channel", {"n": 1})
        await task
        return [weakref.ref(task)]

    async def received_from_a_thread(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        task = await wait_in(layer)
        await asyncio.to_thread(layer.send_sync, "channel", {"n": 1})
        await task
        return [weakref.ref(task)]

    async def cancelled(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        task = await wait_in(layer)
        task.cancel()
        await asyncio.wait([task])
        return [weakref.ref(task)]

    async def cancelled_with_its_message(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        task = await wait_in(layer)
        await layer.send("channel", {"n": 1})
        task.cancel()
        await asyncio.wait([task])
        await layer.receive("channel")
        return [weakref.ref(task)]

    async def fanned_out(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        tasks = []
        for n in range(20):
            await layer.group_add("group", f"channel{n}")
            tasks.append(await wait_in(layer, f"channel{n}"))
        await layer.group_send("group", {"n": [1]})
        await asyncio.gather(*tasks)
        return [weakref.ref(task) for task in tasks]

    async def of_an_inbox(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        async def take() -> None:
            async with layer.subscription("group") as inbox:
                await anext(inbox)
                await anext(inbox)

        task = asyncio.ensure_future(take())
        for _ in range(2):
            while layer.stats().waiters == 0:
                await asyncio.sleep(0)
            await layer.group_send("group", {"n": 1})
            await some_turns()
        await task
        return [weakref.ref(task)]

    async def of_an_inbox_that_others_use(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        async with layer.subscription("group") as inbox:
            tasks = []
            for _ in range(3):
                tasks.append(asyncio.ensure_future(_next(inbox)))
                while layer.stats().waiters == 0:
                    await asyncio.sleep(0)
                await layer.group_send("group", {"n": 1})
                await tasks[-1]
            references = [weakref.ref(task) for task in tasks]
            del tasks
            await some_turns()
            gc.collect()
            assert [reference() for reference in references] == [None] * 3
        return references

    async def told_of_the_end(self, layer: InMemoryChannelLayer) -> list[weakref.ref[Any]]:
        task = await wait_in(layer)
        await layer.close()
        await asyncio.wait([task])
        task.exception()
        return [weakref.ref(task)]

    @pytest.mark.parametrize(
        "way",
        [
            *(received, received_from_a_thread, cancelled, cancelled_with_its_message, fanned_out),
            *(of_an_inbox, of_an_inbox_that_others_use, told_of_the_end),
        ],
        ids=lambda way: way.__name__,
    )
    async def test_a_finished_task_is_not_kept(
        self,
        layer: InMemoryChannelLayer,
        way: Callable[["TestTasks", InMemoryChannelLayer], Awaitable[list[weakref.ref[Any]]]],
    ) -> None:
        references = await way(self, layer)
        await some_turns()
        gc.collect()
        assert [reference() for reference in references] == [None] * len(references)

    @eagerly
    async def test_a_task_that_made_its_successor_eagerly_is_not_kept_by_it(self, layer: InMemoryChannelLayer) -> None:
        async def first() -> None:
            await layer.receive("channel")
            successors.append(asyncio.ensure_future(layer.receive("channel")))

        successors: list[asyncio.Future[Any]] = []
        for _ in range(2):
            task = asyncio.ensure_future(first())
            while layer.stats().waiters == 0:
                await asyncio.sleep(0)
            await layer.send("channel", {"n": 1})
            await task
            reference = weakref.ref(task)
            del task
            await some_turns()
            gc.collect()
            assert reference() is None
            await layer.send("channel", {"n": 1})
            assert await successors.pop() == {"n": 1}

    async def test_the_variables_of_a_finished_task_are_not_kept(self, layer: InMemoryChannelLayer) -> None:
        async def receive() -> None:
            variable.set(thing := Thing())
            references.append(weakref.ref(thing))
            await layer.receive("channel")

        references: list[weakref.ref[Thing]] = []
        for _ in range(3):
            task = asyncio.ensure_future(receive())
            while layer.stats().waiters == 0:
                await asyncio.sleep(0)
            await layer.send("channel", {"n": 1})
            await task
        del task
        await some_turns()
        gc.collect()
        assert [reference() for reference in references] == [None] * 3

    @pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
    async def test_a_finished_task_needs_no_collector(self, layer: InMemoryChannelLayer) -> None:
        gc.disable()
        try:
            references = await self.received(layer)
            await some_turns()
            assert [reference() for reference in references] == [None]
        finally:
            gc.enable()


async def _next(inbox: AsyncIterator[Any]) -> Any:
    return await anext(inbox)


class TestMessages:
    """A message is let go when it was received, dropped or refused."""

    @pytest.mark.parametrize("way", ["received", "flushed", "closed", "channel closed", "handed over and closed"])
    async def test_what_a_message_holds_is_not_kept(self, layer: InMemoryChannelLayer, way: str) -> None:
        class Held:
            def __deepcopy__(self, memo: object) -> "Held":
                copies.append(weakref.ref(copy := Held()))
                return copy

        copies: list[weakref.ref[Held]] = []
        for channel in ("a", "b"):
            await layer.group_add("group", channel)
        task = await wait_in(layer, "a") if way == "handed over and closed" else None
        await layer.group_send("group", {"held": Held()})
        if way == "received":
            for channel in ("a", "b"):
                await layer.receive(channel)
        elif way == "flushed":
            await layer.flush()
        elif way == "channel closed":
            for channel in ("a", "b"):
                layer.close_channel(channel)
        else:
            await layer.close()
        if task:
            await task
        del task
        await some_turns()
        gc.collect()
        assert copies
        assert [copy() for copy in copies] == [None] * len(copies)


class TestLayers:
    """A layer that nobody has any more is gone, with all that it holds and all that waits on it."""

    async def test_an_unused_layer_needs_no_collector(self, wake: Any) -> None:
        gc.disable()
        try:
            layer = InMemoryChannelLayer(wake=wake)
            await layer.send("channel", {"n": [1]})
            await layer.group_add("group", "channel")
            reference = weakref.ref(layer)
            del layer
            assert reference() is None
        finally:
            gc.enable()

    async def test_a_layer_that_has_messages_that_refer_to_it_is_collected(self, wake: Any) -> None:
        class Holder:
            def __init__(self, layer: Any) -> None:
                self.layer = layer

            def __deepcopy__(self, memo: object) -> "Holder":
                return Holder(self.layer)

        layer = InMemoryChannelLayer(wake=wake)
        await layer.send("channel", {"holder": Holder(layer)})
        reference = weakref.ref(layer)
        del layer
        gc.collect()
        assert reference() is None

    async def test_a_layer_whose_patterns_refer_to_it_is_collected(self, wake: Any) -> None:
        class Pattern:
            layer: Any = None

            def match(self, name: str) -> bool:
                return False

        pattern = Pattern()
        layer = pattern.layer = InMemoryChannelLayer(channel_capacity={pattern: 1}, wake=wake)
        await layer.send("channel", {"n": 1})
        reference = weakref.ref(layer)
        del layer, pattern
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("messages", [0, 1])
    async def test_a_layer_on_which_only_its_own_tasks_wait_is_collected_with_them(
        self, wake: Any, messages: int
    ) -> None:
        layer = InMemoryChannelLayer(wake=wake)
        tasks = [await wait_in(layer, f"channel{n}") for n in range(3)]
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        references: list[weakref.ref[Any]] = [weakref.ref(layer), *map(weakref.ref, tasks)]
        del layer, tasks, task
        gc.collect()
        assert [reference() for reference in references] == [None] * 4

    async def test_a_task_that_waits_is_collected_with_nothing_but_its_layer(self, layer: InMemoryChannelLayer) -> None:
        task = await wait_in(layer)
        reference = weakref.ref(task)
        del task
        gc.collect()
        assert reference() is not None
        assert layer.stats().waiters == 1
        await layer.send("channel", {"n": 1})
        await some_turns()
        gc.collect()
        assert reference() is None

    async def test_a_forgotten_task_gives_its_message_back(self, layer: InMemoryChannelLayer) -> None:
        receiving = layer.receive("channel")
        receiving.send(None)
        await layer.send("channel", {"n": 1})
        del receiving
        gc.collect()
        assert layer.receive_nowait("channel") == {"n": 1}


class TestCounts:
    """Ten thousand of anything leave as many objects behind as none."""

    async def waiting(self, layer: InMemoryChannelLayer, count: int) -> None:
        async def receive() -> None:
            for _ in range(count):
                await layer.receive("channel")

        task = asyncio.ensure_future(receive())
        for _ in range(count):
            while layer.stats().waiters == 0:
                await asyncio.sleep(0)
            await layer.send("channel", {"n": 1})
        await task

    async def ready(self, layer: InMemoryChannelLayer, count: int) -> None:
        for _ in range(count):
            await layer.send("channel", {"n": [1]})
            await layer.receive("channel")

    async def of_groups(self, layer: InMemoryChannelLayer, count: int) -> None:
        for n in range(count):
            await layer.group_add(f"group{n}", f"channel{n}")
            await layer.group_send(f"group{n}", {"n": 1}, exclude="other")
            await layer.receive(f"channel{n}")
            await layer.group_discard(f"group{n}", f"channel{n}")

    async def of_an_inbox(self, layer: InMemoryChannelLayer, count: int) -> None:
        async with layer.subscription("group") as inbox:
            task = asyncio.ensure_future(_take(inbox, count))
            for _ in range(count):
                while layer.stats().waiters == 0:
                    await asyncio.sleep(0)
                await layer.group_send("group", {"n": 1})
            await task

    async def cancelled(self, layer: InMemoryChannelLayer, count: int) -> None:
        for _ in range(count // 5):
            task = await wait_in(layer)
            await layer.send("channel", {"n": 1})
            task.cancel()
            await asyncio.wait([task])
            await layer.receive("channel")

    async def refused(self, layer: InMemoryChannelLayer, count: int) -> None:
        for _ in range(count):
            with pytest.raises(TypeError):
                await layer.send("no name", {"n": 1})

    @pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
    @pytest.mark.parametrize(
        "way", [waiting, ready, of_groups, of_an_inbox, cancelled, refused], ids=lambda way: way.__name__
    )
    async def test_nothing_is_left_behind(
        self,
        layer: InMemoryChannelLayer,
        way: Callable[["TestCounts", InMemoryChannelLayer, int], Awaitable[None]],
    ) -> None:
        await way(self, layer, 1_000)
        await some_turns()
        gc.collect()
        things = [layer, layer._core, asyncio.get_running_loop(), asyncio.current_task(), self]
        references = [sys.getrefcount(thing) for thing in things]
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        await way(self, layer, 10_000)
        await some_turns()
        gc.collect()
        assert abs(len(gc.get_objects()) - objects) < 100
        assert abs(sys.getallocatedblocks() - blocks) < 1_000
        for thing, before in zip(things, references, strict=True):
            assert abs(sys.getrefcount(thing) - before) < 10, thing


async def _take(inbox: AsyncIterator[Any], count: int) -> None:
    for _ in range(count):
        await anext(inbox)
