"""One layer, any number of threads, with and without event loops."""

import asyncio
import collections
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from headrace.exceptions import ChannelEmpty, LayerClosed
from headrace.layers import InMemoryChannelLayer

NewLoop = Callable[[], asyncio.AbstractEventLoop]
END = {"n": None}


class LoopThread(Protocol):
    """An event loop that runs in a thread of its own: see conftest.py."""

    loop: asyncio.AbstractEventLoop

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]: ...

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...

    def end(self) -> None: ...


async def all_wait(layer: InMemoryChannelLayer, count: int) -> None:
    """Return when so many receivers wait."""
    while layer.stats().waiters < count:
        await asyncio.sleep(0)


async def receive_until_end(layer: InMemoryChannelLayer, channel: str) -> list[Any]:
    """Receive until END comes."""
    received = []
    while (message := await layer.receive(channel)) != END:
        received.append(message["n"])
    return received


class TestOneLoop:
    """A plain thread sends to tasks of a loop that has nothing else to do."""

    async def test_a_waiting_task_is_reached(self, layer: InMemoryChannelLayer) -> None:
        task = asyncio.ensure_future(layer.receive("channel"))
        await all_wait(layer, 1)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(layer.send_sync, "channel", {"n": 1}).result()
            assert await task == {"n": 1}

    def test_an_idle_loop_is_woken(self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]) -> None:
        receiving = (thread := loop_thread()).start(receive_until_end(layer, "channel"))
        thread.run(all_wait(layer, 1))
        for n in range(20):
            layer.send_sync("channel", {"n": n})
            thread.run(all_wait(layer, 1))
        layer.send_sync("channel", END)
        assert receiving.result(timeout=30) == list(range(20))

    def test_a_flood_arrives_whole_and_in_order(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        receiving = loop_thread().start(receive_until_end(layer, "channel"))
        for n in range(5_000):
            layer.send_sync("channel", {"n": n})
        layer.send_sync("channel", END)
        assert receiving.result(timeout=30) == list(range(5_000))

    def test_async_to_sync_reaches_it_too(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        thread = loop_thread()
        receiving = thread.start(receive_until_end(layer, "channel"))
        thread.run(layer.group_add("group", "channel"))
        async_to_sync(layer.send)("channel", {"n": 0})
        assert async_to_sync(layer.group_send)("group", {"n": 1}).delivered == 1
        async_to_sync(layer.send_many)([("channel", END)])
        assert receiving.result(timeout=30) == [0, 1]

    async def test_synchronous_code_of_a_task_reaches_a_task_of_the_same_loop(
        self, layer: InMemoryChannelLayer
    ) -> None:
        def send() -> None:
            async_to_sync(layer.send)("channel", {"n": 0})
            layer.send_sync("channel", END)

        task = asyncio.ensure_future(receive_until_end(layer, "channel"))
        await all_wait(layer, 1)
        await sync_to_async(send)()
        assert await task == [0]

    def test_a_fan_out_from_a_thread_reaches_every_task(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        thread = loop_thread()
        for n in range(1_000):
            layer.group_add_sync("group", f"channel{n}")
        receiving = [thread.start(layer.receive(f"channel{n}")) for n in range(1_000)]
        thread.run(all_wait(layer, 1_000))
        assert layer.group_send_sync("group", {"n": 1}).delivered == 1_000
        assert all(future.result(timeout=30) == {"n": 1} for future in receiving)

    def test_a_loop_that_moved_to_another_thread_is_woken_there(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        async def begin() -> asyncio.Future[Any]:
            task = asyncio.ensure_future(layer.receive("channel"))
            await all_wait(layer, 1)
            return task

        loop, arrived, runs = new_loop(), threading.Event(), threading.Event()
        task = loop.run_until_complete(begin())
        task.add_done_callback(lambda _: arrived.set())
        loop.call_soon(runs.set)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            assert runs.wait(timeout=30)
            layer.send_sync("channel", {"n": 1})
            assert arrived.wait(timeout=30)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(asyncio.wait([task], timeout=0))
            loop.close()
        assert task.result() == {"n": 1}

    def test_a_loop_that_stands_still_has_its_message_when_it_runs_again(
        self, layer: InMemoryChannelLayer, new_loop: NewLoop
    ) -> None:
        loop = new_loop()
        task = loop.create_task(layer.receive("channel"))
        loop.run_until_complete(all_wait(layer, 1))
        layer.send_sync("channel", {"n": 1})
        assert not task.done()
        assert loop.run_until_complete(task) == {"n": 1}
        loop.close()


class TestSeveralLoops:
    """Tasks of several loops, each in its thread, receive from one layer at the same time."""

    def test_a_fan_out_reaches_the_tasks_of_all_of_them(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        threads = [loop_thread() for _ in range(4)]
        for n in range(40):
            layer.group_add_sync("group", f"channel{n}")
        receiving = [threads[n % 4].start(receive_until_end(layer, f"channel{n}")) for n in range(40)]
        for n in range(50):
            layer.group_send_sync("group", {"n": n})
        layer.group_send_sync("group", END)
        assert [future.result(timeout=30) for future in receiving] == [list(range(50))] * 40

    def test_receivers_of_one_channel_are_served_in_their_order_whatever_their_loop(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        threads = [loop_thread() for _ in range(3)]
        receiving = []
        for n in range(12):
            receiving.append(threads[n % 3].start(layer.receive("channel")))
            threads[n % 3].run(all_wait(layer, n + 1))
        for n in range(12):
            layer.send_sync("channel", {"n": n})
        assert [future.result(timeout=30)["n"] for future in receiving] == list(range(12))

    def test_a_message_that_a_task_leaves_goes_to_a_task_of_another_loop(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        async def leave_when_the_message_is_on_its_way() -> None:
            task = asyncio.ensure_future(layer.receive("channel"))
            await all_wait(layer, 1)
            in_line.set()
            other_in_line.wait()
            await layer.send("channel", {"n": 1})
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        in_line, other_in_line = threading.Event(), threading.Event()
        leaving, other = loop_thread(), loop_thread()
        left = leaving.start(leave_when_the_message_is_on_its_way())
        in_line.wait()
        receiving = other.start(layer.receive("channel"))
        other.run(all_wait(layer, 2))
        other_in_line.set()
        left.result(timeout=30)
        assert receiving.result(timeout=30) == {"n": 1}

    def test_tasks_answer_each_other_across_loops(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        async def answer(own: str, other: str, count: int) -> int:
            last = 0
            for _ in range(count):
                last = (await layer.receive(own))["n"]
                await layer.send(other, {"n": last + 1})
            return last

        first = loop_thread().start(answer("a", "b", 200))
        second = loop_thread().start(answer("b", "a", 200))
        layer.send_sync("a", {"n": 0})
        assert (first.result(timeout=30), second.result(timeout=30)) == (398, 399)

    def test_closing_the_layer_tells_the_tasks_of_all_of_them(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        threads = [loop_thread() for _ in range(3)]
        receiving = [thread.start(layer.receive("channel")) for thread in threads]
        threads[0].run(all_wait(layer, 3))
        async_to_sync(layer.close)()
        for future in receiving:
            with pytest.raises(LayerClosed):
                future.result(timeout=30)

    def test_many_threads_send_to_many_loops_and_every_message_arrives_once(
        self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
    ) -> None:
        loops, senders, each = 3, 4, 400

        def send(thread: int) -> None:
            barrier.wait()
            for n in range(each):
                layer.send_sync(f"own{(thread + n) % loops}", {"n": (thread, n)})
                layer.send_sync("shared", {"n": (thread, n)})
                layer.group_send_sync("group", {"n": (thread, n)})

        barrier = threading.Barrier(senders)
        threads = [loop_thread() for _ in range(loops)]
        for n in range(loops):
            layer.group_add_sync("group", f"member{n}")
        own, shared, members = (
            [thread.start(receive_until_end(layer, f"{name}{n}")) for n, thread in enumerate(threads)]
            if name != "shared"
            else [thread.start(receive_until_end(layer, name)) for thread in threads for _ in range(2)]
            for name in ("own", "shared", "member")
        )
        with ThreadPoolExecutor(senders) as pool:
            list(pool.map(send, range(senders)))
        for n in range(loops):
            layer.send_sync(f"own{n}", END)
            layer.send_sync("shared", END)
            layer.send_sync("shared", END)
        layer.group_send_sync("group", END)

        everything = {(thread, n) for thread in range(senders) for n in range(each)}
        for future in members:
            received = future.result(timeout=30)
            assert collections.Counter(received) == collections.Counter(everything)
            for thread in range(senders):
                assert [n for sender, n in received if sender == thread] == list(range(each))
        for futures in (own, shared):
            received = [n for future in futures for n in future.result(timeout=30)]
            assert collections.Counter(received) == collections.Counter(everything)
        stats = layer.stats()
        assert stats.sent == stats.delivered == (2 + loops) * len(everything) + 4 * loops
        assert (stats.depth, stats.waiters, stats.returned, stats.dropped_full) == (0, 0, 0, 0)


class TestInbox:
    """A subscription's inbox is read by one task at a time, of whatever loop."""

    def test_it_may_move_from_one_loop_to_another(self, layer: InMemoryChannelLayer, new_loop: NewLoop) -> None:
        async def take(count: int) -> list[Any]:
            received = []
            for n in range(count):
                task = asyncio.ensure_future(_next(inbox))
                while layer.stats().waiters == 0 and not task.done():
                    await asyncio.sleep(0)
                await layer.group_send("group", {"n": n})
                received.append((await task)["n"])
            return received

        subscription = layer.subscription("group")
        with asyncio.Runner(loop_factory=new_loop) as runner:
            inbox = runner.run(subscription.__aenter__())
            assert runner.run(take(2)) == [0, 1]
        for _ in range(3):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                assert runner.run(take(2)) == [0, 1]

    def test_a_thread_fills_it(self, layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]) -> None:
        async def take() -> list[Any]:
            received: list[int] = []
            async with layer.subscription("group") as inbox:
                async for message in inbox:
                    if message == END:
                        return received
                    received.append(message["n"])
            raise AssertionError("it has no end")

        receiving = (thread := loop_thread()).start(take())
        thread.run(all_wait(layer, 1))
        for n in range(500):
            layer.group_send_sync("group", {"n": n})
        layer.group_send_sync("group", END)
        assert receiving.result(timeout=30) == list(range(500))


async def _next(inbox: Any) -> Any:
    return await anext(inbox)


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """A loop that cannot be told to watch a descriptor, as Windows' proactor loop."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]  # of no use whatever it is given
        raise NotImplementedError


class TestLoopWithoutAddReader:
    """It is woken by ``call_soon_threadsafe``."""

    def test_messages_reach_it_from_its_own_thread_and_from_others(self, layer: InMemoryChannelLayer) -> None:
        async def main() -> list[Any]:
            task = asyncio.ensure_future(receive_until_end(layer, "channel"))
            await all_wait(layer, 1)
            await layer.send("channel", {"n": 0})
            await all_wait(layer, 1)
            await asyncio.to_thread(layer.send_sync, "channel", {"n": 1})
            await all_wait(layer, 1)
            await asyncio.to_thread(layer.send_sync, "channel", END)
            return await task

        with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
            assert runner.run(main()) == [0, 1]
            with pytest.raises(ChannelEmpty):
                layer.receive_nowait("channel")

    def test_a_flood_arrives_whole_and_in_order(self, layer: InMemoryChannelLayer) -> None:
        def send() -> None:
            for n in range(1_000):
                layer.send_sync("channel", {"n": n})
            layer.send_sync("channel", END)

        async def main() -> list[Any]:
            receiving = asyncio.ensure_future(receive_until_end(layer, "channel"))
            await asyncio.to_thread(send)
            return await receiving

        with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
            assert runner.run(main()) == list(range(1_000))

    def test_it_is_told_when_the_layer_is_closed(self, layer: InMemoryChannelLayer) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(layer.receive("channel"))
            await all_wait(layer, 1)
            await asyncio.to_thread(asyncio.run, layer.close())
            with pytest.raises(LayerClosed):
                await task

        with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
            runner.run(main())
