import asyncio
import functools
import json
import os
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from tests.support.leaving import Leaving
from tests.support.waiting import eventually

from headrace import async_to_sync, sync_to_async
from headrace.exceptions import ChannelFull, ConnectionClosed
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.testing import ManualClock, settle

from .conftest import SECONDS, Client, has_ended

ACCEPT = {"type": "websocket.accept"}


class Noting(BaseSocketServer):
    """Keeps what its hooks are called with."""

    def configure(self) -> None:
        self.noted: list[Any] = []

    async def connect(self) -> None:
        self.noted.append("connect")

    async def receive(self, data: Any) -> None:
        self.noted.append(data)

    async def disconnect(self, code: int = 1000) -> None:
        self.noted.append(("disconnect", code))


class Subscribed(Noting):
    async def connect(self) -> None:
        await self.async_subscribe("news")


# From the first message to the last.


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


# The handshake.


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


# What the client sends.


@pytest.mark.parametrize(
    "frame", [{"text": "{"}, {"text": "NaN"}, {"text": ""}, {"bytes": b"\xff"}, {"text": None, "bytes": None}, {}]
)
async def test_a_bad_frame_is_logged_and_answered_and_the_socket_stays(
    client: Client, caplog: pytest.LogCaptureFixture, frame: dict[str, Any]
) -> None:
    server = await client.connects(Noting)
    client.gives("receive", **frame)
    client.says("good")
    await client.leaves()
    assert client.heard == [{"error": "the message could not be decoded"}]
    assert server.noted == ["connect", "good", ("disconnect", 1000)]
    assert (server.stats().received, server.stats().bad_messages) == (2, 1)
    assert "got a frame that its ws_decoder does not take" in caplog.text


async def test_the_answer_to_a_bad_frame_is_the_servers_to_choose(client: Client) -> None:
    class Strict(BaseSocketServer):
        async def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
            await self.async_send({"raw": raw, "error": type(error).__name__})
            await self.async_close(1007)

    await client.connects(Strict)
    client.gives("receive", text="{")
    await client.ends()
    assert client.heard == [{"raw": "{", "error": "JSONDecodeError"}]
    assert client.sent[-1] == {"type": "websocket.close", "code": 1007}


async def test_a_decoder_gets_text_or_bytes_as_they_came(client: Client) -> None:
    server = await client.connects(Noting, ws_decoder=lambda raw: raw)
    client.gives("receive", text="text")
    client.gives("receive", bytes=b"bytes")
    client.gives("receive", text=None, bytes=b"others")
    await client.leaves()
    assert server.noted[1:-1] == ["text", b"bytes", b"others"]


