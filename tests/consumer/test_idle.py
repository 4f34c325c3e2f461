"""``idle_timeout`` and ``on_idle``, in a time that the test moves."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Quiet(AsyncWebsocketConsumer):
    """Writes down when it is idle."""

    groups = ("all",)
    idle_timeout = 10.0

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


class TestIdle:
    """Silence, and what ends it."""

    async def test_it_is_called_again_and_again_while_the_client_is_silent(
        self, wire: "MakeWire", forward_to: Any
    ) -> None:
        consumer = Quiet()
        client = wire(consumer)
        client.connect()
        await settle()
        await forward_to(9.9)
        assert consumer.log == []
        await forward_to(10.1)
        assert consumer.log == ["idle"]
        await forward_to(19.9)
        assert consumer.log == ["idle"]
        await forward_to(20.3)
        assert consumer.log == ["idle", "idle"]
        client.leave()
        await client.end()

    async def test_a_frame_ends_the_silence_and_a_message_of_the_layer_does_not(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, forward_to: Any
    ) -> None:
        consumer = Quiet()
        client = wire(consumer)
        client.connect()
        await settle()
        await forward_to(8)
        client.write("x")
        await settle()
        await forward_to(12)
        await layer.group_send("all", {"type": "note"})
        await forward_to(17.9)
        assert consumer.log == ["x", "note"]
        await forward_to(18.1)
        assert consumer.log == ["x", "note", "idle"]
        client.leave()
        await client.end()

    async def test_a_consumer_at_work_hears_of_it_once(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Quiet()
        client = wire(consumer)
        client.connect("wait")
        await settle()
        for seconds in range(11, 300, 11):
            await forward_to(seconds)
        consumer.gate.set()
        await settle()
        assert consumer.log == ["wait", "idle"]
        client.leave()
        await client.end()

    async def test_a_client_whose_frames_wait_is_not_silent(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Quiet()
        client = wire(consumer)
        client.connect("wait", *["x"] * 20)
        await settle()
        for seconds in range(11, 100, 11):
            await forward_to(seconds)
        consumer.gate.set()
        await settle()
        assert consumer.log == ["wait", *["x"] * 20]
        client.leave()
        await client.end()

    async def test_it_closes_the_connection_by_default(self, wire: "MakeWire", forward_to: Any) -> None:
        class Default(AsyncWebsocketConsumer):
            idle_timeout = 10

        client = wire(Default())
        client.connect()
        await settle()
        await forward_to(11)
        assert client.sent[1:] == [{"type": "websocket.close"}]
        await forward_to(50)
        assert len(client.sent) == 2
        client.leave()
        await client.end()

    async def test_a_consumer_that_has_closed_is_not_idle(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Quiet()
        client = wire(consumer)
        client.connect()
        await settle()
        await consumer.close()
        await forward_to(50)
        assert consumer.log == []
        client.leave()
        await client.end()

    async def test_nothing_is_left_to_call_when_the_consumer_has_ended(self, wire: "MakeWire", forward_to: Any) -> None:
        for cancel in (False, True):
            consumer = Quiet()
            client = wire(consumer)
            client.connect()
            await settle()
            if cancel:
                client.task.cancel()
            else:
                client.leave()
            await client.outcome()
            await forward_to(500)
            assert "idle" not in consumer.log

    async def test_an_error_in_it_goes_to_on_error_with_a_message(self, wire: "MakeWire", forward_to: Any) -> None:
        class Failing(Quiet):
            async def on_idle(self) -> None:
                raise LookupError("in on_idle")

            async def on_error(self, exc: Exception, message: Any) -> None:
                self.log.append((str(exc), message.get("type")))
                raise exc

        consumer = Failing()
        client = wire(consumer)
        client.connect()
        await settle()
        await forward_to(11)
        assert isinstance(await client.outcome(), LookupError)
        assert consumer.log == [("in on_idle", "on_idle"), 1006]

    async def test_with_several_at_a_time_too(self, wire: "MakeWire", forward_to: Any) -> None:
        class Several(Quiet):
            concurrency = 2

        consumer = Several()
        client = wire(consumer)
        client.connect("wait")
        await settle()
        await forward_to(11)
        assert consumer.log == ["wait", "idle"]
        client.leave()
        await client.end()

    async def test_a_sync_consumer_is_called_in_a_thread(self, wire: "MakeWire", forward_to: Any) -> None:
        class Sync(WebsocketConsumer):
            idle_timeout = 10

            def on_idle(self) -> None:  # type: ignore[override]  # the sync twin
                self.send(text_data="ping")

        client = wire(Sync())
        client.connect()
        while not client.sent:
            await asyncio.sleep(0)
        await forward_to(11)
        while not client.texts:
            await asyncio.sleep(0)
        assert client.texts == ["ping"]
        client.leave()
        await client.end()

    async def test_without_a_timeout_there_is_no_timer(self, wire: "MakeWire", monkeypatch: pytest.MonkeyPatch) -> None:
        class Plain(Quiet):
            idle_timeout = None  # type: ignore[assignment]  # the default

        loop = asyncio.get_running_loop()
        timers: list[Any] = []

        def call_later(*arguments: Any) -> None:
            timers.append(arguments)

        monkeypatch.setattr(loop, "call_later", call_later)
        client = wire(Plain())
        client.connect("x")
        await settle()
        client.leave()
        await asyncio.wait([client.task])
        monkeypatch.undo()
        # Other timers run at its end.
        assert [timer for timer in timers if "Incoming" in repr(timer)] == []
