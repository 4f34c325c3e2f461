"""``expires_at`` and ``on_expire``, in a time that the test moves."""

import asyncio
import datetime
import gc
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headrace import consumer_stats
from headrace._websocket.expiry import of_instance
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

ForwardTo = Callable[[float], Awaitable[None]]
START = 1_800_000_000.0
"""What ``time.time()`` says when a test begins."""
CLOSED = {"type": "websocket.close", "code": 4401}


@pytest.fixture(autouse=True)
async def _time(monkeypatch: pytest.MonkeyPatch, forward_to: ForwardTo) -> None:
    """Let the clock of the machine go with the loop's."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    clock = SimpleNamespace(time=lambda: START + loop.time() - began)
    monkeypatch.setattr("headrace._websocket.expiry.time", clock)


class Timed(AsyncWebsocketConsumer):
    """Ends when its client says so."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)
        if text_data == "wait":
            await self.gate.wait()
        elif text_data == "never":
            self.expires_at = None
        elif text_data is not None:
            self.expires_at = START + float(text_data)

    async def disconnect(self, code: int) -> None:
        self.log.append(code)


def counted(consumer_class: type[Any]) -> tuple[int, int, int]:
    stats = consumer_stats(consumer_class)
    return stats.closed_expired, stats.cut_off, stats.errors


