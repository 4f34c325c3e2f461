"""How waiting tasks are resumed: in order, each in its own context, without holding the loop, whatever one does."""

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from headrace.layers import InMemoryChannelLayer

NewLoop = Callable[[], asyncio.AbstractEventLoop]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def all_wait(layer: InMemoryChannelLayer, count: int) -> None:
    """Return when so many receivers wait."""
    while layer.stats().waiters < count:
        await asyncio.sleep(0)


async def test_receivers_are_resumed_in_the_order_of_the_sends(layer: InMemoryChannelLayer) -> None:
    resumed: list[str] = []

    async def receive(channel: str) -> None:
        await layer.receive(channel)
        resumed.append(channel)

    channels = [f"channel{n}" for n in range(40)]
    tasks = [asyncio.ensure_future(receive(channel)) for channel in channels]
    await all_wait(layer, len(tasks))
    for channel in reversed(channels):
        await layer.send(channel, {"type": "hello"})
    await asyncio.gather(*tasks)
    assert resumed == channels[::-1]


async def test_a_sender_goes_on_before_its_receivers_are_resumed(layer: InMemoryChannelLayer) -> None:
    resumed: list[int] = []

    async def receive(n: int) -> None:
        await layer.receive(f"channel{n}")
        resumed.append(n)

    for n in range(5):
        await layer.group_add("group", f"channel{n}")
    tasks = [asyncio.ensure_future(receive(n)) for n in range(5)]
    await all_wait(layer, 5)
    await layer.group_send("group", {"type": "hello"})
    await layer.send("channel0", {"type": "hello"})
    assert resumed == []
    await asyncio.gather(*tasks)
    assert sorted(resumed) == list(range(5))


async def test_a_receiver_that_answers_wakes_another_that_answers(layer: InMemoryChannelLayer) -> None:
    async def pass_on(n: int) -> None:
        await layer.receive(f"channel{n}")
        await layer.send(f"channel{n + 1}", {"type": "hello"})

    tasks = [asyncio.ensure_future(pass_on(n)) for n in range(100)]
    await all_wait(layer, 100)
    await layer.send("channel0", {"type": "hello"})
    assert await layer.receive("channel100") == {"type": "hello"}
    await asyncio.gather(*tasks)


class TestContext:
    """A resumed task finds its own context, not that of the sender nor that of the one resumed before it."""

    async def test_each_task_keeps_its_own_variables(self, layer: InMemoryChannelLayer) -> None:
        async def receive(n: int) -> tuple[str, str, bool]:
            variable.set(f"task{n}")
            task = asyncio.current_task()
            await layer.receive("channel")
            before = variable.get()
            variable.set(f"task{n} resumed")
            await layer.receive("channel")
            return before, variable.get(), asyncio.current_task() is task

        tasks = [asyncio.ensure_future(receive(n)) for n in range(20)]
        await all_wait(layer, 20)
        variable.set("sender")
        for _ in range(40):
            await layer.send("channel", {"type": "hello"})
        assert await asyncio.gather(*tasks) == [(f"task{n}", f"task{n} resumed", True) for n in range(20)]
        assert variable.get() == "sender"

    async def test_tasks_may_share_a_context_with_each_other_and_with_the_sender(
        self, layer: InMemoryChannelLayer
    ) -> None:
        context = contextvars.copy_context()

        async def receive() -> None:
            await layer.receive("channel")
            variable.set(variable.get() + "+")

        async def send() -> None:
            variable.set("shared")
            for _ in range(3):
                await layer.send("channel", {"type": "hello"})

        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(receive(), context=context) for _ in range(3)]
        await all_wait(layer, 3)
        await loop.create_task(send(), context=context)
        await asyncio.gather(*tasks)
        assert context[variable] == "shared+++"
        assert variable.get() == "unset"

    async def test_what_a_woken_task_starts_inherits_its_variables(self, layer: InMemoryChannelLayer) -> None:
        async def receive(n: int) -> str:
            variable.set(f"task{n}")
            await layer.receive("channel")
            return await asyncio.ensure_future(asyncio.sleep(0, variable.get()))

        tasks = [asyncio.ensure_future(receive(n)) for n in range(5)]
        await all_wait(layer, 5)
        for _ in range(5):
            await layer.send("channel", {"type": "hello"})
        assert await asyncio.gather(*tasks) == [f"task{n}" for n in range(5)]


