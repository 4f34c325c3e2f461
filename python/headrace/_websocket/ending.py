"""How a connection ends for a reason that is not its client's: a hook is called, and what it leaves open is closed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from headrace._core import Inbox
from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.codes import NOT_LOGGED_IN, SERVICE_RESTART
from headrace._websocket.expiry import Expiry
from headrace.exceptions import LayerClosed
from headrace.typing import Message

__all__ = ["DRAINED", "END_SECONDS", "Ending", "Expired", "limit_close"]

END_SECONDS = CLEAN_UP_TIMEOUT
"""Seconds that a connection may take to come to its end; then it is cut off."""


class Ending:
    """A reason to end a connection.

    Args:
        hook: The method of the user's that is called.
        code: What the connection is closed with if the hook leaves it open.
    """

    __slots__ = ("code", "hook")

    def __init__(self, hook: str, code: int) -> None:
        self.hook = hook
        self.code = code

    async def is_due(self, ask: Callable[[Any], Awaitable[Any]]) -> bool:
        """Tell whether the reason holds still.

        Args:
            ask: Calls a method of the user's, and returns its answer.
        """
        return True

    def is_due_late(self, ask: Callable[[Any], Awaitable[Any]]) -> Coroutine[Any, Any, bool] | None:
        """Return what tells whether a connection that has not ended in time is to be cut off; None if it is."""
        return None

    async def run(
        self,
        is_open: Callable[[], bool],
        ask: Callable[[Any], Awaitable[Any]],
        call: Callable[[str], Awaitable[object]],
    ) -> bool:
        """Call the hook, if the reason holds; tell whether the connection ends for it.

        Args:
            is_open: Tells whether the connection is open.
            ask: Calls a method of the user's, and returns its answer.
            call: Calls the hook of that name.
        """
        if not (is_open() and await self.is_due(ask)):
            return False
        await call(self.hook)
        return not is_open() or await self.is_due(ask)


class Expired(Ending):
    """The ``expires_at`` of the connection has come, or is to be asked for.

    Args:
        expiry: What was set.
    """

    __slots__ = ("_expiry",)

    def __init__(self, expiry: Expiry) -> None:
        super().__init__("on_expire", NOT_LOGGED_IN)
        self._expiry = expiry

    async def is_due(self, ask: Callable[[Any], Awaitable[Any]]) -> bool:
        """Tell whether the time has come."""
        return await self._expiry.is_due(ask)

    def is_due_late(self, ask: Callable[[Any], Awaitable[Any]]) -> Coroutine[Any, Any, bool] | None:
        """Return what tells whether the time, which may have been moved, has come."""
        return self._expiry.is_due_in_time(ask)


DRAINED = Ending("on_drain", SERVICE_RESTART)
"""The process ends."""


def limit_close(inbox: Inbox, is_open: Callable[[], bool], cut_off: Callable[[Message, float], object]) -> None:
    """Give a connection its time to come to what ``group_close`` has told it, which waits in its mailbox.

    Args:
        inbox: The inbox of its channel.
        is_open: Tells whether the connection is open.
        cut_off: Called with the message and the seconds that have passed, if the connection has not come to it.
    """
    asyncio.get_running_loop().call_later(END_SECONDS, _take_close, inbox, is_open, cut_off, END_SECONDS)


def _take_close(
    inbox: Inbox, is_open: Callable[[], bool], cut_off: Callable[[Message, float], object], seconds: float
) -> None:
    message = None
    if is_open():
        with suppress(LayerClosed):
            message = inbox.take_close()
    if message is not None:
        cut_off(message, seconds)
