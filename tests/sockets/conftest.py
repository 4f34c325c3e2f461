"""A client that is not there, for socket servers, and layers of each kind for them."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import pytest
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.sockets import BaseSocketServer

S = TypeVar("S", bound=BaseSocketServer)


def has_ended(server: BaseSocketServer) -> bool:
    """Tell whether a server was started, and has ended."""
    task = server._headrace_connection.incoming.task
    return task is not None and task.done()


class Client:
    """What a server is fed by, and what it was sent.

    Attributes:
        sent: The messages of the server.
        open: Clear it to make the server's sends wait.
        broken: Raised by every send.
    """

    def __init__(self, **scope: Any) -> None:
        self.scope: dict[str, Any] = {"type": "websocket", "path": "/ws/", **scope}
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken: Exception | None = None
        self.server: Any = None
        self._news = asyncio.Event()

    def meets(self, server_class: type[S], **settings: Any) -> S:
        """Make the server and start it."""
        server = server_class(self.scope, self.incoming.get, self.send, **settings)
        self.server = server
        server.start_listeners()
        return server

    async def connects(self, server_class: type[S], **settings: Any) -> S:
        """Make the server, and connect to it."""
        server = self.meets(server_class, **settings)
        self.gives("connect")
        await self.gets(1)
        return server

    async def send(self, message: Any) -> None:
        await self.open.wait()
        if self.broken is not None:
            raise self.broken
        self.sent.append(message)
        self._news.set()

    def gives(self, kind: str, **what: Any) -> None:
        self.incoming.put_nowait({"type": f"websocket.{kind}", **what})

    def says(self, data: Any) -> None:
        self.gives("receive", text=json.dumps(data))

    async def gets(self, count: int) -> list[Any]:
        """Wait until so many messages have come in all."""
        async with asyncio.timeout(SECONDS):
            while len(self.sent) < count:
                self._news.clear()
                await self._news.wait()
        return self.sent

    async def hears(self, count: int) -> list[Any]:
        """Wait for so many frames in all, and return the data of their texts."""
        async with asyncio.timeout(SECONDS):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()
        return self.heard

    @property
    def heard(self) -> list[Any]:
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    async def leaves(self, code: int = 1000) -> None:
        """Disconnect, and wait until the server has ended."""
        self.gives("disconnect", code=code)
        await self.ends()

    async def ends(self) -> None:
        """Wait until the server has ended."""
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({self.server._headrace_connection.incoming.task})


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def memory() -> InMemoryChannelLayer:
    """Give a layer in this process for the test alone."""
    return InMemoryChannelLayer()


MakeLayer = Callable[..., RedisChannelLayer]


@pytest.fixture
async def make_layer(redis_server: Server, redis_prefix: str) -> AsyncIterator[MakeLayer]:
    """Make layers on a server, which are closed when the test is over."""
    layers: list[RedisChannelLayer] = []

    def make(**settings: Any) -> RedisChannelLayer:
        layers.append(RedisChannelLayer(**{"hosts": [redis_server.url], "prefix": redis_prefix, **settings}))
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture(autouse=True)
def _no_complaints(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which anything logged an error that it does not expect by its mark."""
    yield
    if request.node.get_closest_marker("complains") is None:
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
