"""The handlers of one consumer that run side by side: up to so many, each in a task of its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from headrace.exceptions import StopConsumer

__all__ = ["SideBySide"]


class SideBySide:
    """The handlers of one consumer that run at a time.

    Args:
        most: How many.
    """

    __slots__ = ("_most", "_running", "_tasks")

    _tasks: asyncio.TaskGroup

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: set[asyncio.Task[None]] = set()

    async def during(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what starts the handlers, and wait for all of them.

        Raises:
            BaseException: What the first of them failed with, which has cancelled the others.
        """
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await work
        except BaseExceptionGroup as several:
            # One at a time is what callers of an application expect; the others were told to on_error.
            errors = [error for error in several.exceptions if not isinstance(error, StopConsumer)]
            raise (errors or several.exceptions)[0] from None

    async def room(self) -> None:
        """Wait until another may start."""
        while len(self._running) >= self._most:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def start(self, handling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a handler beside the others."""
        task = self._tasks.create_task(handling)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def ended(self) -> None:
        """Wait until all that run have ended."""
        if self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Cancel all that run."""
        for task in self._running:
            task.cancel()
