"""Django's database connections under async code, closed where they were opened and only if they were.

Django keeps connections per thread, so closing one means going to its thread, and that hop costs a hundred times
what the rest of a dispatch costs. Channels makes it for every message. Here Django's ``connection_created`` signal
tells which connections were opened, and where; while none is open, ``connections_open()`` is False and nobody hops.
Without Django in use nothing here imports it, and ``database_sync_to_async`` is ``sync_to_async``.

For a dispatch: ``enter_consumer()`` once, in the task of the consumer, before its first handler; then before each
handler ``if connections_open(): await aclose_old_connections()``.

Not noticed: a connection opened before the first call of ``watch_connections()``, and one that is opened in a thread
where a loop runs (``DJANGO_ALLOW_ASYNC_UNSAFE``), which no hop could reach.
"""

import asyncio
import functools
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any, ParamSpec, TypeAlias, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async

from headrace._forks import call_in_child
from headrace._settings import django_settings, installed

__all__ = [
    "DatabaseSyncToAsync",
    "aclose_old_connections",
    "connections_open",
    "database_sync_to_async",
    "enter_consumer",
    "spare_transactions",
    "watch_connections",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Route: TypeAlias = tuple[object, asyncio.AbstractEventLoop]

_in_consumer: ContextVar[bool] = ContextVar("headrace_in_consumer", default=False)

# The connections (Django's wrappers, one for each thread and database) that may be open, each with its thread and the
# route (see _route) by which work came there. A thread adds its own; any thread may take out what is closed.
_opened: dict[Any, tuple[threading.Thread, _Route]] = {}

# Becomes True once, when the signal is connected.
_watching = False


class DatabaseSyncToAsync(SyncToAsync[_P, _R]):
    """Run a function that uses Django's ORM in a thread; close old connections there before and after it.

    Used as Channels' is: on functions and methods, as a decorator or as a call, with asgiref's arguments
    ``thread_sensitive`` (default True: all such work shares one thread) and ``executor``.

    Differs from Channels: without Django in use it does the same as ``sync_to_async``, and a transaction that encloses
    the call, as that of a ``TestCase``, is not broken off.
    """

    def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
        """Run in the thread what asgiref passes last, in the caller's context, between two closings."""
        *before, child = args
        closing = functools.partial(_between_closings, child)
        return super().thread_handler(loop, *before, closing, **kwargs)  # type: ignore[no-untyped-call]  # asgiref


# Named as a class, used as a decorator.
database_sync_to_async = DatabaseSyncToAsync


async def aclose_old_connections() -> None:
    """Close old connections in the thread that thread-sensitive work of this context runs in, if any was opened.

    Costs a hop to that thread if one may be open, else next to nothing; waits while other work runs there. From then
    on the context counts as a consumer's: what it opens is noticed.

    Differs from Channels: no hop while no connection is open, and no connection is closed in a transaction.
    """
    enter_consumer()
    if connections_open():
        await sync_to_async(_close_here)()


def connections_open() -> bool:
    """Tell whether ``aclose_old_connections()`` could find anything to close; costs next to nothing if not.

    True as long as one of the noticed connections is open, so with persistent connections (``CONN_MAX_AGE``) before
    every handler, as in Channels.
    """
    return bool(_opened) and any(map(_is_open, list(_opened)))


def enter_consumer() -> None:
    """Mark the current context, and all that it starts, as working for a consumer; see ``watch_connections()``."""
    _in_consumer.set(True)
    watch_connections()


def watch_connections() -> None:
    """Notice from now on which connections are opened, if Django is in use.

    Noticed is what runs through ``sync_to_async``, unless it is in a ``ThreadSensitiveContext`` and not of a
    consumer: that is a request, and Django closes its connections itself.

    Cheap to call again; imports ``django.db`` if Django is in use, and never Django otherwise.
    """
    global _watching  # noqa: PLW0603  # the one thing that happens once in a process
    if not _watching and django_settings() is not None:
        signals = import_module("django.db.backends.signals")
        signals.connection_created.connect(_note_opened, dispatch_uid="headrace.db")
        _watching = True


def spare_transactions() -> None:
    """Let ``channels.db`` close no connection in a transaction either; for testing communicators.

    Its own closings run in a thread outside of the context of the task that asked, so that what a communicator sets in
    the context of its application is not seen there; the transaction is.
    """
    if django_settings() is None or not installed("channels"):
        return
    channels_db = import_module("channels.db")
    closing = channels_db.close_old_connections
    if hasattr(closing, "__wrapped__"):
        return

    @functools.wraps(closing)
    def close_outside_of_transactions(*_args: Any, **_kwargs: Any) -> None:
        _close_old_connections()

    setattr(channels_db, "close_old_connections", close_outside_of_transactions)  # noqa: B010  # it has no types


def _between_closings(function: Callable[[], _R]) -> _R:
    """Call a function between two closings, if Django is in use."""
    watch_connections()
    if not _watching:
        return function()
    _close_old_connections()
    try:
        return function()
    finally:
        _close_old_connections()


def _close_old_connections() -> None:
    """Close what is old in this thread, but for connections in a transaction, which closing would break off.

    The only ones that can be in one between handlers enclose the work of a consumer: those of a ``TestCase``.
    """
    for connection in sys.modules["django.db"].connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _close_here() -> None:
    """Close what is old in this thread, and forget the connections to which no hop like this one leads."""
    _close_old_connections()
    here, route = threading.current_thread(), _route()
    for connection, (thread, its_route) in list(_opened.items()):
        if thread is not here and (its_route == route or its_route[1].is_closed() or not thread.is_alive()):
            _opened.pop(connection, None)


def _note_opened(connection: Any, **_signal: object) -> None:
    """Remember a connection that this thread has opened, if a hop of a consumer may lead here."""
    if getattr(SyncToAsync.threadlocal, "main_event_loop", None) is None or asyncio._get_running_loop() is not None:
        return  # not in work of sync_to_async, but in a thread of a WSGI server, say
    context, loop = route = _route()
    if not loop.is_closed() and (context is None or _in_consumer.get()):
        _opened[connection] = threading.current_thread(), route


def _is_open(connection: Any) -> bool:
    """Tell whether a connection is open; forget it if not."""
    if connection.connection is None:
        place = _opened.pop(connection, None)
        # Its thread may have opened it again and added it, just before it was taken out.
        if place is None or connection.connection is None:
            return False
        _opened.setdefault(connection, place)
    return True


def _route() -> _Route:
    """Return what asgiref chooses the thread of thread-sensitive work by, as seen in the thread that runs it.

    Work with one route goes to one thread. So a thread that got there by this route, and is not where a hop by this
    route ends, is one of an executor, and whoever owns that closes its connections.
    """
    return SyncToAsync.thread_sensitive_context.get(None), SyncToAsync.threadlocal.main_event_loop


def _after_fork() -> None:
    """Forget the threads that are not there in a child."""
    here = threading.current_thread()
    for connection in [connection for connection, (thread, _) in _opened.items() if thread is not here]:
        del _opened[connection]


call_in_child(_after_fork)
