"""What ends a consumer without its client, as an event that has its turn among what comes in."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from headrace._dispatch.incoming import Idle
from headrace._layers.close_message import code_and_reason
from headrace._websocket.ending import DRAINED, END_SECONDS, Ending

__all__ = ["EndingEvent", "closed_by_group"]

_COUNTERS = {"on_expire": "closed_expired", "on_drain": "closed_drained", "group_close": "closed_by_group"}
"""Which counter of the class counts the consumers that end for what."""

CutOff: TypeAlias = "Callable[[EndingEvent, float], object]"


class EndingEvent(Idle):
    """A reason to end a consumer, which it hears of in its turn.

    Args:
        ending: The reason.
        reason: What the close says beside the code.

    Attributes:
        ending: The reason.
        counter: The counter of the class that counts it.
        closing: Closes the connection of a consumer that was cut off.
    """

    __slots__ = ("_timer", "closing", "counter", "ending", "reason")

    def __init__(self, ending: Ending, reason: str = "") -> None:
        self.ending = ending
        self.reason = reason
        self.counter = _COUNTERS[ending.hook]
        self._timer: asyncio.TimerHandle | None = None
        self.closing: asyncio.Task[None] | None = None

    @property
    def waits_for_layer(self) -> bool:
        """Whether its turn is behind what waits of the layer too, and not of the client alone."""
        return self.ending is DRAINED

    def fault(self) -> str:
        """Return what a consumer that is cut off has not done in time, for the log."""
        if self.ending.hook == "group_close":
            return "it did not come to what group_close() has told it"
        return f"{self.ending.hook}() did not come to its end"

    def limit(self, cut_off: CutOff) -> None:
        """Have a function called with this event and with the seconds, if the consumer has not ended in its time."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(END_SECONDS, cut_off, self, END_SECONDS)

    def stop_timer(self) -> None:
        """Let the consumer live: its hook has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def closed(self) -> None:
        """Wait until the connection of a consumer that was cut off is closed."""
        if self.closing is not None:
            await asyncio.wait({self.closing})


def closed_by_group(message: Mapping[str, Any]) -> EndingEvent:
    """Return the event of a message of ``group_close``."""
    code, reason = code_and_reason(message)
    return EndingEvent(Ending("group_close", code), reason)
