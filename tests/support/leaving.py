"""Holds a thread that leaves ``async_to_sync``: what it waited for has ended, and it has not gone on yet."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from asgiref.current_thread_executor import CurrentThreadExecutor

SECONDS = 60
"""More than it is held for, unless something is wrong."""


class Leaving:
    """A thread that leaves.

    Attributes:
        reached: It is there.
        go_on: Set it to let it go.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the thread that leaves in here."""
        leave = CurrentThreadExecutor.run_until_future

        def leave_and_wait(executor: CurrentThreadExecutor, future: Any) -> None:
            leave(executor, future)
            self.reached.set()
            self.go_on.wait(SECONDS)

        with mock.patch.object(CurrentThreadExecutor, "run_until_future", leave_and_wait):
            yield
