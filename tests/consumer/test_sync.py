"""Consumers whose handlers are plain methods: in which threads, in what order, and what a cancel does."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from tests.support.leaving import Leaving
from tests.support.waiting import SECONDS

from headrace._dispatch.threads import SyncPool, sync_pool
from headrace.consumer import SyncConsumer, consumer_stats
from headrace.db import database_sync_to_async
from headrace.exceptions import ConnectionClosed, StopConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

"""More than any of these waits takes, unless something is wrong."""


class Recorder(WebsocketConsumer):
    """Writes down what it handles, and where."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.threads: list[str] = []

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.threads.append(threading.current_thread().name)
        self.log.append(text_data)

    def note(self, event: dict[str, Any]) -> None:
        self.log.append(event["n"])
        self.send(text_data=str(event["n"]))

    def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


async def until(condition: Callable[[], Any]) -> None:
    """Let threads and tasks run until something is so."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0)


class TestPool:
    """Without Django."""

    async def test_four_that_block_wait_for_each_other(self, wire: "MakeWire") -> None:
        """All four are in their handlers at once, or the barrier breaks."""
        barrier = threading.Barrier(4)

        class Blocking(WebsocketConsumer):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                barrier.wait(SECONDS)
                self.send(text_data="passed")

        clients = [wire(Blocking()) for _ in range(4)]
        for client in clients:
            client.connect("x")
            client.leave()
        for client in clients:
            await client.end()
        # The client has gone only when its turn to go has come.
        assert [client.texts for client in clients] == [["passed"]] * 4

    async def test_its_threads_have_a_name(self, wire: "MakeWire") -> None:
        consumer = Recorder()
        client = wire(consumer)
        client.connect("x")
        client.leave()
        await client.end()
        assert consumer.threads[0].startswith("headrace-sync")

    async def test_one_consumer_handles_one_message_at_a_time_in_order(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Recorder):
            running = 0

            def note(self, event: dict[str, Any]) -> None:
                self.running += 1
                assert self.running == 1
                super().note(event)
                self.running -= 1

        consumer = Here()
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        for n in range(50):
            await layer.group_send("all", {"type": "note", "n": n})
        await until(lambda: len(client.texts) == 50)
        client.leave()
        await client.end()
        assert consumer.log == [*range(50), "disconnect 1001"]

    async def test_a_thread_sensitive_class_has_the_one_thread(self, wire: "MakeWire") -> None:
        class Sensitive(Recorder):
            thread_sensitive = True

        consumers = [Sensitive(), Sensitive()]
        for consumer in consumers:
            client = wire(consumer)
            client.connect("a", "b")
            client.leave()
            await client.end()
        threads = {name for consumer in consumers for name in consumer.threads}
        assert len(threads) == 1
        assert not threads.pop().startswith("headrace-sync")

    async def test_context_variables_live_from_handler_to_handler(self, wire: "MakeWire") -> None:
        who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

        class Contextual(Recorder):
            def connect(self) -> None:
                who.set("somebody")
                self.accept()

            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.log.append(who.get())

        consumer = Contextual()
        client = wire(consumer)
        client.connect("x")
        client.leave()
        await client.end()
        assert consumer.log == ["somebody", "disconnect 1001"]

    async def test_the_layer_can_be_used_by_async_to_sync_and_natively(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Talker(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                async_to_sync(layer.group_send)("all", {"type": "note", "n": 1})
                layer.group_send_sync("all", {"type": "note", "n": 2})

        client = wire(Talker())
        client.connect("x")
        await until(lambda: len(client.texts) == 2)
        assert client.texts == ["1", "2"]
        client.leave()
        await client.end()

    def test_its_size_can_be_changed(self) -> None:
        pool = SyncPool()
        assert pool.size is None
        pool.resize(2)
        assert pool.size == 2
        first = pool.executor()
        assert pool.executor() is first
        pool.resize(3)
        assert pool.executor() is not first
        pool.executor().shutdown()
        for wrong in (0, -1, 1.5, "2"):
            with pytest.raises((ValueError, TypeError), match="threads must be"):
                pool.resize(wrong)  # type: ignore[arg-type]  # wrong on purpose

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    @pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
    def test_a_child_has_a_pool_of_its_own(self) -> None:
        sync_pool.executor().submit(int).result()
        child = os.fork()
        if child == 0:
            result = sync_pool.executor().submit(int, "7").result(timeout=SECONDS)
            os._exit(result)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("thread_sensitive", [False, True])
class TestCancel:
    """A thread cannot be stopped, so whoever cancels waits."""

    async def test_disconnect_waits_for_the_handler_that_runs(self, wire: "MakeWire", thread_sensitive: bool) -> None:
        entered, release = threading.Event(), threading.Event()

        class Blocking(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                entered.set()
                release.wait(SECONDS)
                self.log.append("handler returned")

        Blocking.thread_sensitive = thread_sensitive
        consumer = Blocking()
        client = wire(consumer)
        client.connect("x")
        await until(entered.is_set)
        for _ in range(3):
            client.task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
        assert not client.task.done()
        assert consumer.log == []
        release.set()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["handler returned", "disconnect 1006"]

    async def test_by_a_scope_that_cancels_every_await(self, wire: "MakeWire", thread_sensitive: bool) -> None:
        entered, release = threading.Event(), threading.Event()

        class Blocking(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                entered.set()
                release.wait(SECONDS)
                self.log.append("handler returned")

        Blocking.thread_sensitive = thread_sensitive
        consumer, scope = Blocking(), anyio.CancelScope()

        async def app(*arguments: Any) -> None:
            with scope:
                await consumer(*arguments)

        client = wire(app)
        client.connect("x")
        await until(entered.is_set)
        scope.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert consumer.log == []
        release.set()
        await client.end()
        assert consumer.log == ["handler returned", "disconnect 1006"]

    async def test_a_send_that_waits_is_cut_off(self, wire: "MakeWire", thread_sensitive: bool) -> None:
        class Sending(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                try:
                    self.send(text_data="never")
                finally:
                    self.log.append("handler ended")

        Sending.thread_sensitive = thread_sensitive
        consumer = Sending()
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        waiting = asyncio.Event()
        client.open = Gate(waiting)
        client.write("x")
        await waiting.wait()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["handler ended", "disconnect 1006"]

    async def test_a_cancel_is_not_forgotten_by_a_send_that_ends_all_the_same(
        self, wire: "MakeWire", thread_sensitive: bool
    ) -> None:
        class Stubborn(Gate):
            async def wait(self) -> Any:
                try:
                    await super().wait()
                except asyncio.CancelledError:
                    return True

        class Sending(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.send(text_data="sent")

        Sending.thread_sensitive = thread_sensitive
        consumer = Sending()
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        waiting = asyncio.Event()
        client.open = Stubborn(waiting)
        client.write("x")
        await waiting.wait()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert client.texts == ["sent"]
        assert consumer.log == ["disconnect 1006"]

    async def test_a_handler_that_leaves_its_send(self, wire: "MakeWire", thread_sensitive: bool) -> None:
        leaving = Leaving()

        class Sending(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                with leaving.held():
                    self.send(text_data="sent")
                self.log.append("handler returned")

        Sending.thread_sensitive = thread_sensitive
        consumer = Sending()
        client = wire(consumer)
        client.connect("x")
        await until(leaving.reached.is_set)
        client.task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert consumer.log == []
        leaving.go_on.set()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert client.texts == ["sent"]
        assert consumer.log == ["handler returned", "disconnect 1006"]

    async def test_a_handler_that_begins_to_send(self, wire: "MakeWire", thread_sensitive: bool) -> None:
        """The loop has the send only after the cancel."""
        loop, go_on = asyncio.get_running_loop(), threading.Event()

        class Sending(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                loop.call_soon_threadsafe(client.task.cancel)
                self.send(text_data="sent")
                go_on.wait(SECONDS)
                self.log.append("handler returned")

        Sending.thread_sensitive = thread_sensitive
        consumer = Sending()
        client = wire(consumer)
        client.connect("x")
        await client.heard(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert consumer.log == []
        go_on.set()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["handler returned", "disconnect 1006"]


class TestAsyncCancel:
    """A handler that is cancelled while its thread leaves a call of the layer."""

    @pytest.mark.parametrize("to_thread", [sync_to_async, database_sync_to_async])
    async def test_disconnect_has_threads(self, wire: "MakeWire", layer: InMemoryChannelLayer, to_thread: Any) -> None:
        leaving = Leaving()
        log: list[int] = []

        def tell() -> None:
            with leaving.held():
                async_to_sync(layer.group_send)("others", {"type": "note"})

        class Telling(AsyncWebsocketConsumer):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await to_thread(tell)()

            async def disconnect(self, code: int) -> None:
                await to_thread(log.append)(code)

        client = wire(Telling.as_asgi())
        client.connect("x")
        await until(leaving.reached.is_set)
        client.task.cancel()
        await settle()
        leaving.go_on.set()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert log == [1006]

    async def test_the_next_handler_has_threads_after_a_timeout(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        leaving = Leaving()
        log: list[Any] = []

        def tell() -> None:
            with leaving.held():
                async_to_sync(layer.group_send)("others", {"type": "note"})

        class Telling(AsyncWebsocketConsumer):
            handler_timeout = 0.2

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await sync_to_async(tell if text_data == "tell" else lambda: log.append(text_data))()

            async def on_error(self, exc: Exception, message: Any) -> None:
                log.append(type(exc))
                leaving.go_on.set()

        client = wire(Telling.as_asgi())
        client.connect("tell", "more")
        await until(lambda: len(log) == 2)
        assert log == [TimeoutError, "more"]
        client.leave()
        await client.end()


class Gate(asyncio.Event):
    """Never open; tells when somebody stands before it."""

    def __init__(self, waiting: asyncio.Event) -> None:
        super().__init__()
        self._waiting = waiting

    async def wait(self) -> Any:
        self._waiting.set()
        return await super().wait()


class TestOverrun:
    """`overflow = "close"` while a send waits."""

    async def test_the_send_is_cut_off_and_the_connection_closed(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Recorder):
            max_backlog = 3
            overflow = "close"

        consumer = Here()
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        waiting, open_again = asyncio.Event(), client.open
        client.open = Gate(waiting)
        await layer.group_send("all", {"type": "note", "n": 0})
        await waiting.wait()
        client.open = open_again
        for n in range(4):
            await layer.group_send("all", {"type": "note", "n": n})
        await client.end()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1013}]
        assert consumer.log[-1] == "disconnect 1013"


class TestBase:
    """The plain sync consumer."""

    async def test_it_sends_and_stops(self, wire: "MakeWire") -> None:
        class Plain(SyncConsumer):
            def test_sync(self, message: dict[str, Any]) -> None:
                self.send({"type": "test.reply", "value": message["value"]})
                raise StopConsumer

        client = wire(Plain.as_asgi(), type="test")
        client.say({"type": "test.sync", "value": 3})
        await client.end()
        assert client.sent == [{"type": "test.reply", "value": 3}]

    async def test_sends_after_close_are_dropped_and_counted_or_raise(self, wire: "MakeWire") -> None:
        class Closing(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.close(4000)
                self.send(text_data="late")
                self.close(4001)

        class Strict(Closing):
            raise_after_close = True

        client = wire(Closing())
        client.connect("x")
        client.leave()
        await client.end()
        assert [message["type"] for message in client.sent] == ["websocket.accept", "websocket.close"]
        assert consumer_stats(Closing).dropped_after_close == 1
        client = wire(Strict())
        client.connect("x")
        assert isinstance(await client.outcome(), ConnectionClosed)

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("gone")])
    async def test_a_servers_send_that_fails_because_the_client_has_gone_is_dropped(
        self, wire: "MakeWire", error: Exception
    ) -> None:
        class Late(Recorder):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                client.broken = error
                self.send(text_data="late")
                self.log.append("went on")

        consumer = Late()
        client = wire(consumer)
        client.connect("x")
        client.leave()
        await client.end()
        assert consumer.log == ["went on", "disconnect 1001"]
        assert consumer_stats(Late).dropped_after_close == 1


DJANGO_PROGRAM = Path(__file__).parent / "django_threads.py"


@pytest.mark.parametrize(
    "case", ["default", "rows", "attribute", "setting", "closes_in_the_pool", "no_hop_without_connections"]
)
def test_with_django(case: str) -> None:
    """Each case of ``django_threads.py``, in an interpreter of its own."""
    command = [sys.executable, "-W", "error", str(DJANGO_PROGRAM), case]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (process.stdout, process.returncode) == ("passed\n", 0), process.stderr
