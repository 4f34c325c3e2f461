"""What becomes of a connection whose consumer fails, over every server: closed with the right code, nothing left."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS
from websockets.exceptions import ConnectionClosed, InvalidStatus

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server
    from websockets.asyncio.client import ClientConnection


either_ordered = pytest.mark.parametrize("ordered", ["ordered", "sync-ordered"])


async def code_of_the_close(socket: "ClientConnection") -> int | None:
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), SECONDS)
    return socket.close_code


@either_ordered
async def test_an_exception_in_a_handler_closes_with_1011(client: "Client", ordered: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{ordered}/{key}")
    await socket.send(json.dumps({"fail": "as ordered"}))
    assert await code_of_the_close(socket) == 1011
    assert await watch.until_the_end() == [{"disconnect": 1011}, {"ended": "RuntimeError", "left_in_room": 0}]


@either_ordered
@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ("{no json", "JSONDecodeError"),
        (b'{"say": "binary"}', "ValueError"),
        ("", "ValueError"),
        ('{"say": NaN}', "ValueError"),
        ("[" * 100_000, "ValueError"),
    ],
    ids=["no JSON", "binary", "empty", "NaN", "deep"],
)
async def test_a_frame_that_is_no_json_closes_with_1003(
    client: "Client", ordered: str, key: str, frame: str | bytes, error: str
) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{ordered}/{key}")
    await socket.send(frame)
    # Daphne cannot send 1003, and closes by itself when the application has failed.
    assert await code_of_the_close(socket) == (1011 if client.server.is_("daphne") else 1003)
    ended = error if client.server.is_("daphne") else "as it should"
    assert await watch.until_the_end() == [{"disconnect": 1003}, {"ended": ended, "left_in_room": 0}]


async def test_an_exception_in_connect_fails_the_handshake(client: "Client", server: "Server", key: str) -> None:
    watch = await client.watch(key)
    with pytest.raises(InvalidStatus) as refusal:
        await client.open(f"fails/{key}")
    # Granian does not tell an application that failed from one that refuses.
    assert refusal.value.response.status_code == (403 if server.is_("granian") else 500)
    assert await watch.until_the_end() == [{"disconnect": 1006}, {"ended": "RuntimeError", "left_in_room": 0}]


async def test_a_connection_goes_on_when_another_one_has_failed(client: "Client", key: str) -> None:
    failing, other = [await client.open(f"ordered/{key}") for _ in range(2)]
    await failing.send(json.dumps({"fail": "as ordered"}))
    assert await code_of_the_close(failing) == 1011
    await other.send(json.dumps({"say": "still here"}))
    assert await asyncio.wait_for(other.recv(), SECONDS) == "still here"
