"""A consumer that is cancelled, at whichever await, and one whose loop ends.

That nothing is left in the layer and in the loop is checked after each test by ``_nothing_left``.
"""

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from headrace.consumer import AsyncConsumer
from headrace.exceptions import StopConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

WAYS = ("async", "sync", "concurrent")


class OfTheTest(Exception):
    """What a handler raises."""


class Room(AsyncWebsocketConsumer):
    """In a group of its class and in one that it joins, and does what it is told."""

    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()
        # What to do in connect() and in disconnect(); text and layer messages say it themselves.
        self.at_connect = self.at_disconnect = ""

    async def do(self, order: str) -> None:
        if order == "fail":
            raise OfTheTest(order)
        if order == "stop":
            raise StopConsumer
        if order == "wait":
            await self.gate.wait()
        if order == "cancelled":
            raise asyncio.CancelledError

    async def connect(self) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.group_add("joined", self.channel_name)
        await self.do(self.at_connect)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.do(str(text_data))

    async def order(self, event: dict[str, Any]) -> None:
        await self.do(event["order"])

    async def disconnect(self, code: int) -> None:
        self.log.append(code)
        await self.do(self.at_disconnect)


class ConcurrentRoom(Room):
    """The same, several messages at a time."""

    concurrency = 3


async def opened(client: "Wire") -> None:
    """Connect, and wait until the application has accepted."""
    client.connect()
    while not client.sent:
        await asyncio.sleep(0)


