"""The demo's own check: a few real WebSocket clients, one broadcast, one line per delivery.

The clients speak to the server over its port like any browser, so what they see is what a
user would see: parsing, routing, the layer's fan-out and the socket's two ends.
A latency runs from just before the sender writes its frame to when a client has read it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

TIMEOUT = 10.0
_CLOSE_SECONDS = 1.0

Print = Callable[[str], None]


async def self_check(url: str, clients: int, say: Print, *, within: float = TIMEOUT) -> bool:
    """Broadcast one message through `clients` clients of the chat at `url` and tell what came.

    Calls `say` with one line per delivery, one per client that missed it, and a verdict.
    Takes at most `within` seconds and one more to close, and does not raise if the server
    refuses, falls silent or goes away.

    Returns:
        Whether every client got the message.
    """
    say(f"self-check: {_count(clients, 'WebSocket client')}, one broadcast")
    # Milliseconds by client number, in the order of arrival. Nothing is printed before the
    # last delivery, because a terminal's time would count as the next delivery's.
    latencies: dict[int, float] = {}
    reason = ""
    try:
        async with asyncio.timeout(within):
            await _broadcast(url, clients, latencies)
    except TimeoutError:
        reason = f"nothing came within {within:g} s"
    except (OSError, WebSocketException) as error:
        reason = str(error) or type(error).__name__
    return _verdict(clients, latencies, reason, say)


async def _broadcast(url: str, clients: int, latencies: dict[int, float]) -> None:
    """Connect one client after the other, and broadcast once each of them knows of all."""
    # A room of its own, so that people who chat meanwhile are not disturbed.
    room = f"self-check {secrets.token_hex(4)}"
    members: list[_Member] = []
    try:
        for number in range(1, clients + 1):
            members.append(_Member(number, await _open(url)))
            await members[-1].join(room)
        # By now a member's mailbox has run empty: announcements come before the message.
        await _all(member.sees(clients) for member in members)
        ref = secrets.token_hex(8)
        started = time.perf_counter()
        await members[0].send({"type": "say", "text": "hello from the self-check", "ref": ref})
        await _all(_delivery(member, ref, started, latencies) for member in members)
        # One by one: who leaves is announced to those who stay, and is not to be left unread by them.
        for member in members:
            await member.close()
    finally:
        await _all(member.close() for member in members)


async def _delivery(member: _Member, ref: str, started: float, latencies: dict[int, float]) -> None:
    await member.gets(ref)
    latencies[member.number] = (time.perf_counter() - started) * 1000


def _verdict(clients: int, latencies: dict[int, float], reason: str, say: Print) -> bool:
    width = len(str(clients))
    for number, latency in latencies.items():
        say(f"  client {number:>{width}} got it after {latency:7.3f} ms")
    missing = set(range(1, clients + 1)) - latencies.keys()
    for number in sorted(missing):
        say(f"  client {number:>{width}} missed it: {reason}")
    outcome = "failed" if missing else "passed"
    deliveries = f"{len(latencies)} of {_count(clients, 'delivery', 'deliveries')}"
    slowest = f", slowest {max(latencies.values()):.3f} ms" if latencies else ""
    say(f"self-check {outcome}: {deliveries}{slowest}")
    return not missing


class _Member:
    """One client of the chat."""

    def __init__(self, number: int, socket: ClientConnection) -> None:
        self.number = number
        self._socket = socket
        # The member count in the last frame that carried one.
        self._count = 0

    async def join(self, room: str) -> None:
        """Enter the room; when this returns the server has subscribed this client."""
        await self.send({"type": "join", "room": room, "name": f"client {self.number}"})
        await self._until(lambda frame: frame.get("type") == "joined")

    async def sees(self, members: int) -> None:
        """Wait until the server told this client that the room has that many members."""
        while self._count < members:
            await self._frame()

    async def gets(self, ref: str) -> None:
        """Wait for the chat message with this `ref`."""
        await self._until(lambda frame: frame.get("type") == "message" and frame["ref"] == ref)

    async def send(self, frame: dict[str, str]) -> None:
        """Send one frame; wait while the server reads slowly."""
        await self._socket.send(json.dumps(frame))

    async def close(self) -> None:
        """Close the socket, waiting at most a second for the server to agree."""
        await self._socket.close()

    async def _until(self, arrived: Callable[[dict[str, Any]], bool]) -> None:
        while not arrived(await self._frame()):
            pass

    async def _frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self._socket.recv())
        self._count = frame.get("members", self._count)
        return frame


async def _open(url: str) -> ClientConnection:
    """Connect; what arrives unread is kept without bound, because a full buffer hides a close."""
    # proxy=None: a proxy for the wide world would not know our loopback address.
    return await connect(url, proxy=None, open_timeout=None, close_timeout=_CLOSE_SECONDS, max_queue=None)


async def _all(waits: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*waits)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