class TestFailures:
    """Whatever one receiver does when it is resumed, the others get their messages."""

    async def test_an_exception_of_one_receiver_is_its_own(self, layer: InMemoryChannelLayer) -> None:
        async def receive(n: int) -> int:
            message = await layer.receive("channel")
            if n % 2:
                raise LookupError(n)
            return int(message["n"])

        tasks = [asyncio.ensure_future(receive(n)) for n in range(10)]
        await all_wait(layer, 10)
        for n in range(10):
            await layer.send("channel", {"n": n})
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome if isinstance(outcome, int) else None for outcome in outcomes] == [
            None if n % 2 else n for n in range(10)
        ]

    async def test_an_exception_in_a_callback_goes_to_the_loops_handler(self, layer: InMemoryChannelLayer) -> None:
        def fail(task: asyncio.Future[Any]) -> None:
            raise LookupError(task.result()["n"])

        handled: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, details: handled.append(details["exception"]))
        tasks = [asyncio.ensure_future(layer.receive("channel")) for _ in range(3)]
        for task in tasks:
            task.add_done_callback(fail)
        await all_wait(layer, 3)
        for n in range(3):
            await layer.send("channel", {"n": n})
        assert [message["n"] for message in await asyncio.gather(*tasks)] == [0, 1, 2]
        await asyncio.sleep(0)
        assert [(type(error), error.args) for error in handled] == [(LookupError, (n,)) for n in range(3)]

    @pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("place", [0, 1, 19, 39])
    def test_what_ends_the_loop_ends_it_and_leaves_the_rest_to_its_next_run(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop, ending: type[BaseException], place: int
    ) -> None:
        async def receive(n: int) -> int:
            message = await layer.receive(f"channel{n}")
            if n == place:
                raise ending("of the test")
            return int(message["n"])

        async def main() -> None:
            tasks.extend(asyncio.ensure_future(receive(n)) for n in range(40))
            await all_wait(layer, 40)
            for n in range(40):
                await layer.send(f"channel{n}", {"n": n})
            await asyncio.Event().wait()

        tasks: list[asyncio.Future[Any]] = []
        with closing(new_loop()) as loop:
            endless = loop.create_task(main())
            with pytest.raises(ending, match="of the test"):
                loop.run_until_complete(endless)
            endless.cancel()
            loop.run_until_complete(asyncio.wait([*tasks, endless]))
            assert isinstance(tasks[place].exception(), ending)
            assert [task.result() for task in tasks if not task.exception()] == [n for n in range(40) if n != place]

    @pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
    def test_what_ends_a_loop_that_another_thread_woke_leaves_the_rest_too(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop, ending: type[BaseException]
    ) -> None:
        async def receive(n: int) -> int:
            message = await layer.receive(f"channel{n}")
            if n == 3:
                raise ending("of the test")
            return int(message["n"])

        async def begin() -> None:
            tasks.extend(asyncio.ensure_future(receive(n)) for n in range(40))
            await all_wait(layer, 40)

        def send() -> None:
            for n in range(40):
                layer.send_sync(f"channel{n}", {"n": n})

        tasks: list[asyncio.Future[Any]] = []
        with closing(new_loop()) as loop:
            loop.run_until_complete(begin())
            thread = threading.Thread(target=send)
            thread.start()
            thread.join()
            with pytest.raises(ending, match="of the test"):
                loop.run_forever()
            loop.run_until_complete(asyncio.wait(tasks))
            assert isinstance(tasks[3].exception(), ending)
            assert [task.result() for task in tasks if not task.exception()] == [n for n in range(40) if n != 3]

    async def test_a_receiver_that_cancels_the_others_when_it_is_resumed_loses_none_of_their_messages(
        self, layer: InMemoryChannelLayer
    ) -> None:
        async def cancel_the_others() -> int:
            message = await layer.receive("channel")
            for task in tasks[1:]:
                task.cancel()
            return int(message["n"])

        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(cancel_the_others())]
        await all_wait(layer, 1)
        tasks.extend(asyncio.ensure_future(layer.receive("channel")) for _ in range(9))
        await all_wait(layer, 10)
        for n in range(10):
            await layer.send("channel", {"n": n})
        await asyncio.wait(tasks)
        assert tasks[0].result() == 0
        assert all(task.cancelled() for task in tasks[1:])
        assert [layer.receive_nowait("channel")["n"] for _ in range(9)] == list(range(1, 10))


