"""headrace._db without Django; with it, see tests/django_app/cases/test_db.py."""

import asyncio
import inspect
import subprocess
import sys
import threading
import timeit
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import SyncToAsync

from headrace import _db as db

setting: ContextVar[str] = ContextVar("setting", default="unset")


class Thing:
    @db.database_sync_to_async
    def where(self, number: int) -> tuple["Thing", int, threading.Thread]:
        """Tell."""
        return self, number, threading.current_thread()


async def test_it_runs_in_the_one_thread_of_thread_sensitive_work() -> None:
    run = db.database_sync_to_async(threading.current_thread)
    first, second = await asyncio.gather(run(), run())
    assert first is second
    assert first is not threading.current_thread()


async def test_it_decorates_methods() -> None:
    thing: Any = Thing()  # asgiref types a method as if it were not bound
    found, number, thread = await thing.where(3)
    assert (found, number) == (thing, 3)
    assert thread is not threading.current_thread()
    assert Thing.where.__doc__ == "Tell."


async def test_it_takes_an_executor() -> None:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="own") as executor:
        run = db.database_sync_to_async(threading.current_thread, thread_sensitive=False, executor=executor)
        assert (await run()).name.startswith("own")


async def test_it_sees_and_sets_the_context_variables_of_its_caller() -> None:
    def change() -> str:
        before = setting.get()
        setting.set("changed")
        return before

    setting.set("set")
    assert await db.database_sync_to_async(change)() == "set"
    assert setting.get() == "changed"


async def test_an_error_reaches_the_caller() -> None:
    def fail() -> None:
        raise LookupError("of the function")

    with pytest.raises(LookupError, match="of the function"):
        await db.database_sync_to_async(fail)()


def test_a_coroutine_function_is_refused() -> None:
    async def coroutine() -> None: ...

    with pytest.raises(TypeError, match=r"^sync_to_async can only be applied to sync functions\.$"):
        db.database_sync_to_async(coroutine)


def test_it_is_a_class_and_what_it_makes_is_a_coroutine_function() -> None:
    assert db.database_sync_to_async is db.DatabaseSyncToAsync
    made = db.database_sync_to_async(len)
    assert isinstance(made, SyncToAsync)
    assert inspect.iscoroutinefunction(made.__call__)


async def test_nothing_hops_without_django(monkeypatch: pytest.MonkeyPatch) -> None:
    def hop(*_arguments: Any) -> None:
        raise RuntimeError("a hop")

    monkeypatch.setattr(SyncToAsync, "thread_handler", hop)
    db.enter_consumer()
    assert not db.connections_open()
    await db.aclose_old_connections()


def test_asking_whether_a_connection_is_open_costs_next_to_nothing() -> None:
    """The bound is what the dispatch pays for each message; measured 30 ns."""
    rounds = 20_000
    seconds = min(timeit.repeat(db.connections_open, number=rounds, repeat=20)) / rounds
    assert seconds < 500e-9


PROGRAM = """
import asyncio, sys
from headrace import _db as db

async def main():
    db.enter_consumer()
    assert await db.database_sync_to_async(len)("abc") == 3
    await db.aclose_old_connections()
    print(sorted({"django", "channels"} & {name.partition(".")[0] for name in sys.modules}))

asyncio.run(main())
"""


def test_django_is_not_imported() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert process.stderr == ""
    # Its exceptions are taken from channels where that is installed; nothing of Django.
    assert "django" not in process.stdout
