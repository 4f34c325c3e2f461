"""Which messages of a layer with histories have frames that all their receivers share."""

from typing import Any

import pytest
from tests.frames.test_writer import Pair, pair

from headrace._core import Forward
from headrace.layers import InMemoryChannelLayer

__all__ = ["pair"]


@pytest.mark.one_loop
@pytest.mark.parametrize("several", [False, True])
async def test_only_what_may_be_kept_has_none(pair: Pair, several: bool) -> None:
    layer = InMemoryChannelLayer(history={"room.*": {"size": 3, "ttl": 60}})
    inbox, attended = layer._inbox("c"), []

    def attend(message: dict[str, Any]) -> bool:
        attended.append(message["text"])
        return True

    inbox.attend(Forward(attend, pair.writer, {"plain": None}))
    for group in ("hall", "room.1", "hall.2"):
        await layer.group_add(group, "c")
        message = {"type": "plain", "text": group}
        if several:
            await layer.group_send_many([(group, message)])
        else:
            await layer.group_send(group, message)
    await layer.send("c", {"type": "last", "text": "last"})
    async for _ in inbox:
        break
    assert attended == ["room.1", "last"]
    assert pair.read() == b"\x81\x04hall\x81\x06hall.2"
