"""Handlers that run in the place of a task that waits.

Resuming a consumer's task costs as much as most handlers do, and most handlers never wait: they send, and the server
takes what they send at once. So while the task waits at its inbox, the loop's callback that would resume it calls the
attendant instead, in the task's context and as the task. A handler that comes to its end there has cost no resumption;
one that has to wait, or fails, is left to the task to go on with.

It stands in only where nothing else is to be decided: nothing of the client waits, nothing has to be closed first.
"""

from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from headrace._db import connections_open
from headrace._dispatch.handlers import FORWARD

if TYPE_CHECKING:
    import asyncio

    from headrace._dispatch.life import Life

    def _enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
    def _leave_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
else:
    # What a task does around each of its steps, so that asyncio.current_task() tells the truth.
    from asyncio.tasks import _enter_task, _leave_task

__all__ = ["Rest", "begin", "stand_in"]


class Rest:
    """What is left to a task of a handler that was begun in its place.

    Attributes:
        message: What is being handled.
        cancelled: The cancel that the handler has asked for before it waited, if it has: it meets it where it waits.
    """

    __slots__ = ("_left", "cancelled", "message")

    def __init__(self, message: Any, left: Awaitable[Any] | BaseException) -> None:
        self.message = message
        self.cancelled: BaseException | None = None
        self._left = left

    async def finish(self) -> None:
        """Go on with the handler, or raise what it raised."""
        left = self._left
        if isinstance(left, BaseException):
            raise left
        if self.cancelled is not None:
            if not isinstance(left, _Begun):
                raise self.cancelled
            left.cancel(self.cancelled)
        await left


class _Begun:
    """A coroutine that has been begun, and the future that it waits for."""

    __slots__ = ("_cancelled", "_coroutine", "_pending")

    def __init__(self, coroutine: Any, pending: Any) -> None:
        self._coroutine = coroutine
        self._pending = pending
        # To be thrown in at once.
        self._cancelled: BaseException | None = None

    def cancel(self, error: BaseException) -> None:
        """Cancel it as a task would: what it waits for, or else itself."""
        if self._pending is None or not self._pending.cancel():
            self._cancelled = error

    def __await__(self) -> Generator[Any, Any, Any]:
        pending = self._pending
        while True:
            try:
                if self._cancelled is not None:
                    raise self._cancelled
                value = yield pending
            except BaseException as error:
                self._cancelled = None
                go_on, argument = self._coroutine.throw, error
            else:
                go_on, argument = self._coroutine.send, value
            try:
                pending = go_on(argument)
            except StopIteration as stop:
                return stop.value


def begin(life: "Life", message: Any) -> Any:
    """Handle a message in the place of a consumer's task.

    Returns:
        None if that is all: the loop has a turn before the next message, which may cancel a task that the handler has
        started. True if the next message may follow at once, because no handler was called. Else a ``Rest``, or the
        message if it is the task's to handle.
    """
    session, intake, task = life._session, life._intake, life._task
    if session.closed or intake.client or intake.carried or task is None or connections_open():
        return message
    kind = message.get("type")
    name = session.shared.handlers.of_layer.get(kind) if kind.__class__ is str else None
    if name is None or not (life._direct or name is FORWARD):
        return message
    handler = session.forward if name is FORWARD else getattr(life._consumer, name)
    left = stand_in(task, handler, message)
    return True if name is FORWARD and left is None else left


def stand_in(task: "asyncio.Task[Any]", handler: Callable[[Any], Any], message: Any) -> Rest | None:
    """Call the handler of a message in the place of a task: its first step, which most often is all of it.

    Returns:
        None if that was all, or else a ``Rest``.
    """
    left, loop = None, task.get_loop()
    _enter_task(loop, task)
    try:
        handling = handler(message)
        if handling.__class__ is not CoroutineType:
            return Rest(message, handling)
        # One step. Unlike send(None), a loop makes no exception of the end.
        for pending in handling.__await__():
            left = Rest(message, _Begun(handling, pending))
            break
    except BaseException as error:
        left = Rest(message, error)
    finally:
        _leave_task(loop, task)
    return left
