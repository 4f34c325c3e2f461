"""Event loops of every kind, and which of them the tests of a folder run on."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

NewLoop = Callable[[], asyncio.AbstractEventLoop]

EAGER = "eager"
"""The name of the loop whose tasks start eagerly."""


class DebugLoop(asyncio.SelectorEventLoop):
    """A loop in debug mode, which checks that it is used from its own thread. The runner would switch it off.

    Of steps that take long it says nothing: on a busy machine any may.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slow_callback_duration = float("inf")

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(True)


def eager_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose tasks take their first step when they are made."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


def cancels_after_a_group_failed() -> bool:
    """Tell whether a task of the running loop is cancelled once more after a group of tasks in it has failed at once.

    On Python 3.12 ``Task.uncancel()`` leaves the cancel of a task that runs, and an eager child fails while it does.
    """
    eager = getattr(asyncio, "eager_task_factory", None)
    return sys.version_info < (3, 13) and asyncio.get_running_loop().get_task_factory() is eager is not None


class ForeignTask(asyncio.tasks._PyTask):  # type: ignore[name-defined,misc]
    """A task that is not that of asyncio's C code, as a library of tasks may bring one."""

    if sys.version_info >= (3, 14):
        # The Python task no longer tells the C code which task runs, so that current_task() would be None in it.
        def _Task__step(self, exc: BaseException | None = None) -> None:
            loop = self.get_loop()
            asyncio._enter_task(loop, self)
            try:
                super()._Task__step(exc)
            finally:
                asyncio._leave_task(loop, self)


def foreign_tasks_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose tasks are not those of asyncio's C code."""

    def task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        return ForeignTask(coroutine, loop=loop, **options)

    loop = asyncio.new_event_loop()
    loop.set_task_factory(task)
    return loop


USUAL: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop}
"""What every asynchronous test runs on: asyncio's loop and, where there are eager tasks, one with those."""

if sys.version_info >= (3, 12):
    USUAL[EAGER] = eager_loop

ON_ONE = "one_loop"
"""The mark of a test whose outcome no loop can change: what it is about happens before a loop is asked."""


def loops_of(item: pytest.Item, usual: Mapping[str, NewLoop]) -> Mapping[str, NewLoop]:
    """Give the loops that a test is run on: the usual ones of its folder, or one."""
    return {"asyncio": usual["asyncio"]} if item.get_closest_marker(ON_ONE) else usual


ALL: dict[str, NewLoop] = {
    **USUAL,
    "debug": DebugLoop,
    "uvloop": uvloop.new_event_loop,
    "foreign-tasks": foreign_tasks_loop,
}
"""For what depends on how a loop resumes its tasks."""
