"""The socket servers that are compared: ours over Redis, ours in one process without any server, and django_sockets'.

The classes have the same body, the same hosts, and the settings that they come with: theirs encode with orjson, ours
with json. A socket is what an ASGI server gives, a queue to receive by and a `send`; this `send` only counts.
"""

import asyncio
import resource
from typing import Any

from django_sockets.broadcaster import Broadcaster as TheirBroadcaster
from django_sockets.sockets import BaseSocketServer as TheirServer

from benches.compare import stubs
from benches.compare.fanout import Arrivals
from benches.compare.redis_ways import Failures, Room
from benches.compare.rounds import MESSAGE
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster

HEADRACE, IN_PROCESS, DJANGO_SOCKETS = "headrace", "headrace, in process", "django_sockets"
WAYS = (HEADRACE, IN_PROCESS, DJANGO_SOCKETS)
SERVERS: dict[str, Any] = {HEADRACE: BaseSocketServer, IN_PROCESS: BaseSocketServer, DJANGO_SOCKETS: TheirServer}
BROADCASTERS: dict[str, Any] = {HEADRACE: Broadcaster, IN_PROCESS: Broadcaster, DJANGO_SOCKETS: TheirBroadcaster}
TOPIC, NOBODYS = "room", "empty"


def settings(way: str, url: str) -> dict[str, Any]:
    """Return what a server or a broadcaster of a way is told; those in process that get the same, share a layer."""
    return {"layer": InMemoryChannelLayer()} if way == IN_PROCESS else {"hosts": [{"address": url}]}


def open_files() -> None:
    """Allow this process as many connections as the system does: theirs have one or two for each socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Crowd:
    """Socket servers of this process, subscribed to one topic, and who broadcasts to it.

    Args:
        way: Whose.
        url: Where the server is.
    """

    def __init__(self, way: str, url: str) -> None:
        self._settings = settings(way, url)
        self._room = Room(BROADCASTERS[way](**self._settings), Arrivals(), Failures())
        self._subscribed = asyncio.Semaphore(0)
        self._class = self._member(SERVERS[way])
        self._members: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []

    def _member(self, base: Any) -> Any:
        subscribed = self._subscribed

        class Member(base):  # type: ignore[misc]  # whichever base is measured
            async def connect(self) -> None:
                await self.async_subscribe(TOPIC)
                subscribed.release()

        return Member

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            arrivals = self._room.arrivals
            arrivals.missing -= 1
            if not arrivals.missing and not arrivals.complete.done():
                arrivals.complete.set_result(None)

    @property
    def lost(self) -> int:
        """Tell how many deliveries did not come in time."""
        return self._room.failures.lost

    async def connect(self, number: int) -> None:
        """Start so many more, one after the other; when this returns all have subscribed."""
        for _ in range(number):
            inbound: asyncio.Queue[Any] = asyncio.Queue()
            inbound.put_nowait(stubs.CONNECT)
            member = self._class(stubs.scope(), inbound.get, self._send, **self._settings)
            self._members.append(member)
            self._tasks.append(asyncio.create_task(member.async_start_listeners()))
            await self._subscribed.acquire()

    async def burst(self, broadcasts: int) -> None:
        """Broadcast so many times, and wait until all have come to everybody, or are given up.

        Several are broadcast without waiting for the server in between, a single one is awaited.
        """
        broadcaster = self._room.layer

        async def send() -> None:
            if broadcasts == 1:
                await broadcaster.async_broadcast(TOPIC, MESSAGE)
                return
            for _ in range(broadcasts):
                broadcaster.broadcast(TOPIC, MESSAGE)

        await self._room.expect(broadcasts * len(self._members), send)

    async def everybody(self) -> None:
        """Have each socket broadcast once."""
        await asyncio.gather(*(member.async_broadcast(NOBODYS, MESSAGE) for member in self._members))
