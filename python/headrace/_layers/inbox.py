"""The inbox of a layer whose subclass receives in its own way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, Self

from headrace._core import MemoryLayer

__all__ = ["OwnInbox"]


class _Layer(Protocol):
    _core: MemoryLayer

    async def receive(self, channel: str) -> dict[str, Any]: ...


class OwnInbox:
    """What ``Inbox`` is, but each message comes from the layer's ``receive``.

    Attributes:
        channel: The channel's name.
        complete: Whether all that was missed is received first; None if that was not asked for.
    """

    def __init__(self, layer: _Layer, channel: str) -> None:
        self._receive: Callable[[str], Awaitable[dict[str, Any]]] = layer.receive
        # The mailbox is native all the same.
        native = layer._core.inbox(channel)
        self.channel = native.channel
        self.own = native.own
        self.release = native.release
        self.expired = native.expired
        self.watch_close, self.take_close = native.watch_close, native.take_close
        self.complete: bool | None = None
        self._has_ended = self._turn_ended = False
        self._reader: asyncio.Task[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._has_ended:
            raise StopAsyncIteration
        self._reader = reader = asyncio.current_task()
        try:
            if self._turn_ended:
                self._turn_ended = False
                await asyncio.sleep(0)
            return await self._receive(self.channel)
        except asyncio.CancelledError:
            if self._has_ended and reader is not None and reader.uncancel() == 0:
                raise StopAsyncIteration from None
            raise
        finally:
            self._reader = None

    def attend(self, attendant: Callable[[Any], Any] | None = None) -> None:
        """Do nothing: a task that waits in a coroutine cannot be stood in for."""

    def end_turn(self) -> None:
        """Let the event loop have a turn before the next message."""
        self._turn_ended = True

    def note_complete(self, complete: bool) -> None:
        """Say whether all that was missed is received first."""
        self.complete = complete

    def end(self) -> None:
        """End the iteration; to be called in the loop of the one who waits."""
        self._has_ended = True
        if self._reader is not None:
            self._reader.cancel()
