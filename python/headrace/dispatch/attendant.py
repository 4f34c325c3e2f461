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

from headrace.db import connections_open
from headrace.dispatch.handlers import FORWARD

if TYPE_CHECKING:
    import asyncio

    from headrace.dispatch.life import Consumer

    def _enter_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
    def _leave_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None: ...
else:
    # What a task does around each of its steps, so that asyncio.current_task() tells the truth.
    from asyncio.tasks import _enter_task, _leave_task

__all__ = ["Rest", "make_attendant"]


class Rest:
    """What is left to a task of a handler that was begun in its place.

    Attributes:
        message: What is being handled.
    """

    __slots__ = ("_left", "message")

    def __init__(self, message: Any, left: Awaitable[Any] | BaseException) -> None:
        self.message = message
        self._left = left

    async def finish(self) -> None:
        """Go on with the handler, or raise what it raised."""
        left = self._left
        if isinstance(left, BaseException):
            raise left
        await left


class _Begun:
    """A coroutine that has been begun, and the future that it waits for."""

    __slots__ = ("_coroutine", "_pending")

    def __init__(self, coroutine: Any, pending: Any) -> None:
        self._coroutine = coroutine
        self._pending = pending

    def __await__(self) -> Generator[Any, Any, Any]:
        pending = self._pending
        while True:
            try:
                value = yield pending
            except BaseException as error:
                go_on, argument = self._coroutine.throw, error
            else:
                go_on, argument = self._coroutine.send, value
            try:
                pending = go_on(argument)
            except StopIteration as stop:
                return stop.value


def make_attendant(
    consumer: "Consumer",
    waiting: tuple[list[Any], list[Any]],
    direct: bool,
    task: "asyncio.Task[Any]",
) -> Callable[[Any], Any]:
    """Return what is to be called with a message while a consumer's task waits.

    Args:
        consumer: The consumer.
        waiting: The lists of messages that go before any of the inbox.
        direct: Whether its handlers may be called; else messages are only forwarded.
        task: Its task.
    """
    client, carried = waiting
    names = consumer._handlers.of_layer
    loop = task.get_loop()

    def attend(message: Any) -> Any:
        """Handle a message; return what is left of that, or the message if it is the task's to handle."""
        if consumer._closed or client or carried or connections_open():
            return message
        kind = message.get("type")
        name = names.get(kind) if kind.__class__ is str else None
        if name is None or not (direct or name is FORWARD):
            return message
        left = None
        _enter_task(loop, task)
        try:
            handling = getattr(consumer, name)(message)
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

    return attend
