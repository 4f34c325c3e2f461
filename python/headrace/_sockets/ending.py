"""How a socket ends for a reason that does not come from its client: a hook is called, and what it leaves open closed.

The hook has a task of its own, as a hook of the client's frames may be at work for long.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.codes import NOT_LOGGED_IN
from headrace._websocket.expiry import ExpiresAt, Expiry, of_instance

__all__ = ["END_SECONDS", "ask_expiry", "begin_expiry", "cut_off", "end_for", "watch_expiry"]

_logger = logging.getLogger("headrace.sockets")

END_SECONDS = CLEAN_UP_TIMEOUT
"""Seconds that the hook may take; then the socket is closed without it."""

# asyncio keeps no task.
_ending: set[asyncio.Task[None]] = set()
# Those that are cut off from outside, by their connection.
_timed: "dict[_Connection, asyncio.Task[None]]" = {}


class _Connection(Protocol):
    """What is asked of a socket."""

    def is_open(self) -> bool: ...
    def own_loop(self) -> asyncio.AbstractEventLoop: ...
    async def call_method(self, method: Any) -> Any: ...
    async def call_hook(self, name: str) -> None: ...
    async def settled(self) -> None: ...
    async def close_with(self, code: int) -> None: ...
    def note_failure(self, hook: str) -> None: ...
    def note_stuck(self) -> None: ...


def begin_expiry(connection: _Connection, server: object, said: ExpiresAt | None) -> None:
    """Have a socket end when its ``expires_at`` comes; to be called in its loop when it has been accepted.

    Not before ``connect`` is the time asked for, where it is a method that says it: see ``ask_expiry``.

    Args:
        connection: Its connection.
        server: The server.
        said: What its class says, if it says anything.
    """
    expiry = of_instance(server) if said is None else said.begin(server)
    if expiry is not None:
        watch_expiry(connection, expiry)


def ask_expiry(connection: _Connection, server: object) -> None:
    """Ask the method that says when a socket ends, if it has one; to be called in its loop behind ``connect``."""
    if (expiry := of_instance(server)) is not None and expiry.ask is not None:
        _start(_expire(connection, expiry))


def watch_expiry(connection: _Connection, expiry: Expiry) -> None:
    """Have a function called when the time has come; callable from any thread."""
    expiry.watch(connection.own_loop(), lambda: _start(_expire(connection, expiry)))


def end_for(connection: _Connection, hook: str, code: int) -> None:
    """Call a hook, and close the socket if that leaves it open or fails; nothing if that is under way.

    What was sent to the socket before is handled before the hook, and what comes while it is at work before the close.
    The time for all that is over at ``cut_off``.
    """
    if connection in _timed:
        return
    task = _start(_end(connection, hook, code, None, None))
    _timed[connection] = task
    task.add_done_callback(lambda _task: _timed.pop(connection, None))


def cut_off(connection: _Connection, hook: str, seconds: float) -> None:
    """Cancel the hook of ``end_for``, if it has not ended."""
    if connection.is_open():
        _report_stuck(connection, hook, seconds)
    if (task := _timed.pop(connection, None)) is not None:
        task.cancel()


def _report_stuck(connection: _Connection, hook: str, seconds: float) -> None:
    _logger.error("%r: %s() did not end in %s s, so it is closed without it", connection, hook, seconds)
    connection.note_stuck()


def _start(ending: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.ensure_future(ending)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    return task


async def _expire(connection: _Connection, expiry: Expiry) -> None:
    await _end(connection, "on_expire", NOT_LOGGED_IN, END_SECONDS, expiry)


async def _end(connection: _Connection, hook: str, code: int, seconds: float | None, expiry: Expiry | None) -> None:
    calling = asyncio.ensure_future(_call(connection, hook, expiry))
    # Not with a timeout around it: a hook in a thread keeps its task, however it is cancelled.
    try:
        await asyncio.wait({calling}, timeout=seconds)
        while not calling.done() and expiry is not None and not await expiry.is_due_in_time(connection.call_method):
            # It has set a later time, and is at work still.
            await asyncio.wait({calling}, timeout=seconds)
    finally:
        calling.cancel()
    if not calling.done() and seconds is not None:
        _report_stuck(connection, hook, seconds)
    if (not calling.done() or calling.result()) and connection.is_open():
        await connection.close_with(code)


async def _call(connection: _Connection, hook: str, expiry: Expiry | None) -> bool:
    """Call the hook, if that is due; tell whether the socket is to be closed behind it."""

    async def is_due() -> bool:
        return expiry is None or await expiry.is_due(connection.call_method)

    try:
        if not connection.is_open() or not await is_due():
            return False
        if expiry is None:
            await connection.settled()
        await connection.call_hook(hook)
        if expiry is None:
            await connection.settled()
        return expiry is None or (connection.is_open() and await is_due())
    except Exception:
        connection.note_failure(hook)
        return True
