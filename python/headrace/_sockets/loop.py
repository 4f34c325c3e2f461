"""The event loop of socket servers in programs that have none: one for the process, in a thread of its own."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from headrace._forks import call_in_child

__all__ = ["BackgroundLoop", "background_loop", "begun", "ensure_running", "taken"]

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")

_EXIT_TIMEOUT = 1.0
"""Seconds that the end of the process waits for the loop to end."""


class BackgroundLoop(asyncio.SelectorEventLoop):
    """A loop that any thread may call, also by ``call_soon``.

    A program without a loop of its own feeds its servers by what looks harmless, ``queue.put_nowait`` in the main
    thread. That resolves a future of this loop, which calls back by ``call_soon``; an ordinary loop would go on
    sleeping, and look at it when something else wakes it.

    Attributes:
        is_ending: The process ends: no thread can be started any more to run a hook in.
    """

    is_ending = False
    _home: int | None = None

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Have a function called in the loop's next round; from any thread."""
        if self._home is None or threading.get_ident() == self._home:
            return super().call_soon(callback, *args, context=context)
        return self.call_soon_threadsafe(callback, *args, context=context)

    def live(self) -> None:
        """Run in this thread, until the process ends."""
        asyncio.set_event_loop(self)
        self._home = threading.get_ident()
        try:
            self.run_forever()
        finally:
            self._cancel_all()
            self.close()

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks, timeout=_EXIT_TIMEOUT))


# A loop keeps no task that nobody else keeps.
_begun: set[asyncio.Task[Any]] = set()


def begun(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Begin a task that nobody has to wait for, in the running loop."""
    task = asyncio.create_task(coroutine)
    _begun.add(task)
    task.add_done_callback(_begun.discard)
    return task


async def taken(queue: asyncio.Queue[Any]) -> Any:
    """Take from a queue that other threads put into.

    ``Queue.get`` looks whether there is something and then says that it waits, and what is put in between wakes nobody.
    So it is looked at again when it waits.
    """
    while True:
        getting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.sleep(0)
            if getting.done() or queue.empty():
                return await getting
        finally:
            getting.cancel()
        await asyncio.wait({getting})
        if not getting.cancelled():
            return getting.result()


_loops: dict[int, tuple[BackgroundLoop, threading.Thread]] = {}
"""The loop of this process, by the process; that of a parent is kept and never looked at."""

# Also taken by a signal handler, whose thread may have it already.
_lock = threading.RLock()


def background_loop() -> BackgroundLoop:
    """Return the loop of this process's servers; begin it the first time. Its thread does not keep the process."""
    process = os.getpid()
    with _lock:
        if process not in _loops:
            loop = BackgroundLoop()
            thread = threading.Thread(target=loop.live, name="headrace-sockets", daemon=True)
            _loops[process] = loop, thread
            thread.start()
        return _loops[process][0]


def ensure_running(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop that nobody runs in a thread of its own."""
    with _lock:
        if not loop.is_running():
            started = threading.Event()
            loop.call_soon_threadsafe(started.set)
            threading.Thread(target=loop.run_forever, name="headrace-sockets-loop", daemon=True).start()
            started.wait()


def _at_exit() -> None:
    loop, thread = _loops.get(os.getpid(), (None, None))
    if loop is not None and thread is not None and thread.is_alive():
        loop.is_ending = True
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_EXIT_TIMEOUT)


def _after_fork() -> None:
    """Replace the lock in a child: a thread that is not there may hold it."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


atexit.register(_at_exit)
call_in_child(_after_fork)
