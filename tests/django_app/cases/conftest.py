"""Runs only inside the interpreter that ../test_cases.py starts, where Django is set up."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import django
import pytest

django.setup()

import asgiref.testing  # noqa: E402  # after Django, as in a project
import channels.testing  # noqa: E402
from asgiref.sync import SyncToAsync, sync_to_async  # noqa: E402  # after Django, as in a project
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from tests.support.patience import wait_patiently  # noqa: E402

from headrace.django import _patch  # noqa: E402

wait_patiently(
    asgiref.testing.ApplicationCommunicator, channels.testing.HttpCommunicator, channels.testing.WebsocketCommunicator
)


class Hops:
    """Counts how often work went to another thread."""

    def __init__(self) -> None:
        self.count = 0

    def taken(self) -> int:
        """Return how many there were since the last call."""
        count, self.count = self.count, 0
        return count


@pytest.fixture(scope="session", autouse=True)
def _tables() -> None:
    call_command("migrate", verbosity=0)
    connections.close_all()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Leave no connection to the next test, in this thread, in that of thread-sensitive work, or in one that ended."""
    opened: list[Any] = []

    def note(connection: BaseDatabaseWrapper, **_: Any) -> None:
        # Not the wrapper: the tests see when it is let go.
        opened.append(connection.connection)

    connection_created.connect(note)
    yield
    connection_created.disconnect(note)
    kept = None
    if connection.in_atomic_block:  # of a TestCase, for all tests of the class
        kept = connection.connection
    else:
        connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
    for raw in opened:
        if raw is not kept:
            raw.close()


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Hops:
    hops = Hops()
    handler = SyncToAsync.thread_handler

    def counting(*args: Any, **kwargs: Any) -> Any:
        hops.count += 1
        return handler(*args, **kwargs)  # type: ignore[no-untyped-call]  # asgiref

    monkeypatch.setattr(SyncToAsync, "thread_handler", counting)
    return hops


@pytest.fixture(autouse=True)
def _patched() -> Iterator[None]:
    """Begin and end each test as the app leaves it."""
    _patch.apply()
    yield
    _patch.apply()


@pytest.fixture
def persistent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections that are opened from now on stay open for 10 minutes."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 600)


@pytest.fixture
def is_open() -> Callable[[], Any]:
    """Tell whether the connection of thread-sensitive work is open."""
    return sync_to_async(lambda: connection.connection is not None)


@pytest.fixture
def query() -> Callable[[], threading.Thread]:
    """Use the connection of the thread that this is called in; return the thread."""

    def run() -> threading.Thread:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return threading.current_thread()

    return run
