"""``rate_limit``: how many messages a client may send, in a time that the test moves."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace import consumer_stats
from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Noting(AsyncWebsocketConsumer):
    """Notes what it takes."""

    rate_limit = "3/s"
    groups = ("all",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)
        if text_data == "wait":
            await self.gate.wait()

    async def note(self, event: dict[str, Any]) -> None:
        self.log.append("note")

    async def on_idle(self) -> None:
        self.log.append("idle")

    async def disconnect(self, code: int) -> None:
        self.log.append(code)


class Plain(AsyncWebsocketConsumer):
    rate_limit = "2/s"

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class PlainJson(AsyncJsonWebsocketConsumer):
    rate_limit = "2/s"

    async def receive_json(self, content: Any) -> None:
        await self.send_json(content)


class Sync(WebsocketConsumer):
    rate_limit = "2/s"

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)


class SyncJson(JsonWebsocketConsumer):
    rate_limit = "2/s"

    def receive_json(self, content: Any) -> None:
        self.send_json(content)


class Bare(AsyncConsumer):
    rate_limit = "2/s"

    async def websocket_connect(self, message: Any) -> None:
        await self.send({"type": "websocket.accept"})

    async def websocket_receive(self, message: Any) -> None:
        await self.send({"type": "websocket.send", "text": message["text"]})

    async def websocket_disconnect(self, message: Any) -> None:
        await self.send({"type": "websocket.send", "text": "left"})


class BareSync(SyncConsumer):
    rate_limit = "2/s"

    def websocket_connect(self, message: Any) -> None:
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, message: Any) -> None:
        self.send({"type": "websocket.send", "text": message["text"]})


FORMS: list[type[Any]] = [Plain, PlainJson, Sync, SyncJson, Bare, BareSync]


async def taken(client: "Wire") -> None:
    """Wait until the consumer has asked for all that the client has sent."""
    while not client.incoming.empty():
        await asyncio.sleep(0)
    await settle()


@pytest.mark.parametrize("form", FORMS)
async def test_what_is_over_the_rate_is_dropped_and_counted(wire: "MakeWire", forward_to: Any, form: type[Any]) -> None:
    before = consumer_stats(form)
    client = wire(form())
    client.connect("1", "2", "3", "4")
    await client.heard(2)
    await taken(client)
    await forward_to(0.51)  # in which one token has come
    client.write("5", "6")
    await client.heard(3)
    await taken(client)
    assert client.texts == ["1", "2", "5"]
    after = consumer_stats(form)
    assert (after.dropped_over_rate - before.dropped_over_rate, after.closed_over_rate) == (3, 0)
    client.task.cancel()
    await client.outcome()


class TestDropping:
    """The default."""

    async def test_so_many_as_the_number_come_at_once_and_no_more_after_a_long_silence(
        self, wire: "MakeWire", forward_to: Any
    ) -> None:
        consumer = Noting()
        client = wire(consumer)
        client.connect()
        await settle()
        for silence in (0, 3600):
            await forward_to(silence)
            client.write("1", "2", "3", "4", "5")
            await taken(client)
        assert consumer.log == ["1", "2", "3"] * 2
        client.leave()
        await client.end()

    async def test_a_rate_per_minute_fills_the_bucket_in_a_minute(self, wire: "MakeWire", forward_to: Any) -> None:
        class Slow(Noting):
            rate_limit = "2/m"

        consumer = Slow()
        client = wire(consumer)
        client.connect("1", "2", "3")
        await taken(client)
        await forward_to(29.9)
        client.write("4")
        await taken(client)
        await forward_to(30.1)
        client.write("5")
        await taken(client)
        assert consumer.log == ["1", "2", "5"]
        client.leave()
        await client.end()

    async def test_each_client_has_a_bucket_of_its_own(self, wire: "MakeWire", forward_to: Any) -> None:
        consumers = [Noting(), Noting()]
        clients = [wire(consumer) for consumer in consumers]
        for client in clients:
            client.connect(*"1234")
        for client in clients:
            await taken(client)
        assert [consumer.log for consumer in consumers] == [["1", "2", "3"]] * 2
        for client in clients:
            client.leave()
            await client.end()

    async def test_messages_of_the_layer_do_not_count(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, forward_to: Any
    ) -> None:
        consumer = Noting()
        client = wire(consumer)
        client.connect("1", "2")
        await taken(client)
        for _ in range(10):
            await layer.group_send("all", {"type": "note"})
        await settle()
        client.write("3")
        await taken(client)
        assert consumer.log == ["1", "2", *["note"] * 10, "3"]
        client.leave()
        await client.end()

    async def test_the_departure_is_heard_however_much_was_dropped(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Noting()
        client = wire(consumer)
        client.connect(*["x"] * 1000)
        client.leave(1001)
        await client.end()
        assert consumer.log == ["x", "x", "x", 1001]

    async def test_a_client_whose_frames_are_dropped_is_not_silent(self, wire: "MakeWire", forward_to: Any) -> None:
        class Slow(Noting):
            rate_limit = "1/m"
            idle_timeout = 20

        consumer = Slow()
        client = wire(consumer)
        client.connect("1")
        await taken(client)
        for seconds in (15, 30, 45):
            await forward_to(seconds)
            client.write("dropped")
            await taken(client)
        assert consumer.log == ["1"]
        await forward_to(66)
        assert consumer.log == ["1", "idle"]
        client.leave()
        await client.end()

    async def test_with_several_at_a_time_too(self, wire: "MakeWire", forward_to: Any) -> None:
        class Several(Noting):
            concurrency = 8

        consumer = Several()
        client = wire(consumer)
        client.connect("wait", "wait", "3", "4")
        await taken(client)
        assert consumer.log == ["wait", "wait", "3"]
        consumer.gate.set()
        client.leave()
        await client.end()

    async def test_the_log_says_it_once_for_a_class(
        self, wire: "MakeWire", forward_to: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Once(Noting):
            pass

        for _ in range(2):
            client = wire(Once())
            client.connect(*"12345")
            await taken(client)
            client.leave()
            await client.end()
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        what = "a client sends more than its rate_limit of 3/s, and the rest is dropped"
        assert told == [f"Once at '/ws/': {what}; more are only counted"]

    async def test_the_loop_has_a_turn_between_dropped_frames(self, forward_to: Any) -> None:
        frames = iter(range(100))
        turns: list[None] = []
        messages: list[Any] = [{"type": "websocket.connect"}]

        async def receive() -> Any:  # never waits
            if messages:
                return messages.pop()
            try:
                return {"type": "websocket.receive", "text": str(next(frames))}
            except StopIteration:
                return {"type": "websocket.disconnect", "code": 1000}

        async def send(message: Any) -> None:
            pass

        async def others() -> None:
            while True:
                turns.append(None)
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        await Noting()({"type": "websocket", "path": "/"}, receive, send)
        other.cancel()
        assert len(turns) > 90


class Closing(Noting):
    rate_limit_overflow = "close"


class TestClosing:
    """``rate_limit_overflow = "close"``."""

    async def test_it_closes_with_1008_when_what_came_before_was_handled(
        self, wire: "MakeWire", forward_to: Any
    ) -> None:
        before = consumer_stats(Closing)
        consumer = Closing()
        client = wire(consumer)
        client.connect(*"12345")
        await client.end()
        assert consumer.log == ["1", "2", "3", 1008]
        assert client.sent[-1] == {"type": "websocket.close", "code": 1008}
        after = consumer_stats(Closing)
        assert (after.dropped_over_rate - before.dropped_over_rate, after.errors) == (1, before.errors)
        assert after.closed_over_rate - before.closed_over_rate == 1

    async def test_a_handler_at_work_has_its_grace_period(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Closing()
        client = wire(consumer)
        client.connect("wait", "2", "3", "4")
        await taken(client)
        await forward_to(4.9)
        assert consumer.log == ["wait"]
        consumer.gate.set()
        await client.end()
        assert consumer.log == ["wait", "2", "3", 1008]

    async def test_a_handler_that_does_not_end_is_cancelled(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Closing()
        client = wire(consumer)
        client.connect("wait", "2", "3", "4")
        await taken(client)
        await forward_to(5.1)
        await client.end()
        assert consumer.log == ["wait", 1008]
        assert client.sent[-1] == {"type": "websocket.close", "code": 1008}

    async def test_with_several_at_a_time_too(self, wire: "MakeWire", forward_to: Any) -> None:
        class Several(Closing):
            concurrency = 8

        consumer = Several()
        client = wire(consumer)
        client.connect("1", "2", "3", "4")
        await client.end()
        assert sorted(map(str, consumer.log)) == ["1", "1008", "2", "3"]

    async def test_a_sync_consumer_is_closed_too(self, wire: "MakeWire", forward_to: Any) -> None:
        codes = []

        class ClosingSync(Sync):
            rate_limit_overflow = "close"

            def disconnect(self, code: int) -> None:
                codes.append(code)

        client = wire(ClosingSync())
        client.connect("1", "2", "3")
        await client.end()
        assert (client.texts, client.sent[-1]["code"], codes) == (["1", "2"], 1008, [1008])

    @pytest.mark.parametrize("form", [Bare, BareSync])
    async def test_a_bare_consumer_ends(self, wire: "MakeWire", forward_to: Any, form: Any) -> None:
        class ClosingBare(form):  # type: ignore[misc]
            rate_limit_overflow = "close"

        client = wire(ClosingBare())
        client.connect("1", "2", "3")
        await client.end()
        assert client.texts == ["1", "2"]
        assert client.sent[-1] == {"type": "websocket.close", "code": 1008}
        assert consumer_stats(ClosingBare).closed_over_rate == 1

    async def test_a_bare_consumer_whose_handler_does_not_end_is_closed_too(
        self, wire: "MakeWire", forward_to: Any
    ) -> None:
        class Stuck(Bare):
            rate_limit_overflow = "close"

            async def websocket_receive(self, message: Any) -> None:
                await asyncio.Event().wait()

        client = wire(Stuck())
        client.connect("1", "2", "3")
        await taken(client)
        await forward_to(5.1)
        await client.end()
        assert client.sent[-1] == {"type": "websocket.close", "code": 1008}


class TestSettings:
    """What is wrong is said when the class is defined."""

    @pytest.mark.parametrize(
        "value", ["", "20", "20/h", "0/s", "-1/s", "1.5/s", " 20/s", "20 / s", "1e3/s", "٣/s", "1" * 10 + "/s"]
    )
    def test_a_text_of_another_form_is_refused(self, value: str) -> None:
        with pytest.raises(
            ValueError, match=r"Here\.rate_limit must be messages per second or per minute, such as '20/s'"
        ):
            type("Here", (AsyncWebsocketConsumer,), {"rate_limit": value})

    @pytest.mark.parametrize("value", [20, 2.5, True, ("20", "s"), b"20/s"])
    def test_what_is_no_text_is_refused(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"Here\.rate_limit must be messages per second or per minute"):
            type("Here", (WebsocketConsumer,), {"rate_limit": value})

    @pytest.mark.parametrize("value", ["drop_new", "", None, 1008, ["close"]])
    def test_the_overflow_must_be_one_of_two(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"Here\.rate_limit_overflow must be one of 'drop', 'close', got"):
            type("Here", (AsyncWebsocketConsumer,), {"rate_limit": "1/s", "rate_limit_overflow": value})

    def test_a_request_has_no_rate(self) -> None:
        with pytest.raises(TypeError, match=r"Here\.rate_limit must be None: an HTTP consumer serves one request"):
            type("Here", (AsyncHttpConsumer,), {"rate_limit": "1/s"})

    async def test_a_subclass_may_take_it_away(self, wire: "MakeWire", forward_to: Any) -> None:
        class Unlimited(Noting):
            rate_limit = None  # type: ignore[assignment]  # the default

        consumer = Unlimited()
        client = wire(consumer)
        client.connect(*["x"] * 50)
        await taken(client)
        assert consumer.log == ["x"] * 50
        client.leave()
        await client.end()


async def test_without_a_rate_nothing_of_it_is_called(wire: "MakeWire", monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer without the setting reads its client by the server's own ``receive``."""

    class Without(Noting):
        rate_limit = None  # type: ignore[assignment]  # the default

    def fail(*_arguments: Any) -> None:
        raise AssertionError("called")

    monkeypatch.setattr("headrace._dispatch.incoming.TokenBucket", fail)
    monkeypatch.setattr("headrace._dispatch.incoming.Incoming.within_rate", fail)
    consumer = Without()
    client = wire(consumer)
    client.connect("1")
    await taken(client)
    assert consumer._headrace.incoming is not None
    assert consumer._headrace.incoming._receive == client._receive
    client.leave()
    await client.end()
