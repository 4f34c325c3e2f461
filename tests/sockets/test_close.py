"""How the connection of a socket server ends: closed by a side, cancelled, or failed."""

import asyncio
from typing import Any

import pytest
from tests.support.leaving import Leaving
from tests.support.waiting import SECONDS

from headrace import async_to_sync, sync_to_async
from headrace.exceptions import ConnectionClosed
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import settle

from .conftest import Client
from .noting import ACCEPT, Noting, Subscribed


@pytest.mark.parametrize("way", ["loop", "async", "thread"])
async def test_a_server_closes_its_connection(client: Client, memory: InMemoryChannelLayer, way: str) -> None:
    server = await client.connects(Subscribed, layer=memory)
    if way == "async":
        await server.async_close(4000)
    elif way == "loop":
        server.close(4000)
    else:
        await asyncio.to_thread(server.close, 4000)
    assert not server.is_alive
    await client.ends()
    server.close(4001)
    assert client.sent == [ACCEPT, {"type": "websocket.close", "code": 4000}]
    assert server.noted == [("disconnect", 4000)]
    assert memory.stats().memberships == 0


@pytest.mark.parametrize("hook", ["connect", "receive"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_may_close_its_connection(client: Client, hook: str, asynchronous: bool) -> None:
    async def closes(self: BaseSocketServer, *_: Any) -> None:
        await self.async_close(4000)

    def closes_plainly(self: BaseSocketServer, *_: Any) -> None:
        self.close(4000)

    closing: Any = type("Closing", (Noting,), {hook: closes if asynchronous else closes_plainly})
    client.meets(closing)
    client.gives("connect")
    client.says(1)
    await client.ends()
    assert client.sent == [ACCEPT, {"type": "websocket.close", "code": 4000}]
    assert client.server.noted[-1] == ("disconnect", 4000)


async def test_a_handler_of_broadcasts_may_close_its_connection(client: Client, memory: InMemoryChannelLayer) -> None:
    class Leaving(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            await self.async_close(4000)

    server = await client.connects(Leaving, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 4000}
    assert server.noted == [("disconnect", 4000)]


@pytest.mark.parametrize("code", ["1000", None, True, 1.5])
async def test_a_code_is_an_integer(client: Client, code: Any) -> None:
    server = await client.connects(BaseSocketServer)
    with pytest.raises(TypeError, match="code must be an int"):
        server.close(code)
    with pytest.raises(TypeError, match="code must be an int"):
        await server.async_close(code)
    assert server.is_alive


async def test_a_server_that_was_killed_tells_nobody(client: Client) -> None:
    server = await client.connects(Noting)
    server.__kill__()
    await client.ends()
    assert client.sent == [ACCEPT]
    assert server.noted == ["connect", ("disconnect", 1005)]


async def test_nothing_can_be_done_with_a_server_that_was_closed(client: Client) -> None:
    server = await client.connects(Noting)
    await server.async_close()
    await client.ends()
    for join in (server.subscribe, server.async_subscribe):
        with pytest.raises(ConnectionClosed, match="<Noting at /ws/> has been closed, so it cannot be subscribed"):
            await _answer(join("a"))
    for send in (server.broadcast, server.async_broadcast):
        with pytest.raises(ConnectionClosed, match="<Noting at /ws/> has been closed, so it broadcasts nothing"):
            await _answer(send("a", 1))
    server.unsubscribe("a")
    await server.async_send(1)
    assert server.stats().dropped_after_close == 1


async def _answer(result: Any) -> Any:
    return await result if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize("by_client", [False, True])
async def test_who_leaves_may_still_tell_the_others(
    client: Client, memory: InMemoryChannelLayer, by_client: bool
) -> None:
    class Polite(Subscribed):
        def disconnect(self, code: int = 1000) -> Any:
            for topic in self.subscriptions:
                self.broadcast(topic, "goodbye")

    other = Client()
    for each in (client, other):
        await each.connects(Polite, layer=memory)
    if by_client:
        await client.leaves()
    else:
        await client.server.async_close()
        await client.ends()
    assert await other.hears(1) == ["goodbye"]
    assert client.heard == []


@pytest.mark.complains
async def test_a_disconnect_that_raises_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    class Rude(BaseSocketServer):
        def disconnect(self, code: int = 1000) -> Any:
            raise LookupError("slammed the door")

    await client.connects(Rude)
    await client.leaves()
    assert "slammed the door" in caplog.text


async def test_a_server_that_is_cancelled_takes_leave(client: Client, memory: InMemoryChannelLayer) -> None:
    class Slow(Subscribed):
        async def disconnect(self, code: int = 1000) -> None:
            await asyncio.sleep(0)
            await super().disconnect(code)

    server = await client.connects(Slow, layer=memory)
    assert server._headrace_connection.incoming.task is not None
    server._headrace_connection.incoming.task.cancel()
    await client.ends()
    assert server._headrace_connection.incoming.task.cancelled()
    assert server.noted == [("disconnect", 1005)]
    assert memory.stats().memberships == 0


async def test_disconnect_has_threads_after_a_cancel_that_met_a_call_of_the_layer(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    leaving = Leaving()

    def tell() -> None:
        with leaving.held():
            async_to_sync(memory.group_send)("others", {"type": "note"})

    class Telling(Noting):
        async def receive(self, data: Any) -> None:
            await sync_to_async(tell)()

        async def disconnect(self, code: int = 1000) -> None:
            await sync_to_async(self.noted.append)(("disconnect", code))

    server = await client.connects(Telling)
    client.says("hello")
    async with asyncio.timeout(SECONDS):
        while not leaving.reached.is_set():
            await asyncio.sleep(0)
    assert server._headrace_connection.incoming.task is not None
    server._headrace_connection.incoming.task.cancel()
    await settle()
    leaving.go_on.set()
    await client.ends()
    assert server.noted == ["connect", ("disconnect", 1005)]


async def test_a_cancel_during_the_end_waits_for_it(client: Client) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Noting):
        async def disconnect(self, code: int = 1000) -> None:
            begun.set()
            await go_on.wait()
            await super().disconnect(code)

    server = await client.connects(Slow)
    client.gives("disconnect", code=1000)
    await begun.wait()
    assert server._headrace_connection.incoming.task is not None
    server._headrace_connection.incoming.task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await client.ends()
    assert server.noted == ["connect", ("disconnect", 1000)]
    assert server._headrace_connection.incoming.task.cancelled()


async def test_a_close_that_its_client_delays_does_not_wait_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace._websocket.closing.CLOSE_TIMEOUT", 0.01)
    server = await client.connects(Noting)
    client.open.clear()
    await server.async_close()
    await client.ends()
    assert server.noted == ["connect", ("disconnect", 1000)]


async def test_the_counters_are_those_of_the_end(client: Client, memory: InMemoryChannelLayer) -> None:
    server = await client.connects(Subscribed, layer=memory)
    client.says(1)
    await server.async_broadcast("news", 2)
    await client.hears(1)
    await client.leaves()
    stats = server.stats()
    assert (stats.received, stats.sent, stats.broadcasts, stats.delivered) == (1, 1, 1, 1)
    assert (stats.topics, stats.pending, stats.failed, stats.errors) == (0, 0, 0, 0)


async def test_a_close_whose_caller_is_cancelled_goes_on(client: Client) -> None:
    server = await client.connects(Noting)
    client.open.clear()
    closing = asyncio.create_task(server.async_close(4000))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    client.open.set()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 4000}
    assert server.noted[-1] == ("disconnect", 4000)


async def test_a_close_that_the_asgi_server_fails_on_ends_the_connection(client: Client) -> None:
    server = await client.connects(Noting)
    client.broken = ValueError("an error of its own")
    await server.async_close(4000)
    await client.ends()
    assert server.noted[-1] == ("disconnect", 4000)


@pytest.mark.parametrize("answer", [True, False])
async def test_a_connection_that_is_closed_in_authorize_is_refused_once(client: Client, answer: bool) -> None:
    class Closing(BaseSocketServer):
        async def authorize(self) -> bool:
            await self.async_close(4000)
            return answer

    client.meets(Closing)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.close", "code": 4000}]


async def test_a_cancel_after_a_close_is_no_less_a_cancel(client: Client) -> None:
    class Lingering(BaseSocketServer):
        async def connect(self) -> None:
            await self.async_close()
            await asyncio.Event().wait()

    client.meets(Lingering)
    client.gives("connect")
    await client.gets(2)
    client.server._headrace_connection.incoming.task.cancel()
    await client.ends()
    assert client.server._headrace_connection.incoming.task.cancelled()


@pytest.mark.parametrize("code", [-1, 0, 5, 999, 1004, 1005, 1006, 1015, 2000, 5000, 99999])
async def test_a_code_is_one_that_may_be_sent(client: Client, code: int) -> None:
    server = await client.connects(Noting)
    with pytest.raises(ValueError, match=f"got {code}$"):
        await server.async_close(code)
    assert server.is_alive
    await client.leaves()
