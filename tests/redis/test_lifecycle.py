"""Loops, threads and processes that end or stand still: nothing is lost by it, and nothing is left behind."""

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.exceptions import LayerClosed
from headrace.layers import RedisChannelLayer

ROOT = Path(__file__).parents[2]
RUNS = 1000
# On a machine that is busy; the programs allow thirty times as much for what they send.
AT_ONCE = 20


@pytest.fixture
def server(start_redis: Callable[..., Server]) -> Server:
    """Start one for the test alone, whose clients are counted."""
    return start_redis()


@pytest.fixture
def layer(server: Server) -> Iterator[RedisChannelLayer]:
    layer = RedisChannelLayer([server.url], capacity=10_000)
    yield layer
    asyncio.run(layer.close())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def natives() -> int:
    """Count the threads of this process, also those that Python does not know."""
    return len(os.listdir("/proc/self/task"))


class Left:
    """What there is of connections, threads and descriptors, to be compared with later."""

    def __init__(self, server: Server) -> None:
        self._server = server
        gc.collect()
        self.was = self.now()

    def now(self) -> tuple[int, int, int]:
        return len(self._server.clients()), natives(), descriptors()

    def check(self) -> None:
        """Wait until there is no more than before."""

        def is_back() -> bool:
            gc.collect()
            return all(now <= was for now, was in zip(self.now(), self.was, strict=True))

        try:
            eventually(is_back, "nothing is left")
        except TimeoutError:
            pytest.fail(f"connections, threads and descriptors were {self.was}, and are {self.now()}")


def forget(tasks: list[asyncio.Task[Any]]) -> None:
    """Drop tasks that wait; what asyncio would say of that is not what is tested."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    tasks.clear()


def collected(*references: weakref.ref[Any]) -> bool:
    """Tell whether all of them are gone: a thread may have had one in its hands until now."""
    gc.collect()
    return not any(reference() for reference in references)


def interpreted(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script in another interpreter, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def run(script: str, *words: str) -> tuple[str, float]:
    """Run a script in another interpreter; say what it printed, and when it ended."""
    done, ended = interpreted(script, *words), time.time()
    # A server that is not there is told to the log once, and what it did not get; nothing else is.
    expected = ("disconnected: ", "sends failed that nobody waited for: ")
    told = [line for line in done.stderr.splitlines() if not line.startswith(expected)]
    assert (done.returncode, told) == (0, [])
    return done.stdout, ended


class TestLoops:
    async def test_a_loop_that_stands_still(self, server: Server, layer: RedisChannelLayer) -> None:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        receiving = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        end = time.monotonic() + 3.5

        def send() -> int:
            count = 0
            while time.monotonic() < end:
                layer.group_send_sync("room", {"type": "test.n", "n": count}, confirm=True)
                count += 1
                time.sleep(0.005)
            return count

        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(send()))
        thread.start()
        # Longer than any connection may be silent.
        thread.join()
        got = [await receiving] + [await layer.receive(channel) for _ in range(counts[0] - 1)]
        assert [message["n"] for message in got] == list(range(counts[0]))
        link = layer.stats().connection
        assert (link.state, link.gaps, link.reconnects) == ("up", 0, 0)

    def test_a_loop_that_was_closed_with_receivers_waiting(self, server: Server, layer: RedisChannelLayer) -> None:
        loop = asyncio.new_event_loop()

        async def wait() -> str:
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            tasks = [loop.create_task(layer.receive(name)) for name in (channel, channel, "work")]
            await asyncio.sleep(0)
            pending.extend(tasks)
            return channel

        pending: list[asyncio.Task[Any]] = []
        channel = loop.run_until_complete(wait())
        loop.close()

        async def go_on() -> None:
            await layer.group_send("room", {"type": "test.group"})
            await layer.send(channel, {"type": "test.direct"})
            await layer.send("work", {"type": "test.work"})
            for name, kind in [(channel, "test.group"), (channel, "test.direct"), ("work", "test.work")]:
                assert await asyncio.wait_for(layer.receive(name), SECONDS) == {"type": kind}

        asyncio.run(go_on())
        forget(pending)
        gc.collect()
        asyncio.run(go_on())

    def test_a_thousand_loops_leave_nothing(self, server: Server, layer: RedisChannelLayer) -> None:
        async def use(number: int) -> None:
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            receiving = asyncio.create_task(layer.receive(channel))
            await layer.group_send("room", {"type": "test.n", "n": number})
            assert (await receiving)["n"] == number
            # One that is left waiting is cancelled by the end of the loop.
            waiting = asyncio.create_task(layer.receive("work" if number % 2 else channel))
            await asyncio.sleep(0)
            assert not waiting.done()
            layer.close_channel(channel)

        errors: list[BaseException] = []

        def turn(number: int) -> None:
            try:
                asyncio.run(use(number))
            except BaseException as error:
                errors.append(error)

        def in_thread(number: int) -> None:
            thread = threading.Thread(target=turn, args=(number,))
            thread.start()
            thread.join()

        in_thread(0)
        left = Left(server)
        assert left.was[0] == 2
        for number in range(1, RUNS):
            in_thread(number)
            assert not errors
        left.check()
        assert layer.stats().channels <= 1
        assert layer.stats().waiters == 0


class TestEnds:
    async def test_a_closed_layer_leaves_nothing(self, server: Server) -> None:
        await self._use(RedisChannelLayer([server.url]))
        left = Left(server)
        layers = [RedisChannelLayer([server.url]) for _ in range(5)]
        receiving = [asyncio.create_task(self._wait(layer)) for layer in layers]
        for layer in layers:
            await layer.connect()
        assert len(server.clients()) >= 2 * len(layers)
        for layer in layers:
            await layer.close()
        for task in receiving:
            with pytest.raises(LayerClosed):
                await task
        left.check()

    async def test_a_layer_that_was_dropped_leaves_nothing(self, server: Server) -> None:
        await self._use(RedisChannelLayer([server.url]))
        left = Left(server)
        layers = [RedisChannelLayer([server.url]) for _ in range(5)]
        for layer in layers:
            await layer.group_add("room", await layer.new_channel())
            await layer.send("work", {"type": "test.work"})
        references = [weakref.ref(layer) for layer in layers]
        del layers, layer
        left.check()
        eventually(lambda: collected(*references), "no layer is left")

    def test_receivers_that_were_dropped_with_their_loop_leave_nothing(self, server: Server) -> None:
        asyncio.run(self._use(RedisChannelLayer([server.url])))
        left = Left(server)
        reference = self._forget(server)
        left.check()
        eventually(lambda: collected(reference), "no layer is left")

    @pytest.mark.parametrize("channel", ["work", "specific"])
    def test_a_loop_that_was_closed_while_its_tasks_waited_is_collected(
        self, layer: RedisChannelLayer, channel: str
    ) -> None:
        loop = asyncio.new_event_loop()
        name = layer.new_channel_sync() if channel == "specific" else channel
        task = loop.create_task(layer.receive(name))
        while not layer.stats().waiters:
            loop.run_until_complete(asyncio.sleep(0))
        forget([task])
        loop.close()
        references: list[weakref.ref[Any]] = [weakref.ref(loop), weakref.ref(task)]
        del loop, task
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        assert layer.stats().waiters == 0

    def _forget(self, server: Server) -> "weakref.ref[RedisChannelLayer]":
        layer = RedisChannelLayer([server.url])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(layer.connect())
        tasks = [loop.create_task(self._wait(layer)) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(0))
        assert not any(task.done() for task in tasks)
        forget(tasks)
        loop.close()
        return weakref.ref(layer)

    async def _use(self, layer: RedisChannelLayer) -> None:
        """Start what the process has once."""
        await layer.send("work", {"type": "test.work"})
        await layer.receive("work")
        await layer.close()

    async def _wait(self, layer: RedisChannelLayer) -> None:
        await layer.receive("never")


FORK = """
import asyncio, os, sys
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]])

