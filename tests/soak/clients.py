"""Clients that come and go: some say goodbye, some break off, some never read."""

import asyncio
import random
import uuid
from collections import Counter

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

# While the server or its Redis is away, an answer may not come at all.
SECONDS = 5
# How long a client that never reads stays.
SILENT = 4.0


class Crowd:
    """Clients that stay as many as they are: one that has gone is replaced by another.

    Args:
        address: Host and port of the server.
        size: How many there are at once.
        chance: Decides what each does.

    Attributes:
        ended: How many ended in which way.
    """

    def __init__(self, address: str, size: int, chance: random.Random) -> None:
        self._address = address
        self._chance = chance
        self._size = size
        self.ended: Counter[str] = Counter()

    async def stay(self, seconds: float) -> None:
        """Have them come and go for so long, and then leave."""
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._one_after_the_other(end) for _ in range(self._size)))

    async def _one_after_the_other(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            try:
                self.ended[await self._visit()] += 1
            except (OSError, TimeoutError, WebSocketException):
                self.ended["refused or lost"] += 1
                await asyncio.sleep(self._chance.uniform(0.05, 0.2))

    async def _visit(self) -> str:
        how = self._chance.choice(("said goodbye", "said goodbye", "broke off", "never read"))
        url = f"ws://{self._address}/{uuid.uuid4().hex}/"
        async with asyncio.timeout(SECONDS + SILENT), connect(url, compression=None, open_timeout=SECONDS) as client:
            if how == "never read":
                client.transport.pause_reading()
                await client.send("all")
                await asyncio.sleep(SILENT)
                client.transport.abort()
                return how
            for number in range(self._chance.randint(1, 5)):
                await client.send("all" if self._chance.random() < 0.1 else f"echo {number}")
                await asyncio.sleep(self._chance.uniform(0.0, 0.2))
            await _hear(client, "echo, the last")
            if how == "broke off":
                client.transport.abort()
        return how


async def check(address: str) -> None:
    """See that the server still works: a client is answered, and hears what is sent to all.

    Raises:
        TimeoutError: It was not, or does not.
    """
    async with connect(f"ws://{address}/{uuid.uuid4().hex}/", compression=None, open_timeout=SECONDS) as client:
        await _hear(client, "hello")
        await client.send("all")
        await asyncio.wait_for(client.recv(), SECONDS)


async def _hear(client: ClientConnection, text: str) -> None:
    """Send a text, and read until it comes back."""
    async with asyncio.timeout(SECONDS):
        await client.send(text)
        while await client.recv() != text:
            pass
