"""The names on a consumer are its author's: headrace keeps one for itself, and those of its settings."""

import json
import subprocess
import sys
from functools import cache
from typing import Any, ClassVar

import pytest

from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.generic import http, websocket
from headrace.generic._connection import BaseWebsocketConsumer
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer
from headrace.testing import HttpCommunicator, WebsocketCommunicator

CLASSES: list[type[Any]] = [
    *(AsyncConsumer, SyncConsumer, AsyncHttpConsumer, AsyncWebsocketConsumer, WebsocketConsumer),
    *(AsyncJsonWebsocketConsumer, JsonWebsocketConsumer),
]
# docs/how-to/moving-from-channels.md, "Names to look out for".
SETTINGS = {
    *("concurrency", "handler_timeout", "max_backlog", "overflow", "idle_timeout", "grace_period", "forward"),
    *("max_backlog_bytes", "read_ahead_bytes", "rate_limit", "rate_limit_overflow"),
    *("raise_after_close", "on_error", "on_idle"),
}
OF_WEBSOCKETS = {
    *("expires_at", "on_drain", "on_expire", "resume", "resumed", "join_group", "position"),
    *("presence", "presence_key", "presence_meta"),
}

CHANNELS = """
import json, sys
from django.conf import settings
settings.configure()
from channels import consumer
from channels.generic import http, websocket
found = {name: getattr(module, name) for module in (consumer, http, websocket) for name in dir(module)}
print(json.dumps({name: dir(found[name]) for name in sys.argv[1:]}))
"""


@cache
def names_in_channels() -> dict[str, list[str]]:
    """Return the names that each of Channels' classes has."""
    command = [sys.executable, "-c", CHANNELS, *(each.__name__ for each in CLASSES)]
    found: dict[str, list[str]] = json.loads(
        subprocess.run(command, capture_output=True, check=True, timeout=50).stdout
    )
    return found


# What Python itself adds to a class that has annotations, or is made in a way of its own.
BY_PYTHON = {"__annotate_func__", "__annotations__", "__annotations_cache__", "__init_subclass__"}


@pytest.mark.parametrize("ours", CLASSES)
def test_a_consumer_has_one_private_name_more_than_in_channels(ours: type[Any]) -> None:
    more = set(dir(ours)) - set(names_in_channels()[ours.__name__]) - BY_PYTHON
    settings = SETTINGS | {"thread_sensitive"} if issubclass(ours, SyncConsumer) else SETTINGS
    settings = settings | {"max_body_bytes"} if issubclass(ours, AsyncHttpConsumer) else settings
    settings = settings | OF_WEBSOCKETS if issubclass(ours, BaseWebsocketConsumer) else settings
    # Channels sets base_send on the instance.
    assert more - {"base_send"} == settings | {"_headrace"}


@pytest.mark.parametrize("ours", CLASSES)
async def test_nothing_else_is_set_on_an_instance(layer: InMemoryChannelLayer, ours: type[Any]) -> None:
    names: set[str] = set()

    class Here(ours):  # type: ignore[misc]  # any of them
        async def dispatch(self, message: Any) -> None:
            names.update(vars(self))
            await self.send({"type": "done"}) if ours is AsyncConsumer else await self._headrace.asgi_send(
                {"type": "done"}
            )

    application = Here.as_asgi()
    client = WebsocketCommunicator(application, "/")
    await client.send_input({"type": "anything"})
    assert await client.receive_output() == {"type": "done"}
    client.stop()
    await client.wait()
    assert names - {"base_send", "body", "groups"} == {"scope", "channel_layer", "channel_name", "_headrace"}


class Helper(AsyncWebsocketConsumer):
    """Has a helper of a name that headrace used."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self._send({"echo": text_data})

    async def _send(self, payload: Any) -> None:
        await self.send(text_data=json.dumps(payload))


class SyncHelper(WebsocketConsumer):
    """The same in threads."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self._send_sync({"echo": text_data})

    def _send_sync(self, payload: Any) -> None:
        self.send(text_data=json.dumps(payload))


