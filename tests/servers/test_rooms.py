"""What is said in a large group is heard by all of its clients, in order, over every server."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server
    from websockets.asyncio.client import ClientConnection

MANY = 200
AT_ONCE = 50  # handshakes, fewer than the backlog of the socket that listens
SAID = [f"message {number}" for number in range(20)]


async def hear_all(socket: "ClientConnection") -> list[str | bytes]:
    return [await asyncio.wait_for(socket.recv(), SECONDS) for _ in SAID]


@pytest.fixture
def count(request: pytest.FixtureRequest, server: "Server") -> int:
    """Say how many clients there are: many on every server with ``--deep``, else on one."""
    many = request.config.getoption("--deep", False) or server.name == "uvicorn-websockets-asyncio"
    return MANY if many else AT_ONCE


@pytest.mark.parametrize("kind", ["ordered", "forwarding", "sync-ordered"])
async def test_each_client_hears_every_message_in_order(client: "Client", kind: str, key: str, count: int) -> None:
    sockets: list[ClientConnection] = []
    for _ in range(count // AT_ONCE):
        sockets += await asyncio.gather(*(client.open(f"{kind}/{key}") for _ in range(AT_ONCE)))
    for text in SAID:
        await sockets[0].send(json.dumps({"say": text}))
    assert await asyncio.gather(*map(hear_all, sockets)) == [SAID] * count
