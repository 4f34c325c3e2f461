"""How evenly does a drain close its connections, and what does ``group_close`` cost beside a ``group_send``?

Consumers in this process, each with a client that leaves when it is closed, as a browser does. Told is how many closes
the fullest tenth of a second had, as a multiple of the mean: targets are 1.5 for 10,000 over ten seconds, and two
``group_send`` for one ``group_close`` to all of them.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from typing import Any

import headrace
from headrace import AsyncWebsocketConsumer, InMemoryChannelLayer, configure

BUCKET = 0.1
ROUNDS = 20


class Member(AsyncWebsocketConsumer):
    """Is in the room."""

    groups = ("room",)
    forward = frozenset({"chat.message"})


class Client:
    """Connects, notes when it is closed, and leaves then."""

    def __init__(self, closes: list[float]) -> None:
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self._closes = closes
        self.accepted = asyncio.Event()
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await Member.as_asgi()({"type": "websocket", "path": "/"}, self._incoming.get, self._send)

    async def _send(self, message: Any) -> None:
        if message["type"] == "websocket.accept":
            self.accepted.set()
        elif message["type"] == "websocket.close":
            self._closes.append(time.perf_counter())
            self._incoming.put_nowait({"type": "websocket.disconnect", "code": message["code"]})


async def connect(number: int, closes: list[float]) -> list[Client]:
    """Connect so many clients."""
    clients = [Client(closes) for _ in range(number)]
    for client in clients:
        await client.accepted.wait()
    return clients


async def ended(clients: list[Client]) -> None:
    """Wait until all have left."""
    await asyncio.gather(*(client.task for client in clients))


async def main(number: int, spread: float) -> None:
    """Print what was measured."""
    configure(layers={"default": (layer := InMemoryChannelLayer())})
    closes: list[float] = []
    clients = await connect(number, closes)
    # A drain is once in a process, so the room is closed first: by one call for all.
    sends = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await layer.group_send("room", {"type": "chat.message", "text": "hello"})
        sends.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)
    began = time.perf_counter()
    await layer.group_close("room")
    close = time.perf_counter() - began
    await ended(clients)
    last = max(closes) - began
    send = statistics.median(sends)
    print(f"group_send to {number:,}: {send * 1e3:.2f} ms; group_close: {close * 1e3:.2f} ms, {close / send:.2f} of it")
    print(f"the last of them was closed after {last * 1e3:.0f} ms")

    closes.clear()
    clients = await connect(number, closes)
    began = time.perf_counter()
    await headrace.drain(2 * spread, spread)
    seconds = time.perf_counter() - began
    await ended(clients)
    buckets = Counter(int((moment - began) / BUCKET) for moment in closes)
    mean = len(closes) * BUCKET / spread
    print(f"drain of {number:,} over {spread:g} s: {seconds:.2f} s, {len(closes):,} closes")
    peak = max(buckets.values())
    print(f"closes in {BUCKET * 1e3:.0f} ms: mean {mean:.0f}, peak {peak}, {peak / mean:.2f} of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--spread", type=float, default=10.0)
    options = parser.parse_args()
    asyncio.run(main(options.clients, options.spread))
