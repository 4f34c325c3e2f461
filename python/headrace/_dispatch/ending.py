"""Reasons to end a consumer that do not come from its client: each calls a hook, and closes what that leaves open."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from headrace._dispatch.incoming import Idle
from headrace._layers.close_message import code_and_reason
from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.codes import NOT_LOGGED_IN, SERVICE_RESTART
from headrace._websocket.expiry import Expiry

__all__ = ["END_SECONDS", "ClosedByGroup", "Ending", "Expired", "drained"]

END_SECONDS = CLEAN_UP_TIMEOUT
"""Seconds that a consumer may take until its hook has ended; then it is closed without it."""


class _Session(Protocol):
    closed: bool

    async def call_hook(self, consumer: Any, name: str) -> None: ...
    async def ask(self, method: Any) -> Any: ...


class Ending(Idle):
    """A reason to end a consumer, which it hears of in its turn.

    Args:
        hook: The method that is called.
        code: What the connection is closed with if the hook leaves it open.
        counter: Which counter of the class counts it.
        reason: What the close says beside the code.
        waits_for_layer: Whether its turn is behind what waits of the layer too, and not of the client alone.

    Attributes:
        timer: Cuts the consumer off when its time is over.
        closing: Closes the connection of a consumer that was cut off.
    """

    __slots__ = ("closing", "code", "counter", "hook", "reason", "timer", "waits_for_layer")

    def __init__(self, hook: str, code: int, counter: str, reason: str = "", *, waits_for_layer: bool = False) -> None:
        self.hook = hook
        self.code = code
        self.reason = reason
        self.counter = counter
        self.waits_for_layer = waits_for_layer
        self.timer: asyncio.TimerHandle | None = None
        self.closing: asyncio.Task[None] | None = None

    def fault(self) -> str:
        """Return what a consumer that is cut off has not done in time, for the log."""
        return f"{self.hook}() did not come to its end"

    async def is_due(self, session: _Session) -> bool:
        """Tell whether the reason holds still, before the hook is called and after it."""
        return True

    def is_due_late(self, session: _Session) -> Coroutine[Any, Any, bool] | None:
        """Return what tells whether a consumer that has not ended in time is to be cut off; None if it is."""
        return None

    async def call(self, session: _Session, consumer: Any) -> None:
        """Call the hook."""
        await session.call_hook(consumer, self.hook)

    async def closed(self) -> None:
        """Wait until the connection of a consumer that was cut off is closed."""
        if self.closing is not None:
            await asyncio.wait({self.closing})

    def stop_timer(self) -> None:
        """Let the consumer live: its hook has ended."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Expired(Ending):
    """The ``expires_at`` of the consumer has come, or is to be asked for.

    Args:
        expiry: What was set.
    """

    __slots__ = ("_expiry",)

    def __init__(self, expiry: Expiry) -> None:
        super().__init__("on_expire", NOT_LOGGED_IN, "closed_expired")
        self._expiry = expiry

    async def is_due(self, session: _Session) -> bool:
        """Tell whether the time has come, before the hook is called and after it."""
        return await self._expiry.is_due(session.ask)

    def is_due_late(self, session: _Session) -> Coroutine[Any, Any, bool] | None:
        """Return what tells whether a consumer that has not ended in time is to be cut off; None if it is."""
        return self._expiry.is_due_in_time(session.ask)


class ClosedByGroup(Ending):
    """A message of ``group_close`` has come.

    Args:
        message: The message.
    """

    __slots__ = ()

    def __init__(self, message: Mapping[str, Any]) -> None:
        code, reason = code_and_reason(message)
        super().__init__("group_close", code, "closed_by_group", reason)

    def fault(self) -> str:
        """Return what a consumer that is cut off has not done in time, for the log."""
        return "it did not come to what group_close() has told it"


def drained() -> Ending:
    """Return the reason of a process that ends."""
    return Ending("on_drain", SERVICE_RESTART, "closed_drained", waits_for_layer=True)