async def use(text):
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "test.text", "text": text})
    assert (await layer.receive(channel))["text"] == text
    await layer.send("work", {"type": "test.text", "text": text})
    return channel

def main():
    before = layer.client_prefix
    asyncio.run(use("parent"))
    child = os.fork()
    if not child:
        assert layer.client_prefix != before
        assert layer.stats().channels == 0
        asyncio.run(use("child"))
        layer.send_sync("work", {"type": "test.text", "text": "last words of the child"})
        return
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert layer.client_prefix == before
    asyncio.run(use("parent again"))
    link = layer.stats().connection
    assert (link.state, link.gaps, link.reconnects) == ("up", 0, 0), link

main()
"""

FORK_LEDGER = """
import os, sys
from headrace._core import Ledger
from headrace.layers import RedisChannelLayer

layer, ledger = RedisChannelLayer([sys.argv[1]]), Ledger()

def send():
    for _ in range(100):
        layer._group_send_unattended("room", {"type": "test.soon"}, ledger)

send()
child = os.fork()
if not child:
    ledger = Ledger()
    send()
    assert ledger.settle(20) and ledger.failed == 0, ledger
else:
    assert os.waitpid(child, 0)[1] == 0
    send()
    assert ledger.settle(20) and ledger.failed == 0, ledger
"""

FORK_BEFORE_EXIT = """
import asyncio, os, sys
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]])
asyncio.run(layer.connect())
if not os.fork():
    os._exit(0)
assert os.wait()[1] == 0
layer.group_send_sync("room", {"type": "test.last"})
"""

AT_EXIT = """
import sys, time
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]], capacity=10_000, send_timeout=600)
for number in range(int(sys.argv[3])):
    layer.send_sync(sys.argv[2], {"type": "test.n", "n": number})
