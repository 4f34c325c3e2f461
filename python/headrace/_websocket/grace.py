"""The time that is left to what still works for a client that has gone."""

import asyncio
import math
from collections.abc import Callable

from headrace._websocket.closing import CLEAN_UP_TIMEOUT

__all__ = ["GracePeriod"]


class GracePeriod:
    """The grace period of one connection, in its loop. A timer ends the handler that is at work when it is over.

    Attributes:
        began: When it began, in the loop's time; None before.
        timer: Runs while the client has gone and a handler may be at work. Looked at before each handler, so it is no
            method.
    """

    __slots__ = ("began", "timer")

    def __init__(self) -> None:
        self.began: float | None = None
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float | None, expire: Callable[[], object]) -> None:
        """Begin it, or begin it anew for the next handler.

        Args:
            seconds: How long it is; None for any time.
            expire: Called when it is over.
        """
        self.end()
        if seconds is not None and seconds != math.inf:
            loop = asyncio.get_running_loop()
            self.began = loop.time()
            self.timer = loop.call_later(seconds, expire)

    def expire(self) -> None:
        """Note that it is over, also if the loop's timer was a moment early."""
        self.began = -math.inf

    def watch(self, report: Callable[[], object]) -> None:
        """Have a function called if the handler, which has been cancelled, does not end in ``CLEAN_UP_TIMEOUT``."""
        self.timer = asyncio.get_running_loop().call_later(CLEAN_UP_TIMEOUT, report)

    def end(self) -> None:
        """Stop the timer: the handler has ended."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def is_over(self, now: float, seconds: float | None) -> bool:
        """Tell whether it is over; if it has not begun, it begins now.

        Args:
            now: The loop's time.
            seconds: How long it is; None for any time.
        """
        if self.began is None:
            self.began = now
        return seconds is not None and now - self.began >= seconds
