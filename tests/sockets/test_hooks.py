"""The hooks of a socket server: which are called, in which order, on which thread, and what ends them."""

import asyncio
import functools
import threading
import time
from typing import Any

import pytest
from tests.support.waiting import SECONDS

from headrace import sync_to_async
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster

from .conftest import Client
from .noting import ACCEPT, Noting


async def test_a_connection_is_accepted_before_it_is_connected(client: Client) -> None:
    class Telling(BaseSocketServer):
        def connect(self) -> None:
            self.send("welcome")

    await client.connects(Telling)
    await client.gets(2)
    assert client.sent == [ACCEPT, {"type": "websocket.send", "text": '"welcome"'}]


async def test_hooks_are_called_in_the_order_of_what_happens(client: Client) -> None:
    server = await client.connects(Noting)
    for number in range(20):
        client.says(number)
    await client.leaves(1001)
    assert server.noted == ["connect", *range(20), ("disconnect", 1001)]
    assert not server.is_alive


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_frames_are_handled_in_order_and_one_at_a_time(client: Client, asynchronous: bool) -> None:
    running: list[int] = []
    most: list[int] = []
    seen: list[int] = []

    class Slow(BaseSocketServer):
        def receive(self, data: Any) -> Any:
            running.append(data)
            most.append(len(running))
            time.sleep(0.001 * (data % 3))
            seen.append(data)
            running.remove(data)

    class AsyncSlow(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            running.append(data)
            most.append(len(running))
            for _ in range(data % 3):
                await asyncio.sleep(0)
            seen.append(data)
            running.remove(data)

    await client.connects(AsyncSlow if asynchronous else Slow)
    for number in range(30):
        client.says(number)
    await client.leaves()
    assert seen == list(range(30))
    assert max(most) == 1


async def test_hooks_may_be_plain_or_coroutine_functions(client: Client) -> None:
    threads: dict[str, int] = {}

    class Plain(BaseSocketServer):
        def authorize(self) -> bool:
            threads["authorize"] = threading.get_ident()
            return True

        def connect(self) -> None:
            threads["connect"] = threading.get_ident()

        def receive(self, data: Any) -> None:
            threads["receive"] = threading.get_ident()

        def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
            threads["on_bad_message"] = threading.get_ident()

        def disconnect(self) -> None:
            threads["disconnect"] = threading.get_ident()

    await client.connects(Plain)
    client.says(1)
    client.gives("receive", text="{")
    await client.leaves()
    assert set(threads) == {"authorize", "connect", "receive", "on_bad_message", "disconnect"}
    assert threading.get_ident() not in threads.values()


async def test_plain_hooks_may_share_the_thread_of_thread_sensitive_code(client: Client) -> None:
    class Sensitive(BaseSocketServer):
        thread_sensitive = True

        def receive(self, data: Any) -> None:
            self.send(threading.current_thread().name)

    await client.connects(Sensitive)
    client.says(1)
    here = await sync_to_async(lambda: threading.current_thread().name)()
    assert await client.hears(1) == [here]


async def test_a_hook_may_be_anything_that_returns_an_awaitable(client: Client) -> None:
    noted: list[Any] = []

    async def note(*what: Any) -> None:
        noted.append(what)

    class Wrapped(BaseSocketServer):
        connect = functools.partialmethod(lambda self, word: note(word), "hello")

    await client.connects(Wrapped)
    await client.leaves()
    assert noted == [("hello",)]


async def test_a_slow_handler_holds_up_its_own_socket_and_no_broadcast(memory: InMemoryChannelLayer) -> None:
    go_on = threading.Event()

    class Slow(BaseSocketServer):
        async def connect(self) -> None:
            await self.async_subscribe("news")

        def receive(self, data: Any) -> None:
            if data == "wait":
                go_on.wait(SECONDS)
            self.send(data)

    slow, quick = Client(), Client()
    for client in (slow, quick):
        await client.connects(Slow, layer=memory)
    slow.says("wait")
    slow.says("behind it")
    quick.says(1)
    assert await quick.hears(1) == [1]
    await Broadcaster(layer=memory).async_broadcast("news", "meanwhile")
    assert await slow.hears(1) == ["meanwhile"]
    go_on.set()
    assert await slow.hears(3) == ["meanwhile", "wait", "behind it"]


async def test_what_comes_after_the_end_is_ignored(client: Client) -> None:
    server = await client.connects(Noting)
    await client.leaves()
    client.says("late")
    await asyncio.sleep(0)
    assert server.noted == ["connect", ("disconnect", 1000)]
    assert client.sent == [ACCEPT]


async def test_frames_may_come_without_a_connect(client: Client) -> None:
    server = client.meets(Noting)
    client.says(1)
    await client.leaves()
    assert server.noted == [1, ("disconnect", 1000)]


async def test_a_server_is_started_once(client: Client) -> None:
    server = await client.connects(Noting)
    with pytest.raises(RuntimeError, match="<Noting at /ws/> was started before"):
        server.start_listeners()
    with pytest.raises(RuntimeError, match="was started before"):
        await server.async_start_listeners()
    with pytest.raises(RuntimeError, match="was started before"):
        await asyncio.to_thread(server.start_listeners)
    await client.leaves()


async def test_a_message_of_another_protocol_is_logged_and_passed_by(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server = client.meets(Noting)
    client.incoming.put_nowait({"type": "http.request"})
    client.says(1)
    await client.leaves()
    assert server.noted == [1, ("disconnect", 1000)]
    assert "got a message of type 'http.request', which a WebSocket does not have" in caplog.text


@pytest.mark.complains
async def test_a_receive_that_fails_ends_the_server_and_is_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> Any:
        raise LookupError("the wire is cut")

    server = Noting(client.scope, fails, client.send)
    client.server = server
    server.start_listeners()
    await client.ends()
    assert not server.is_alive
    assert "the wire is cut" in caplog.text


def test_receive_and_send_are_functions() -> None:
    with pytest.raises(TypeError, match="receive and send must be functions that return awaitables"):
        BaseSocketServer({}, asyncio.Queue(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("takes_code", [True, False])
async def test_a_disconnect_may_come_without_a_connect(client: Client, takes_code: bool) -> None:
    if takes_code:
        server = client.meets(Noting)
        await client.leaves(4002)
        assert server.noted == [("disconnect", 4002)]
        return

    class Plain(Noting):
        def disconnect(self) -> None:  # type: ignore[override]  # as django_sockets has it
            self.noted.append("disconnect")

    plain = client.meets(Plain)
    await client.leaves()
    assert plain.noted == ["disconnect"]


async def test_who_was_not_let_in_does_not_disconnect(client: Client) -> None:
    class Guarded(Noting):
        def authorize(self) -> bool:
            return True

    server = client.meets(Guarded)
    await client.leaves()
    assert server.noted == []


@pytest.mark.complains
async def test_a_server_without_a_client_listens_to_its_topics_and_sends_nowhere(
    memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    class Listener(BaseSocketServer):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            heard.append(data)
            await self.async_send(data)

    server = Listener({}, None, None, layer=memory)
    server.start_listeners()
    await server.async_subscribe("news")
    Broadcaster(layer=memory).broadcast("news", [1])
    Broadcaster(layer=memory).broadcast("news", [2])
    async with asyncio.timeout(SECONDS):
        while len(heard) < 2:
            await asyncio.sleep(0)
    assert server.is_alive
    assert caplog.text.count("Listener was made without a send") == 1
    await server.async_close()
    async with asyncio.timeout(SECONDS):
        assert server._headrace_connection.incoming.task is not None
        await asyncio.wait({server._headrace_connection.incoming.task})
    assert heard == [[1], [2]]
