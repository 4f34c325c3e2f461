"""The client has gone and a handler goes on: for the grace period, of which the test skips parts."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace.consumer import consumer_stats
from headrace.exceptions import ConnectionClosed
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]
    Skip = Callable[[float], None]

GRACE = 1000
"""So long that only what a test skips counts."""

SECONDS = 60
"""More than any of these waits takes, unless something is wrong."""


class Room(AsyncWebsocketConsumer):
    """Ticks, or waits for its gate, where it is told to."""

    groups = ("all",)
    grace_period = GRACE
    at_connect = ""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.begun = 0
        self.gate = asyncio.Event()

    async def do(self, order: str) -> None:
        self.begun += 1
        try:
            if order == "tick":
                while not self.gate.is_set():
                    await self.send(text_data="tick")
                    await asyncio.sleep(0.001)
            if order == "wait":
                await self.gate.wait()
                self.gate.clear()
                await self.send(text_data="waited")
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        if order:
            self.log.append(f"{order} done")

    async def connect(self) -> None:
        await self.accept()
        await self.do(self.at_connect)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.do(str(text_data))

    async def order(self, event: dict[str, Any]) -> None:
        await self.do(event["order"])

    async def disconnect(self, code: int) -> None:
        await self.send(text_data="bye")
        self.log.append(code)


class ConcurrentRoom(Room):
    """The same, several messages at a time."""

    concurrency = 3


class SyncRoom(WebsocketConsumer):
    """The same in threads."""

    groups = ("all",)
    grace_period = GRACE
    at_connect = ""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.begun = 0
        self.gate = threading.Event()

    def do(self, order: str) -> None:
        self.begun += 1
        try:
            if order == "tick":
                while not self.gate.wait(0.001):
                    self.send(text_data="tick")
            if order == "wait":
                self.gate.wait(SECONDS)
                self.gate.clear()
                self.send(text_data="waited")
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        if order:
            self.log.append(f"{order} done")

    def connect(self) -> None:
        self.accept()
        self.do(self.at_connect)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.do(str(text_data))

    def order(self, event: dict[str, Any]) -> None:
        self.do(event["order"])

    def disconnect(self, code: int) -> None:
        self.send(text_data="bye")
        self.log.append(code)


ROOMS: dict[str, type[Any]] = {"async": Room, "sync": SyncRoom, "concurrent": ConcurrentRoom}
every_way = pytest.mark.parametrize("way", ROOMS)


@pytest.fixture
async def skip(monkeypatch: pytest.MonkeyPatch) -> "Skip":
    """Give ``skip(seconds)``, which puts the loop's time forward."""
    loop = asyncio.get_running_loop()
    time, ahead = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])

    def put_forward(seconds: float) -> None:
        ahead[0] += seconds

    return put_forward


