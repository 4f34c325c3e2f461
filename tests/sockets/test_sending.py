"""What a socket server sends to its client: from loops and from threads, to one who reads and to one who does not."""

import asyncio
from typing import Any

import pytest
from tests.support.waiting import SECONDS

from headrace.sockets import BaseSocketServer

from .conftest import Client
from .noting import Noting


async def test_raw_data_is_sent_as_it_is(client: Client) -> None:
    server = await client.connects(BaseSocketServer)
    server.send("{", raw=True)
    await server.async_send(b"\xff", raw=True)
    await client.gets(3)
    assert client.sent[1:] == [{"type": "websocket.send", "text": "{"}, {"type": "websocket.send", "bytes": b"\xff"}]
    with pytest.raises(TypeError, match="data must be str or bytes to be sent raw, got dict"):
        server.send({}, raw=True)


async def test_data_that_cannot_be_encoded_is_refused_at_the_call(client: Client) -> None:
    server = await client.connects(BaseSocketServer)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({1}, TypeError, "ws_encoder refuses it: Object of type set is not JSON serializable"),
        (float("nan"), ValueError, "ws_encoder refuses it: Out of range float values are not JSON compliant"),
        (deep, ValueError, "data cannot be sent: it is nested too deep"),
    ]
    for data, kind, text in wrong:
        with pytest.raises(kind, match=text):
            server.send(data)
        with pytest.raises(kind, match=text):
            await server.async_send(data)


async def test_plain_and_async_calls_in_a_loop_keep_their_order(client: Client) -> None:
    class Mixed(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            self.send(1)
            self.send(2)
            await self.async_send(3)
            self.send(4)

    await client.connects(Mixed)
    client.says("go")
    assert await client.hears(4) == [1, 2, 3, 4]


async def test_what_was_sent_before_a_close_goes_out_before_it(client: Client) -> None:
    class Leaving(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            self.send("goodbye")
            self.close(4000)
            self.send("too late")

    await client.connects(Leaving)
    client.says("go")
    await client.ends()
    assert client.heard == ["goodbye"]
    assert client.sent[-1] == {"type": "websocket.close", "code": 4000}
    await client.server.async_flush(SECONDS)
    assert client.server.stats().dropped_after_close == 1


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_close_is_not_delayed_for_ever_by_what_was_to_be_sent_before(
    client: Client, monkeypatch: pytest.MonkeyPatch, awaited: bool
) -> None:
    monkeypatch.setattr("headrace._sockets.closing.CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr("headrace._websocket.closing.CLOSE_TIMEOUT", 0.01)
    server = await client.connects(Noting)
    client.open.clear()
    server.send("waits")
    if awaited:
        await server.async_close(4000)
    else:
        server.close(4000)
    await client.ends()
    assert server.noted == ["connect", ("disconnect", 4000)]
    client.open.set()
    await server.async_flush(SECONDS)


async def test_a_send_in_a_thread_returns_when_it_was_sent(client: Client) -> None:
    server = await client.connects(BaseSocketServer)

    def send_and_look() -> int:
        server.send("x")
        return len(client.sent)

    assert await asyncio.to_thread(send_and_look) == 2


async def test_a_client_that_does_not_read_delays_a_thread_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace._sockets.outgoing.SEND_TIMEOUT", 0.01)
    server = await client.connects(BaseSocketServer)
    client.open.clear()
    await asyncio.to_thread(server.send, "waits")
    for _ in range(100):
        await asyncio.to_thread(server.send, "dropped")
    assert server.stats().dropped_stalled == 100
    assert caplog.text.count("does not read; until it does") == 1
    client.open.set()
    assert await client.hears(1) == ["waits"]
    await asyncio.to_thread(server.send, "again")
    assert client.heard == ["waits", "again"]


async def test_a_thread_that_is_delayed_closes_the_client_if_the_class_says_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace._sockets.outgoing.SEND_TIMEOUT", 0.01)
    monkeypatch.setattr("headrace._websocket.closing.CLOSE_TIMEOUT", 0.01)

    class Strict(BaseSocketServer):
        overflow = "close"

    server = await client.connects(Strict)
    client.open.clear()
    await asyncio.to_thread(server.send, "waits")
    await client.ends()
    assert not server.is_alive


async def test_a_client_that_does_not_read_is_not_read_from(client: Client) -> None:
    class Echo(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            self.send(data)

    server = await client.connects(Echo)
    client.open.clear()
    for number in range(100):
        client.says(number)
    while not server.stats().pending:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert server.stats().pending == 1
    assert client.incoming.qsize() == 99
    client.open.set()
    assert await client.hears(100) == list(range(100))


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("after close")])
async def test_a_send_to_a_client_that_has_gone_is_counted(
    client: Client, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    server = await client.connects(BaseSocketServer)
    client.broken = error
    await server.async_send(1)
    await server.async_send(2)
    assert server.stats().dropped_after_close == 2
    assert caplog.text.count("could not be sent to") == (1 if isinstance(error, RuntimeError) else 0)
