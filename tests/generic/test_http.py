"""The HTTP consumer: what Channels' cannot do."""

import asyncio
from typing import Any

import pytest

from headrace.exceptions import ConnectionClosed
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
