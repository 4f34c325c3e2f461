"""Who is let in by a socket server and who is refused, and what is done before the connection is accepted."""

import asyncio
from typing import Any

import pytest

from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer

from .conftest import Client
from .noting import ACCEPT, Noting


class User:
    def __init__(self, is_authenticated: bool) -> None:
        self.is_authenticated = is_authenticated


@pytest.mark.parametrize(
    ("scope", "answer", "code"),
    [
        ({}, False, 4403),
        ({}, None, 4403),
        ({"user": User(True)}, False, 4403),
        ({"user": User(False)}, False, 4401),
        ({"user": None}, False, 4401),
        ({}, 4401, 4401),
        ({}, 4999, 4999),
    ],
)
async def test_who_is_not_authorized_is_refused_before_the_connection_is_accepted(
    scope: dict[str, Any], answer: Any, code: int
) -> None:
    class Guarded(Noting):
        async def authorize(self) -> Any:
            return answer

    client = Client(**scope)
    server = client.meets(Guarded)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.close", "code": code}]
    assert server.noted == []
    assert not server.is_alive


@pytest.mark.parametrize(("answer", "status"), [(4401, 401), (False, 403), (4403, 403), (4000, 403)])
async def test_a_server_that_can_answer_a_handshake_answers_it(answer: Any, status: int) -> None:
    class Guarded(BaseSocketServer):
        def authorize(self) -> Any:
            return answer

    client = Client(extensions={"websocket.http.response": {}})
    client.meets(Guarded)
    client.gives("connect")
    await client.ends()
    start, body = client.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body == {"type": "websocket.http.response.body", "body": b""}


@pytest.mark.complains
@pytest.mark.parametrize("answer", ["yes", 1, LookupError("no data base")])
async def test_an_authorize_that_fails_lets_nobody_in(
    client: Client, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    class Broken(Noting):
        def authorize(self) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    server = client.meets(Broken)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.close", "code": 1011}]
    assert server.noted == []
    assert "authorize() " in caplog.text


async def test_a_server_that_is_closed_in_the_handshake_accepts_nobody(client: Client) -> None:
    class Closing(Noting):
        async def authorize(self) -> bool:
            await self.async_close(4003)
            return True

    server = client.meets(Closing)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.close", "code": 4003}]
    assert server.noted == []


async def test_a_disconnect_may_have_no_code(client: Client) -> None:
    server = await client.connects(Noting)
    client.gives("disconnect", code=None)
    await client.ends()
    assert server.noted == ["connect", ("disconnect", 1005)]


async def test_the_subprotocol_is_accepted_with(client: Client) -> None:
    await client.connects(BaseSocketServer, subprotocol="chat")
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]


@pytest.mark.complains
async def test_a_connect_that_raises_closes_with_1011_and_leaves_nothing_behind(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Noting):
        async def connect(self) -> None:
            await self.async_subscribe("news")
            raise LookupError("no such room")

    server = client.meets(Broken, layer=memory)
    client.gives("connect")
    await client.ends()
    assert client.sent == [ACCEPT, {"type": "websocket.close", "code": 1011}]
    assert server.noted == [("disconnect", 1011)]
    assert memory.stats().memberships == 0
    assert server.stats().errors == 1
    assert "<Broken at /ws/>: connect() failed" in caplog.text
    assert "no such room" in caplog.text


async def test_what_is_broadcast_before_the_accept_comes_after_it(memory: InMemoryChannelLayer) -> None:
    class Early(BaseSocketServer):
        async def authorize(self) -> bool:
            await self.async_subscribe("news")
            await self.async_broadcast("news", 1)
            for _ in range(5):
                await asyncio.sleep(0)
            return True

    client = Client()
    await client.connects(Early, layer=memory)
    assert await client.hears(1) == [1]
    assert client.sent[0] == ACCEPT


@pytest.mark.complains
async def test_nothing_can_be_sent_before_the_accept(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    class Hasty(BaseSocketServer):
        async def authorize(self) -> bool:
            await self.async_send("too early")
            return True

    client.meets(Hasty)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.close", "code": 1011}]
    assert "is not accepted yet, so nothing can be sent to it; send in connect()" in caplog.text


async def test_frames_of_somebody_who_was_not_let_in_are_not_looked_at(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    class Guarded(Noting):
        async def authorize(self) -> bool:
            return False

    server = client.meets(Guarded)
    client.says("let me in")
    await client.leaves()
    assert server.noted == []
    assert server.stats().unhandled == 1
    assert "a frame of somebody whom authorize() has not let in" in caplog.text


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_override_of_either_kind_may_call_that_of_the_base_class(client: Client, asynchronous: bool) -> None:
    class Plain(BaseSocketServer):
        def authorize(self) -> Any:
            return super().authorize()

        def connect(self) -> None:
            super().connect()

        def receive(self, data: Any) -> None:
            super().receive(data)

        def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
            super().on_bad_message(raw, error)

        def disconnect(self, code: int) -> None:
            super().disconnect(code)

    class Async(BaseSocketServer):
        async def authorize(self) -> bool:
            return bool(await super().authorize())

        async def connect(self) -> None:
            await super().connect()

        async def receive(self, data: Any) -> None:
            await super().receive(data)

        async def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
            await super().on_bad_message(raw, error)

        async def disconnect(self) -> None:
            await super().disconnect()

    server = await client.connects(Async if asynchronous else Plain)
    client.says(1)
    client.gives("receive", text="{")
    await client.leaves()
    assert client.heard == [{"error": "the message could not be decoded"}]
    stats = server.stats()
    assert (stats.unhandled, stats.bad_messages, stats.errors) == (1, 1, 0)
