"""The demo's own check: a few real WebSocket clients, one broadcast from each worker, one line per delivery.

The clients speak to the server over its port like any browser, so what they see is what a
user would see: parsing, routing, the layer's fan-out and the socket's two ends.
A latency runs from just before the sender writes its frame to when a client has read it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

TIMEOUT = 10.0
_CLOSE_SECONDS = 1.0
# How long a message that the server has may be on its way to a client.
_HEAR_TIMEOUT = 0.5
# How long to wait after a message that was refused, to stay below the chat's rate limit.
_REFUSED_SECONDS = 0.05

Print = Callable[[str], None]
Latencies = dict[tuple[int, int], float]
"""Milliseconds by the numbers of the client that sent and the one that got it, in the order of arrival."""


async def self_check(url: str, clients: int, say: Print, *, within: float = TIMEOUT) -> bool:
    """Broadcast one message through `clients` clients of the chat at `url` and tell what came.

    Calls `say` with one line per delivery, one per client that missed it, and a verdict.
    Takes at most `within` seconds and one more to close, and does not raise if the server
    refuses, falls silent or goes away.

    Returns:
        Whether every client got the message.
    """
    say(f"self-check: {_count(clients, 'WebSocket client')}, one broadcast")
    latencies, reason = await _timed([url], clients, within)
    _list(range(1, clients + 1), {number: latency for (_, number), latency in latencies.items()}, reason, say)
    return _verdict(clients, latencies, "", say)


async def fleet_check(
    urls: Sequence[str],
    clients: int,
    say: Print,
    *,
    within: float = TIMEOUT,
    restart: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Do as `self_check` does with clients spread over workers, whose URLs these are; one client of each broadcasts.

    Args:
        urls: Where the workers are.
        clients: How many clients there are at least; each worker has one.
        say: Told each line.
        within: Seconds that it may take, and once more for a restart.
        restart: Restarts the server that connects the workers, to see that the clients hear each other again.

    Returns:
        Whether every client got what one of each worker sent, also after the restart.
    """
    workers = len(urls)
    clients = max(clients, workers)
    spread = f"{_count(clients, 'WebSocket client')} at {_count(workers, 'worker')}"
    say(f"self-check: {spread}, one broadcast from each worker")
    recovery = None if restart is None else _Recovery(restart, say)
    latencies, reason = await _timed(urls, clients, within if restart is None else 2 * within, recovery)
    for speaker in range(1, workers + 1):
        say(f"  from client {speaker} at worker {speaker}:")
        heard = {number: latency for (from_, number), latency in latencies.items() if from_ == speaker}
        _list(
            range(1, clients + 1),
            heard,
            reason,
            say,
            [f" at worker {number % workers + 1}" for number in range(clients)],
        )
    across = sum((speaker - number) % workers != 0 for speaker, number in latencies)
    lost = workers * clients - len(latencies)
    passed = _verdict(workers * clients, latencies, f", {across} between workers, {lost} lost", say)
    return (recovery is None or recovery.told(say)) and passed


class _Recovery:
    """A restart of the server that connects the workers, and what becomes of the chat."""

    def __init__(self, restart: Callable[[], Awaitable[None]], say: Print) -> None:
        self._restart = restart
        self._say = say
        # Until everybody hears again; None if nobody does.
        self._seconds: float | None = None
        self._refused = 0
        self._lost = 0

    async def __call__(self, members: Sequence[_Member]) -> None:
        """Restart it, and let a member speak until all hear it."""
        self._say("restarting the server; each worker warns that messages may be missing, as it should")
        await self._restart()
        started = time.perf_counter()
        while not await self._is_heard(members[0], members):
            pass
        self._seconds = time.perf_counter() - started

    async def _is_heard(self, speaker: _Member, members: Sequence[_Member]) -> bool:
        ref = secrets.token_hex(8)
        await speaker.send({"type": "say", "text": "hello again from the self-check", "ref": ref})
        if not await speaker.is_told(ref):
            self._refused += 1
            await asyncio.sleep(_REFUSED_SECONDS)
            return False
        waiting = [asyncio.create_task(member.gets(ref)) for member in members]
        heard, missing = await asyncio.wait(waiting, timeout=_HEAR_TIMEOUT)
        for task in missing:
            task.cancel()
        await asyncio.gather(*missing, return_exceptions=True)
        await asyncio.gather(*heard)
        self._lost += len(missing)
        return not missing

    def told(self, say: Print) -> bool:
        """Say how it went, and whether it went well."""
        if self._seconds is None:
            say("restart of the server failed: not every client hears again")
            return False
        deliveries = _count(self._lost, "delivery", "deliveries")
        cost = f"{_count(self._refused, 'message')} refused, {deliveries} lost meanwhile"
        say(f"restart of the server passed: every client hears again {self._seconds:.3f} s after it was back, {cost}")
        return True