class TestTimes:
    """When it is called."""

    async def test_a_consumer_ends_at_its_time_with_4401(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        class Chat(Timed):
            pass

        consumer = Chat()
        client = wire(consumer)
        client.connect("10")
        await settle()
        await forward_to(9.9)
        assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        client.leave(4401)
        await client.end()
        assert consumer.log == ["10", 4401]
        assert counted(Chat) == (1, 0, 0)

    async def test_the_time_can_be_moved_and_taken_back(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        consumer = Timed()
        client = wire(consumer)
        client.connect("10", "20")
        await settle()
        await forward_to(15)
        assert len(client.sent) == 1
        client.write("never")
        await settle()
        await forward_to(100)
        assert len(client.sent) == 1
        client.write("101")
        await settle()
        await forward_to(101.1)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()

    async def test_a_time_that_has_passed_ends_it_when_connect_has_returned(self, wire: "MakeWire") -> None:
        class Late(Timed):
            expires_at = START - 1

            async def connect(self) -> None:
                await asyncio.sleep(0)
                await self.accept()

        client = wire(Late())
        client.connect()
        await client.heard(0)
        await settle()
        assert [message["type"] for message in client.sent] == ["websocket.accept", "websocket.close"]
        client.leave()
        await client.end()

    async def test_a_method_is_asked_after_connect_and_when_its_time_has_come(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Renewed(Timed):
            until: float

            async def connect(self) -> None:
                self.until = 10
                await self.accept()

            def expires_at(self) -> float:
                self.log.append("asked")
                return START + self.until

        consumer = Renewed()
        client = wire(consumer)
        client.connect()
        await settle()
        assert consumer.log == ["asked"]
        consumer.until = 30
        await forward_to(10.1)
        assert consumer.log == ["asked", "asked"]
        assert len(client.sent) == 1
        await forward_to(30.1)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()

    async def test_a_method_may_be_a_coroutine_function_and_say_none(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Endless(Timed):
            async def expires_at(self) -> float | None:
                self.log.append("asked")
                return None

        consumer = Endless()
        client = wire(consumer)
        client.connect()
        await settle()
        await forward_to(10_000)
        assert consumer.log == ["asked"]
        client.leave()
        await client.end()

    async def test_a_time_that_is_set_counts_in_the_place_of_the_method(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Either(Timed):
            def expires_at(self) -> float:
                return START + 10

        client = wire(Either())
        client.connect("30")
        await settle()
        await forward_to(20)
        assert len(client.sent) == 1
        await forward_to(30.1)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()

    async def test_a_clock_that_was_set_back_is_believed(
        self, wire: "MakeWire", forward_to: ForwardTo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = wire(Timed())
        client.connect("10")
        await settle()
        now = START - 50
        monkeypatch.setattr("headrace._websocket.expiry.time", SimpleNamespace(time=lambda: now))
        await forward_to(11)
        assert len(client.sent) == 1
        now = START + 20
        await forward_to(80)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()

    async def test_what_came_before_is_handled_first(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        consumer = Timed()
        client = wire(consumer)
        client.connect("5", "wait", "1")
        await settle()
        await forward_to(5.1)
        assert len(client.sent) == 1
        consumer.gate.set()
        await settle()
        assert consumer.log == ["5", "wait", "1"]
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()


class TestHook:
    """What ``on_expire`` may do."""

    async def test_it_may_send_a_message_and_set_another_time(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        class Lenient(Timed):
            async def on_expire(self) -> None:
                await self.send(text_data="log in again")
                self.expires_at = START + 20

        client = wire(Lenient())
        client.connect("10")
        await settle()
        await forward_to(10.1)
        assert client.texts == ["log in again"]
        await forward_to(19.9)
        assert len(client.sent) == 2
        client.leave()
        await client.end()
        assert counted(Lenient) == (0, 0, 0)

    async def test_what_it_leaves_open_is_closed(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        class Forgetful(Timed):
            async def on_expire(self) -> None:
                await self.send(text_data="bye")

        consumer = Forgetful()
        client = wire(consumer)
        client.connect("10")
        await settle()
        await forward_to(10.1)
        await client.end()
        assert client.texts == ["bye"]
        assert client.sent[-1] == CLOSED
        assert consumer.log == ["10", 4401]
        assert counted(Forgetful) == (1, 0, 0)

    async def test_one_that_raises_is_told_to_on_error_and_the_socket_closed(
        self, wire: "MakeWire", forward_to: ForwardTo, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing(Timed):
            async def on_expire(self) -> None:
                raise RuntimeError("no")

        consumer = Failing()
        client = wire(consumer)
        client.connect("10")
        await settle()
        await forward_to(10.1)
        await client.end()
        assert client.sent[1:] == [CLOSED]
        assert consumer.log == ["10", 4401]
        assert counted(Failing) == (1, 0, 1)
        assert "Failing at /ws/ failed on 'on_expire': RuntimeError('no')" in caplog.messages

    async def test_one_that_hangs_is_cut_off_after_ten_seconds(
        self, wire: "MakeWire", forward_to: ForwardTo, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Hanging(Timed):
            async def on_expire(self) -> None:
                await asyncio.Event().wait()

        consumer = Hanging()
        client = wire(consumer)
        client.connect("10")
        await settle()
        await forward_to(10.1)
        await forward_to(19.9)
        assert len(client.sent) == 1
        await forward_to(20.2)
        await client.end()
        assert client.sent[1:] == [CLOSED]
        assert consumer.log == ["10", 4401]
        assert counted(Hanging) == (1, 1, 0)
        assert any("on_expire() did not come to its end in 10 s" in text for text in caplog.messages)

    async def test_a_handler_that_hangs_does_not_keep_the_socket_open(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Busy(Timed):
            pass

        consumer = Busy()
        client = wire(consumer)
        client.connect("10", "wait")
        await settle()
        await forward_to(10.1)
        await forward_to(20.2)
        await client.end()
        assert client.sent[1:] == [CLOSED]
        assert counted(Busy) == (1, 1, 0)

    @pytest.mark.parametrize("is_method", [False, True])
    async def test_a_handler_that_has_renewed_it_may_be_at_work_for_longer(
        self, wire: "MakeWire", forward_to: ForwardTo, is_method: bool
    ) -> None:
        class Set(Timed):
            """Sets another time while it is at work."""

        class Asked(Timed):
            until = 10

            def expires_at(self) -> float:
                return START + self.until

        consumer = Asked() if is_method else Set()
        client = wire(consumer)
        client.connect(*([] if is_method else ["10"]), "wait")
        await settle()
        await forward_to(10.1)
        if isinstance(consumer, Asked):
            consumer.until = 100
        else:
            consumer.expires_at = START + 100
        await forward_to(20.2)
        await settle()
        assert len(client.sent) == 1
        consumer.gate.set()
        await settle()
        assert len(client.sent) == 1
        await forward_to(100.1)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()
        assert counted(type(consumer)) == (1, 0, 0)

    async def test_a_method_that_says_a_time_that_has_passed_at_once_does_not_excuse_a_hook_that_hangs(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Passed(Timed):
            async def expires_at(self) -> float:
                return START - 1

            async def on_expire(self) -> None:
                await asyncio.Event().wait()

        client = wire(Passed())
        client.connect()
        await settle()
        assert len(client.sent) == 1
        await forward_to(10.1)
        await client.end()
        assert client.sent[1:] == [CLOSED]
        assert counted(Passed) == (1, 1, 0)

    async def test_a_method_that_raises_or_says_no_time_closes_the_socket(self, wire: "MakeWire") -> None:
        class Broken(Timed):
            def expires_at(self) -> Any:
                return "tomorrow"

        client = wire(Broken())
        client.connect()
        await client.end()
        assert client.sent[1:] == [CLOSED]
        assert counted(Broken) == (1, 0, 1)

    async def test_with_several_handlers_at_a_time_it_waits_for_those_that_run(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        class Several(Timed):
            concurrency = 2

        consumer = Several()
        client = wire(consumer)
        client.connect("10", "wait")
        await settle()
        await forward_to(10.1)
        assert len(client.sent) == 1
        consumer.gate.set()
        await settle()
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()


class TestSync:
    """The same in threads."""

    async def test_a_sync_consumer_ends_at_its_time(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        said: list[Any] = []

        class Plain(WebsocketConsumer):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.expires_at = START + 10
                said.append(threading.current_thread() is not threading.main_thread())
                self.send(text_data="set")

            def on_expire(self) -> None:
                said.append("expired")
                super().on_expire()

            def disconnect(self, code: int) -> None:
                said.append(code)

        client = wire(Plain())
        client.connect("x")
        await client.heard(1)
        await settle()
        await forward_to(10.1)
        async with asyncio.timeout(20):
            while client.sent[-1] != CLOSED:
                await asyncio.sleep(0)
        client.leave(4401)
        await client.end()
        assert said == [True, "expired", 4401]

    async def test_its_method_is_asked_in_a_thread(self, wire: "MakeWire") -> None:
        asked: list[Any] = []

        class Plain(WebsocketConsumer):
            def expires_at(self) -> float:
                asked.append(threading.current_thread() is not threading.main_thread())
                return START - 1

        client = wire(Plain())
        client.connect()
        async with asyncio.timeout(20):
            while client.sent[-1:] != [CLOSED]:
                await asyncio.sleep(0)
        client.leave()
        await client.end()
        assert asked == [True]

    async def test_a_hook_that_blocks_its_thread_does_not_keep_the_socket_open(
        self, wire: "MakeWire", forward_to: ForwardTo
    ) -> None:
        begun, go_on = threading.Event(), threading.Event()

        class Blocking(WebsocketConsumer):
            expires_at = START + 10

            def on_expire(self) -> None:
                begun.set()
                go_on.wait(20)

        client = wire(Blocking())
        client.connect()
        await client.heard(0)
        async with asyncio.timeout(20):
            while not client.sent:
                await asyncio.sleep(0)
        await settle()
        await forward_to(10.1)
        await asyncio.to_thread(begun.wait, 20)
        await forward_to(20.2)
        assert client.sent[1:] == [CLOSED]
        go_on.set()
        await client.end()
        assert counted(Blocking) == (1, 1, 0)

    async def test_a_time_set_in_a_thread_of_ones_own_counts(self, wire: "MakeWire", forward_to: ForwardTo) -> None:
        consumer = Timed()
        client = wire(consumer)
        client.connect()
        await settle()
        await asyncio.to_thread(setattr, consumer, "expires_at", START + 10)
        await settle()
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        client.leave()
        await client.end()


BAD = [True, "2030-01-01", b"1", datetime.datetime(2030, 1, 1), object(), [1.0]]


class TestValues:
    """What may be set, and what not."""

    @pytest.mark.parametrize("name", ["scope", "user", "events"])
    def test_a_method_that_takes_something_is_refused(self, name: str) -> None:
        written: dict[str, Any] = {}
        exec(f"async def expires_at(self, {name}): ...", written)
        with pytest.raises(TypeError, match=rf"Wrong\.expires_at must be .* got one that takes {name};"):
            type("Wrong", (AsyncWebsocketConsumer,), {"expires_at": written["expires_at"]})

    @pytest.mark.parametrize("name", ["event", "message"])
    async def test_a_handler_of_messages_of_that_type_is_none(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, name: str
    ) -> None:
        written: dict[str, Any] = {}
        exec(f"async def expires_at(self, {name}): await self.send(text_data={name}['text'])", written)
        kind: Any = type("Handling", (Timed,), {"groups": ("all",), "expires_at": written["expires_at"]})
        client = wire(kind())
        client.connect()
        await settle()
        await layer.group_send("all", {"type": "expires.at", "text": "noon"})
        await settle()
        assert client.texts == ["noon"]
        client.leave()
        await client.end()

    @pytest.mark.parametrize("value", BAD)
    def test_what_is_no_number_is_refused_at_the_assignment(self, value: Any) -> None:
        consumer = Timed()
        with pytest.raises(TypeError, match=r"Timed\.expires_at must be a time in seconds, as time\.time\(\) tells it"):
            consumer.expires_at = value
        assert consumer.expires_at is None

    def test_a_datetime_is_told_what_to_write(self) -> None:
        with pytest.raises(TypeError, match=r"write \.timestamp\(\) behind it"):
            Timed().expires_at = datetime.datetime(2030, 1, 1)  # type: ignore[assignment]  # what is refused

    def test_nan_and_milliseconds_are_refused(self) -> None:
        consumer = Timed()
        with pytest.raises(ValueError, match="got nan"):
            consumer.expires_at = math.nan
        with pytest.raises(ValueError, match="is it in milliseconds"):
            consumer.expires_at = START * 1000
        for exponent in (400, 5000):
            for sign in (1, -1):
                with pytest.raises(ValueError, match="or None, got a number thousands of years away"):
                    consumer.expires_at = sign * 10**exponent
        consumer.expires_at = -math.inf
        consumer.expires_at = math.inf

    @pytest.mark.parametrize("value", [True, "soon", datetime.datetime(2030, 1, 1)])
    def test_what_a_class_says_is_checked_when_it_is_defined(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"Wrong\.expires_at must be a time in seconds"):
            type("Wrong", (AsyncWebsocketConsumer,), {"expires_at": value})

    @pytest.mark.parametrize("value", [0, -5, START, math.inf, None])
    def test_any_other_number_is_taken_and_read_again(self, value: float | None) -> None:
        consumer = Timed()
        consumer.expires_at = value
        assert consumer.expires_at == value

    def test_a_class_and_a_mixin_may_say_it(self) -> None:
        class Mixin:
            def expires_at(self) -> float:
                return 5.0

        class Mixed(Mixin, AsyncWebsocketConsumer):  # type: ignore[misc]  # a method in the place of an attribute
            pass

        class Later(Mixed):
            expires_at = 7.0  # type: ignore[assignment]  # a time in the place of a method

        mixed = Mixed()
        assert callable(mixed.expires_at)
        assert mixed.expires_at() == 5.0
        assert Later().expires_at == 7.0
        assert AsyncWebsocketConsumer().expires_at is None

    def test_a_handler_of_that_name_is_left_alone(self) -> None:
        class Older(AsyncWebsocketConsumer):
            def expires_at(  # type: ignore[override]  # a handler, from before there was the setting
                self, event: dict[str, Any]
            ) -> str:
                return f"handled {event['type']}"

        assert Older().expires_at({"type": "expires.at"}) == "handled expires.at"


async def test_a_consumer_that_says_nothing_has_nothing_of_it(wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
    client = wire(consumer := Timed())
    client.connect()
    await settle()
    assert of_instance(consumer) is None
    assert "expires_at" not in vars(consumer)
    client.leave()
    await client.end()


async def test_an_end_before_the_time_leaves_no_timer(
    wire: "MakeWire", forward_to: ForwardTo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    consumer = Timed()
    client = wire(consumer)
    client.connect("10")
    await settle()
    client.leave()
    await client.end()
    consumer.expires_at = START + 1
    gc.collect()
    await forward_to(30)
    assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]
    assert caplog.messages == []
