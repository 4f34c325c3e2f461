"""Errors: who is told, what they say, and how the connection ends; and what is sent after the end."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.consumer import AsyncConsumer, SyncConsumer, consumer_stats
from headrace.exceptions import ConnectionClosed
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class OfTheTest(Exception):
    """What a handler raises."""


class Here(AsyncWebsocketConsumer):
    """Fails when it is told to."""

    groups = ("all",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise OfTheTest("of the test")
        await self.send(text_data=f"{text_data}!")

    async def note(self, event: dict[str, Any]) -> None:
        await self.receive(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        self.code = code


class TestOnError:
    """The hook."""

    async def test_by_default_one_line_is_logged_and_the_error_goes_on(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        for by_layer in (False, True):
            caplog.clear()
            client = wire(Here())
            client.connect()
            await settle()
            if by_layer:
                await layer.group_send("all", {"type": "note", "text": "fail"})
            else:
                client.write("fail")
            assert isinstance(await client.outcome(), OfTheTest)
            (record,) = [record for record in caplog.records if record.name == "headrace.consumer"]
            assert record.levelno == logging.ERROR
            kind = "note" if by_layer else "websocket.receive"
            assert record.getMessage() == f"Here at /ws/ failed on '{kind}': OfTheTest('of the test')"

    async def test_it_is_given_the_error_and_the_message(self, wire: "MakeWire") -> None:
        class Telling(Here):
            async def on_error(self, exc: Exception, message: Any) -> None:
                self.told = exc, message
                await super().on_error(exc, message)

        consumer = Telling()
        client = wire(consumer)
        client.connect("fail")
        error = await client.outcome()
        assert consumer.told == (error, {"type": "websocket.receive", "text": "fail"})

    async def test_it_may_go_on(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Tolerant(Here):
            async def on_error(self, exc: Exception, message: Any) -> None:
                await self.send(text_data="sorry")

        consumer = Tolerant()
        client = wire(consumer)
        client.connect("fail", "a")
        await settle()
        await layer.group_send("all", {"type": "note", "text": "fail"})
        await layer.group_send("all", {"type": "note", "text": "b"})
        await settle()
        assert client.texts == ["sorry", "a!", "sorry", "b!"]
        assert consumer_stats(Tolerant).errors == 2
        client.leave()
        await client.end()

    async def test_it_may_raise_another(self, wire: "MakeWire") -> None:
        class Translating(Here):
            async def on_error(self, exc: Exception, message: Any) -> None:
                raise LookupError("another") from exc

        consumer = Translating()
        client = wire(consumer)
        client.connect("fail")
        error = await client.outcome()
        assert isinstance(error, LookupError)
        assert isinstance(error.__cause__, OfTheTest)
        assert consumer.code == 1006

    async def test_it_may_close(self, wire: "MakeWire") -> None:
        class Closing(Here):
            async def on_error(self, exc: Exception, message: Any) -> None:
                await self.close(4500, "sorry")

        client = wire(Closing(), asgi={"version": "3.0"})
        client.connect("fail")
        client.leave(4500)
        await client.end()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 4500, "reason": "sorry"}]

    async def test_it_is_not_called_for_stop_consumer_and_cancels(self, wire: "MakeWire") -> None:
        calls = []

        class Telling(Here):
            async def on_error(self, exc: Exception, message: Any) -> None:
                calls.append(exc)

        for cancel in (False, True):
            client = wire(Telling())
            client.connect()
            await settle()
            if cancel:
                client.task.cancel()
            else:
                client.leave()
            await client.outcome()
        assert calls == []

    async def test_the_traceback_leads_to_the_handler(self, wire: "MakeWire") -> None:
        client = wire(Here())
        client.connect("fail")
        error = await client.outcome()
        assert error is not None
        names, traceback = [], error.__traceback__
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert "receive" in names
        assert error.__cause__ is None

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_sync_consumers_may_be_plain_or_not(self, wire: "MakeWire", is_async: bool) -> None:
        class Plain(WebsocketConsumer):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                if text_data == "fail":
                    raise OfTheTest
                self.send(text_data=text_data)

        def on_error(self: WebsocketConsumer, exc: Exception, message: Any) -> None:
            self.send(text_data="sorry")

        async def on_error_async(self: WebsocketConsumer, exc: Exception, message: Any) -> None:
            await self._headrace.asgi_send({"type": "websocket.send", "text": "sorry"})

        client = wire(type("Own", (Plain,), {"on_error": on_error_async if is_async else on_error})())
        client.connect("fail", "a")
        client.leave()
        await client.end()
        assert client.texts == ["sorry", "a"]


class TestKinds:
    """Methods of the wrong kind."""

    @pytest.mark.parametrize("name", ["connect", "receive", "disconnect"])
    async def test_a_plain_method_of_an_async_consumer_is_named(self, wire: "MakeWire", name: str) -> None:
        def method(self: Any, *args: Any, **kwargs: Any) -> None:
            pass

        client = wire(type("Wrong", (AsyncWebsocketConsumer,), {name: method})())
        client.connect("x")
        client.leave()
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert str(error).startswith(f"Wrong: {name} is not a coroutine function; write 'async def'")

    @pytest.mark.parametrize("concurrency", [1, 2])
    @pytest.mark.parametrize("timeout", [None, 60])
    async def test_a_plain_handler_of_a_message_of_the_layer_is_named(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, concurrency: int, timeout: float | None
    ) -> None:
        def note(self: Any, event: Any) -> None:
            pass

        settings = {"note": note, "concurrency": concurrency, "handler_timeout": timeout}
        client = wire(type("Wrong", (Here,), settings)())
        client.connect()
        await settle()
        await layer.group_send("all", {"type": "note"})
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert str(error).startswith("Wrong: note is not a coroutine function")
        assert "is not a coroutine function; write 'async def'" in str(error)

    async def test_a_plain_method_that_returns_an_awaitable_is_none(self, wire: "MakeWire") -> None:
        class Right(AsyncWebsocketConsumer):
            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> Any:
                return asyncio.ensure_future(self.send(text_data="x"))

        client = wire(Right())
        client.connect("x")
        await settle()
        assert client.texts == ["x"]
        client.leave()
        await client.end()

    async def test_a_type_error_of_the_users_own_await_is_left_as_it_is(self, wire: "MakeWire") -> None:
        class Wrong(AsyncWebsocketConsumer):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await None  # type: ignore[misc]  # wrong on purpose

        client = wire(Wrong())
        client.connect("x")
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert "coroutine function" not in str(error)

    @pytest.mark.parametrize("name", ["connect", "receive", "disconnect", "note", "on_idle"])
    async def test_a_coroutine_method_of_a_sync_consumer_is_named_and_no_warning_is_left(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, name: str
    ) -> None:
        async def method(self: Any, *args: Any, **kwargs: Any) -> None:
            pass

        method.__name__ = name
        settings: dict[str, Any] = {name: method, "groups": ("all",)}
        if name == "on_idle":
            settings["idle_timeout"] = 0.001
        client = wire(type("Wrong", (WebsocketConsumer,), settings)())
        client.connect()
        if name == "receive":
            client.write("x")
        while name != "connect" and not client.sent:
            await asyncio.sleep(0)
        if name == "note":
            await layer.group_send("all", {"type": "note"})
        elif name == "disconnect":
            client.leave()
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert str(error).startswith(f"Wrong.{name} is a coroutine function, but Wrong is a sync consumer: write 'def'")

    async def test_a_plain_on_error_of_an_async_consumer_is_called(self, wire: "MakeWire") -> None:
        class Plain(Here):
            def on_error(self, exc: Exception, message: Any) -> None:  # type: ignore[override]  # as many will write it
                self.told = exc

        consumer = Plain()
        client = wire(consumer)
        client.connect("fail", "x")
        await settle()
        assert client.texts == ["x!"]
        assert isinstance(consumer.told, OfTheTest)
        client.leave()
        await client.end()

    async def test_a_plain_http_handle_is_named(self, wire: "MakeWire") -> None:
        class Wrong(AsyncHttpConsumer):
            def handle(self, body: bytes) -> None:  # type: ignore[override]  # wrong on purpose
                pass

        client = wire(Wrong(), type="http")
        client.say({"type": "http.request", "body": b""})
        error = await client.outcome()
        assert str(error).startswith("Wrong: handle is not a coroutine function")


class TestCodes:
    """How a connection ends over a server; there a scope has "asgi"."""

    @pytest.mark.parametrize("kind", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
    @pytest.mark.parametrize("frame", [{"text": "{"}, {"text": ""}, {"bytes": b"{}"}, {"text": None, "bytes": b"{}"}])
    async def test_what_cannot_be_decoded_closes_with_1003(
        self, wire: "MakeWire", kind: type[Any], frame: dict[str, Any]
    ) -> None:
        codes: list[int] = []

        class Async(AsyncJsonWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                codes.append(code)

        class Sync(JsonWebsocketConsumer):
            def disconnect(self, code: int) -> None:
                codes.append(code)

        client = wire((Sync if issubclass(kind, WebsocketConsumer) else Async)(), asgi={"version": "3.0"})
        client.connect()
        client.say({"type": "websocket.receive", **frame})
        # Its server has nothing to log: the fault is the client's.
        assert await client.outcome() is None
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1003}]
        assert codes == [1003]

    async def test_a_value_error_of_receive_json_closes_with_1011(self, wire: "MakeWire") -> None:
        class Json(AsyncJsonWebsocketConsumer):
            async def receive_json(self, content: Any, **kwargs: Any) -> None:
                raise ValueError("of the user's own")

        client = wire(Json(), asgi={"version": "3.0"})
        client.connect("{}")
        await client.outcome()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1011}]

    async def test_an_error_after_a_bad_frame_that_was_excused_closes_with_1011(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Json(AsyncJsonWebsocketConsumer):
            async def on_error(self, exc: Exception, message: Any) -> None:
                if isinstance(exc, OfTheTest):
                    raise exc

            async def receive_json(self, content: Any, **kwargs: Any) -> None:
                raise OfTheTest

        client = wire(Json(), asgi={"version": "3.0"})
        client.connect("{", "{}")
        await client.outcome()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1011}]

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("gone"), LookupError("odd")])
    async def test_a_server_that_refuses_the_close_does_not_stop_the_clean_up(
        self, wire: "MakeWire", error: Exception
    ) -> None:
        consumer = Here()
        client = wire(consumer, asgi={"version": "3.0"})
        client.connect()
        await settle()
        client.broken = error
        client.write("fail")
        assert isinstance(await client.outcome(), OfTheTest)
        assert consumer.code in (1006, 1011)

    async def test_a_consumer_that_has_closed_and_then_fails_is_not_closed_again(self, wire: "MakeWire") -> None:
        class Closing(Here):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await self.close(4000)
                raise OfTheTest

        consumer = Closing()
        client = wire(consumer, asgi={"version": "3.0"})
        client.connect("x")
        await client.outcome()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 4000}]
        assert consumer.code == 4000


class TestAfterClose:
    """A consumer that has closed."""

    async def test_it_gets_no_more_messages_of_the_layer_and_they_are_counted(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        for concurrency in (1, 2):
            consumer = type("Closing", (Here,), {"concurrency": concurrency})()
            client = wire(consumer)
            client.connect()
            await settle()
            await consumer.close()
            for _ in range(3):
                await layer.group_send("all", {"type": "note", "text": "late"})
                await settle()
            assert client.texts == []
            stats = consumer_stats(type(consumer))
            assert stats.dropped_unhandled >= 1
            assert layer.stats().memberships == 0
            client.leave()
            await client.end()

    async def test_what_waits_when_a_handler_closes_is_dropped_and_counted(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Closing(Here):
            async def note(self, event: dict[str, Any]) -> None:
                self.seen = [*getattr(self, "seen", []), event["text"]]
                await self.close()

        consumer = Closing()
        client = wire(consumer)
        client.connect()
        await settle()
        for text in ("a", "b", "c"):
            await layer.group_send("all", {"type": "note", "text": text})
        await settle()
        assert consumer.seen == ["a"]
        assert consumer_stats(Closing).dropped_unhandled + layer.stats().dropped_other == 2
        client.leave()
        await client.end()

    async def test_sends_are_dropped_and_counted(self, wire: "MakeWire") -> None:
        class Closing(Here):
            pass

        consumer = Closing()
        client = wire(consumer)
        client.connect()
        await settle()
        await consumer.close(4000)
        await consumer.send(text_data="late")
        await consumer.send(bytes_data=b"late", close=True)
        await consumer.send(text_data="later")
        await consumer.close(4001)
        assert [message["type"] for message in client.sent] == ["websocket.accept", "websocket.close"]
        assert consumer_stats(Closing).dropped_after_close == 3
        client.leave()
        await client.end()
        await consumer.send(text_data="after the end")
        assert consumer_stats(Closing).dropped_after_close == 4

    async def test_or_raise_connection_closed(self, wire: "MakeWire") -> None:
        class Strict(Here):
            raise_after_close = True

        consumer = Strict()
        client = wire(consumer)
        client.connect()
        await settle()
        await consumer.close()
        for sending in (consumer.send(text_data="x"), consumer.send(bytes_data=b"x")):
            with pytest.raises(ConnectionClosed, match="Strict"):
                await sending
        await consumer.close()
        client.leave()
        await client.end()

    async def test_wrong_arguments_are_refused_all_the_same(self, wire: "MakeWire") -> None:
        consumer = Here()
        client = wire(consumer)
        client.connect()
        await settle()
        await consumer.close()
        with pytest.raises(ValueError, match="You must pass one of bytes_data or text_data"):
            await consumer.send()
        client.leave()
        await client.end()

    async def test_a_plain_consumer_that_sends_a_close_has_closed(self, wire: "MakeWire") -> None:
        class Plain(AsyncConsumer):
            async def websocket_connect(self, message: Any) -> None:
                await self.send({"type": "websocket.close"})
                await self.send({"type": "websocket.send", "text": "late"})

        client = wire(Plain())
        client.say({"type": "websocket.connect"})
        await settle()
        assert client.sent == [{"type": "websocket.close"}]
        assert consumer_stats(Plain).dropped_after_close == 1

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("gone")])
    async def test_a_servers_send_that_fails_because_the_client_has_gone_is_dropped(
        self, wire: "MakeWire", error: Exception
    ) -> None:
        class Late(Here):
            log: list[str]

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                client.broken = error
                client.leave(1012)
                await self.send(text_data="late")
                self.log = ["went on"]
                await self.close()

        consumer = Late()
        client = wire(consumer)
        client.connect("x")
        await client.end()
        assert consumer.log == ["went on"]
        assert consumer.code == 1012
        assert consumer_stats(Late).dropped_after_close >= 1

    async def test_the_last_message_of_such_a_client_may_come_some_turns_later(self, wire: "MakeWire") -> None:
        class Late(Here):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                client.broken = RuntimeError("the protocol is closed")
                leaving.append(asyncio.ensure_future(leave()))
                await self.send(text_data="late")

        async def leave() -> None:
            for _ in range(8):
                await asyncio.sleep(0)
            client.leave(1012)

        leaving: list[asyncio.Future[None]] = []
        consumer = Late()
        client = wire(consumer)
        client.connect("x")
        await client.end()
        await leaving[0]
        assert consumer.code == 1012
        assert consumer_stats(Late).dropped_after_close == 1

    async def test_a_servers_send_that_fails_for_another_reason_is_an_error(self, wire: "MakeWire") -> None:
        client = wire(Here())
        client.connect()
        await settle()
        client.broken = RuntimeError("a fault of the server")
        client.write("x")
        assert str(await client.outcome()) == "a fault of the server"

    async def test_a_sync_plain_consumer_drops_too(self, wire: "MakeWire") -> None:
        class Plain(SyncConsumer):
            def websocket_connect(self, message: Any) -> None:
                self.send({"type": "websocket.close"})
                self.send({"type": "websocket.send", "text": "late"})

        client = wire(Plain())
        client.say({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1})
        await client.outcome()
        assert client.sent == [{"type": "websocket.close"}]
        assert consumer_stats(Plain).dropped_after_close == 1
