"""A channel for the length of a context: for applications that use no consumers."""

from types import TracebackType
from typing import Any, Protocol, Self


class _Layer(Protocol):
    async def new_channel(self) -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def receive(self, channel: str) -> dict[str, Any]: ...

    def close_channel(self, channel: str) -> None: ...


class Subscription:
    """A channel that is in some groups while the context lasts, and an asynchronous iterator of its messages.

    Attributes:
        channel: The channel's name, from entering the context on.
    """

    def __init__(self, layer: _Layer, groups: tuple[str, ...]) -> None:
        self._layer = layer
        self._groups = groups
        self.channel = ""

    async def __aenter__(self) -> Self:
        self.channel = await self._layer.new_channel()
        try:
            for group in self._groups:
                await self._layer.group_add(group, self.channel)
        except BaseException:
            self._layer.close_channel(self.channel)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._layer.close_channel(self.channel)

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message. Cancelling loses nothing.

        Raises:
            LayerClosed: The layer was closed.
        """
        return await self._layer.receive(self.channel)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await self._layer.receive(self.channel)