class Table(AsyncWebsocketConsumer):
    """Has a table of actions, on the class and on the instance, and private attributes of many names."""

    _handlers: ClassVar = {"x": "answer"}
    _fields: ClassVar = {"a": 1}
    _counters: ClassVar = {"a": 1}

    async def connect(self) -> None:
        self._intake = self._loop = self._serving = self._gone = "mine"
        self._leave = self._find_handler = self._group_layer = self._code_of = None
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await getattr(self, self._handlers[text_data or ""])()

    async def answer(self) -> None:
        await self.send(text_data='{"echo": "x"}')


class SyncTable(WebsocketConsumer):
    """The same in threads."""

    _handlers: ClassVar = {"x": "answer"}
    _fields: ClassVar = {"a": 1}
    _counters: ClassVar = {"a": 1}

    def connect(self) -> None:
        self._intake = self._loop = self._serving = self._gone = "mine"
        self._leave_plainly = self._in_thread = self._plain = self._in_loop = None
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        getattr(self, self._handlers[text_data or ""])()

    def answer(self) -> None:
        self.send(text_data='{"echo": "x"}')


class Encoding:
    """Stands behind a plain consumer, as GraphQL's libraries have it."""

    def encode_json(self, data: Any) -> str:
        return json.dumps(data)

    def send_json(self, data: Any) -> Any:
        sender: Any = self
        return sender.send(text_data=self.encode_json(data))


class Mixed(AsyncWebsocketConsumer, Encoding):
    """A plain consumer with the mixin."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send_json({"echo": text_data})


class SyncMixed(WebsocketConsumer, Encoding):
    """The same in threads."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send_json({"echo": text_data})


@pytest.mark.parametrize("consumer", [Helper, SyncHelper, Table, SyncTable, Mixed, SyncMixed])
async def test_names_of_the_users_own_do_not_meet_headraces(layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
    left: list[int] = []

    def leave(self: Any, code: int) -> None:
        left.append(code)

    async def aleave(self: Any, code: int) -> None:
        left.append(code)

    ending = leave if issubclass(consumer, SyncConsumer) else aleave
    kind = type("Here", (consumer,), {"disconnect": ending, "groups": ["all"]})
    async with WebsocketCommunicator(kind, "/") as client:
        await client.send_to("x")
        assert await client.receive_json_from() == {"echo": "x"}
    assert left == [1000]


class Flag(AsyncJsonWebsocketConsumer):
    """Has a flag of its own for what it has begun to close."""

    _closed = False

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        self._closed = True
        await self.send_json("bye")
        await self.close(code=4000)


class SyncFlag(JsonWebsocketConsumer):
    """The same in threads."""

    _closed = False

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self._closed = True
        self.send_json("bye")
        self.close(code=4000)


@pytest.mark.parametrize("consumer", [Flag, SyncFlag])
async def test_a_goodbye_behind_a_flag_of_ones_own_is_sent(layer: InMemoryChannelLayer, consumer: type[Any]) -> None:
    async with WebsocketCommunicator(consumer, "/") as client:
        await client.send_json_to({})
        assert await client.receive_json_from() == "bye"
        assert await client.receive_close() == (4000, "")


class Page(AsyncHttpConsumer):
    """Has private names that headrace used."""

    _response_phase = _handlers_running = "mine"

    async def handle(self, body: bytes) -> None:
        self._closed = self._gone = True
        await self._send(b"page")

    async def _send(self, body: bytes) -> None:
        await self.send_response(200, body)


async def test_names_of_ones_own_in_an_http_consumer(layer: InMemoryChannelLayer) -> None:
    response = await HttpCommunicator(Page.as_asgi(), "GET", "/").get_response()
    assert response["body"] == b"page"


def test_the_modules_have_what_channels_modules_pass_on() -> None:
    from headrace import consumer

    for module, names in (
        (consumer, ("StopConsumer", "async_to_sync", "aclose_old_connections", "await_many_dispatch")),
        (consumer, ("database_sync_to_async", "get_handler_name", "get_channel_layer")),
        (http, ("AsyncConsumer", "StopConsumer", "aclose_old_connections")),
        (websocket, ("AsyncConsumer", "SyncConsumer", "AcceptConnection", "DenyConnection", "StopConsumer")),
        (websocket, ("InvalidChannelLayerError", "aclose_old_connections", "async_to_sync", "json")),
    ):
        assert [name for name in names if not hasattr(module, name)] == [], module
