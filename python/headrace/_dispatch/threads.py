"""Where the handlers of sync consumers run: in the one thread that Django's connections belong to, or in a pool.

Django opens a connection per thread, and its tests rely on all sync code of a test being run in one; so with Django
configured the default is asgiref's thread-sensitive thread, where one handler of the process runs at a time. Without
Django nothing ties handlers together, and they run in a pool of threads, each consumer's own still one after the other.
"""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

from asgiref.sync import AsyncToSync

from headrace._db import DatabaseSyncToAsync
from headrace._forks import call_in_child
from headrace._layers.base import check_capacity
from headrace._settings import django_settings

__all__ = ["SyncPool", "call_in_thread", "current_executor", "restore_executor", "sync_pool", "uses_pool"]

THREADS = 32
"""Threads of the pool, unless the settings say otherwise; they are started as they are needed."""


class SyncPool:
    """The threads that run the handlers of sync consumers, of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size: int | None = None
        self._executor: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int | None:
        """Threads that ``resize`` or ``HEADRACE_SYNC_THREADS`` asks for; None if neither does."""
        if self._size is not None:
            return self._size
        in_settings = getattr(django_settings(), "HEADRACE_SYNC_THREADS", None)
        return None if in_settings is None else check_capacity("HEADRACE_SYNC_THREADS", in_settings)

    def resize(self, threads: int) -> None:
        """Use so many threads from now on; handlers that run are not disturbed.

        Raises:
            ValueError: Not a positive number.
        """
        self._size = check_capacity("threads", threads)
        with self._lock:
            old, self._executor = self._executor, None
        if old is not None:
            old.shutdown(wait=False)

    def executor(self) -> ThreadPoolExecutor:
        """Return the pool, made when it is first needed."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.size or THREADS, thread_name_prefix="headrace-sync")
            return self._executor

    def forget(self) -> None:
        """In the child of a fork: the threads were not inherited."""
        self._lock = threading.Lock()
        self._executor = None


sync_pool: SyncPool = SyncPool()

call_in_child(sync_pool.forget)


def uses_pool(thread_sensitive: bool | None) -> bool:
    """Tell whether a consumer's handlers run in the pool.

    Args:
        thread_sensitive: What its class says; None leaves it to the settings: the pool without Django, and with it if
            ``HEADRACE_SYNC_THREADS`` is set.
    """
    if thread_sensitive is not None:
        return not thread_sensitive
    return django_settings() is None or sync_pool.size is not None


async def call_in_thread(pooled: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread, between two closings of old database connections if Django is in use.

    Cancelling waits for the function to return, since a thread cannot be stopped; a function that waits for the event
    loop, in ``async_to_sync``, is told.

    Args:
        pooled: In the pool, or in the thread that thread-sensitive code shares.
        function: The function.
        arguments: What to call it with.
    """
    task = asyncio.current_task()
    cancels = task.cancelling() if task is not None else 0
    place = _Pooled() if pooled else None
    executor = current_executor()
    try:
        result = await _in_thread(place)(function, *arguments)
    except asyncio.CancelledError:
        restore_executor(executor)
        await _despite_cancel(place.left() if place is not None else _in_thread(None)(_nothing))
        raise
    # asgiref forgets a cancel if the function then returned.
    if task is not None and task.cancelling() > cancels:
        raise asyncio.CancelledError
    return result


def current_executor() -> Any:
    """Return where asgiref sends the thread-sensitive work of this context; None if that is not said."""
    return getattr(AsyncToSync.executors, "current", None)


def restore_executor(executor: Any) -> None:
    """Send the thread-sensitive work of this context where it went before a cancel.

    When a call in a thread is cancelled, asgiref takes over the context of the thread. If the function was in
    ``async_to_sync`` just then, that context has an executor which ends with the call: the next call would run in the
    midst of the function, or be refused.
    """
    if current_executor() is not executor:
        AsyncToSync.executors.current = executor


class _Pooled:
    """The executor of one call: it knows when the call has left the pool."""

    def __init__(self) -> None:
        self._future: Future[Any] | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Run in the pool."""
        self._future = sync_pool.executor().submit(function, *arguments)
        return self._future

    async def left(self) -> None:
        """Wait until the call has returned, or will not be made."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        if self._future is not None:
            self._future.add_done_callback(lambda _future: loop.call_soon_threadsafe(ended.set))
            await ended.wait()


def _in_thread(place: _Pooled | None) -> DatabaseSyncToAsync[..., Any]:
    if place is None:
        return _sensitive_call()
    return DatabaseSyncToAsync(_call, thread_sensitive=False, executor=cast("ThreadPoolExecutor", place))


@functools.cache
def _sensitive_call() -> DatabaseSyncToAsync[..., Any]:
    return DatabaseSyncToAsync(_call)


async def _despite_cancel(waiting: Awaitable[Any]) -> None:
    """Wait, however often this task is cancelled meanwhile."""
    task = asyncio.ensure_future(waiting)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _nothing() -> None:
    """Show that the thread is free: what was there before has returned."""
