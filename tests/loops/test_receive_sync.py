"""A plain thread waits for a message, in ``receive_sync``."""

import asyncio
import concurrent.futures
import subprocess
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from headrace.exceptions import LayerClosed
from headrace.layers import InMemoryChannelLayer

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


def test_it_is_woken_by_a_thread(layer: InMemoryChannelLayer) -> None:
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(layer.receive_sync, "channel")
        asyncio.run(all_wait(layer, 1))
        layer.send_sync("channel", {"n": 1})
        assert receiving.result(timeout=30) == {"n": 1}


async def test_it_is_woken_by_a_task(layer: InMemoryChannelLayer) -> None:
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(layer.receive_sync, "channel", 30)
        await all_wait(layer, 1)
        await layer.send("channel", {"n": 1})
        assert await asyncio.wrap_future(receiving) == {"n": 1}


async def test_it_would_hold_a_loop_and_is_refused_there(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(RuntimeError, match=r"await receive\(\)"):
        layer.receive_sync("channel")
    assert layer.stats().waiters == 0
    await layer.send("channel", {"n": 1})
    assert await layer.receive("channel") == {"n": 1}


def test_threads_and_tasks_stand_in_one_line(
    layer: InMemoryChannelLayer, loop_thread: Callable[[], LoopThread]
) -> None:
    loop = loop_thread()
    with ThreadPoolExecutor(3) as threads:
        receiving: list[concurrent.futures.Future[Any]] = []
        for n in range(6):
            if n % 2:
                receiving.append(loop.start(layer.receive("channel")))
            else:
                receiving.append(threads.submit(layer.receive_sync, "channel", 30))
            loop.run(all_wait(layer, n + 1))
        layer.group_add_sync("group", "channel")
        for n in range(6):
            layer.group_send_sync("group", {"n": n})
        assert [future.result(timeout=30)["n"] for future in receiving] == list(range(6))


def test_closing_the_layer_ends_the_wait(layer: InMemoryChannelLayer) -> None:
    with ThreadPoolExecutor(2) as threads:
        receiving = [threads.submit(layer.receive_sync, "channel", timeout) for timeout in (None, 30)]
        asyncio.run(all_wait(layer, 2))
        asyncio.run(layer.close())
        for future in receiving:
            with pytest.raises(LayerClosed):
                future.result(timeout=30)


def test_a_wait_that_ends_while_messages_come_loses_none(layer: InMemoryChannelLayer) -> None:
    def receive() -> list[int]:
        received: list[int] = []
        while True:
            try:
                message = layer.receive_sync("channel", 0.00005)
            except TimeoutError:
                continue
            if message == END:
                return received
            received.append(message["n"])

    with ThreadPoolExecutor(3) as threads:
        receiving = [threads.submit(receive) for _ in range(3)]
        for n in range(2_000):
            layer.send_sync("channel", {"n": n})
        for _ in receiving:
            layer.send_sync("channel", END)
        outcomes = [future.result(timeout=30) for future in receiving]
    assert sorted(n for received in outcomes for n in received) == list(range(2_000))
    assert layer.stats().waiters == layer.stats().depth == 0


def test_a_keyboard_interrupt_ends_the_wait_and_leaves_the_line() -> None:
    program = """if True:
        import os, signal, threading
        from headrace.layers import InMemoryChannelLayer

        def interrupt():
            while layer.stats().waiters == 0:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        # A program that a shell has started in the background ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        layer = InMemoryChannelLayer()
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            layer.receive_sync("channel")
        except KeyboardInterrupt:
            thread.join()
        assert layer.stats().waiters == 0
        layer.send_sync("channel", {"n": 1})
        assert layer.receive_nowait("channel") == {"n": 1}
        print("done")
    """
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (process.stdout, process.stderr, process.returncode) == ("done\n", "", 0)
