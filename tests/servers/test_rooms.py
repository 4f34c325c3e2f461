"""What is said in a group of two hundred clients is heard by all of them, in order, over every server."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from tests.servers.conftest import Client
    from websockets.asyncio.client import ClientConnection

CLIENTS = 200
AT_ONCE = 50  # handshakes, fewer than the backlog of the socket that listens
SAID = [f"message {number}" for number in range(20)]


async def hear_all(socket: "ClientConnection") -> list[str | bytes]:
    return [await asyncio.wait_for(socket.recv(), SECONDS) for _ in SAID]


@pytest.mark.parametrize("kind", ["ordered", "forwarding", "sync-ordered"])
async def test_each_of_200_clients_hears_every_message_in_order(client: "Client", kind: str, key: str) -> None:
    sockets: list[ClientConnection] = []
    for _ in range(CLIENTS // AT_ONCE):
        sockets += await asyncio.gather(*(client.open(f"{kind}/{key}") for _ in range(AT_ONCE)))
    for text in SAID:
        await sockets[0].send(json.dumps({"say": text}))
    assert await asyncio.gather(*map(hear_all, sockets)) == [SAID] * CLIENTS
