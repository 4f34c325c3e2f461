"""Small tools that Channels offers under the same names."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

__all__ = ["await_many_dispatch", "name_that_thing"]

logger: logging.Logger = logging.getLogger(__name__)


def name_that_thing(thing: Any) -> str:
    """Return the dotted name of a class or function, or of the class of any other object.

    A method bound to a class is named by its class, as in Channels. Differs in that a method bound to an instance and
    the class of a built-in function are named as well, where Channels raises ``AttributeError``.
    """
    if hasattr(thing, "mock_calls"):
        return "<mock>"
    if isinstance(thing, MethodType):
        owner = thing.__self__
        return name_that_thing(owner) if isinstance(owner, type) else f"{name_that_thing(owner)}.{thing.__name__}"
    named = thing if isinstance(thing, type | FunctionType) else type(thing)
    return f"{named.__module__}.{named.__name__}"


async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[Any]]], dispatch: Callable[[Any], Awaitable[object]]
) -> None:
    """Hand what several sources return to one coroutine function, one at a time, until something raises.

    When several sources are ready, the one that stands first in the list goes first. A source is asked again only when
    what it returned last has been dispatched. A slow dispatch delays all sources; nothing is dropped until the end,
    when each source is cancelled and what it may hold by then is lost.

    Differs from Channels' in that an error that ends it is never replaced by another source's: that one is logged.

    Args:
        consumer_callables: Called without arguments for the next item; each returns an awaitable.
        dispatch: Gets each item.

    Raises:
        Exception: Whatever a source or the dispatch raises.
    """
    tasks: list[asyncio.Future[Any]] = []
    ended: asyncio.Future[Any] | None = None
    try:
        for source in consumer_callables:
            tasks.append(asyncio.ensure_future(source()))
        while True:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for index, task in enumerate(tasks):
                if task.done():
                    ended = task
                    await dispatch(task.result())
                    ended = None
                    tasks[index] = asyncio.ensure_future(consumer_callables[index]())
    finally:
        await _cancel([task for task in tasks if task is not ended])


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what still runs and wait until it has ended; log what it raised."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a source failed while the dispatch ended for another reason", exc_info=error)
