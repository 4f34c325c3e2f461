"""What a client of a consumer sees, and what the consumer hears of it, over every server."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS
from websockets.exceptions import ConnectionClosed, InvalidStatus

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server
    from websockets.asyncio.client import ClientConnection


either_echo = pytest.mark.parametrize("echo", ["echo", "sync-echo"])
either_ordered = pytest.mark.parametrize("ordered", ["ordered", "sync-ordered"])


async def hear(socket: "ClientConnection") -> str | bytes:
    return await asyncio.wait_for(socket.recv(), SECONDS)


async def hear_the_close(socket: "ClientConnection") -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        await hear(socket)
    return socket.close_code, socket.close_reason


@either_echo
async def test_frames_come_back_as_they_were_sent(client: "Client", server: "Server", echo: str, key: str) -> None:
    socket = await client.open(f"{echo}/{key}")
    # Daphne does not send empty frames.
    empty: list[str | bytes] = [] if server.is_("daphne") else ["", b""]
    frames: list[str | bytes] = [*empty, "text", "\N{SNOWMAN}" * 1000, b"\x00\xff", bytes(100_000)]
    for frame in frames:
        await socket.send(frame)
    assert [await hear(socket) for _ in frames] == frames


@either_echo
async def test_a_subprotocol_is_agreed_on(client: "Client", echo: str, key: str) -> None:
    socket = await client.open(f"{echo}/{key}", subprotocols=["graphql-ws", "chat.v2"])
    assert socket.subprotocol == "chat.v2"


@either_echo
async def test_without_an_offer_there_is_no_subprotocol(client: "Client", echo: str, key: str) -> None:
    assert (await client.open(f"{echo}/{key}")).subprotocol is None


@either_echo
async def test_headers_of_accept_reach_the_client(client: "Client", server: "Server", echo: str, key: str) -> None:
    socket = await client.open(f"{echo}/{key}")
    assert socket.response is not None
    # Daphne and granian do not send them.
    expected = None if server.is_("daphne", "granian") else "echo"
    assert socket.response.headers.get("x-accepted-by") == expected


@either_ordered
@pytest.mark.parametrize(
    ("order", "close"),
    [
        ({"close": 4002, "reason": "enough"}, (4002, "enough")),
        ({"close": None, "reason": None}, (1000, "")),
    ],
    ids=["with a code", "without"],
)
async def test_a_consumer_closes_with_a_code_and_a_reason(
    client: "Client",
    ordered: str,
    key: str,
    order: dict[str, object],
    close: tuple[int, str],
) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{ordered}/{key}")
    await socket.send(json.dumps(order))
    code, reason = close
    # Daphne does not send reasons.
    assert await hear_the_close(socket) == (code, "" if client.server.is_("daphne") else reason)
    [left, ended] = await watch.until_the_end()
    # Hypercorn says 1000 of every close of the application's, and granian at times that there was no code.
    assert left["disconnect"] in (
        {1000} if client.server.is_("hypercorn") else {code, 1005} if client.server.is_("gra") else {code}
    )
    assert ended == {"ended": "as it should", "left_in_room": 0}


@either_echo
async def test_a_consumer_hears_the_code_of_the_client(client: "Client", server: "Server", echo: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{echo}/{key}")
    await socket.close(4001, "bye")
    # Hypercorn does not tell.
    code = 1006 if server.is_("hypercorn") else 4001
    assert await watch.until_the_end() == [{"disconnect": code}, {"ended": "as it should", "left_in_room": 0}]


@either_ordered
async def test_a_client_that_vanishes_is_noticed(client: "Client", ordered: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{ordered}/{key}")
    socket.transport.abort()
    [left, ended] = await watch.until_the_end()
    # 1006 by most; 1005 by granian and two of uvicorn's three protocols.
    assert left["disconnect"] in {1005, 1006}
    assert ended == {"ended": "as it should", "left_in_room": 0}


@pytest.mark.parametrize("path", ["refused", "denied"])
async def test_a_consumer_that_closes_first_refuses_the_handshake(client: "Client", path: str, key: str) -> None:
    watch = await client.watch(key)
    with pytest.raises(InvalidStatus) as refusal:
        await client.open(f"{path}/{key}")
    assert refusal.value.response.status_code == 403
    [left, ended] = await watch.until_the_end()
    assert left["disconnect"] in {1000, 1005, 1006}  # as the server likes it
    assert ended == {"ended": "as it should", "left_in_room": 0}


async def test_a_path_without_a_route_is_refused(client: "Client", server: "Server") -> None:
    if server.is_("daphne"):  # which can refuse a handshake with 403 alone
        socket = await client.open("nowhere")
        assert await hear_the_close(socket) == (4404, "")
        return
    with pytest.raises(InvalidStatus) as refusal:
        await client.open("nowhere")
    assert refusal.value.response.status_code == 404


@pytest.mark.parametrize("ticks", ["ticks", "sync-ticks"])
async def test_a_client_that_leaves_ends_a_handler_without_end(client: "Client", ticks: str, key: str) -> None:
    watch = await client.watch(key)
    socket = await client.open(f"{ticks}/{key}")
    assert await hear(socket) == "tick"
    await socket.close()
    disconnected, ended = await watch.until_the_end()
    assert list(disconnected) == ["disconnect"]
    assert ended == {"ended": "as it should", "left_in_room": 0}