@pytest.mark.complains
async def test_a_receive_hook_that_raises_is_logged_and_counted_and_the_socket_stays(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(Noting):
        def receive(self, data: Any) -> Any:
            raise LookupError("nothing of that kind")

    server = await client.connects(Fragile)
    client.says(1)
    client.says(2)
    await client.leaves()
    assert server.stats().errors == 2
    assert server.noted == ["connect", ("disconnect", 1000)]
    assert caplog.text.count("<Fragile at /ws/>: receive() failed") == 2


@pytest.mark.complains
async def test_a_client_may_be_told_that_its_frame_has_failed(client: Client) -> None:
    class Frank(BaseSocketServer):
        def receive(self, data: Any) -> Any:
            raise LookupError("nothing of that kind")

        def on_error(self, error: Exception, data: Any) -> None:
            self.send({"failed": data, "why": str(error)})

    await client.connects(Frank)
    client.says(1)
    assert await client.hears(1) == [{"failed": 1, "why": "nothing of that kind"}]


async def test_frames_to_a_server_without_a_receive_are_counted(client: Client) -> None:
    server = await client.connects(BaseSocketServer)
    client.says(1)
    await client.leaves()
    assert (server.stats().received, server.stats().unhandled) == (1, 1)


# What is broadcast.


async def test_what_is_broadcast_goes_to_the_client_in_order(client: Client, memory: InMemoryChannelLayer) -> None:
    await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    for number in range(90):
        mouth.broadcast("news", {"number": number})
    assert await client.hears(90) == [{"number": number} for number in range(90)]
    assert client.sent[1] == {"type": "websocket.send", "text": '{"number": 0}'}


async def test_a_server_may_change_what_becomes_of_a_broadcast(client: Client, memory: InMemoryChannelLayer) -> None:
    class Framed(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            data["seen"] = True
            await self.async_send({"topic": channel, "data": data})

    other = Client()
    for each in (client, other):
        await each.connects(Framed, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", {"a": 1})
    for each in (client, other):
        assert await each.hears(1) == [{"topic": "news", "data": {"a": 1, "seen": True}}]


async def test_a_server_may_change_how_it_sends(client: Client, memory: InMemoryChannelLayer) -> None:
    class Signed(Subscribed):
        async def async_send(self, data: Any, raw: bool = False) -> None:
            await super().async_send({"signed": data}, raw)

    await client.connects(Signed, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [{"signed": 1}]


async def test_an_encoder_of_its_own_makes_the_frames(client: Client, memory: InMemoryChannelLayer) -> None:
    def compact(data: Any) -> bytes:
        return json.dumps(data, separators=(",", ":")).encode()

    await client.connects(Subscribed, layer=memory, ws_encoder=compact, ws_encoder_is_bytes=True)
    await Broadcaster(layer=memory).async_broadcast("news", {"a": 1})
    client.server.send({"b": 2})
    await client.gets(3)
    assert client.sent[1:] == [
        {"type": "websocket.send", "bytes": b'{"a":1}'},
        {"type": "websocket.send", "bytes": b'{"b":2}'},
    ]


@pytest.mark.complains
async def test_a_broadcast_that_cannot_be_encoded_is_logged_and_counted_and_the_next_one_comes(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", b"\xff")
    mouth.broadcast("news", "good")
    assert await client.hears(1) == ["good"]
    assert client.server.stats().errors == 1
    assert "bytes is not JSON serializable" in caplog.text


async def test_nothing_is_delivered_of_a_topic_that_was_left(client: Client, memory: InMemoryChannelLayer) -> None:
    server = await client.connects(Subscribed, layer=memory)
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", "waits in the mailbox")
    server.unsubscribe("news")
    await server.async_subscribe("other")
    mouth.broadcast("other", 1)
    assert await client.hears(1) == [1]
    assert server.subscriptions == {"other"}
    assert server.stats().dropped_unsubscribed == 1


async def test_a_message_of_the_layer_that_is_no_broadcast_disturbs_nobody(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    server = await client.connects(Subscribed, layer=memory)
    assert server._headrace_hub.mailbox.inbox is not None
    await memory.send(server._headrace_hub.mailbox.inbox.channel, {"type": "redis.disconnect"})
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [1]
    assert server.stats().dropped_unsubscribed == 1


async def test_what_is_subscribed_before_the_start_is_delivered_after_it(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    server = BaseSocketServer(client.scope, client.incoming.get, client.send, layer=memory)
    await server.async_subscribe("news")
    server.broadcast("news", 1)
    serving = asyncio.create_task(server.async_start_listeners())
    assert await client.hears(1) == [1]
    client.gives("disconnect")
    await serving
    assert not server.is_alive


@pytest.mark.parametrize(
    ("overflow", "heard", "counter"),
    [
        ("drop_new", [0, 1, 2], "dropped_full"),
        ("drop_old", [0, 8, 9], "dropped_replaced"),
        ("coalesce", [0, 9], "dropped_replaced"),
    ],
)
async def test_a_slow_client_gets_what_its_server_says(
    client: Client, memory: InMemoryChannelLayer, overflow: Any, heard: list[int], counter: str
) -> None:
    class Slow(Subscribed):
        max_backlog = 2

    Slow.overflow = overflow
    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", 0)
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(1, 10):
        mouth.broadcast("news", number)
    assert getattr(server.stats(), counter) == 10 - len(heard)
    client.open.set()
    assert await client.hears(len(heard)) == heard


async def test_a_slow_client_is_bounded_in_bytes_too(client: Client, memory: InMemoryChannelLayer) -> None:
    class Slow(Subscribed):
        max_backlog_bytes = 1000
        overflow = "drop_old"

    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("news", 0)
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(1, 10):
        mouth.broadcast("news", f"{number}" * 600)
    stats = server.stats()
    assert (stats.depth, stats.dropped_replaced, stats.full_by_bytes) == (2, 7, 7)
    assert 1200 < stats.bytes < 2200
    client.open.set()
    assert await client.hears(3) == [0, "8" * 600, "9" * 600]


class Feeding(BaseSocketServer):
    """Sends with plain calls, where it is told to."""

    def feed(self, count: int, length: int = 976) -> int:
        """Send until that is refused; return how many were taken."""
        for number in range(count):
            try:
                self.send([number, "a" * length])
            except ChannelFull:
                return number
        return count


@pytest.mark.parametrize(("settings", "taken"), [({"max_backlog_bytes": 10_500}, 6), ({"max_backlog": 3}, 4)])
async def test_plain_sends_in_a_loop_are_bounded(
    client: Client, memory: InMemoryChannelLayer, settings: dict[str, Any], taken: int
) -> None:
    server: Any = await client.connects(type("Here", (Feeding,), settings), layer=memory)
    client.open.clear()
    # The first does not count, and each of the others about two kibibytes.
    assert server.feed(20) == taken
    with pytest.raises(ChannelFull, match=r"does not read as fast .* await async_send\(\)"):
        server.send("more")
    stats = server.stats()
    assert (stats.dropped_backlog, stats.pending) == (2, taken)
    assert 2000 * taken < stats.pending_bytes < 2200 * taken
    client.open.set()
    assert [number for number, _ in await client.hears(taken)] == list(range(taken))
    await server.async_flush()
    assert server.stats().pending_bytes == 0
    assert server.feed(3) == 3
    await client.hears(taken + 3)
    await client.leaves()


async def test_without_settings_the_bytes_of_the_layer_count(client: Client, memory: InMemoryChannelLayer) -> None:
    server: Any = await client.connects(Feeding, layer=memory)
    client.open.clear()
    taken = server.feed(100, length=100_000)
    # Ten fit behind the first.
    assert taken == 11
    assert 1_100_000 < server.stats().pending_bytes < 1_200_000
    client.open.set()
    await client.hears(taken)
    await client.leaves()


async def test_a_client_that_holds_up_plain_sends_can_be_closed(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    server: Any = await client.connects(type("Here", (Feeding,), {"max_backlog": 3, "overflow": "close"}), layer=memory)
    client.open.clear()
    assert server.feed(20) == 20
    while server.is_alive:
        await asyncio.sleep(0)
    server.send("after the end")
    client.open.set()
    await client.ends()
    await server.async_flush()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1013}
    assert server.stats().dropped_backlog == 16
    assert "its client does not keep up" in caplog.text


async def test_what_a_handler_of_broadcasts_sends_goes_out_before_the_next_is_taken(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    class Over(Subscribed):
        max_backlog = 2

        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            self.send(data)

    server = await client.connects(Over, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    for number in range(10):
        mouth.broadcast("news", number)
        for _ in range(10):
            await asyncio.sleep(0)
    stats = server.stats()
    assert (stats.pending, stats.depth, stats.dropped_full, stats.dropped_backlog) == (1, 2, 7, 0)
    client.open.set()
    assert await client.hears(3) == [0, 1, 2]
    await client.leaves()


async def test_coalescing_goes_by_topics(client: Client, memory: InMemoryChannelLayer) -> None:
    class Slow(BaseSocketServer):
        max_backlog = 2
        overflow = "coalesce"

        async def connect(self) -> None:
            for topic in "ab":
                await self.async_subscribe(topic)

    server = await client.connects(Slow, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    mouth.broadcast("a", "first")
    while server.stats().depth or not server._headrace_connection.outgoing.turns.taken:
        await asyncio.sleep(0)
    for number in range(5):
        mouth.broadcast("a", ["a", number])
        mouth.broadcast("b", ["b", number])
    client.open.set()
    assert sorted((await client.hears(3))[1:]) == [["a", 4], ["b", 4]]


async def test_a_client_that_does_not_keep_up_can_be_closed(
    client: Client, memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict(Subscribed):
        max_backlog = 2
        overflow = "close"

    server = await client.connects(Strict, layer=memory)
    client.open.clear()
    mouth = Broadcaster(layer=memory)
    for number in range(5):
        mouth.broadcast("news", number)
    while server.is_alive:
        await asyncio.sleep(0)
    client.open.set()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1013}
    assert server.noted == [("disconnect", 1013)]
    assert memory.stats().memberships == 0
    assert "its client does not keep up" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("max_backlog", 0, "Wrong.max_backlog must be a positive integer, got 0"),
        ("read_ahead_bytes", 0, "Wrong.read_ahead_bytes must be a positive integer, got 0"),
        ("max_backlog_bytes", 0, "Wrong.max_backlog_bytes must be a positive integer, got 0"),
        ("overflow", "drop", "Wrong.overflow must be one of 'drop_new', .*, got 'drop'"),
    ],
)
def test_wrong_settings_are_told_when_the_class_is_made(setting: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        type("Wrong", (BaseSocketServer,), {setting: value})


# What goes to the client.


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
    monkeypatch.setattr("headrace._sockets.connection.CLOSE_TIMEOUT", 0.01)
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


async def test_a_client_cannot_fill_the_log_with_bad_frames(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    server = await client.connects(BaseSocketServer)
    for _ in range(10):
        client.gives("receive", text="{")
    await client.leaves()
    assert server.stats().bad_messages == 10
    assert caplog.text.count("got a frame that its ws_decoder does not take") == 1


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


# The end.


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


# Without a loop of one's own.


def test_a_plain_program_feeds_a_server_from_its_main_thread(memory: InMemoryChannelLayer) -> None:
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    server = Subscribed({}, incoming.get, send, layer=memory)
    server.start_listeners()
    incoming.put_nowait({"type": "websocket.connect"})
    eventually(lambda: server.subscriptions, "it is subscribed")
    server.broadcast("news", 1)
    eventually(lambda: len(sent) == 2, "the broadcast has come")
    server.send(2)
    assert sent[1:] == [{"type": "websocket.send", "text": "1"}, {"type": "websocket.send", "text": "2"}]
    server.close(4000)
    eventually(lambda: server.noted, "it has ended")
    assert server.noted == [("disconnect", 4000)]


def test_servers_without_a_loop_share_one() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    servers = [BaseSocketServer({}, never, print) for _ in range(3)]  # type: ignore[arg-type]
    for server in servers:
        server.start_listeners()
    assert len({id(server._headrace_hub.loop) for server in servers}) == 1
    assert [thread.name for thread in threading.enumerate()].count("headrace-sockets") == 1
    for server in servers:
        server.__kill__()
    eventually(
        lambda: all(has_ended(server) for server in servers),
        "they have ended",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_server_of_the_parent_has_ended_in_the_child_of_a_fork(memory: InMemoryChannelLayer) -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    server = BaseSocketServer({}, never, print, layer=memory)  # type: ignore[arg-type]
    server.start_listeners()
    server.subscribe("news")
    child = os.fork()
    if not child:
        try:
            server.send("to nobody")
            clean = (server.is_alive, server.subscriptions, server.stats().dropped_after_close) == (
                False,
                frozenset(),
                1,
            )
            os._exit(0 if clean else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.subscriptions == {"news"}
    server.__kill__()
    eventually(
        lambda: has_ended(server),
        "it has ended",
    )


# As an ASGI application.


async def test_as_asgi_serves_a_connection_until_it_ends(client: Client) -> None:
    class Echo(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            await self.async_send(data)

    for application in (Echo.as_asgi(), Echo.as_asgi, Echo.as_asgi(subprotocol=None)):
        client = Client()
        serving = asyncio.ensure_future(application(client.scope, client.incoming.get, client.send))
        client.gives("connect")
        client.says({"a": 1})
        assert await client.hears(1) == [{"a": 1}]
        client.gives("disconnect", code=1000)
        async with asyncio.timeout(SECONDS):
            await serving


async def test_what_servers_are_made_with_is_given_once(client: Client) -> None:
    application = BaseSocketServer.as_asgi(subprotocol="chat")
    assert repr(application) == "BaseSocketServer.as_asgi()"
    client.gives("connect")
    client.gives("disconnect")
    await application(client.scope, client.incoming.get, client.send)
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]


async def test_a_scope_of_another_protocol_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="BaseSocketServer is for WebSockets, got a scope of type 'http'"):
        await BaseSocketServer.as_asgi()({"type": "http"}, client.incoming.get, client.send)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"hots": [1]}, TypeError, "got an unexpected keyword argument 'hots'"),
        ({"max_backlog": 3}, TypeError, "max_backlog is an attribute of the class"),
        ({"hosts": 5}, ValueError, "hosts must be a list of servers"),
        ({"allow_memory": False}, ValueError, "hosts are not given and allow_memory is False"),
        ({"ws_encoder": 5}, TypeError, "ws_encoder must be a function of the data, got 5"),
        ({"ws_decoder": "x"}, TypeError, "ws_decoder must be a function of the data, got 'x'"),
        ({"subprotocol": 5}, TypeError, "subprotocol must be a str or None, got 5"),
    ],
)
def test_what_servers_cannot_be_made_with_is_told_before_a_client_comes(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        BaseSocketServer.as_asgi(**arguments)


async def test_a_class_may_say_what_its_servers_are_made_with(client: Client) -> None:
    class Own(BaseSocketServer):
        config = {"capacity": 7}  # noqa: RUF012  # as a user writes it
        subprotocol = "chat"

    client.scope["subprotocols"] = ["talk", "chat"]
    server = await client.connects(Own)
    assert server.layer.capacity == 7
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]
    assert BaseSocketServer(client.scope, client.incoming.get, client.send).layer is not server.layer


@pytest.mark.parametrize(
    "offered", [{}, {"subprotocols": []}, {"subprotocols": ["talk"]}], ids=["none", "empty", "other"]
)
async def test_a_subprotocol_that_was_not_offered_is_sent_with_a_warning(
    caplog: pytest.LogCaptureFixture, offered: dict[str, Any]
) -> None:
    client = Client(**offered)
    await client.connects(BaseSocketServer, subprotocol="chat")
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]
    assert "subprotocol 'chat', which its client did not offer" in caplog.text


@pytest.mark.parametrize(
    ("name", "hook", "wanted"),
    [
        ("authorize", lambda self, scope: True, r"authorize\(self\)"),
        ("connect", lambda: None, r"connect\(self\)"),
        ("receive", lambda self: None, r"receive\(self, data\)"),
        ("receive", lambda self, data, *, kind: None, r"receive\(self, data\)"),
        ("receive", staticmethod(lambda: None), r"receive\(self, data\)"),
        ("receive", None, r"receive\(self, data\)"),
        ("on_bad_message", lambda self, error: None, r"on_bad_message\(self, raw, error\)"),
        ("on_error", lambda self, error: None, r"on_error\(self, error, data\)"),
        ("async_handle_received_broadcast", lambda self, data: None, r"received_broadcast\(self, channel, data\)"),
        ("configure", lambda self, hosts: None, r"configure\(self\)"),
        ("disconnect", lambda self, code, reason: None, "take the code, or nothing"),
    ],
)
def test_a_hook_that_cannot_be_called_is_told_when_the_class_is_made(name: str, hook: Any, wanted: str) -> None:
    with pytest.raises(TypeError, match=rf"Wrong\.{name} must .*{wanted}"):
        type("Wrong", (BaseSocketServer,), {name: hook})


class Responder:
    """Can be called, and is no function."""

    def __call__(self, data: Any) -> None: ...


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, data: None,
        lambda *args, **kwargs: None,
        staticmethod(lambda data: None),
        classmethod(lambda cls, data, kind="chat": None),
        functools.partial(print, "got"),
        Responder(),
        dict.update,
    ],
    ids=["plain", "any", "static", "class", "partial", "object", "builtin"],
)
def test_a_hook_of_any_kind_that_can_be_called_is_taken(hook: Any) -> None:
    right: Any = type("Right", (BaseSocketServer,), {"receive": hook})
    assert right.receive is not BaseSocketServer.receive


def test_configure_is_a_plain_function() -> None:
    async def configure(self: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.configure must be a plain function"):
        type("Wrong", (BaseSocketServer,), {"configure": configure})


async def test_a_coroutine_of_a_thread_that_fails_is_logged(
    client: Client, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    request.node.add_marker("complains")
    server = await client.connects(BaseSocketServer)

    async def fails() -> None:
        raise LookupError("nothing there")

    future = await asyncio.to_thread(server.run_async, fails())
    with pytest.raises(LookupError):
        await asyncio.wrap_future(future)
    assert "a coroutine of run_async() failed" in caplog.text


def test_as_asgi_takes_a_whole_connection() -> None:
    with pytest.raises(TypeError, match="takes no positional arguments, or scope, receive and send"):
        BaseSocketServer.as_asgi({})  # type: ignore[call-overload]


# What asks for a close may be cancelled, may come early, and may meet a server that fails.


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


@pytest.mark.complains
@pytest.mark.parametrize("what", ["cancelled", "unhashable"])
async def test_broadcasts_go_on_after_one_that_cannot_be_handled(
    client: Client, memory: InMemoryChannelLayer, what: str
) -> None:
    class Waiting(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            if data == "cancelled":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            await self.async_send(data)

    await client.connects(Waiting, layer=memory)
    if what == "unhashable":
        await memory.group_send("socket.t.news", {"type": "any", "topic": []})
    else:
        await Broadcaster(layer=memory).async_broadcast("news", what)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    assert await client.hears(1) == [1]
    await client.leaves()


async def test_a_handler_of_broadcasts_that_swallows_a_cancel_does_not_keep_the_connection(
    client: Client, memory: InMemoryChannelLayer
) -> None:
    class Stubborn(Subscribed):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            self.scope["handling"].set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    client.scope["handling"] = asyncio.Event()
    await client.connects(Stubborn, layer=memory)
    await Broadcaster(layer=memory).async_broadcast("news", 1)
    await client.scope["handling"].wait()
    await client.leaves()


@pytest.mark.complains
async def test_a_socket_that_can_hear_nothing_more_is_closed(client: Client, memory: InMemoryChannelLayer) -> None:
    server = await client.connects(Subscribed, layer=memory)
    memory._core.close()
    await client.ends()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1011}
    assert server.noted[-1] == ("disconnect", 1011)


async def test_nobody_runs_the_loop_of_a_server_but_who_ran_it_before(client: Client) -> None:
    def serve_and_send() -> None:
        loop = asyncio.new_event_loop()
        here = Client()

        async def serve() -> Any:
            return await here.connects(Noting)

        server = loop.run_until_complete(serve())
        sending = threading.Thread(target=lambda: failed.append(catch(server)))
        sending.start()
        sending.join(0.1)
        assert not loop.is_running()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop)))
        loop.close()
        sending.join()

    def catch(server: Any) -> Any:
        try:
            server.send(1)
        except ConnectionClosed as error:
            return error

    failed: list[Any] = []
    await asyncio.to_thread(serve_and_send)
    assert len(failed) == 1


async def test_a_client_cannot_write_into_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.scope["path"] = "/ws/\nCRITICAL it is all over"
    await client.connects(Noting)
    client.gives("receive", bytes=b"\xff" * 100_000)
    await client.gets(2)
    (record,) = [record for record in caplog.records if record.name == "headrace.sockets"]
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 500
    await client.leaves()


def test_what_a_plain_program_puts_just_before_the_server_waits_is_taken(memory: InMemoryChannelLayer) -> None:
    class Late(asyncio.Queue[Any]):
        """A queue into which another thread puts something right after it was seen to be empty."""

        def empty(self) -> bool:
            was_empty = super().empty()
            if was_empty and late:
                self.put_nowait(late.pop())
            return was_empty

    late = [{"type": "websocket.connect"}]
    connected = threading.Event()

    class Telling(BaseSocketServer):
        async def connect(self) -> None:
            connected.set()

    async def send(message: Any) -> None: ...

    server = Telling({}, Late().get, send, layer=memory)
    server.start_listeners()
    assert connected.wait(SECONDS)
    server.close()


async def test_broadcasts_that_expire_behind_a_slow_client_are_told_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    layer = InMemoryChannelLayer(expiry=10, clock=clock)
    server, mouth = await client.connects(Subscribed, layer=layer), Broadcaster(layer=layer)
    while not server.subscriptions:
        await asyncio.sleep(0)
    for number in range(1, 3):
        client.open.clear()
        await mouth.async_broadcast("news", "sent")
        while layer.stats().waiters or layer.stats().depth:
            await asyncio.sleep(0)
        await mouth.async_broadcast("news", "expired")
        clock.advance(10)
        client.open.set()
        await client.gets(1 + number)
        while not layer.stats().waiters:
            await asyncio.sleep(0)
    assert [message.get("text") for message in client.sent] == [None, '"sent"', '"sent"']
    assert server.stats().dropped_expired == 2
    told = [record.getMessage() for record in caplog.records if "messages live" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        "<Subscribed at /ws/> was busy for longer than messages live: 1 expired before they could"
    )
