"""Channels' unchanged consumers, with the patch of the app and without it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

import channels
import channels.consumer
import channels.generic.http
import channels.generic.websocket
import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from channels.consumer import SyncConsumer
from channels.db import database_sync_to_async
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import connections
from django.test import TestCase

from headrace.django import _patch as patch

if TYPE_CHECKING:
    from tests.django_app.cases.conftest import Hops

MODULES = [channels.consumer, channels.generic.websocket, channels.generic.http]


def count_users() -> int:
    count: int = User.objects.count()
    return count


class Bank(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Answers each text, after using the database in the way that it names."""

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        if text_data == "orm":
            await User.objects.acount()
        elif text_data == "sync_to_async":
            await sync_to_async(count_users)()
        elif text_data == "pool":
            await sync_to_async(count_users, thread_sensitive=False)()
        elif text_data == "database_sync_to_async":
            text_data = str(await database_sync_to_async(count_users)())
        await self.send(text_data=text_data)


class SyncBank(WebsocketConsumer):  # type: ignore[misc]  # channels has no types
    def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        self.send(text_data=str(count_users()))


class Page(AsyncHttpConsumer):  # type: ignore[misc]  # channels has no types
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, str(await User.objects.acount()).encode() if body else b"")


class Socket:
    """A connection as a server makes it: nothing of Channels' testing tools is in it."""

    def __init__(self, application: Any, type: str = "websocket") -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.ensure_future(application({"type": type}, self.inbox.get, self.outbox.put))

    async def connect(self) -> None:
        self.inbox.put_nowait({"type": "websocket.connect"})
        assert (await self.answer())["type"] == "websocket.accept"

    async def say(self, text: str) -> str:
        self.inbox.put_nowait({"type": "websocket.receive", "text": text})
        answer: str = (await self.answer())["text"]
        return answer

    async def answer(self) -> dict[str, Any]:
        answer = asyncio.ensure_future(self.outbox.get())
        await asyncio.wait({answer, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self.task.result()
        return await answer

    async def disconnect(self) -> None:
        self.inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.task


async def connected(application: Any = None) -> Socket:
    socket = Socket(application or Bank.as_asgi())
    await socket.connect()
    return socket


ORDER: list[Any] = []
GO_ON = threading.Event()


class InOrder(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Writes down what it handles, in a group; its connection is opened when it may go on."""

    groups = ("ordered",)

    async def connect(self) -> None:
        await sync_to_async(GO_ON.wait)(20)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await sync_to_async(ORDER.append)(text_data)

    async def note(self, event: dict[str, Any]) -> None:
        ORDER.append("layer")


class SyncInOrder(WebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """The same in threads."""

    groups = ("ordered",)

    def connect(self) -> None:
        GO_ON.wait(20)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        ORDER.append(text_data)

    def note(self, event: dict[str, Any]) -> None:
        ORDER.append("layer")


@pytest.mark.parametrize("consumer", [InOrder, SyncInOrder])
async def test_frames_of_the_client_go_before_a_later_message_of_the_layer(consumer: Any) -> None:
    ORDER.clear()
    GO_ON.clear()
    layer: Any = get_channel_layer()
    socket = Socket(consumer.as_asgi())
    socket.inbox.put_nowait({"type": "websocket.connect"})
    for text in ("first", "second", "third"):
        socket.inbox.put_nowait({"type": "websocket.receive", "text": text})
    async with asyncio.timeout(20):
        while not layer.group_count("ordered"):
            await asyncio.sleep(0)
    await layer.group_send("ordered", {"type": "note"})
    GO_ON.set()
    async with asyncio.timeout(20):
        while len(ORDER) < 4:
            await asyncio.sleep(0)
    assert ORDER == ["first", "second", "third", "layer"]
    await socket.disconnect()


class Starter(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Starts a task at one message, and cancels it at the next."""

    groups = ("starters",)

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        await self.order({"order": text_data})

    async def order(self, event: dict[str, Any]) -> None:
        if event["order"] == "start":
            self.job = asyncio.ensure_future(self.work())
        else:
            self.job.cancel()

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.send(text_data="stopped")


@pytest.mark.parametrize(
    ("first", "second"), [("client", "client"), ("client", "layer"), ("layer", "client"), ("layer", "layer")]
)
async def test_what_a_message_starts_runs_before_the_next_is_handled(first: str, second: str) -> None:
    socket = await connected(Starter.as_asgi())
    for way, order in ((first, "start"), (second, "stop")):
        if way == "client":
            socket.inbox.put_nowait({"type": "websocket.receive", "text": order})
        else:
            await get_channel_layer().group_send("starters", {"type": "order", "order": order})
    assert (await asyncio.wait_for(socket.answer(), 20))["text"] == "stopped"
    await socket.disconnect()


class Busy(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Takes a millisecond for each message, and never waits."""

    groups = ("busy",)
    handled: ClassVar[list[Any]] = []

    async def note(self, event: dict[str, Any]) -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        self.handled.append(event)


async def test_a_busy_consumer_gives_the_loop_its_turns() -> None:
    """So it does in Channels, by going to a thread before each message."""
    socket = await connected(Busy.as_asgi())
    handled = Busy.handled
    for _ in range(50):
        await get_channel_layer().group_send("busy", {"type": "note"})
    most = before = 0
    async with asyncio.timeout(20):
        while len(handled) < 50:
            await asyncio.sleep(0)
            most, before = max(most, len(handled) - before), len(handled)
    assert most == 1
    await socket.disconnect()


async def test_no_message_hops_while_the_database_is_not_used(hops: "Hops") -> None:
    socket = await connected()
    for _ in range(5):
        await socket.say("hello")
    await socket.disconnect()
    assert hops.taken() == 0


async def test_without_the_patch_every_message_hops(hops: "Hops") -> None:
    patch.revert()
    socket = await connected()
    for _ in range(5):
        await socket.say("hello")
    assert hops.taken() == 6
    await socket.disconnect()
    assert hops.taken() == 2


@pytest.mark.parametrize("way", ["orm", "sync_to_async"])
async def test_the_message_after_a_query_closes_the_connection(
    hops: "Hops", is_open: Callable[[], Any], way: str
) -> None:
    socket = await connected()
    await socket.say(way)
    assert hops.taken() == 1
    assert await is_open()
    hops.taken()
    await socket.say("hello")
    assert hops.taken() == 1
    assert not await is_open()
    hops.taken()
    await socket.say("hello")
    assert hops.taken() == 0
    await socket.disconnect()


async def test_the_end_of_a_consumer_closes_its_connection(is_open: Callable[[], Any]) -> None:
    socket = await connected()
    await socket.say("orm")
    assert await is_open()
    await socket.disconnect()
    assert not await is_open()


async def test_another_consumer_closes_the_connection_too(is_open: Callable[[], Any]) -> None:
    ada, bob = await connected(), await connected()
    await ada.say("orm")
    await bob.say("hello")
    assert not await is_open()
    await ada.disconnect()
    await bob.disconnect()


async def test_what_database_sync_to_async_has_closed_costs_no_hop(hops: "Hops") -> None:
    socket = await connected()
    for _ in range(3):
        await socket.say("database_sync_to_async")
    await socket.disconnect()
    assert hops.taken() == 3


@pytest.mark.usefixtures("persistent")
async def test_a_persistent_connection_is_looked_after_before_every_message(
    hops: "Hops", is_open: Callable[[], Any]
) -> None:
    socket = await connected()
    await socket.say("orm")
    hops.taken()
    for _ in range(3):
        await socket.say("hello")
    assert hops.taken() == 3
    assert await is_open()
    await socket.disconnect()


async def test_a_connection_out_of_reach_costs_one_hop_and_no_more(hops: "Hops") -> None:
    socket = await connected()
    await socket.say("pool")
    hops.taken()
    await socket.say("hello")
    assert hops.taken() == 1
    await socket.say("hello")
    assert hops.taken() == 0
    await socket.disconnect()


async def test_a_connection_of_a_request_costs_nothing(hops: "Hops") -> None:
    """Django opens it in the thread of the request, and closes it when that ends."""
    socket = await connected()
    async with ThreadSensitiveContext():
        await User.objects.acount()
        hops.taken()
        await socket.say("hello")
        assert hops.taken() == 0
        await sync_to_async(connections.close_all)()
    await socket.disconnect()


async def test_sync_consumers_work_as_before(is_open: Callable[[], Any]) -> None:
    socket = await connected(SyncBank.as_asgi())
    assert await socket.say("how many?") == "0"
    assert not await is_open()
    await socket.disconnect()


async def test_http_consumers_hop_after_a_query_only(hops: "Hops") -> None:
    for body in (b"", b"count"):
        request = Socket(Page.as_asgi(), "http")
        request.inbox.put_nowait({"type": "http.request", "body": body})
        await request.task
    assert hops.taken() == 1
    gone = Socket(Page.as_asgi(), "http")
    gone.inbox.put_nowait({"type": "http.disconnect"})
    await gone.task
    assert hops.taken() == 1


async def test_a_replaced_close_old_connections_is_called_instead(is_open: Callable[[], Any]) -> None:
    """As Channels' communicators replace it, so that a test keeps its connection."""
    socket = await connected()
    await socket.say("orm")
    with mock.patch("channels.db.close_old_connections") as replaced:
        await socket.say("hello")
    assert replaced.call_count == 1
    assert await is_open()
    await socket.disconnect()


def test_the_patch_can_be_applied_and_reverted_again_and_again() -> None:
    for _ in range(2):
        patch.revert()
        theirs = [module.aclose_old_connections for module in MODULES]
        assert patch.aclose_old_connections not in theirs
        assert {function.__module__ for function in theirs} == {"channels.db"}
        patch.apply()
        patch.apply()
        assert [module.aclose_old_connections for module in MODULES] == [patch.aclose_old_connections] * 3
        patch.revert()
        assert [module.aclose_old_connections for module in MODULES] == theirs


def test_reverting_leaves_alone_what_somebody_else_has_put_there() -> None:
    stranger = object()
    theirs, _ours = patch._originals[channels.consumer, "aclose_old_connections"]
    channels.consumer.aclose_old_connections = stranger
    patch.revert()
    assert channels.consumer.aclose_old_connections is stranger
    channels.consumer.aclose_old_connections = theirs


def test_without_channels_there_is_nothing_to_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    patch.revert()
    monkeypatch.setattr(patch, "installed", lambda _module: False)
    patch.apply()
    assert channels.consumer.aclose_old_connections is not patch.aclose_old_connections


def test_the_patch_leaves_channels_db_and_sync_consumers_alone() -> None:
    assert channels.db.aclose_old_connections.__module__ == "channels.db"
    assert isinstance(vars(SyncConsumer)["dispatch"], SyncToAsync)
    assert type(vars(SyncConsumer)["dispatch"]).__module__ == "channels.db"


class TestUsers(TestCase):  # type: ignore[misc]  # Django has no types
    """Rows of a test's transaction, which another connection would not see."""

    @classmethod
    def setUpTestData(cls) -> None:
        User.objects.create(username="ada")

    async def test_a_testcase_sees_its_own_rows(self) -> None:
        await User.objects.acreate(username="bob")
        communicator = WebsocketCommunicator(Bank.as_asgi(), "/")
        await communicator.connect()
        for way in ("orm", "sync_to_async", "hello"):
            await communicator.send_to(text_data=way)
            assert await communicator.receive_from() == way
        await communicator.send_to(text_data="database_sync_to_async")
        assert await communicator.receive_from() == "2"
        await communicator.disconnect()
        assert await User.objects.acount() == 2

    async def test_a_testcase_sees_its_own_rows_without_a_communicator(self) -> None:
        socket = await connected()
        for _ in range(3):
            await socket.say("orm")
            await socket.say("hello")
        await socket.disconnect()
        assert await User.objects.acount() == 1


def test_the_version_of_channels_is_the_one_to_be_tested() -> None:
    assert channels.__version__.startswith(os.environ["BANK_CHANNELS"])
