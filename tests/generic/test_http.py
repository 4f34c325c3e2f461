"""The HTTP consumer: what Channels' cannot do."""

import asyncio
from typing import Any

import pytest

from headrace.consumer import consumer_stats
from headrace.exceptions import ConnectionClosed, StopConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ApplicationCommunicator, HttpCommunicator, settle

SCOPE = {"type": "http", "method": "GET", "path": "/"}


class Logged(AsyncHttpConsumer):
    """Writes down its end."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def disconnect(self) -> None:
        self.log.append("disconnect")


class LongPoll(Logged):
    """Answers when an event of the layer comes."""

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers={b"content-type": b"text/plain"})
        assert self.channel_layer is not None
        await self.channel_layer.group_add("all", self.channel_name)
        await self.send_body(b"", more_body=True)

    async def note(self, event: dict[str, Any]) -> None:
        await self.send_body(event["body"], more_body=event.get("more", False))


async def test_a_long_poll_is_answered_by_an_event(layer: InMemoryChannelLayer) -> None:
    consumer = LongPoll()
    client = HttpCommunicator(consumer, "GET", "/")
    response = asyncio.ensure_future(client.get_response())
    await settle()
    assert consumer.log == []
    await layer.group_send("all", {"type": "note", "body": b"a", "more": True})
    await settle()
    await layer.group_send("all", {"type": "note", "body": b"b"})
    assert (await response)["body"] == b"ab"
    await client.wait()
    assert consumer.log == ["disconnect"]


async def test_a_long_poll_whose_client_goes_away_ends(layer: InMemoryChannelLayer) -> None:
    consumer = LongPoll()
    client = ApplicationCommunicator(consumer, SCOPE)
    await client.send_input({"type": "http.request", "body": b""})
    await settle()
    assert layer.group_count("all") == 1
    await client.send_input({"type": "http.disconnect"})
    await client.wait()
    assert consumer.log == ["disconnect"]


async def test_a_stream_without_end_ends_when_the_client_goes_away(layer: InMemoryChannelLayer) -> None:
    class Stream(Logged):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            while True:
                await self.send_body(b"x", more_body=True)
                await asyncio.sleep(0)

    consumer = Stream()
    client = ApplicationCommunicator(consumer, SCOPE)
    await client.send_input({"type": "http.request", "body": b""})
    await client.receive_output()
    await client.send_input({"type": "http.disconnect"})
    await client.wait()
    assert client.future.exception() is None
    assert consumer.log == ["disconnect"]


async def test_a_stream_may_clean_up_when_the_client_goes_away(layer: InMemoryChannelLayer) -> None:
    class Stream(Logged):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            try:
                while True:
                    await self.send_body(b"x", more_body=True)
                    await asyncio.sleep(0)
            except ConnectionClosed:
                self.log.append("closed")
                raise

    consumer = Stream()
    client = ApplicationCommunicator(consumer, SCOPE)
    await client.send_input({"type": "http.request", "body": b""})
    await client.receive_output()
    await client.send_input({"type": "http.disconnect"})
    await client.wait()
    assert consumer.log == ["closed", "disconnect"]


async def test_disconnect_before_the_body_is_whole(layer: InMemoryChannelLayer) -> None:
    consumer = Logged()
    client = ApplicationCommunicator(consumer, SCOPE)
    await client.send_input({"type": "http.request", "body": b"a", "more_body": True})
    await client.send_input({"type": "http.disconnect"})
    await client.wait()
    assert consumer.log == ["disconnect"]


async def test_a_body_that_is_no_bytes_has_channels_text(layer: InMemoryChannelLayer) -> None:
    class Wrong(Logged):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            await self.send_body("text")  # type: ignore[arg-type]  # wrong on purpose

    client = HttpCommunicator(Wrong(), "GET", "/")
    with pytest.raises(AssertionError, match=r"^Body is not bytes"):
        await client.get_response()


async def test_without_handle_the_error_says_what_to_write(layer: InMemoryChannelLayer) -> None:
    client = HttpCommunicator(AsyncHttpConsumer.as_asgi(), "GET", "/")
    with pytest.raises(NotImplementedError) as caught:
        await client.get_response()
    assert str(caught.value) == "Subclasses of AsyncHttpConsumer must provide a handle() method."


async def test_the_body_comes_whole(layer: InMemoryChannelLayer) -> None:
    class Echo(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(201, body, headers=[(b"a", b"b")])

    client = ApplicationCommunicator(Echo(), SCOPE)
    for part in (b"a", b"", b"bc"):
        await client.send_input({"type": "http.request", "body": part, "more_body": part != b"bc"})
    assert await client.receive_output() == {"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]}
    assert await client.receive_output() == {"type": "http.response.body", "body": b"abc", "more_body": False}
    await client.wait()


class TestUnfinished:
    """A ``handle`` that returns before the response is whole."""

    async def test_one_that_has_answered_nothing_is_an_error_with_its_name(self, layer: InMemoryChannelLayer) -> None:
        class Forgetful(Logged):
            async def handle(self, body: bytes) -> None:
                if body == b"stop":
                    raise StopConsumer

        for body in (b"", b"stop"):
            consumer = Forgetful()
            client = HttpCommunicator(consumer, "POST", "/", body=body)
            with pytest.raises(RuntimeError, match=r"^Forgetful\.handle\(\) has ended without a response: await "):
                await client.get_response()
            assert consumer.log == ["disconnect"]

    async def test_one_whose_task_would_begin_it_later_sends_no_half_of_it(self, layer: InMemoryChannelLayer) -> None:
        class Spawning(Logged):
            async def handle(self, body: bytes) -> None:
                self.task = asyncio.ensure_future(self.stream())

            async def stream(self) -> None:
                await asyncio.sleep(0)  # so that also an eager task has sent nothing when handle() returns
                await self.send_response(200, b"late")

        consumer = Spawning()
        client = ApplicationCommunicator(consumer, SCOPE)
        await client.send_input({"type": "http.request", "body": b""})
        with pytest.raises(RuntimeError, match=r"^Spawning\.handle\(\) has ended without a response"):
            await client.wait()
        with pytest.raises(ConnectionClosed):
            await consumer.task
        assert client.output_queue.empty()

    async def test_a_task_may_send_the_rest(self, layer: InMemoryChannelLayer) -> None:
        class Spawning(Logged):
            async def handle(self, body: bytes) -> None:
                await self.send_headers()
                self.task = asyncio.ensure_future(self.stream())

            async def stream(self) -> None:
                for part in (b"one", b"two", b"three"):
                    await self.send_body(part, more_body=True)
                    await asyncio.sleep(0)
                await self.send_body(b"")

        consumer = Spawning()
        client = HttpCommunicator(consumer, "GET", "/")
        assert (await client.get_response())["body"] == b"onetwothree"
        # Nothing but the end of the response ends it: the client has not gone.
        await client.wait()
        assert consumer.log == ["disconnect"]

    async def test_one_that_stops_its_consumer_has_its_response_finished(self, layer: InMemoryChannelLayer) -> None:
        class Stopping(LongPoll):
            async def note(self, event: dict[str, Any]) -> None:
                raise StopConsumer

        client = HttpCommunicator(Stopping(), "GET", "/")
        response = asyncio.ensure_future(client.get_response())
        await settle()
        await layer.group_send("all", {"type": "note"})
        assert (await response)["body"] == b""
        await client.wait()

    async def test_an_error_that_on_error_takes_is_raised_if_nothing_was_answered(
        self, layer: InMemoryChannelLayer
    ) -> None:
        class Failing(Logged):
            answers = False

            async def handle(self, body: bytes) -> None:
                raise ValueError("of the test")

            async def on_error(self, exc: Exception, message: Any) -> None:
                if self.answers:
                    await self.send_response(503, b"later")

        client = HttpCommunicator(Failing(), "GET", "/")
        with pytest.raises(ValueError, match="of the test"):
            await client.get_response()
        consumer = Failing()
        consumer.answers = True
        client = HttpCommunicator(consumer, "GET", "/")
        assert (await client.get_response())["status"] == 503
        await client.wait()
        assert consumer.log == ["disconnect"]

    async def test_a_response_may_be_sent_as_plain_messages(self, layer: InMemoryChannelLayer) -> None:
        class Plain(Logged):
            async def handle(self, body: bytes) -> None:
                await self.send({"type": "http.response.start", "status": 200})
                await self.base_send({"type": "http.response.body", "body": b"plain"})

        client = HttpCommunicator(Plain(), "GET", "/")
        assert (await client.get_response())["body"] == b"plain"
        await client.wait()

    async def test_one_whose_client_has_gone_need_not_answer(self, layer: InMemoryChannelLayer) -> None:
        class Slow(Logged):
            async def handle(self, body: bytes) -> None:
                await settle()

        consumer = Slow()
        client = ApplicationCommunicator(consumer, SCOPE)
        await client.send_input({"type": "http.request", "body": b""})
        await client.send_input({"type": "http.disconnect"})
        await client.wait()
        assert consumer.log == ["disconnect"]

    async def test_a_handler_of_the_layer_that_meets_a_client_that_has_gone_ends_quietly(
        self, layer: InMemoryChannelLayer
    ) -> None:
        class Slow(LongPoll):
            async def note(self, event: dict[str, Any]) -> None:
                await settle()
                await self.send_body(b"late")

            async def on_error(self, exc: Exception, message: Any) -> None:
                self.log.append("error")

        consumer = Slow()
        client = ApplicationCommunicator(consumer, SCOPE)
        await client.send_input({"type": "http.request", "body": b""})
        await client.receive_output()
        await layer.group_send("all", {"type": "note"})
        await client.send_input({"type": "http.disconnect"})
        await client.wait()
        assert consumer.log == ["disconnect"]


class TestLongBody:
    """A body that is longer than ``max_body_bytes`` is answered with 413."""

    async def test_it_is_refused_as_soon_as_it_is_too_long(self, caplog: pytest.LogCaptureFixture) -> None:
        class Small(Logged):
            max_body_bytes = 1000

            async def handle(self, body: bytes) -> None:
                self.log.append(str(len(body)))
                await self.send_response(200, b"")

        for _ in range(2):
            consumer = Small()
            client = HttpCommunicator(consumer, "POST", "/")
            await client.send_body(b"a" * 600, more_body=True)
            await client.send_body(b"a" * 600, more_body=True)
            assert (await client.get_response())["status"] == 413
            await client.wait()
            assert (consumer.log, consumer.body) == (["disconnect"], [])
        assert consumer_stats(Small).refused_bodies == 2
        assert caplog.text.count("longer than max_body_bytes (1000)") == 1

    async def test_one_that_is_announced_is_not_waited_for(self) -> None:
        client = HttpCommunicator(type("Small", (Logged,), {"max_body_bytes": 1000}), "POST", "/")
        client.scope["headers"] = [(b"content-length", b"1001")]
        await client.send_body(b"", more_body=True)
        assert (await client.get_response())["status"] == 413
        await client.wait()

    @pytest.mark.parametrize(("longest", "length"), [(1000, 1000), (None, 20 << 20)])
    async def test_one_that_fits_is_handled(self, longest: int | None, length: int) -> None:
        class Taking(Logged):
            max_body_bytes = longest

            async def handle(self, body: bytes) -> None:
                await self.send_response(200, str(len(body)).encode())

        client = HttpCommunicator(Taking(), "POST", "/", body=b"a" * length)
        assert (await client.get_response())["body"] == str(length).encode()
        await client.wait()

    def test_the_length_is_a_positive_whole_number(self) -> None:
        assert AsyncHttpConsumer.max_body_bytes == 16 << 20
        with pytest.raises(ValueError, match=r"Wrong\.max_body_bytes must be a positive integer, got 0"):
            type("Wrong", (AsyncHttpConsumer,), {"max_body_bytes": 0})
