"""The types of fixtures."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from headrace.testing.websocket import WebsocketCommunicator

__all__ = ["ConnectWebsocket"]


class ConnectWebsocket(Protocol):
    """The type of ``headrace_websocket``."""

    def __call__(
        self, application: Callable[..., Any], path: str, **arguments: Any
    ) -> Awaitable[WebsocketCommunicator]:
        """Connect with the arguments of ``WebsocketCommunicator``; raise ``ConnectionRejected`` if refused."""
