"""What becomes of receivers and messages when their event loop is gone."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

import pytest

from headrace.exceptions import ChannelEmpty
from headrace.layers import InMemoryChannelLayer

pytestmark = pytest.mark.usefixtures("little_to_collect")

NewLoop = Callable[[], asyncio.AbstractEventLoop]


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that cannot be told to watch a descriptor, as Windows' proactor loop."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]  # of no use whatever it is given
        raise NotImplementedError


def start(
    loop: asyncio.AbstractEventLoop, layer: InMemoryChannelLayer, channel: str = "channel", count: int = 1
) -> list[asyncio.Task[Any]]:
    """Run a loop until so many more of its tasks wait at a channel; they are not to complain about their end."""

    async def begin() -> list[asyncio.Task[Any]]:
        waiting = layer.stats().waiters
        tasks = []
        for _ in range(count):
            tasks.append(asyncio.get_running_loop().create_task(layer.receive(channel)))
            tasks[-1]._log_destroy_pending = False  # type: ignore[attr-defined]
            while layer.stats().waiters < waiting + len(tasks):
                await asyncio.sleep(0)
        return tasks

    return loop.run_until_complete(begin())


def rest(layer: InMemoryChannelLayer, channel: str = "channel") -> list[int]:
    """Take what a channel holds."""
    messages = []
    while True:
        try:
            messages.append(layer.receive_nowait(channel)["n"])
        except ChannelEmpty:
            return messages


def descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def in_a_thread(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a thread, and wait until it is done."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


class TestClosed:
    """A loop that was closed while its tasks waited."""

    def test_its_receivers_leave_the_line(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        loop = new_loop()
        tasks = [*start(loop, layer, "a", 3), *start(loop, layer, "b", 2)]
        loop.close()
        assert layer.stats().waiters == 0
        assert layer.stats().channels == 0
        assert not any(task.done() for task in tasks)

    def test_messages_go_to_receivers_of_other_loops(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        closed, open_ = new_loop(), new_loop()
        left = start(closed, layer, count=2)
        (task,) = start(open_, layer)
        closed.close()
        for n in range(2):
            layer.send_sync("channel", {"n": n})
        assert open_.run_until_complete(task) == {"n": 0}
        open_.close()
        assert rest(layer) == [1]
        assert not any(task.done() for task in left)

    def test_messages_on_their_way_go_back_to_their_places(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        loop = new_loop()
        tasks = start(loop, layer, count=3)
        for n in range(5):
            layer.send_sync("channel", {"n": n})
        loop.close()
        assert rest(layer) == [0, 1, 2, 3, 4]
        assert not any(task.done() for task in tasks)

    def test_messages_on_their_way_from_another_thread_go_back_too(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        loop = new_loop()
        tasks = start(loop, layer, count=3)
        for n in range(5):
            in_a_thread(layer.send_sync, "channel", {"n": n})
        loop.close()
        assert rest(layer) == [0, 1, 2, 3, 4]
        assert not any(task.done() for task in tasks)

    def test_messages_on_their_way_go_to_receivers_of_other_loops(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        closed, open_ = new_loop(), new_loop()
        left = start(closed, layer, count=2)
        (task,) = start(open_, layer)
        for n in range(2):
            layer.send_sync("channel", {"n": n})
        closed.close()
        assert open_.run_until_complete(task) == {"n": 0}
        open_.close()
        assert rest(layer) == [1]
        assert not any(task.done() for task in left)

    def test_what_an_interrupt_left_undone_goes_back(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        async def interrupted() -> None:
            await layer.receive("channel")
            raise KeyboardInterrupt

        loop = new_loop()
        interrupting = loop.create_task(interrupted())
        tasks = start(loop, layer, count=39)
        for n in range(40):
            layer.send_sync("channel", {"n": n})
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.close()
        assert isinstance(interrupting.exception(), KeyboardInterrupt)
        # A loop may run what was ready before it ends, and a task may have its message and never run again.
        received = [task.result()["n"] for task in tasks if task.done()]
        tasks.clear()
        gc.collect()
        assert received + rest(layer) == list(range(1, 40))

    def test_it_and_its_tasks_can_be_collected(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        loop = new_loop()
        tasks = start(loop, layer, count=3)
        layer.send_sync("channel", {"n": 0})
        loop.close()
        references: list[weakref.ref[Any]] = [weakref.ref(loop), *map(weakref.ref, tasks)]
        del tasks, loop
        gc.collect()
        assert [reference() for reference in references] == [None] * 4
        assert rest(layer) == [0]

    def test_another_loop_can_take_its_place(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        for n in range(20):
            loop = new_loop()
            (task,) = start(loop, layer)
            in_a_thread(layer.send_sync, "channel", {"n": n})
            assert loop.run_until_complete(task) == {"n": n}
            loop.close()

    def test_it_leaves_no_descriptor_open(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        def use() -> None:
            loop = new_loop()
            (task,) = start(loop, layer)
            in_a_thread(layer.send_sync, "channel", {"n": 0})
            loop.run_until_complete(task)
            start(loop, layer)
            loop.close()

        use()
        before = descriptors()
        for _ in range(10):
            use()
        gc.collect()
        assert descriptors() == before

    def test_the_books_balance(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        loop = new_loop()
        tasks = start(loop, layer, count=3)
        for n in range(2):
            layer.send_sync("channel", {"n": n})
        loop.close()
        stats = layer.stats()
        assert (stats.sent, stats.delivered, stats.depth) == (2, 0, 2)
        assert stats.returned >= 2
        assert not any(task.done() for task in tasks)


class TestForgotten:
    """A loop that nobody closed."""

    def test_it_is_collected_with_its_layer_and_leaves_no_descriptor_open(
        self, wake: Literal["direct", "future"]
    ) -> None:
        def use() -> weakref.ref[asyncio.AbstractEventLoop]:
            loop, layer = asyncio.new_event_loop(), InMemoryChannelLayer(wake=wake)
            (task,) = start(loop, layer)
            layer.send_sync("channel", {"n": 0})
            loop.run_until_complete(task)
            return weakref.ref(loop)

        def forget() -> weakref.ref[asyncio.AbstractEventLoop]:
            forgotten = use()
            gc.collect()
            return forgotten

        gc.collect()
        before = descriptors()
        with pytest.warns(ResourceWarning, match="unclosed"):
            forgotten = forget()
        assert forgotten() is None
        assert descriptors() == before


class TestClosedWithoutReaders:
    """A loop that has no ``add_reader`` does not tell of its end; the next send finds out."""

    def test_a_message_that_finds_it_gone_stays(self, layer: InMemoryChannelLayer) -> None:
        loop = LoopWithoutReaders()
        tasks = start(loop, layer, count=3)
        loop.close()
        layer.send_sync("channel", {"n": 0})
        layer.send_sync("channel", {"n": 1})
        assert rest(layer) == [0, 1]
        assert layer.stats().waiters == 0
        assert not any(task.done() for task in tasks)

    def test_a_message_that_finds_it_gone_goes_to_a_receiver_of_another_loop(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        closed, open_ = LoopWithoutReaders(), new_loop()
        left = start(closed, layer)
        (task,) = start(open_, layer)
        closed.close()
        layer.send_sync("channel", {"n": 0})
        assert open_.run_until_complete(task) == {"n": 0}
        open_.close()
        assert not any(task.done() for task in left)

    @pytest.mark.parametrize("from_a_thread", [False, True])
    def test_messages_on_their_way_go_back_to_their_places(
        self, layer: InMemoryChannelLayer, from_a_thread: bool
    ) -> None:
        loop = LoopWithoutReaders()
        tasks = start(loop, layer, count=3)
        for n in range(2):
            if from_a_thread:
                in_a_thread(layer.send_sync, "channel", {"n": n})
            else:
                layer.send_sync("channel", {"n": n})
        loop.close()
        layer.send_sync("channel", {"n": 2})
        assert rest(layer) == [0, 1, 2]
        assert layer.stats().waiters == 0
        assert not any(task.done() for task in tasks)

    def test_another_loop_can_take_its_place(self, layer: InMemoryChannelLayer) -> None:
        for n in range(20):
            loop = LoopWithoutReaders()
            (task,) = start(loop, layer)
            in_a_thread(layer.send_sync, "channel", {"n": n})
            assert loop.run_until_complete(task) == {"n": n}
            loop.close()
