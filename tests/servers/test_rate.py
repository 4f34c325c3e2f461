"""``rate_limit`` over every server: what a client sends beyond it is dropped, or ends the connection."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from tests.servers.conftest import Client


@pytest.mark.parametrize("form", ["", "sync-"])
async def test_frames_over_the_rate_are_dropped(client: "Client", form: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{form}limited/{key}")
    for number in range(10):
        await socket.send(str(number))
    assert [await asyncio.wait_for(socket.recv(), SECONDS) for _ in range(2)] == ["0", "1"]
    await socket.close(1000)
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    # Hypercorn does not tell the client's code.
    left = {"disconnect": 1006 if client.server.is_("hypercorn") else 1000}
    assert await watch.until_the_end() == [left, {"ended": "as it should", "left_in_room": 0}]


@pytest.mark.parametrize("form", ["", "sync-"])
async def test_a_frame_over_the_rate_may_close_with_1008(client: "Client", form: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{form}strict/{key}")
    for number in range(3):
        await socket.send(str(number))
    assert [await asyncio.wait_for(socket.recv(), SECONDS) for _ in range(2)] == ["0", "1"]
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), SECONDS)
    # Daphne sends no code but 1000 and those from 3000 on.
    assert socket.close_code == (1000 if client.server.is_("daphne") else 1008)
    assert await watch.until_the_end() == [{"disconnect": 1008}, {"ended": "as it should", "left_in_room": 0}]
