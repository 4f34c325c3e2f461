"""What the project's tests talk to a consumer with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from channels.testing import WebsocketCommunicator


class Communicator(WebsocketCommunicator):
    async def receive_output(self, timeout: float = 1) -> dict[str, Any]:
        """Wait for what the consumer sends next; one that says nothing goes on."""
        if await self.receive_nothing(timeout, interval=0.005):
            raise TimeoutError
        message: dict[str, Any] = await super().receive_output(timeout)
        return message

    async def receive_many_json_from(self, timeout: float = 1) -> list[Any]:
        messages = []
        while not await self.receive_nothing(timeout, interval=0.005):
            messages.append(await self.receive_json_from(timeout))
        return messages


@asynccontextmanager
async def connected_communicator(consumer: Any, path: str = "/testws/") -> AsyncIterator[Communicator]:
    """Connect to a consumer, and disconnect at the end."""
    communicator = Communicator(consumer, path)
    connected, _ = await communicator.connect()
    assert connected
    try:
        yield communicator
    finally:
        await communicator.disconnect()
