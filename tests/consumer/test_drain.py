"""``drain`` and ``on_drain``: how the WebSockets of a process end before it does."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import _drain, consumer_stats
from headrace._layers.registry import channel_layers
from headrace.consumer import AsyncConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

CLOSED = {"type": "websocket.close", "code": 1012}


@pytest.fixture(autouse=True)
def _not_draining() -> Iterator[None]:
    """Let the process go on when the test is over."""
    yield
    assert _drain._state.living == set()
    _drain._state.begin_anew()


class Noting(AsyncWebsocketConsumer):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.gate = asyncio.Event()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "wait":
            await self.gate.wait()
        self.log.append(text_data)

    async def disconnect(self, code: int) -> None:
        self.log.append(code)


def counted(consumer_class: type[Any]) -> tuple[int, int, int]:
    stats = consumer_stats(consumer_class)
    return stats.closed_drained, stats.cut_off, stats.errors


async def obedient(client: "Wire") -> None:
    """Leave when the server closes, as clients do."""
    async with asyncio.timeout(20):
        while CLOSED not in client.sent:
            await asyncio.sleep(0)
    client.leave(1012)
    await client.end()


class TestEnd:
    """What becomes of those that are there."""

    async def test_each_is_closed_with_1012_and_has_ended_when_it_returns(self, wire: "MakeWire") -> None:
        class Chat(Noting):
            pass

        consumers = [Chat() for _ in range(5)]
        clients = [wire(consumer) for consumer in consumers]
        for client in clients:
            client.connect("hello")
        await settle()
        leaving = [asyncio.create_task(obedient(client)) for client in clients]
        await headrace.drain(20, 0.05)
        assert all(client.task.done() for client in clients)
        assert [consumer.log for consumer in consumers] == [["hello", 1012]] * 5
        assert counted(Chat) == (5, 0, 0)
        await asyncio.gather(*leaving)

    async def test_what_is_at_work_is_finished_first(self, wire: "MakeWire") -> None:
        consumer = Noting()
        client = wire(consumer)
        client.connect("wait", "behind it")
        await settle()
        draining = asyncio.create_task(headrace.drain(20, 0))
        await settle()
        assert len(client.sent) == 1
        consumer.gate.set()
        await obedient(client)
        await draining
        assert consumer.log == ["wait", "behind it", 1012]

    @pytest.mark.parametrize("concurrency", [1, 2])
    async def test_what_was_sent_to_it_before_is_handled_first(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, concurrency: int
    ) -> None:
        class Room(Noting):
            async def note(self, event: Any) -> None:
                await asyncio.sleep(0)
                self.log.append(event["text"])

            async def on_drain(self) -> None:
                self.log.append("on_drain")

        Room.concurrency = concurrency
        consumer = Room()
        client = wire(consumer)
        client.connect(*["wait"] * concurrency)
        await settle()
        for text in "abc":
            layer.send_sync(consumer.channel_name, {"type": "note", "text": text})
        draining = asyncio.create_task(headrace.drain(60, 0))
        await settle()
        layer.send_sync(consumer.channel_name, {"type": "note", "text": "d"})
        consumer.gate.set()
        await obedient(client)
        await draining
        assert consumer.log == [*["wait"] * concurrency, *"abcd", "on_drain", 1012]
        assert consumer_stats(Room).dropped_unhandled == 0

    @pytest.mark.parametrize("turns", range(5))
    async def test_a_message_that_it_has_in_hand_is_handled_first(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, turns: int
    ) -> None:
        class Room(Noting):
            handler_timeout = 60  # so that its task takes the message, a turn after it has come

            async def note(self, event: Any) -> None:
                self.log.append(event["text"])

        consumer = Room()
        client = wire(consumer)
        client.connect()
        await settle()
        layer.send_sync(consumer.channel_name, {"type": "note", "text": "a"})
        # In one of them its task has the message, and finds the drain before it.
        for _ in range(turns):
            await asyncio.sleep(0)
        draining = asyncio.create_task(headrace.drain(60, 0))
        await obedient(client)
        await draining
        assert consumer.log == ["a", 1012]

    async def test_a_handler_that_fails_before_it_is_told_as_ever(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Failing(Noting):
            async def note(self, event: Any) -> None:
                raise RuntimeError("no")

        consumer = Failing()
        client = wire(consumer)
        client.connect("wait")
        await settle()
        layer.send_sync(consumer.channel_name, {"type": "note"})
        draining = asyncio.create_task(headrace.drain(60, 0))
        await settle()
        consumer.gate.set()
        assert isinstance(await client.outcome(), RuntimeError)
        await draining
        assert counted(Failing) == (0, 0, 1)

    async def test_it_may_send_a_last_message(self, wire: "MakeWire") -> None:
        class Polite(Noting):
            async def on_drain(self) -> None:
                await self.send(text_data="back in a moment")
                await super().on_drain()

        client = wire(Polite())
        client.connect()
        await settle()
        leaving = asyncio.create_task(obedient(client))
        await headrace.drain(20, 0)
        assert client.texts == ["back in a moment"]
        await leaving

    async def test_what_it_leaves_open_or_raises_is_closed(
        self, wire: "MakeWire", caplog: pytest.LogCaptureFixture
    ) -> None:
        class Forgetful(Noting):
            async def on_drain(self) -> None:
                pass

        class Failing(Noting):
            async def on_drain(self) -> None:
                raise RuntimeError("no")

        consumers: list[Noting] = [Forgetful(), Failing()]
        clients = [wire(consumer) for consumer in consumers]
        for client in clients:
            client.connect()
        await settle()
        await headrace.drain(20, 0)
        for client in clients:
            await client.end()
            assert client.sent[1:] == [CLOSED]
        assert [consumer.log for consumer in consumers] == [[1012], [1012]]
        assert (counted(Forgetful), counted(Failing)) == ((1, 0, 0), (1, 0, 1))
        assert "Failing at /ws/ failed on 'on_drain': RuntimeError('no')" in caplog.messages

    async def test_one_that_hangs_is_cancelled_and_closed(
        self, wire: "MakeWire", forward_to: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        cancelled: list[str] = []

        class Hanging(Noting):
            async def on_drain(self) -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append("on_drain")
                    raise

        consumer = Hanging()
        client = wire(consumer)
        client.connect()
        await settle()
        draining = asyncio.create_task(headrace.drain(5, 0))
        await settle()
        await forward_to(4.9)
        assert len(client.sent) == 1
        await forward_to(5.1)
        await client.end()
        await forward_to(5.2)
        await draining
        assert client.sent[1:] == [CLOSED]
        assert (consumer.log, cancelled) == ([1012], ["on_drain"])
        assert counted(Hanging) == (1, 1, 0)
        assert "1 of 1 WebSockets were not drained in 5 s and are cut off" in caplog.messages

    async def test_a_handler_that_hangs_is_cancelled(self, wire: "MakeWire", forward_to: Any) -> None:
        consumer = Noting()
        client = wire(consumer)
        client.connect("wait")
        await settle()
        draining = asyncio.create_task(headrace.drain(5, 0))
        await settle()
        await forward_to(5.1)
        await client.end()
        await forward_to(5.2)
        await draining
        assert client.sent[1:] == [CLOSED]
        assert consumer.log == [1012]

    async def test_a_thread_that_hangs_does_not_keep_the_socket_open(self, wire: "MakeWire", monkeypatch: Any) -> None:
        monkeypatch.setattr(_drain, "LEAVE_SECONDS", 0.05)
        begun, go_on = threading.Event(), threading.Event()

        class Blocking(WebsocketConsumer):
            def on_drain(self) -> None:
                begun.set()
                go_on.wait(20)

        client = wire(Blocking())
        client.connect()
        async with asyncio.timeout(20):
            while not client.sent:
                await asyncio.sleep(0)
        draining = asyncio.create_task(headrace.drain(1, 0))
        await asyncio.to_thread(begun.wait, 20)
        await draining
        assert client.sent[1:] == [CLOSED]
        go_on.set()
        await client.end()

    async def test_a_sync_consumer_is_closed_in_its_thread(self, wire: "MakeWire") -> None:
        codes: list[int] = []

        class Plain(WebsocketConsumer):
            def disconnect(self, code: int) -> None:
                codes.append(code)

        client = wire(Plain())
        client.connect()
        async with asyncio.timeout(20):
            while not client.sent:
                await asyncio.sleep(0)
        leaving = asyncio.create_task(obedient(client))
        await headrace.drain(20, 0)
        await leaving
        assert codes == [1012]

    async def test_a_bare_consumer_is_closed_without_a_hook(self, wire: "MakeWire") -> None:
        class Bare(AsyncConsumer):
            async def websocket_connect(self, message: Any) -> None:
                await self.send({"type": "websocket.accept"})

        client = wire(Bare())
        client.connect()
        await settle()
        await headrace.drain(20, 0)
        await client.end()
        assert client.sent[1:] == [CLOSED]

    async def test_those_of_another_loop_are_closed_in_theirs(self, layer: InMemoryChannelLayer) -> None:
        sent: list[Any] = []
        ended, ready = threading.Event(), threading.Event()

        async def elsewhere() -> None:
            incoming: asyncio.Queue[Any] = asyncio.Queue()
            incoming.put_nowait({"type": "websocket.connect"})

            async def send(message: Any) -> None:
                sent.append(message)
                if message == CLOSED:
                    incoming.put_nowait({"type": "websocket.disconnect", "code": 1012})
                ready.set()

            await Noting()({"type": "websocket", "path": "/"}, incoming.get, send)
            ended.set()

        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        await asyncio.to_thread(ready.wait, 20)
        await headrace.drain(20, 0)
        assert sent[1:] == [CLOSED]
        await asyncio.to_thread(thread.join, 20)
        assert ended.is_set()

    async def test_they_are_told_at_moments_of_their_own(self, wire: "MakeWire") -> None:
        """One in each part of the time: no two at once, and none twice."""
        moments: list[float] = []

        class Timed(Noting):
            async def on_drain(self) -> None:
                moments.append(asyncio.get_running_loop().time())

        clients = [wire(Timed()) for _ in range(8)]
        for client in clients:
            client.connect()
        await settle()
        began = asyncio.get_running_loop().time()
        await headrace.drain(20, 0.8)
        for client in clients:
            await client.end()
        # A busy machine may be late, and is never early.
        assert len(moments) == 8
        assert all(moment - began >= 0.1 * index for index, moment in enumerate(moments))


class TestNewcomers:
    """What becomes of those that come now."""

    async def test_a_handshake_is_answered_with_503_where_that_can_be(self, wire: "MakeWire") -> None:
        assert not headrace.is_draining()
        await headrace.drain(1, 0)
        assert headrace.is_draining()
        client = wire(Noting(), extensions={"websocket.http.response": {}})
        client.connect()
        await client.end()
        assert [message.get("status") for message in client.sent] == [503, None]

    async def test_elsewhere_it_is_refused(self, wire: "MakeWire") -> None:
        await headrace.drain(1, 0)
        client = wire(consumer := Noting())
        client.connect()
        await client.end()
        assert client.sent == [{"type": "websocket.close", "code": 1013}]
        assert consumer.log == []
        assert consumer_stats(Noting).open == 0

    async def test_so_is_one_that_waits_for_its_channel(self, wire: "MakeWire", layer: Any) -> None:
        gate, asked = asyncio.Event(), asyncio.Event()

        class Waiting(InMemoryChannelLayer):
            async def new_channel(self, prefix: str = "specific") -> str:
                asked.set()
                await gate.wait()
                return await super().new_channel(prefix)

        channel_layers.set("default", Waiting())
        client = wire(consumer := Noting())
        client.connect()
        await asked.wait()
        await headrace.drain(1, 0)
        gate.set()
        await client.end()
        assert client.sent == [{"type": "websocket.close", "code": 1013}]
        assert consumer.log == []
        channel_layers.set("default", layer)

    async def test_an_http_request_is_served(self, wire: "MakeWire") -> None:
        class Page(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await self.send_response(200, b"here")

        await headrace.drain(1, 0)
        client = wire(Page(), type="http")
        client.say({"type": "http.request", "body": b""})
        await client.end()
        assert client.sent[0]["status"] == 200


class TestArguments:
    """What is refused."""

    @pytest.mark.parametrize("value", [True, "10", None, [1]])
    async def test_what_is_no_number(self, value: Any) -> None:
        with pytest.raises(TypeError, match="seconds must be a number of seconds"):
            await headrace.drain(value)
        if value is not None:  # which leaves it to headrace
            with pytest.raises(TypeError, match="spread must be a number of seconds"):
                headrace.drain_on_sigterm(Noting.as_asgi(), 20, value)
        assert not headrace.is_draining()

    @pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
    async def test_what_is_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match="must be a number of seconds that is not negative"):
            await headrace.drain(value, 0)
        with pytest.raises(ValueError, match="must be a number of seconds that is not negative"):
            await headrace.drain(20, value)

    async def test_a_spread_that_is_longer_than_the_time(self) -> None:
        with pytest.raises(ValueError, match=r"spread must be no longer than seconds, got spread=10 and seconds=5"):
            await headrace.drain(5, 10)

    async def test_a_spread_that_is_not_given_is_no_longer_than_the_time(self) -> None:
        await headrace.drain(5)
        await headrace.drain(seconds=0.1)
        headrace.drain_on_sigterm(Noting.as_asgi(), seconds=5)

    def test_what_is_no_application(self) -> None:
        with pytest.raises(TypeError, match=r"application must be an ASGI application, got 'mysite.asgi'"):
            headrace.drain_on_sigterm("mysite.asgi")  # type: ignore[arg-type]  # what is refused


async def test_outside_of_the_main_thread_it_serves_and_says_so(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    served: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["type"])

    wrapped: Any = headrace.drain_on_sigterm(application)
    thread = threading.Thread(target=asyncio.run, args=(wrapped({"type": "lifespan"}, None, None),))
    thread.start()
    await asyncio.to_thread(thread.join, 20)
    assert served == ["lifespan"]
    assert any("needs an event loop in the main thread" in text for text in caplog.messages)
    assert repr(wrapped) == f"drain_on_sigterm({application!r})"


async def test_a_second_loop_of_the_process_drains_too(layer: InMemoryChannelLayer) -> None:
    """A server that is run again, as by a test or a notebook: the signal goes to the loop that runs."""
    script = """
import asyncio, os, signal
import headrace

passed_on = []
signal.signal(signal.SIGTERM, lambda *_: passed_on.append(len(passed_on)))

async def application(scope, receive, send):
    pass

wrapped = headrace.drain_on_sigterm(application, seconds=0)

async def serve(is_last):
    await wrapped({"type": "lifespan"}, None, None)
    if is_last:
        os.kill(os.getpid(), signal.SIGTERM)
        while not passed_on:
            await asyncio.sleep(0.01)
        assert headrace.is_draining()

asyncio.run(serve(False))
asyncio.run(serve(True))
assert passed_on == [0], passed_on
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_a_loop_that_has_ended_passes_the_signal_on() -> None:
    script = """
import asyncio, os, signal
import headrace

passed_on = []
signal.signal(signal.SIGTERM, lambda *_: passed_on.append(1))

async def application(scope, receive, send):
    pass

asyncio.run(headrace.drain_on_sigterm(application)({"type": "lifespan"}, None, None))
os.kill(os.getpid(), signal.SIGTERM)
assert passed_on == [1], passed_on
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
