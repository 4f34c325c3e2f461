"""Responses of an AsyncHttpConsumer over every server."""

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.conftest import Client

ENDED = [{"disconnect": None}, {"ended": "as it should", "left_in_room": 0}]


async def test_a_plain_response(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    body = b"x" * 100_000
    response = await client.request(f"plain/{key}", body)
    assert (response.status, response.getheader("content-type")) == (201, "text/plain")
    assert await asyncio.to_thread(response.read) == b"got " + body
    assert await watch.until_the_end() == ENDED


async def test_a_response_in_parts(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    response = await client.request(f"parts/{key}")
    assert response.status == 200
    assert await asyncio.to_thread(response.read) == b"one\ntwo\nthree\n"
    assert await watch.until_the_end() == ENDED


async def test_a_long_poll_is_finished_by_a_message_of_the_layer(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    polling = asyncio.create_task(client.request(f"poll/{key}"))
    assert await watch.next() == {"polling": True}
    speaker = await client.open(f"ordered/{key}")
    await speaker.send(json.dumps({"say": "news"}))
    response = await polling
    assert await asyncio.to_thread(response.read) == b"news"
    assert await watch.until_the_end() == [ENDED[0], {"ended": "as it should", "left_in_room": 1}]


async def test_a_client_that_leaves_a_long_poll_ends_it(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    async with client.responding(f"poll/{key}"):
        assert await watch.next() == {"polling": True}
    assert await watch.until_the_end() == ENDED


async def test_a_client_that_leaves_a_stream_ends_it(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    async with client.responding(f"endless/{key}") as response:
        assert [await asyncio.to_thread(response.readline) for _ in range(3)] == [b"tick\n"] * 3
    assert await watch.until_the_end() == ENDED


async def test_a_client_that_leaves_a_handler_which_waits_ends_it(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    async with client.responding(f"sleeps/{key}") as response:
        assert await asyncio.to_thread(response.readline) == b"tick\n"
    assert await watch.until_the_end() == ENDED


async def test_an_exception_in_handle_is_answered_with_500(client: "Client", key: str) -> None:
    watch = await client.watch(key)
    response = await client.request(f"fails/{key}")
    assert response.status == 500
    assert await watch.until_the_end() == [{"disconnect": None}, {"ended": "RuntimeError", "left_in_room": 0}]


@pytest.mark.parametrize("path", ["nowhere", "plain"])
async def test_a_path_without_a_route_is_answered_with_404(client: "Client", path: str) -> None:
    response = await client.request(path)
    assert response.status == 404
    assert await asyncio.to_thread(response.read) == b"no route found for this path\n"
