"""``drain`` and ``on_drain`` of socket servers."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import headrace
from headrace import _drain
from headrace.testing import settle

from .conftest import Client
from .noting import Noting

CLOSED = {"type": "websocket.close", "code": 1012}


@pytest.fixture(autouse=True)
def _not_draining() -> Iterator[None]:
    """Let the process go on when the test is over."""
    yield
    assert _drain._state.living == set()
    _drain._state.begin_anew()


async def test_each_is_closed_with_1012_and_has_ended_when_it_returns() -> None:
    clients = [Client() for _ in range(4)]
    servers = [await client.connects(Noting) for client in clients]
    await headrace.drain(20, 0.05)
    for client, server in zip(clients, servers, strict=True):
        await client.ends()
        assert client.sent[1:] == [CLOSED]
        assert server.noted == ["connect", ("disconnect", 1012)]


@pytest.mark.parametrize("is_plain", [True, False])
async def test_it_may_send_a_last_message(client: Client, is_plain: bool) -> None:
    class Plain(Noting):
        def on_drain(self) -> None:
            self.send("back in a moment")
            super().on_drain()

    class Coroutine(Noting):
        async def on_drain(self) -> None:
            await self.async_send("back in a moment")

    await client.connects(Plain if is_plain else Coroutine)
    await headrace.drain(20, 0)
    assert (client.heard, client.sent[-1]) == (["back in a moment"], CLOSED)


async def test_one_that_raises_is_closed(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Noting):
        async def on_drain(self) -> None:
            raise RuntimeError("no")

    server = await client.connects(Failing)
    await headrace.drain(20, 0)
    assert client.sent[1:] == [CLOSED]
    assert server.stats().errors == 1
    assert "<Failing at /ws/>: on_drain() failed: RuntimeError('no')" in caplog.messages


@pytest.mark.parametrize("is_plain", [True, False])
async def test_one_that_hangs_is_cut_off(client: Client, caplog: pytest.LogCaptureFixture, is_plain: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Plain(Noting):
        def on_drain(self) -> None:
            begun.set()
            go_on.wait(20)

    class Coroutine(Noting):
        async def on_drain(self) -> None:
            begun.set()
            await asyncio.Event().wait()

    server = await client.connects(Plain if is_plain else Coroutine)
    before = asyncio.all_tasks()
    await headrace.drain(0.2, 0)
    await client.ends()
    assert client.sent[1:] == [CLOSED]
    assert server.noted == ["connect", ("disconnect", 1012)]
    assert server.stats().errors == 1
    assert "on_drain() did not end in 0.2 s" in caplog.text
    go_on.set()
    async with asyncio.timeout(20):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def test_a_hook_that_hangs_is_cancelled(client: Client) -> None:
    cancelled: list[Any] = []

    class Busy(Noting):
        async def receive(self, data: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(data)
                raise

        async def on_drain(self) -> None:
            await asyncio.Event().wait()

    server = await client.connects(Busy)
    client.says("x")
    await settle()
    await headrace.drain(0.1, 0)
    await client.ends()
    assert (cancelled, server.noted) == (["x"], ["connect", ("disconnect", 1012)])


async def test_the_hook_that_is_at_work_ends_first(client: Client) -> None:
    gate = asyncio.Event()

    class Busy(Noting):
        async def receive(self, data: Any) -> None:
            await gate.wait()
            await self.async_send(f"the answer to {data}")

        async def on_drain(self) -> None:
            await self.async_send("back in a moment")

    await client.connects(Busy)
    client.says("x")
    await settle()
    draining = asyncio.create_task(headrace.drain(60, 0))
    await settle()
    assert client.heard == []
    gate.set()
    await client.ends()
    await draining
    assert (client.heard, client.sent[-1]) == (["the answer to x", "back in a moment"], CLOSED)


async def test_so_does_one_that_begins_while_on_drain_is_at_work(client: Client) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    class Busy(Noting):
        async def receive(self, data: Any) -> None:
            asked.set()
            await gate.wait()
            await self.async_send(f"the answer to {data}")

        async def on_drain(self) -> None:
            client.says("x")
            await asked.wait()

    await client.connects(Busy)
    draining = asyncio.create_task(headrace.drain(60, 0))
    await asked.wait()
    await settle()
    gate.set()
    await client.ends()
    await draining
    assert (client.heard, client.sent[-1]) == (["the answer to x"], CLOSED)


async def test_what_was_broadcast_to_it_before_is_delivered_first(client: Client) -> None:
    gate = asyncio.Event()

    class Slow(Noting):
        allow_memory = True

        async def connect(self) -> None:
            await self.async_subscribe("news")

        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            await gate.wait()
            await asyncio.sleep(0)
            await self.async_send(data)

        async def on_drain(self) -> None:
            await self.async_send("back in a moment")

    server = await client.connects(Slow)
    await settle()
    for each in "abc":
        server.broadcast("news", each)
    await settle()
    draining = asyncio.create_task(headrace.drain(60, 0))
    await settle()
    gate.set()
    await client.ends()
    await draining
    assert (client.heard, client.sent[-1]) == ([*"abc", "back in a moment"], CLOSED)


async def test_one_that_is_being_accepted_is_told_then(client: Client) -> None:
    calls: list[str] = []

    class Told(Noting):
        async def on_drain(self) -> None:
            calls.append("on_drain")

    client.open.clear()
    client.meets(Told)
    client.gives("connect")
    await settle()
    draining = asyncio.create_task(headrace.drain(60, 0))
    await settle()
    client.open.set()
    await client.ends()
    await draining
    assert client.sent[1:] == [CLOSED]
    assert calls == ["on_drain"]


async def test_two_drains_call_it_once(client: Client) -> None:
    calls: list[str] = []
    gate = asyncio.Event()

    class Told(Noting):
        async def on_drain(self) -> None:
            calls.append("on_drain")
            await gate.wait()

    await client.connects(Told)
    draining = [asyncio.create_task(headrace.drain(60, 0)) for _ in range(2)]
    await settle()
    gate.set()
    await asyncio.gather(*draining)
    assert calls == ["on_drain"]


async def test_newcomers_and_those_that_are_being_let_in_are_refused() -> None:
    gate = asyncio.Event()

    class Slow(Noting):
        async def authorize(self) -> bool:
            await gate.wait()
            return True

    early = Client(extensions={"websocket.http.response": {}})
    early.meets(Slow)
    early.gives("connect")
    await settle()
    draining = asyncio.create_task(headrace.drain(20, 0))
    await settle()
    late = Client()
    late.meets(Noting)
    late.gives("connect")
    gate.set()
    assert [message.get("status") for message in await early.gets(2)] == [503, None]
    assert await late.gets(1) == [{"type": "websocket.close", "code": 1013}]
    await early.ends()
    await late.ends()
    await draining


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.on_drain must be a function that can be called as on_drain\(self\)"):
        type("Wrong", (Noting,), {"on_drain": lambda self, code: None})
