"""A channel for the length of a context: for applications that use no consumers."""

from types import TracebackType

from headrace._core import Inbox, MemoryLayer

__all__ = ["Subscription"]


class Subscription:
    """A channel that is in some groups while the context lasts; entering it gives the channel's inbox."""

    def __init__(self, core: MemoryLayer, groups: tuple[str, ...], channel: str) -> None:
        self._core = core
        self._groups = groups
        self._channel = channel

    async def __aenter__(self) -> Inbox:
        inbox = self._core.inbox(self._channel)
        try:
            for group in self._groups:
                self._core.group_add(group, self._channel)
        except BaseException:
            self._core.close_channel(self._channel)
            raise
        return inbox

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._core.close_channel(self._channel)