async def _timed(
    urls: Sequence[str], clients: int, within: float, then: _Recovery | None = None
) -> tuple[Latencies, str]:
    """Broadcast, and return what came, and why no more came."""
    # Nothing is printed before the last delivery, because a terminal's time would count as the next delivery's.
    latencies: Latencies = {}
    reason = ""
    try:
        async with asyncio.timeout(within):
            await _broadcast(urls, clients, latencies, then)
    except TimeoutError:
        reason = f"nothing came within {within:g} s"
    except (OSError, WebSocketException) as error:
        reason = str(error) or type(error).__name__
    return latencies, reason


async def _broadcast(urls: Sequence[str], clients: int, latencies: Latencies, then: _Recovery | None) -> None:
    """Connect one client after the other, and let the first at each URL broadcast once each of them knows of all."""
    # A room of its own, so that people who chat meanwhile are not disturbed.
    room = f"self-check {secrets.token_hex(4)}"
    members: list[_Member] = []
    try:
        for number in range(1, clients + 1):
            members.append(_Member(number, await _open(urls[(number - 1) % len(urls)])))
            await members[-1].join(room)
        # By now a member's mailbox has run empty: who is there comes before the message.
        await _all(member.sees(clients) for member in members)
        for speaker in members[: len(urls)]:
            ref = secrets.token_hex(8)
            started = time.perf_counter()
            await speaker.send({"type": "say", "text": "hello from the self-check", "ref": ref})
            await _all(_delivery(speaker, member, ref, started, latencies) for member in members)
        if then is not None:
            await then(members)
    finally:
        await _all(member.close() for member in members)


async def _delivery(speaker: _Member, member: _Member, ref: str, started: float, latencies: Latencies) -> None:
    await member.gets(ref)
    latencies[speaker.number, member.number] = (time.perf_counter() - started) * 1000


def _list(
    numbers: Sequence[int], heard: dict[int, float], reason: str, say: Print, places: Sequence[str] | None = None
) -> None:
    """Say who got a message, and who did not; `places` tells where each is."""
    width = len(str(numbers[-1]))
    indent = "    " if places else "  "
    for number in (*heard, *(number for number in numbers if number not in heard)):
        place = places[number - 1] if places else ""
        what = f"got it after {heard[number]:7.3f} ms" if number in heard else f"missed it: {reason}"
        say(f"{indent}client {number:>{width}}{place} {what}")


def _verdict(expected: int, latencies: Latencies, more: str, say: Print) -> bool:
    passed = len(latencies) == expected
    deliveries = f"{len(latencies)} of {_count(expected, 'delivery', 'deliveries')}"
    slowest = f", slowest {max(latencies.values()):.3f} ms" if latencies else ""
    say(f"self-check {'passed' if passed else 'failed'}: {deliveries}{more}{slowest}")
    return passed


class _Member:
    """One client of the chat."""

    def __init__(self, number: int, socket: ClientConnection) -> None:
        self.number = number
        self._socket = socket
        # How many are in the room.
        self._present = 0
        # What it was told of the messages that it sent: taken, by their `ref`, or an error.
        self._taken: set[str] = set()
        self._errors = 0
        self._heard: set[str] = set()

    async def join(self, room: str) -> None:
        """Enter the room; when this returns the server has subscribed this client."""
        await self.send({"type": "join", "room": room, "name": f"client {self.number}"})
        await self._until(lambda frame: frame.get("type") == "joined")

    async def sees(self, count: int) -> None:
        """Wait until the server tells this client that so many are in the room."""
        while self._present != count:
            await self._frame()

    async def gets(self, ref: str) -> None:
        """Wait for the chat message with this `ref`."""
        while ref not in self._heard:
            await self._frame()

    async def is_told(self, ref: str) -> bool:
        """Wait until the server has taken the message with this `ref`, or refused one, and tell which."""
        errors = self._errors
        while ref not in self._taken and self._errors == errors:
            await self._frame()
        return ref in self._taken

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
        match frame:
            case {"type": "presence", "count": int(count)}:
                self._present = count
            case {"type": "message", "ref": str(ref)}:
                self._heard.add(ref)
            case {"type": "sent", "ref": str(ref)}:
                self._taken.add(ref)
            case {"type": "error"}:
                self._errors += 1
        return frame


async def _open(url: str) -> ClientConnection:
    """Connect; what arrives unread is kept without bound, because a full buffer hides a close."""
    # proxy=None: a proxy for the wide world would not know our loopback address.
    return await connect(url, proxy=None, open_timeout=None, close_timeout=_CLOSE_SECONDS, max_queue=None)


async def _all(waits: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*waits)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
