"""A channel for the length of a context: for applications that use no consumers."""

from types import TracebackType
from typing import Protocol

from headrace._core import Inbox
from headrace.exceptions import LayerClosed

__all__ = ["Subscription"]


class _Layer(Protocol):
    async def new_channel(self) -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    def close_channel(self, channel: str) -> None: ...
    def _inbox(self, channel: str) -> Inbox: ...


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
        inbox = self._layer._inbox(channel)
        try:
            for group in self._groups:
                await self._layer.group_add(group, channel)
        except BaseException:
            self._leave(inbox)
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
        if inbox is not None and self._leave(inbox):
            inbox.end()

    def _leave(self, inbox: Inbox) -> bool:
        """Leave the groups; tell whether the layer is still open: one that was closed has left nothing to leave."""
        try:
            self._layer.close_channel(inbox.channel)
        except LayerClosed:
            return False
        finally:
            inbox.release()
        return True