print(time.time())
"""

UNREACHABLE = """
import sys, time
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]], send_timeout=600)
layer.group_send_sync("room", {"type": "test.no"})
print(time.time())
"""

AFTER_THE_END = """
import atexit, sys

def last():
    calls = [
        lambda: layer.group_send_sync("room", {"type": "test.late"}),
        lambda: layer.group_send_sync("room", {"type": "test.late"}, confirm=True),
        lambda: layer.send_sync("work", {"type": "test.late"}),
        lambda: layer.send_sync(channel, {"type": "test.late"}),
        lambda: layer.group_add_sync("room", channel),
        lambda: layer.group_discard_sync("room", channel),
        lambda: broadcaster.broadcast("topic", 1),
        lambda: broadcaster.subscribe("topic"),
    ]
    for call in calls:
        try:
            print(call())
        except Exception as error:
            print(type(error).__name__)

atexit.register(last)
from headrace import Broadcaster, RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]])
channel = layer.new_channel_sync()
layer.group_add_sync("room", channel)
broadcaster = Broadcaster(layer=layer)
"""

UNATTENDED = """
import os, signal, sys, time
from headrace._core import Ledger
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]], send_timeout=600)
layer.new_channel_sync()
os.kill(int(sys.argv[2]), signal.SIGKILL)
while layer.stats().connection.state != "down":
    time.sleep(0.001)
for _ in range(3):
    layer._group_send_unattended("room", {"type": "test.no"}, Ledger())
print(time.time())
"""

WAITING = """
import asyncio, sys, threading, time
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]], send_timeout=600)
threading.Thread(target=lambda: layer.receive_sync("work"), daemon=True).start()

async def main():
    channel = await layer.new_channel()
    tasks = [asyncio.create_task(layer.receive(name)) for name in (channel, "work")]
    await asyncio.wait(tasks, timeout=0.1)
    await layer.group_send("room", {"type": "test.no"})

asyncio.run(main())
print(time.time())
"""

UNUSED = """
import asyncio, sys, time
from headrace.layers import RedisChannelLayer

layer = RedisChannelLayer([sys.argv[1]], send_timeout=600)
try:
    layer.send_sync("not a name", {"type": "test.no"})
except TypeError:
    print(time.time())
"""


class TestProcesses:
    async def test_a_fork_after_use(self, server: Server, layer: RedisChannelLayer) -> None:
        await asyncio.to_thread(run, FORK, server.url)
        texts = [(await asyncio.wait_for(layer.receive("work"), SECONDS))["text"] for _ in range(4)]
        assert texts == ["parent", "child", "last words of the child", "parent again"]
        await layer.close()
        eventually(lambda: not server.clients(), "no connection is left")

    def test_a_fork_while_sends_are_on_their_way(self, server: Server) -> None:
        run(FORK_LEDGER, server.url)
        eventually(lambda: not server.clients(), "no connection is left")

    async def test_a_child_that_ends_does_not_touch_the_parent(self, server: Server, layer: RedisChannelLayer) -> None:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await asyncio.to_thread(run, FORK_BEFORE_EXIT, server.url)
        assert await asyncio.wait_for(layer.receive(channel), SECONDS) == {"type": "test.last"}

    async def test_what_was_sent_last_arrives(self, server: Server, layer: RedisChannelLayer) -> None:
        channel = await layer.new_channel()
        count = 3000
        printed, ended = await asyncio.to_thread(run, AT_EXIT, server.url, channel, str(count))
        got = [(await asyncio.wait_for(layer.receive(channel), SECONDS))["n"] for _ in range(count)]
        assert got == list(range(count))
        assert ended - float(printed) < AT_ONCE

    def test_what_was_not_sent_at_the_end_is_told(self, server: Server) -> None:
        done = interpreted(UNATTENDED, server.url, str(server.pid))
        assert done.returncode == 0
        told = re.findall(r"sends failed that nobody waited for: (\d+); the latest: (.*)", done.stderr)
        assert sum(int(count) for count, _ in told) == 3
        # The state is that of the first connection that is lost; the sender's own may still be open then.
        never, lost = "the layer was closed before a server was reached: ", "the connection was lost before the server"
        for _, latest in told:
            assert latest.startswith(lost) or (latest.startswith(never) and str(server.port) in latest)
        assert time.time() - float(done.stdout) < AT_ONCE

    def test_what_comes_behind_the_end_is_refused(self, server: Server) -> None:
        done = interpreted(AFTER_THE_END, server.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["LayerClosed"] * 8

    @pytest.mark.parametrize("script", [UNREACHABLE, WAITING, UNUSED], ids=["unreachable", "waiting", "unused"])
    def test_it_ends_at_once(self, server: Server, script: str) -> None:
        if script is UNREACHABLE:
            server.stop()
        printed, ended = run(script, server.url)
        assert ended - float(printed) < AT_ONCE
        if server.running:
            eventually(lambda: not server.clients(), "no connection is left")