def woken_directly(test: Any) -> Any:
    """Restrict a test to what the layer's own callback resumes: asyncio's own tasks, without ``wake="future"``."""
    loops = ["asyncio", "uvloop", *(["eager"] if sys.version_info >= (3, 12) else [])]
    return pytest.mark.asyncio(loop_factories=loops)(pytest.mark.parametrize("wake", ["direct"])(test))


class Ticker:
    """Counts the turns of the loop, by a callback that puts itself in the queue again each time."""

    def __init__(self) -> None:
        self.turns = 0
        self.stopped = False
        self._tick()

    def _tick(self) -> None:
        self.turns += 1
        if not self.stopped:
            asyncio.get_running_loop().call_soon(self._tick)


class TestFairness:
    """A fan-out, however large, leaves the loop time for its other work."""

    @woken_directly
    async def test_ten_thousand_members_are_resumed_in_many_turns_of_the_loop(
        self, layer: InMemoryChannelLayer
    ) -> None:
        resumed: list[int] = []

        async def receive(channel: str) -> None:
            await layer.receive(channel)
            resumed.append(ticker.turns)

        for n in range(10_000):
            await layer.group_add("group", f"channel{n}")
        tasks = [asyncio.ensure_future(receive(f"channel{n}")) for n in range(10_000)]
        await all_wait(layer, 10_000)
        ticker = Ticker()
        assert (await layer.group_send("group", {"type": "hello"})).delivered == 10_000
        await asyncio.gather(*tasks)
        ticker.stopped = True
        assert len(set(resumed)) > 2

    @woken_directly
    async def test_receivers_that_take_long_are_resumed_few_at_a_time(self, layer: InMemoryChannelLayer) -> None:
        resumed: list[int] = []

        async def receive() -> None:
            await layer.receive("channel")
            resumed.append(ticker.turns)
            end = time.perf_counter() + 0.0002
            while time.perf_counter() < end:
                pass

        tasks = [asyncio.ensure_future(receive()) for _ in range(256)]
        await all_wait(layer, 256)
        ticker = Ticker()
        await layer.send_many([("channel", {"type": "hello"})] * 256)
        await asyncio.gather(*tasks)
        ticker.stopped = True
        assert max(resumed.count(turn) for turn in set(resumed)) <= 64

    async def test_two_that_answer_each_other_for_ever_leave_the_loop_its_other_work(
        self, layer: InMemoryChannelLayer
    ) -> None:
        async def answer(own: str, other: str) -> None:
            while True:
                await layer.receive(own)
                await layer.send(other, {"type": "hello"})

        tasks = [asyncio.ensure_future(answer("a", "b")), asyncio.ensure_future(answer("b", "a"))]
        await all_wait(layer, 2)
        await layer.send("a", {"type": "hello"})
        for _ in range(100):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert layer.stats().delivered > 2

    async def test_layers_that_share_a_loop_do_not_mix_their_messages(
        self, layer: InMemoryChannelLayer, wake: Any
    ) -> None:
        layers = [layer, *(InMemoryChannelLayer(wake=wake) for _ in range(4))]
        tasks = [asyncio.ensure_future(each.receive("channel")) for each in layers]
        for each in layers:
            await all_wait(each, 1)
        for n, each in enumerate(layers):
            await each.send("channel", {"n": n})
        assert [message["n"] for message in await asyncio.gather(*tasks)] == [0, 1, 2, 3, 4]
