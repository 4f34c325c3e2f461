"""Which messages of a layer with histories have frames that all their receivers share."""

import asyncio
from typing import Any

import pytest
from tests.frames.test_writer import Pair, pair
from tests.support.waiting import SECONDS

from headrace._core import Forward
from headrace.layers import InMemoryChannelLayer

__all__ = ["pair"]


@pytest.mark.one_loop
@pytest.mark.parametrize("several", [False, True])
async def test_only_what_may_be_kept_has_none(pair: Pair, several: bool) -> None:
    layer = InMemoryChannelLayer(history={"room.*": {"size": 3, "ttl": 60}})
    inbox = layer._inbox("c")
    left: list[str] = []
    frames = b""

    def attend(message: dict[str, Any]) -> None:
        left.append(message["text"])

    async def take() -> None:
        async for message in inbox:
            attend(message)

    inbox.attend(Forward(attend, pair.writer, {"plain": None}))
    taking = asyncio.create_task(take())
    try:
        async with asyncio.timeout(SECONDS):
            for group in ("hall.1", "room.1", "hall.2", "room.2", "hall.3"):
                await layer.group_add(group, "c")
                message = {"type": "plain", "text": group}
                if several:
                    await layer.group_send_many([(group, message)])
                else:
                    await layer.group_send(group, message)
                while group not in left and group.encode() not in frames:
                    await asyncio.sleep(0)
                    frames += pair.read()
                while not layer.stats().waiters:
                    await asyncio.sleep(0)
    finally:
        taking.cancel()
        await asyncio.wait([taking])
    # Who waits the first time gets its message itself.
    assert left == ["hall.1", "room.1", "room.2"]
    assert frames == b"\x81\x06hall.2\x81\x06hall.3"
