"""What is served in these tests, and what they do with it."""

import asyncio
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer


class Member(AsyncWebsocketConsumer):
    """Forwards one type, and has a handler for another."""

    groups = ("all",)
    forward: ClassVar[Any] = {"plain"}

    async def noted(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


class Noting:
    """The extension of another server, in Python."""

    def __init__(self, frames: Any, noted: list[bytes]) -> None:
        self.send = frames.send
        self.window_bits = frames.window_bits
        self._write = frames.write
        self._noted = noted

    def write(self, frame: bytes) -> bool:
        self._noted.append(frame)
        return bool(self._write(frame))


async def met(layer: InMemoryChannelLayer, *clients: ClientConnection, waiters: int | None = None) -> None:
    """Send each client a first message: from then on its consumer's task is known, and need not be resumed.

    Args:
        layer: The layer.
        clients: Those that are to have read it.
        waiters: How many there are, if there are others too.
    """
    async with asyncio.timeout(60):
        while layer.stats().waiters < (waiters or len(clients)):
            await asyncio.sleep(0)
    await layer.group_send("all", {"type": "plain", "text": "first"})
    for client in clients:
        assert await client.recv() == "first"


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """Read whole frames of a server: the opcode and the payload of each."""
    found = []
    while len(data) >= 2:
        start = {126: 4, 127: 10}.get(data[1], 2)
        length = data[1] if start == 2 else int.from_bytes(data[2:start])
        if len(data) < start + length:
            break
        found.append((data[0] & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return found