class TestCancel:
    """A cancel at each await."""

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_while_a_handler_waits(self, wire: "MakeWire", layer: InMemoryChannelLayer, room: type[Room]) -> None:
        for by_layer in (False, True):
            consumer = room()
            client = wire(consumer)
            await opened(client)
            if by_layer:
                await layer.group_send("all", {"type": "order", "order": "wait"})
            else:
                client.write("wait")
            await settle()
            client.task.cancel()
            assert isinstance(await client.outcome(), asyncio.CancelledError)
            assert consumer.log == [1006]

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_while_connect_waits(self, wire: "MakeWire", room: type[Room]) -> None:
        consumer = room()
        consumer.at_connect = "wait"
        client = wire(consumer)
        client.connect()
        await settle()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1006]

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_while_disconnect_waits(self, wire: "MakeWire", room: type[Room]) -> None:
        consumer = room()
        consumer.at_disconnect = "wait"
        client = wire(consumer)
        await opened(client)
        client.leave()
        await settle()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1001]

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_while_a_send_waits(self, wire: "MakeWire", room: type[Room]) -> None:
        consumer = room()
        client = wire(consumer)
        client.open.clear()
        client.connect()
        await settle()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1006]

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_at_any_turn_of_the_loop(self, wire: "MakeWire", room: type[Room]) -> None:
        """Cancelled after n turns, for each n until the consumer has ended by itself."""
        for turns in range(200):
            consumer = room()
            client = wire(consumer)
            client.connect("x", "y")
            client.leave()
            for _ in range(turns):
                await asyncio.sleep(0)
            if client.task.done():
                break
            began = consumer._headrace.has_begun
            client.task.cancel()
            error = await client.outcome()
            assert error is None or isinstance(error, asyncio.CancelledError)
            assert consumer.log in ([], [1001], [1006])
            assert consumer.log or not began, turns
        else:
            pytest.fail("it did not end")
        assert turns > 2

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_at_any_turn_after_a_failure(self, wire: "MakeWire", room: type[Room]) -> None:
        """The failure is what goes on, or the cancel; the clean-up is whole in either case."""
        for turns in range(200):
            consumer = room()
            consumer.at_disconnect = "turns"
            client = wire(consumer, asgi={"version": "3.0"})
            await opened(client)
            client.write("fail")
            for _ in range(turns):
                await asyncio.sleep(0)
            if client.task.done():
                break
            client.task.cancel()
            assert isinstance(await client.outcome(), OfTheTest | asyncio.CancelledError)
            assert consumer.log in ([1011], [1006]), turns
        else:
            pytest.fail("it did not end")
        assert isinstance(client.task.exception(), OfTheTest)

    async def test_after_a_failure_while_the_client_does_not_read(self, wire: "MakeWire") -> None:
        consumer = Room()
        client = wire(consumer, asgi={"version": "3.0"})
        await opened(client)
        client.open.clear()
        client.write("fail")
        await settle()
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError | OfTheTest)
        assert consumer.log == [1011]

    async def test_after_a_failure_while_the_servers_receive_takes_its_time_to_end(self) -> None:
        may_end, sent = asyncio.Event(), []
        messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "fail"}]

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()

        async def send(message: Any) -> None:
            sent.append(message)

        consumer = Room()
        task = asyncio.ensure_future(consumer({"type": "websocket"}, receive, send))
        await settle()
        task.cancel()
        await settle()
        may_end.set()
        await asyncio.wait([task])
        assert consumer.log == [1006]

    async def test_again_and_again_while_disconnect_runs_after_a_cancel(self, wire: "MakeWire") -> None:
        consumer = Room()
        consumer.at_disconnect = "wait"
        finished = []

        async def disconnect(code: int) -> None:
            await Room.disconnect(consumer, code)
            finished.append(code)

        consumer.disconnect = disconnect  # type: ignore[method-assign]  # as tests do
        client = wire(consumer)
        await opened(client)
        for _ in range(5):
            client.task.cancel()
            await settle()
        assert not client.task.done()
        consumer.gate.set()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert (consumer.log, finished) == ([1006], [1006])

    async def test_a_disconnect_that_never_ends_is_cut_off_after_a_while(
        self, wire: "MakeWire", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # It has to begin in that time, on a machine with other work too.
        monkeypatch.setattr("headrace._websocket.closing.CLEAN_UP_TIMEOUT", 0.5)
        consumer = Room()
        consumer.at_disconnect = "wait"
        client = wire(consumer)
        await opened(client)
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1006]
        assert "was cut off" in caplog.text

    @pytest.mark.parametrize("room", [Room, ConcurrentRoom])
    async def test_by_a_cancel_scope_that_cancels_every_await(self, wire: "MakeWire", room: type[Room]) -> None:
        for order in ("wait", ""):
            consumer = room()
            consumer.at_disconnect = "wait"
            scope = anyio.CancelScope()

            async def app(*arguments: Any, consumer: Room = consumer, scope: anyio.CancelScope = scope) -> None:
                with scope:
                    await consumer(*arguments)

            client = wire(app)
            await opened(client)
            client.write(order)
            await settle()
            scope.cancel()
            for _ in range(50):
                await asyncio.sleep(0)
            consumer.gate.set()
            await client.end()
            assert consumer.log == [1006]

    async def test_by_a_cancel_scope_while_it_ends_after_a_failure(self, wire: "MakeWire") -> None:
        consumer = Room()
        scope = anyio.CancelScope()

        async def app(*arguments: Any) -> None:
            with scope:
                await consumer(*arguments)

        client = wire(app, asgi={"version": "3.0"})
        await opened(client)
        client.open.clear()
        client.write("fail")
        await settle()
        scope.cancel()
        for _ in range(50):
            await asyncio.sleep(0)
        client.open.set()
        await client.outcome()
        assert consumer.log == [1011]

    async def test_by_a_handler_that_raises_the_error_itself(self, wire: "MakeWire") -> None:
        consumer = Room()
        client = wire(consumer)
        await opened(client)
        client.write("cancelled")
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == [1006]

    async def test_of_the_end_of_a_consumer_that_has_nothing_to_end(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Plain(AsyncConsumer):
            async def start(self, message: Any) -> None:
                await layer.group_add("all", self.channel_name)

            async def fail(self, message: Any) -> None:
                raise OfTheTest

        for cancel in (False, True):
            client = wire(Plain())
            client.say({"type": "start"})
            await settle()
            assert layer.group_count("all") == 1
            if cancel:
                client.task.cancel()
            else:
                client.say({"type": "fail"})
            await client.outcome()
            assert layer.group_count("all") == 0


class TestLoops:
    """The end of the event loop."""

    async def test_asyncio_run_ends_its_consumers(self, layer: InMemoryChannelLayer) -> None:
        log: list[Any] = []

        class Here(Room):
            async def disconnect(self, code: int) -> None:
                await asyncio.sleep(0)
                log.append(code)

        async def main() -> None:
            async def send(message: Any) -> None:
                accepted.set()

            accepted = asyncio.Event()
            incoming: asyncio.Queue[Any] = asyncio.Queue()
            incoming.put_nowait({"type": "websocket.connect"})
            task = asyncio.ensure_future(Here()({"type": "websocket"}, incoming.get, send))
            await accepted.wait()
            del task

        await asyncio.to_thread(asyncio.run, main())
        assert log == [1006]
        assert layer.stats().memberships == 0

    async def test_a_consumer_of_a_loop_that_was_abandoned_leaves_the_layer(
        self, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing can be awaited then, so disconnect() is not called; but no group keeps a dead channel."""

        def abandon() -> None:
            loop = asyncio.new_event_loop()
            incoming: list[Any] = [{"type": "websocket.connect"}]

            async def receive() -> Any:
                return incoming.pop() if incoming else await loop.create_future()

            async def send(message: Any) -> None:
                pass

            async def turns() -> None:
                for _ in range(20):
                    await asyncio.sleep(0)

            task = loop.create_task(Room()({"type": "websocket"}, receive, send))
            loop.run_until_complete(turns())
            assert layer.stats().memberships == 2
            loop.close()
            del task
            gc.collect()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await asyncio.to_thread(abandon)
        assert layer.stats().memberships == 0
        assert [str(warning.message) for warning in caught] == []
        caplog.clear()  # asyncio says that it destroys pending tasks, and so it does

    def test_an_interrupted_program_ends_its_consumers(self) -> None:
        program = """
import asyncio, signal, os
from headrace.generic.websocket import AsyncWebsocketConsumer

# A program that a shell has started in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Here(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        os.kill(os.getpid(), signal.SIGINT)

    async def disconnect(self, code):
        await asyncio.sleep(0)
        print("disconnect", code, flush=True)

async def main():
    # A busy machine is no fault: in debug mode asyncio tells of steps that take long.
    asyncio.get_running_loop().slow_callback_duration = 60
    incoming = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    async def send(message):
        pass
    await Here()({"type": "websocket"}, incoming.get, send)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
        command = [sys.executable, "-W", "error", "-X", "dev", "-c", program]
        process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert (process.stdout, process.stderr) == ("disconnect 1006\ninterrupted\n", "")
