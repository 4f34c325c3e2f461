"""A client whose connection breaks, over every server: it comes again and gets what it missed, once and in order."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.servers.conftest import Client
    from websockets.asyncio.client import ClientConnection

SECONDS = 40

both = pytest.mark.parametrize("kind", ["resuming", "sync-resuming"])


async def hear(socket: "ClientConnection", frames: int = 1) -> list[dict[str, Any]]:
    return [json.loads(await asyncio.wait_for(socket.recv(), SECONDS)) for _ in range(frames)]


@both
async def test_what_was_said_while_it_was_away_comes_once_and_in_order(client: "Client", kind: str, key: str) -> None:
    ada, bob = [await client.open(f"{kind}/{key}") for _ in range(2)]
    watch = await client.watch(key)
    position = (await hear(bob))[0]["at"]
    await hear(ada)
    for turn in range(3):
        live, missed = [[f"{turn} {what} {number}" for number in range(4)] for what in ("live", "missed")]
        for text in live:
            await ada.send(json.dumps(text))
        frames = await hear(bob, len(live))
        assert [frame["text"] for frame in frames] == live
        position = frames[-1]["at"]
        # The first of these is on its way to it when its connection breaks.
        await ada.send(json.dumps(missed[0]))
        assert [frame["text"] for frame in await hear(ada, len(live) + 1)] == [*live, missed[0]]
        bob.transport.abort()
        await watch.until_the_end()
        for text in missed[1:]:
            await ada.send(json.dumps(text))
        assert [frame["text"] for frame in await hear(ada, len(missed) - 1)] == missed[1:]
        bob = await client.open(f"{kind}/{key}", f"?resume={position}")
        greeting, *replayed, resumed = await hear(bob, len(missed) + 2)
        assert (greeting["at"], resumed) == (position, {"resumed": True})
        assert [frame["text"] for frame in replayed] == missed
        position = replayed[-1]["at"]


@both
async def test_a_position_goes_as_a_subprotocol(client: "Client", kind: str, key: str) -> None:
    ada = await client.open(f"{kind}/{key}")
    (frame,) = await hear(ada)
    await ada.send(json.dumps("hello"))
    await hear(ada)
    own = f"resume.{frame['at']}"
    for offered, chosen in (["chat.v2", own], "chat.v2"), ([own, "chat.v2"], "chat.v2"), ([own], own):
        socket = await client.open(f"{kind}/{key}", subprotocols=offered)
        assert socket.subprotocol == chosen
        _, missed, resumed = await hear(socket, 3)
        assert (missed["text"], resumed) == ("hello", {"resumed": True})


@both
async def test_nonsense_is_not_complete(client: "Client", kind: str, key: str) -> None:
    for nonsense in "null", "%00%ff", "x" * 2000:
        socket = await client.open(f"{kind}/{key}", f"?resume={nonsense}")
        assert (await hear(socket, 2))[1] == {"resumed": False}
