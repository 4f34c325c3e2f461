"""Sync consumers where Django is configured; run by ``test_sync.py``, one case to a process."""

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import django
from asgiref.sync import async_to_sync
from django.conf import settings

CASE = sys.argv[1]
DIRECTORY = tempfile.TemporaryDirectory()
settings.configure(
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(DIRECTORY.name) / "db")}
        if CASE == "closes_in_the_pool"
        else {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    },
    INSTALLED_APPS=["django.contrib.contenttypes"],
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}},
    **({"HEADRACE_SYNC_THREADS": 4} if CASE == "setting" else {}),
)
django.setup()

from django.contrib.contenttypes.models import ContentType  # noqa: E402  # needs the settings
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import TestCase  # noqa: E402

from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from headrace.testing import WebsocketCommunicator  # noqa: E402


class Where(WebsocketConsumer):
    """Tells in which thread it is."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=threading.current_thread().name)


async def ask(*consumers: type[WebsocketConsumer], times: int = 1) -> list[Any]:
    """Let consumers say where they are."""
    answers = []
    for consumer in consumers:
        async with WebsocketCommunicator(consumer, "/") as client:
            for _ in range(times):
                await client.send_to("x")
                answers.append(await client.receive_from(60))
    return answers


def default() -> None:
    """All in one thread, as in Channels."""
    names = asyncio.run(ask(Where, Where, Where))
    assert len(set(names)) == 1, names
    assert not names[0].startswith("headrace"), names


def attribute() -> None:
    """A class opens the pool for itself."""

    class Pooled(Where):
        thread_sensitive = False

    pooled, other = asyncio.run(ask(Pooled, Where))
    assert pooled.startswith("headrace-sync"), pooled
    assert not other.startswith("headrace"), other


def setting() -> None:
    """The setting opens it for all but those that want the one thread."""
    barrier = threading.Barrier(4)

    class Blocking(Where):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            barrier.wait(60)
            super().receive(text_data)

    class Sensitive(Where):
        thread_sensitive = True

    async def all_at_once() -> list[list[Any]]:
        return await asyncio.gather(*[ask(Blocking) for _ in range(4)])

    names = {name for answers in asyncio.run(all_at_once()) for name in answers}
    assert len(names) == 4, names
    assert all(name.startswith("headrace-sync") for name in names), names
    assert not asyncio.run(ask(Sensitive))[0].startswith("headrace")


def rows() -> None:
    """A test case sees its consumer's rows, and the consumer those of the test."""
    call_command("migrate", verbosity=0)

    class Counting(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            found = ContentType.objects.filter(app_label="of the test").count()
            ContentType.objects.create(app_label="of the consumer", model=str(text_data))
            self.send(text_data=str(found))

    class Case(TestCase):  # type: ignore[misc]  # Django has no types
        def test_rows(self) -> None:
            ContentType.objects.create(app_label="of the test", model="a")
            ContentType.objects.create(app_label="of the test", model="b")

            async def talk() -> Any:
                async with WebsocketCommunicator(Counting, "/") as client:
                    await client.send_to("c")
                    return await client.receive_from(60)

            assert async_to_sync(talk)() == "2"
            assert ContentType.objects.filter(app_label="of the consumer").count() == 1

    case = Case("test_rows")
    Case.setUpClass()
    result = case.defaultTestResult()
    case.run(result)
    Case.tearDownClass()
    assert result.wasSuccessful(), (result.failures, result.errors)


def closes_in_the_pool() -> None:
    """Where connections do not persist, none is open after a handler, in whichever thread it ran."""
    seen: list[Any] = []

    class Querying(WebsocketConsumer):
        thread_sensitive = False

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append((threading.current_thread().name, connection.connection is None))
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            seen.append(connection.connection is None)
            self.send(text_data="x")

    async def serve() -> None:
        """As a server does: with a scope and without the communicator, which keeps connections."""
        sent: asyncio.Queue[Any] = asyncio.Queue()
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(Querying()({"type": "websocket", "asgi": {}}, incoming.get, sent.put))
        incoming.put_nowait({"type": "websocket.connect"})
        for _ in range(3):
            incoming.put_nowait({"type": "websocket.receive", "text": "x"})
        for _ in range(4):
            await sent.get()
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task

    asyncio.run(serve())
    assert len(seen) == 6
    assert all(closed for _, closed in seen[::2]), seen
    assert seen[1::2] == [False] * 3, seen
    assert {name[:13] for name, _ in seen[::2]} == {"headrace-sync"}, seen


def no_hop_without_connections() -> None:
    """An async consumer that touches no database never goes to a thread."""
    import headrace._db

    hops = []
    headrace._db._close_here = lambda: hops.append(1)  # to see whether it is called

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data)

    async def serve() -> None:
        sent: asyncio.Queue[Any] = asyncio.Queue()
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(Echo()({"type": "websocket", "asgi": {}}, incoming.get, sent.put))
        incoming.put_nowait({"type": "websocket.connect"})
        for _ in range(10):
            incoming.put_nowait({"type": "websocket.receive", "text": "x"})
        for _ in range(11):
            await sent.get()
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await task

    before = threading.active_count()
    asyncio.run(serve())
    assert hops == []
    assert threading.active_count() == before


globals()[CASE]()
connection.close()
DIRECTORY.cleanup()
print("passed")
