"""The types of ASGI, as headrace's consumers and routers use them, and the type of a channel layer.

``Scope``, ``Message``, ``Receive``, ``Send`` and ``Application`` are those of Starlette and
FastAPI, so that an application of either fits where headrace wants an ``Application``, and the
other way round.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

__all__ = ["Application", "ChannelLayer", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
"""What is known of one connection for as long as it lives; ``scope["type"]`` is its kind."""

Message: TypeAlias = MutableMapping[str, Any]
"""One event; ``message["type"]`` names it."""

Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""Wait for the next event from the client."""

Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""Send one event to the client."""

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application: runs one connection from its scope to its end."""


class ChannelLayer(Protocol):
    """What every channel layer can do, whoever wrote it.

    The message of a layer is a ``dict``, and not just any mapping.
    """

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to one channel."""

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message on a channel."""

    async def new_channel(self) -> str:
        """Make the name of a channel that nobody else has."""

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group."""

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group."""

    async def group_send(self, group: str, message: dict[str, Any]) -> object:
        """Send a message to every member of a group."""
