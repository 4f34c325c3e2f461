"""How a socket ends for a reason that does not come from its client: a hook is called, and what it leaves open closed.

The hook has a task of its own, as a hook of the client's frames may be at work for long.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from headrace._sockets.closing import Closing
from headrace._sockets.hook_calls import HookCalls
from headrace._websocket.ending import DRAINED, END_SECONDS, Ending, Expired
from headrace._websocket.expiry import ExpiresAt, Expiry, of_instance

__all__ = ["ask_expiry", "begin_expiry", "cut_off", "end_for", "watch_expiry"]

_logger = logging.getLogger("headrace.sockets")

# asyncio keeps no task.
_ending: set[asyncio.Task[None]] = set()
# Those that are cut off from outside, by their connection.
_timed: "dict[_Connection, asyncio.Task[None]]" = {}


class _Connection(Protocol):
    """What is asked of a socket."""

    calls: HookCalls
    closing: Closing

    def is_open(self) -> bool: ...
    def own_loop(self) -> asyncio.AbstractEventLoop: ...
    async def settled(self) -> None: ...


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
        _start(_end(connection, Expired(expiry), END_SECONDS))


def watch_expiry(connection: _Connection, expiry: Expiry) -> None:
    """Have a function called when the time has come; callable from any thread."""
    expiry.watch(connection.own_loop(), lambda: _start(_end(connection, Expired(expiry), END_SECONDS)))


def end_for(connection: _Connection, ending: Ending) -> None:
    """Call the hook of a reason to end, and close the socket if that leaves it open or fails; nothing if it is at work.

    What was sent to the socket before is handled before the hook, and what comes while it is at work before the close.
    The time for all that is over at ``cut_off``.
    """
    if connection in _timed:
        return
    task = _start(_end(connection, ending, None))
    _timed[connection] = task
    task.add_done_callback(lambda _task: _timed.pop(connection, None))


def cut_off(connection: _Connection, ending: Ending, seconds: float) -> None:
    """Cancel the hook of ``end_for``, if it has not ended."""
    if connection.is_open():
        _report_stuck(connection, ending, seconds)
    if (task := _timed.pop(connection, None)) is not None:
        task.cancel()


def _report_stuck(connection: _Connection, ending: Ending, seconds: float) -> None:
    _logger.error("%r: %s() did not end in %s s, so it is closed without it", connection, ending.hook, seconds)
    connection.calls.errors += 1


def _start(ending: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.ensure_future(ending)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    return task


async def _end(connection: _Connection, ending: Ending, seconds: float | None) -> None:
    calling = asyncio.ensure_future(_call(connection, ending))
    # Not with a timeout around it: a hook in a thread keeps its task, however it is cancelled.
    try:
        await asyncio.wait({calling}, timeout=seconds)
        while not calling.done() and (late := ending.is_due_late(connection.calls.call_method)) and not await late:
            # It has set a later time, and is at work still.
            await asyncio.wait({calling}, timeout=seconds)
    finally:
        calling.cancel()
    if not calling.done() and seconds is not None:
        _report_stuck(connection, ending, seconds)
    if (not calling.done() or calling.result()) and connection.is_open():
        await connection.closing.close_here(ending.code)


async def _call(connection: _Connection, ending: Ending) -> bool:
    """Call the hook, if that is due; tell whether the socket is to be closed behind it."""

    async def call(hook: str) -> None:
        if ending is DRAINED:
            await connection.settled()
        await connection.calls.call(hook)
        if ending is DRAINED:
            await connection.settled()

    try:
        return await ending.run(connection.is_open, connection.calls.call_method, call)
    except Exception:
        connection.calls.note_error(ending.hook)
        return True
