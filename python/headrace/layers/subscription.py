"""A channel for the length of a context: for applications that use no consumers."""

from types import TracebackType
from typing import Protocol

from headrace._core import Inbox, MemoryLayer
from headrace.exceptions import LayerClosed

__all__ = ["Subscription"]


class _Layer(Protocol):
    _core: MemoryLayer

    async def new_channel(self) -> str: ...
    async def _hold(self, group: str, channel: str) -> None: ...


class Subscription:
    """A channel that is in some groups while the context lasts; entering it gives the channel's inbox.

    Use ``layer.subscription(*groups)`` to make one. It can be entered again when it was left.
    """

    def __init__(self, layer: _Layer, groups: tuple[str, ...]) -> None:
        self._layer = layer
        self._groups = groups
        self._inbox: Inbox | None = None

    async def __aenter__(self) -> Inbox:
        if self._inbox is not None:
            raise RuntimeError("the subscription is entered already; make another")
        channel = await self._layer.new_channel()
        core = self._layer._core
        inbox = core.inbox(channel)
        try:
            for group in self._groups:
                await self._layer._hold(group, channel)
        except BaseException:
            core.close_channel(channel)
            raise
        self._inbox = inbox
        return inbox

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        inbox, self._inbox = self._inbox, None
        if inbox is None:
            return
        try:
            self._layer._core.close_channel(inbox.channel)
        except LayerClosed:
            # The layer was closed first, and has left nothing to clean up.
            return
        inbox.end()
