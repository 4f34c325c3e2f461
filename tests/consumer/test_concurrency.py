"""Several messages at a time, and handlers with a time limit."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.consumer import consumer_stats
from headrace.exceptions import StopConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class OfTheTest(Exception):
    """What a handler raises."""


class Gated(AsyncWebsocketConsumer):
    """Each message waits for a gate of its own."""

    groups = ("all",)
    concurrency = 3

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, asyncio.Event] = {}
        self.log: list[str] = []
        self.running: set[str] = set()
        self.peak = 0

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        name = str(text_data)
        self.running.add(name)
        self.peak = max(self.peak, len(self.running))
        try:
            self.gates[name] = asyncio.Event()
            await self.gates[name].wait()
            if name.startswith("stop"):
                raise StopConsumer
            if name.startswith("fail"):
                raise OfTheTest(name)
            self.log.append(name)
        except asyncio.CancelledError:
            await self.cleaned_up(name)
            raise
        finally:
            self.running.discard(name)

    async def cleaned_up(self, name: str) -> None:
        self.log.append(f"cancelled {name}")

    async def note(self, event: dict[str, Any]) -> None:
        await self.receive(text_data=event["name"])

    async def disconnect(self, code: int) -> None:
        self.log.append(f"disconnect {code}")


async def opened(client: "Wire", *texts: str) -> None:
    client.connect(*texts)
    await settle()


class TestSeveral:
    """Up to ``concurrency`` at a time."""

    async def test_so_many_run_and_no_more(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        consumer = Gated()
        client = wire(consumer)
        await opened(client, "a", "b")
        for name in ("c", "d", "e"):
            await layer.group_send("all", {"type": "note", "name": name})
        await settle()
        assert consumer.running == {"a", "b", "c"}
        consumer.gates["b"].set()
        await settle()
        assert consumer.running == {"a", "c", "d"}
        for _ in range(2):
            for gate in consumer.gates.values():
                gate.set()
            await settle()
        client.leave()
        await client.end()
        assert sorted(consumer.log) == ["a", "b", "c", "d", "disconnect 1001", "e"]
        assert consumer.peak == 3

    async def test_they_begin_in_order_the_client_first(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        begun: list[str] = []

        class Here(Gated):
            concurrency = 2

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                begun.append(str(text_data))
                await super().receive(text_data)

        consumer = Here()
        client = wire(consumer)
        await opened(client, "a", "b")
        await layer.group_send("all", {"type": "note", "name": "layer"})
        await settle()
        client.write("c")
        await settle()
        for _ in range(4):
            for gate in consumer.gates.values():
                gate.set()
            await settle()
        # The layer's was taken in hand before the client's came.
        assert begun in (["a", "b", "layer", "c"], ["a", "b", "c", "layer"])
        client.leave()
        await client.end()

    async def test_connect_is_handled_alone(self, wire: "MakeWire") -> None:
        gate = asyncio.Event()

        class Here(Gated):
            async def connect(self) -> None:
                await gate.wait()
                await self.accept()

        consumer = Here()
        client = wire(consumer)
        await opened(client, "a", "b")
        assert consumer.running == set()
        gate.set()
        await settle()
        assert consumer.running == {"a", "b"}
        client.leave()
        await client.end()

    async def test_each_consumer_has_its_own_limit(self, wire: "MakeWire") -> None:
        consumers = [Gated(), Gated()]
        clients = [wire(consumer) for consumer in consumers]
        for client in clients:
            await opened(client, "a", "b", "c", "d")
        assert [len(consumer.running) for consumer in consumers] == [3, 3]
        for client in clients:
            client.leave()
            await client.end()


class TestDisconnect:
    """The last message of the client."""

    async def test_it_cancels_what_runs_and_drops_what_has_not_begun(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Gated):
            pass

        consumer = Here()
        client = wire(consumer)
        await opened(client, "a", "b", "c", "d", "e")
        await layer.group_send("all", {"type": "note", "name": "f"})
        client.leave()
        await client.end()
        assert sorted(consumer.log[:-1]) == ["cancelled a", "cancelled b", "cancelled c"]
        assert consumer.log[-1] == "disconnect 1001"
        assert consumer_stats(Here).dropped_unhandled >= 2

    async def test_disconnect_begins_when_all_others_have_ended(self, wire: "MakeWire") -> None:
        may_end = asyncio.Event()

        class Here(Gated):
            async def cleaned_up(self, name: str) -> None:
                await may_end.wait()
                self.log.append(f"cleaned up {name}")

        consumer = Here()
        client = wire(consumer)
        await opened(client, "a", "b")
        client.leave()
        await settle()
        assert consumer.log == []
        may_end.set()
        await client.end()
        assert sorted(consumer.log[:2]) == ["cleaned up a", "cleaned up b"]
        assert consumer.log[2:] == ["disconnect 1001"]


class TestFailures:
    """What becomes of the others."""

    @pytest.mark.parametrize("by_layer", [False, True])
    async def test_an_error_cancels_the_others_and_goes_on_alone(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, by_layer: bool
    ) -> None:
        consumer = Gated()
        client = wire(consumer)
        await opened(client, "a")
        if by_layer:
            await layer.group_send("all", {"type": "note", "name": "fail"})
        else:
            client.write("fail")
        await settle()
        consumer.gates["fail"].set()
        error = await client.outcome()
        assert isinstance(error, OfTheTest)
        assert consumer.log == ["cancelled a", "disconnect 1006"]

    async def test_two_errors_at_once_are_one_and_both_are_reported(self, wire: "MakeWire") -> None:
        reported: list[str] = []

        class Here(Gated):
            async def on_error(self, exc: Exception, message: Any) -> None:
                reported.append(str(exc))
                raise exc

        consumer = Here()
        client = wire(consumer)
        await opened(client, "fail 1", "fail 2")
        for gate in consumer.gates.values():
            gate.set()
        assert isinstance(await client.outcome(), OfTheTest)
        assert sorted(reported) == ["fail 1", "fail 2"]
        assert consumer.log == ["disconnect 1006"]

    async def test_on_error_may_go_on(self, wire: "MakeWire") -> None:
        class Here(Gated):
            async def on_error(self, exc: Exception, message: Any) -> None:
                self.log.append(f"reported {message['text']}")

        consumer = Here()
        client = wire(consumer)
        await opened(client, "a", "fail")
        consumer.gates["fail"].set()
        await settle()
        consumer.gates["a"].set()
        await settle()
        client.leave()
        await client.end()
        assert consumer.log == ["reported fail", "a", "disconnect 1001"]

    async def test_stop_consumer_in_one_ends_all_without_an_error(self, wire: "MakeWire") -> None:
        consumer = Gated()
        client = wire(consumer)
        await opened(client, "a", "stop")
        consumer.gates["stop"].set()
        await client.end()
        assert consumer.log == ["cancelled a", "disconnect 1006"]

    async def test_an_error_goes_before_stop_consumer(self, wire: "MakeWire") -> None:
        consumer = Gated()
        client = wire(consumer)
        await opened(client, "stop", "fail")
        for gate in consumer.gates.values():
            gate.set()
        assert isinstance(await client.outcome(), OfTheTest)

    async def test_a_group_of_errors_stays_whole(self, wire: "MakeWire") -> None:
        class Here(Gated):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(super().receive("fail 1"))
                    group.create_task(super().receive("fail 2"))

        consumer = Here()
        client = wire(consumer)
        await opened(client, "x")
        for gate in consumer.gates.values():
            gate.set()
        error = await client.outcome()
        assert isinstance(error, ExceptionGroup)
        assert len(error.exceptions) == 2

    async def test_the_servers_error_waits_for_them(self, wire: "MakeWire") -> None:
        consumer = Gated()
        client = wire(consumer)
        await opened(client, "a")
        client.say(OfTheTest("receive"))
        await settle()
        assert not client.task.done()
        consumer.gates["a"].set()
        error = await client.outcome()
        assert isinstance(error, OfTheTest)
        assert consumer.log == ["a", "disconnect 1006"]


@pytest.mark.parametrize("concurrency", [1, 2])
class TestTimeout:
    """``handler_timeout``."""

    async def test_a_handler_that_takes_too_long_is_a_timeout_error(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, concurrency: int
    ) -> None:
        class Here(Gated):
            handler_timeout = 0.01

        Here.concurrency = concurrency
        for by_layer in (False, True):
            consumer = Here()
            client = wire(consumer)
            await opened(client)
            if by_layer:
                await layer.group_send("all", {"type": "note", "name": "a"})
            else:
                client.write("a")
            error = await client.outcome()
            assert isinstance(error, TimeoutError)
            assert "Here took longer than its handler_timeout of 0.01 s" in str(error)
            assert consumer.log == ["cancelled a", "disconnect 1006"]

    async def test_on_error_may_go_on_after_it(self, wire: "MakeWire", concurrency: int) -> None:
        class Here(Gated):
            handler_timeout = 0.01

            async def on_error(self, exc: Exception, message: Any) -> None:
                reported.set()

        Here.concurrency = concurrency
        reported = asyncio.Event()
        consumer = Here()
        client = wire(consumer)
        await opened(client, "a")
        await reported.wait()
        client.leave()
        await client.end()
        assert consumer.log == ["cancelled a", "disconnect 1001"]

    async def test_a_timeout_error_of_the_handlers_own_is_left_as_it_is(
        self, wire: "MakeWire", concurrency: int
    ) -> None:
        class Here(Gated):
            handler_timeout = 60

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                raise TimeoutError("of the handler")

        Here.concurrency = concurrency
        client = wire(Here())
        await opened(client, "a")
        assert str(await client.outcome()) == "of the handler"

    async def test_a_cancel_is_no_timeout(self, wire: "MakeWire", concurrency: int) -> None:
        class Here(Gated):
            handler_timeout = 60

        Here.concurrency = concurrency
        consumer = Here()
        client = wire(consumer)
        await opened(client, "a")
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.log == ["cancelled a", "disconnect 1006"]
