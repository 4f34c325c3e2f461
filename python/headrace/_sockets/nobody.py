"""The client of a socket server that has none: it says nothing, and what it is sent goes nowhere."""

import asyncio
import logging

from headrace.typing import Message

__all__ = ["Nowhere", "receive_nothing"]

_logger = logging.getLogger("headrace.sockets")


async def receive_nothing() -> Message:
    """Wait until this is cancelled."""
    nothing: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await nothing


class Nowhere:
    """A ``send`` that drops what it is given, and says so once.

    Args:
        name: Whose it is.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_told = False

    async def __call__(self, message: Message) -> None:
        """Drop a message."""
        if not self._has_told and message["type"] == "websocket.send":
            self._has_told = True
            _logger.error("%s was made without a send: what it sends is dropped; this is said once", self._name)
