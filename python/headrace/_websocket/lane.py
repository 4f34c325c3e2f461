"""Lanes: the messages of one source, delivered one after the other to a handler.

Resuming a task costs as much as most handlers do, and most handlers never wait: they send, and the server takes what
they send at once. So while the task of a lane waits at its inbox, the loop's callback that would resume it calls the
attendant instead, in the task's context and as the task. A handler that comes to its end there has cost no resumption;
one that has to wait, or fails, is left to the task to go on with.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    def _enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
    def _leave_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
else:
    # What a task does around each of its steps, so that asyncio.current_task() tells the truth.
    from asyncio.tasks import _enter_task, _leave_task

__all__ = ["Unfinished", "deliver", "stand_in"]


async def deliver(source: AsyncIterator[Any], handle: Callable[[Any], Awaitable[None]]) -> None:
    """Deliver the messages of a source, one after the other, until it ends.

    Args:
        source: An inbox, or what comes from a client. With an attendant it gives ``Unfinished`` messages too.
        handle: Called with each message.
    """
    async for message in source:
        await handle(message)


class Unfinished:
    """A message whose handler was begun in the place of a task, and is left to the task to finish.

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


def stand_in(task: "asyncio.Task[Any]", handler: Callable[[Any], Any], message: Any) -> Unfinished | None:
    """Call the handler of a message in the place of a task: its first step, which most often is all of it.

    Returns:
        None if that was all, or else an ``Unfinished``.
    """
    left, loop = None, task.get_loop()
    _enter_task(loop, task)
    try:
        handling = handler(message)
        if handling.__class__ is not CoroutineType:
            return Unfinished(message, handling)
        # One step. Unlike send(None), a loop makes no exception of the end.
        for pending in handling.__await__():
            left = Unfinished(message, _Begun(handling, pending))
            break
    except BaseException as error:
        left = Unfinished(message, error)
    finally:
        _leave_task(loop, task)
    return left
