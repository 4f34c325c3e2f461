"""headrace._db where Django is in use."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TestCase

from headrace import _db as db

if TYPE_CHECKING:
    from tests.django_app.cases.conftest import Hops

Query = Callable[[], threading.Thread]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool
        pool.submit(connections.close_all)


def test_nothing_is_open_until_something_is_opened() -> None:
    assert not db.connections_open()


async def test_a_query_of_a_consumer_is_noticed_until_its_connection_is_closed(hops: "Hops", query: Query) -> None:
    await db.aclose_old_connections()
    assert hops.taken() == 0
    await sync_to_async(query)()
    assert db.connections_open()
    hops.taken()
    await db.aclose_old_connections()
    assert hops.taken() == 1
    assert not db.connections_open()
    await db.aclose_old_connections()
    assert hops.taken() == 0


@pytest.mark.usefixtures("persistent")
async def test_a_persistent_connection_stays_noticed_and_open(query: Query) -> None:
    db.enter_consumer()
    await sync_to_async(query)()
    await db.aclose_old_connections()
    assert db.connections_open()


async def test_a_connection_that_others_close_is_forgotten(query: Query) -> None:
    db.enter_consumer()
    await sync_to_async(query)()
    await sync_to_async(connections.close_all)()
    assert not db.connections_open()
    await sync_to_async(query)()
    assert db.connections_open()


async def test_database_sync_to_async_closes_before_and_after(
    query: Query, is_open: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    close = BaseDatabaseWrapper.close_if_unusable_or_obsolete

    def closing(wrapper: BaseDatabaseWrapper) -> None:
        closed.append(wrapper.connection is not None)
        close(wrapper)

    monkeypatch.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", closing)
    await sync_to_async(query)()
    await db.database_sync_to_async(query)()
    assert closed == [True, True]
    assert not await is_open()


async def test_database_sync_to_async_closes_after_an_error_too(query: Query, is_open: Callable[[], Any]) -> None:
    @db.database_sync_to_async
    def failing() -> None:
        query()
        raise LookupError("of the function")

    with pytest.raises(LookupError, match="of the function"):
        await failing()
    assert not await is_open()


async def test_database_sync_to_async_closes_in_the_thread_of_an_executor(
    query: Query, pool: ThreadPoolExecutor
) -> None:
    db.enter_consumer()
    thread = await db.database_sync_to_async(query, thread_sensitive=False, executor=pool)()
    assert thread.name.startswith("ThreadPoolExecutor")
    assert pool.submit(lambda: connection.connection).result() is None
    assert not db.connections_open()


async def test_a_thread_that_no_hop_leads_to_is_forgotten_after_one(
    hops: "Hops", query: Query, pool: ThreadPoolExecutor
) -> None:
    db.enter_consumer()
    await sync_to_async(query, thread_sensitive=False, executor=pool)()
    hops.taken()
    await db.aclose_old_connections()
    assert hops.taken() == 1
    assert not db.connections_open()
    assert pool.submit(lambda: connection.connection).result() is not None


async def test_a_thread_that_has_ended_is_forgotten(query: Query) -> None:
    db.enter_consumer()
    async with ThreadSensitiveContext():
        await sync_to_async(query)()
        assert db.connections_open()
    await db.aclose_old_connections()
    assert not db.connections_open()


async def test_in_a_thread_sensitive_context_only_what_a_consumer_opens_is_noticed(query: Query) -> None:
    async with ThreadSensitiveContext():
        await sync_to_async(query)()
        assert not db.connections_open()
        await sync_to_async(connections.close_all)()
        db.enter_consumer()
        thread = await sync_to_async(query)()
        assert db.connections_open()
        await db.aclose_old_connections()
        assert not db.connections_open()
        assert thread is await sync_to_async(threading.current_thread)()


def test_a_thread_without_async_work_is_not_noticed(query: Query, pool: ThreadPoolExecutor) -> None:
    pool.submit(query).result()
    assert not db.connections_open()


def test_a_thread_whose_async_work_is_over_is_not_noticed(query: Query) -> None:
    """The main thread here, as the thread of a WSGI server after a view that used async code."""
    from asgiref.sync import async_to_sync

    async def call() -> threading.Thread:
        return await sync_to_async(threading.current_thread)()

    assert async_to_sync(call)() is threading.current_thread()
    query()
    assert not db.connections_open()


async def test_the_thread_of_a_loop_is_not_noticed(query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    monkeypatch.setattr(SyncToAsync.threadlocal, "main_event_loop", asyncio.get_running_loop(), raising=False)
    query()
    assert not db.connections_open()


async def test_a_connection_that_is_opened_again_while_it_is_being_forgotten_is_kept(query: Query) -> None:
    class Reopened:
        """Closed when it is looked at first, open when it is looked at again."""

        looks = 0

        @property
        def connection(self) -> object:
            self.looks += 1
            return None if self.looks == 1 else object()

    reopened = Reopened()
    db._opened[reopened] = (threading.current_thread(), asyncio.get_running_loop())  # type: ignore[assignment]
    try:
        assert db.connections_open()
        assert reopened in db._opened
    finally:
        del db._opened[reopened]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
async def test_a_child_forgets_the_threads_that_it_does_not_have(query: Query) -> None:
    db.enter_consumer()
    await sync_to_async(query)()
    assert db.connections_open()
    child = os.fork()
    if child == 0:
        os._exit(int(db.connections_open()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert db.connections_open()


async def test_a_transaction_around_the_work_is_not_broken_off(query: Query) -> None:
    def in_transaction() -> None:
        with transaction.atomic():
            query()
            db._close_old_connections()
            query()
        assert connection.connection is not None
        db._close_old_connections()
        assert connection.connection is None

    await sync_to_async(in_transaction)()


async def test_a_transaction_of_one_database_spares_no_connection_to_another(query: Query) -> None:
    def in_transaction() -> None:
        with transaction.atomic():
            query()
            connections["other"].ensure_connection()
            db._close_old_connections()
            assert connection.connection is not None
            assert connections["other"].connection is None
        db._close_old_connections()

    await sync_to_async(in_transaction)()


class TestRows(TestCase):  # type: ignore[misc]  # Django has no types
    async def test_a_testcase_sees_its_own_rows_through_database_sync_to_async(self) -> None:
        await User.objects.acreate(username="ada")
        for _ in range(3):
            assert await db.database_sync_to_async(User.objects.count)() == 1
            await db.aclose_old_connections()
        assert await User.objects.acount() == 1