async def until(condition: Callable[[], Any]) -> None:
    """Let threads and tasks run until something is so."""
    for _ in range(SECONDS * 1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def leaves(client: "Wire", consumer: Any, code: int = 1001) -> None:
    """Let the client go, and wait until the consumer knows it."""
    client.leave(code)
    await until(lambda: consumer._headrace.gone)


@every_way
class TestEnd:
    """A handler that would go on without end."""

    async def test_one_that_sends_ends_and_disconnect_is_called_once(
        self, wire: "MakeWire", skip: "Skip", way: str
    ) -> None:
        consumer = ROOMS[way]()
        consumer.at_connect = "tick"
        client = wire(consumer)
        client.connect()
        await client.heard(3)
        await leaves(client, consumer, 4001)
        skip(GRACE / 2)
        await client.heard(len(client.texts) + 3)
        assert consumer.log == []
        skip(GRACE / 2)
        await client.end()
        assert consumer.log[1:] == [4001]
        # A thread is told by its next send, a coroutine where it waits.
        assert consumer.log[0] in ("CancelledError", "ConnectionClosed")
        assert "bye" not in client.texts
        assert consumer_stats(type(consumer)).errors == 0

    async def test_one_of_a_message_of_the_layer(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, skip: "Skip", way: str
    ) -> None:
        consumer = ROOMS[way]()
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        await layer.group_send("all", {"type": "order", "order": "tick"})
        await client.heard(3)
        await leaves(client, consumer, 4001)
        skip(GRACE)
        await client.end()
        assert consumer.log[-1] == 4001
        assert layer.group_count("all") == 0

    async def test_what_else_the_client_had_sent_is_dropped_and_counted(
        self, wire: "MakeWire", skip: "Skip", way: str
    ) -> None:

        own_class = type("Counted", (ROOMS[way],), {"at_connect": "tick"})
        consumer = own_class()
        client = wire(consumer)
        client.connect("x", "y")
        await client.heard(1)
        await leaves(client, consumer)
        skip(GRACE)
        await client.end()
        assert consumer.log[1:] == [1001]
        assert consumer_stats(own_class).dropped_unhandled == 2

    async def test_one_whose_server_cannot_be_read_any_more(self, wire: "MakeWire", skip: "Skip", way: str) -> None:
        consumer = ROOMS[way]()
        consumer.at_connect = "tick"
        client = wire(consumer)
        client.connect()
        await client.heard(3)
        client.say(ValueError("of the server"))
        await settle()
        skip(GRACE)
        assert repr(await client.outcome()) == "ValueError('of the server')"
        assert consumer.log[1:] == [1006]

    async def test_one_that_has_more_to_read_than_is_read_ahead_ends_by_its_sends(
        self, wire: "MakeWire", skip: "Skip", way: str
    ) -> None:
        """The client's last message is behind the others, but the server refuses what is sent."""
        consumer = ROOMS[way]()
        consumer.at_connect = "tick"
        client = wire(consumer)
        client.connect(*["x"] * 20)
        await client.heard(3)
        client.broken = OSError("gone")
        client.leave()
        await until(lambda: consumer._headrace.grace is not None)
        skip(GRACE)
        await client.end()
        assert consumer.log == ["ConnectionClosed", 1006]

    async def test_with_another_grace_period(self, wire: "MakeWire", skip: "Skip", way: str) -> None:
        for seconds in (GRACE / 10, None):
            consumer = ROOMS[way]()
            consumer.at_connect = "tick"
            consumer.grace_period = seconds
            client = wire(consumer)
            client.connect()
            await client.heard(3)
            await leaves(client, consumer)
            if seconds is None:
                skip(10 * GRACE)
                await client.heard(len(client.texts) + 3)
                consumer.gate.set()
                await client.end()
                assert consumer.log == ["tick done", 1001]
            else:
                skip(GRACE / 10)
                await client.end()
                assert consumer.log[1:] == [1001]


@every_way
class TestInTime:
    """A handler that ends within the grace period."""

    async def test_it_is_not_disturbed(self, wire: "MakeWire", skip: "Skip", way: str) -> None:
        consumer = ROOMS[way]()
        consumer.at_connect = "wait"
        client = wire(consumer)
        client.connect()
        await until(lambda: client.sent)
        await leaves(client, consumer)
        skip(GRACE / 2)
        consumer.gate.set()
        await client.end()
        assert client.texts == ["waited"]
        assert consumer.log == ["wait done", 1001]
        skip(10 * GRACE)

    async def test_each_handler_has_the_whole_of_it(self, wire: "MakeWire", skip: "Skip", way: str) -> None:
        if way == "concurrent":
            pytest.skip("handlers that run side by side are cancelled when their client goes")
        consumer = ROOMS[way]()
        client = wire(consumer)
        client.connect("wait", "wait", "wait")
        client.leave()
        for n in range(3):
            # One for connect() before.
            begun = n + 2
            await until(lambda: consumer.begun == begun)  # noqa: B023  # called at once
            skip(GRACE * 0.6)
            consumer.gate.set()
        await client.end()
        assert consumer.log == [*["wait done"] * 3, 1001]


class TestCoroutines:
    """What only a coroutine can do with its cancel."""

    async def test_one_that_only_waits_is_cancelled(self, wire: "MakeWire", skip: "Skip") -> None:
        consumer = Room()
        consumer.at_connect = "wait"
        client = wire(consumer)
        client.connect()
        await until(lambda: consumer.begun)
        await leaves(client, consumer)
        skip(GRACE)
        await client.end()
        assert consumer.log == ["CancelledError", 1001]

    async def test_one_that_swallows_the_cancel_is_told_by_its_next_send(self, wire: "MakeWire", skip: "Skip") -> None:
        class Stubborn(Room):
            async def connect(self) -> None:
                await self.accept()
                while True:
                    try:
                        await self.gate.wait()
                    except asyncio.CancelledError:
                        self.log.append("swallowed")
                    await self.send(text_data="tick")

        consumer = Stubborn()
        client = wire(consumer)
        client.connect()
        await leaves(client, consumer)
        skip(GRACE)
        await client.end()
        assert consumer.log == ["swallowed", 1001]
        assert consumer_stats(Stubborn).errors == 0

    async def test_one_that_swallows_it_and_returns_ends_the_consumer(self, wire: "MakeWire", skip: "Skip") -> None:
        for concurrency in (1, 3):

            class Stubborn(Room):
                async def connect(self) -> None:
                    await self.accept()
                    try:
                        await self.gate.wait()
                    except asyncio.CancelledError:
                        self.log.append("swallowed")

            consumer = Stubborn()
            consumer.concurrency = concurrency
            client = wire(consumer)
            client.connect("x")
            await leaves(client, consumer)
            skip(GRACE)
            await client.end()
            assert consumer.log == ["swallowed", 1001]
            assert client.task.cancelling() == 0

    async def test_one_that_does_not_end_is_reported(
        self, wire: "MakeWire", skip: "Skip", caplog: pytest.LogCaptureFixture
    ) -> None:
        class Deaf(Room):
            async def connect(self) -> None:
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.log.append("swallowed")
                    await self.gate.wait()

        consumer = Deaf()
        client = wire(consumer)
        client.connect()
        await leaves(client, consumer)
        skip(GRACE)
        await until(lambda: consumer.log)
        assert caplog.records == []
        skip(CLEAN_UP_TIMEOUT)
        await until(lambda: caplog.records)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert caplog.messages[0].startswith("Deaf at /ws/: its client has gone, and its handler did not end in 10 s")
        consumer.gate.set()
        await client.end()
        assert consumer.log == ["swallowed", 1001]

    async def test_a_cancel_of_somebody_else_goes_on(self, wire: "MakeWire", skip: "Skip") -> None:
        consumer = Room()
        consumer.at_connect = "wait"
        client = wire(consumer)
        client.connect()
        await until(lambda: consumer.begun)
        await leaves(client, consumer)
        client.task.cancel()
        skip(GRACE)
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["CancelledError", 1001]


@pytest.mark.parametrize("way", ["async", "sync"])
class TestOnesOwn:
    """A task, or a thread, that a handler has begun and nobody ends."""

    async def test_its_sends_are_dropped_and_then_raise(self, wire: "MakeWire", skip: "Skip", way: str) -> None:
        own_class = type("Owner", (ROOMS[way],), {})
        consumer = own_class()
        client = wire(consumer)
        client.connect()
        client.leave()
        await client.end()

        async def send() -> None:
            if way == "async":
                await consumer.send(text_data="late")
            else:
                await asyncio.to_thread(consumer.send, text_data="late")

        dropped = consumer_stats(own_class).dropped_after_close
        await send()
        skip(GRACE / 2)
        await send()
        assert consumer_stats(own_class).dropped_after_close == dropped + 2
        skip(GRACE)
        with pytest.raises(ConnectionClosed, match=f"Owner ended more than its grace_period of {GRACE} s ago"):
            await send()
        assert client.texts == []


class Stream(AsyncHttpConsumer):
    """Answers in part, or whole, and waits."""

    grace_period = GRACE
    whole = False

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.gate = asyncio.Event()

    async def handle(self, body: bytes) -> None:
        await self.send_headers()
        await self.send_body(b"x", more_body=not self.whole)
        await self.gate.wait()
        self.log.append("done")

    async def disconnect(self) -> None:
        self.log.append("disconnect")


class TestHttp:
    """Requests whose client goes before ``handle`` returns."""

    async def test_a_stream_that_waits_is_cancelled(self, wire: "MakeWire", skip: "Skip") -> None:
        consumer = Stream()
        client = wire(consumer, type="http")
        client.say({"type": "http.request", "body": b""})
        await settle()
        client.say({"type": "http.disconnect"})
        await settle()
        skip(GRACE / 2)
        await settle()
        assert consumer.log == []
        skip(GRACE)
        await client.end()
        assert consumer.log == ["disconnect"]

    async def test_what_is_done_after_the_whole_answer_is_not_disturbed(self, wire: "MakeWire", skip: "Skip") -> None:
        consumer = Stream()
        consumer.whole = True
        client = wire(consumer, type="http")
        client.say({"type": "http.request", "body": b""})
        await settle()
        client.say({"type": "http.disconnect"})
        await settle()
        skip(10 * GRACE)
        consumer.gate.set()
        await client.end()
        assert consumer.log == ["done", "disconnect"]


def test_the_default_is_five_seconds() -> None:
    assert AsyncWebsocketConsumer.grace_period == WebsocketConsumer.grace_period == AsyncHttpConsumer.grace_period == 5


async def test_a_cancel_during_the_end_after_an_overrun_goes_on(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    """The cancel that closes a consumer which does not keep up is one, and what somebody else cancels another."""

    class Here(Room):
        max_backlog = 1
        overflow = "close"

        async def disconnect(self, code: int) -> None:
            self.log.append(code)
            await self.gate.wait()

    consumer = Here()
    client = wire(consumer)
    client.connect("wait")
    await settle()
    for _ in range(3):
        await layer.group_send("all", {"type": "order", "order": ""})
    await settle()
    assert consumer.log == ["CancelledError", 1013]
    client.task.cancel()
    await settle()
    consumer.gate.set()
    assert isinstance(await client.outcome(), asyncio.CancelledError)


class TestReadAhead:
    """What waits of the client behind a handler is bounded in bytes."""

    @pytest.mark.parametrize("way", ["async", "sync"])
    async def test_no_more_is_asked_for_when_so_many_bytes_wait(self, wire: "MakeWire", way: str) -> None:
        consumer = type("Small", (ROOMS[way],), {"at_connect": "wait", "read_ahead_bytes": 1000})()
        client = wire(consumer)
        client.connect(*["a" * 600] * 6)
        await until(lambda: consumer.begun and client.incoming.qsize() <= 4)
        await settle()
        assert client.incoming.qsize() == 4
        consumer.gate.set()
        await until(lambda: consumer.begun == 7)
        client.leave()
        await client.end()

    async def test_one_frame_of_any_size_is_read(self, wire: "MakeWire") -> None:
        consumer = type("Small", (Room,), {"at_connect": "wait", "read_ahead_bytes": 1})()
        client = wire(consumer)
        client.connect("a" * 10_000, "x")
        await until(lambda: consumer.begun and client.incoming.qsize() == 1)
        consumer.gate.set()
        await until(lambda: consumer.begun == 3)
        client.leave()
        await client.end()

    async def test_it_is_let_go_when_the_grace_period_is_over(self, wire: "MakeWire", skip: "Skip") -> None:
        """A handler in a thread goes on, and cannot be cancelled."""
        own_class: Any = type("Stuck", (SyncRoom,), {"at_connect": "wait"})
        consumer = own_class()
        client = wire(consumer)
        client.connect("x", "y")
        await until(lambda: consumer.begun)
        await leaves(client, consumer)
        assert consumer_stats(own_class).dropped_unhandled == 0
        skip(GRACE)
        await until(lambda: consumer_stats(own_class).dropped_unhandled == 2)
        assert consumer.log == []
        consumer.gate.set()
        await client.end()
        assert consumer_stats(own_class).dropped_unhandled == 2
