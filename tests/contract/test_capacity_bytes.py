"""A mailbox holds as many bytes behind its first message as it may, and a send beyond that is refused."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.exceptions import ChannelFull

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]

MESSAGE = {"type": "hello", "text": "a" * 600}
BIG = {"type": "hello", "text": "a" * 5000}


async def test_the_capacity_in_bytes_is_a_mebibyte(layer: Any) -> None:
    assert layer.capacity_bytes == 1 << 20
    assert layer.channel_stats("process!channel").capacity_bytes == 1 << 20


async def test_the_first_message_may_have_any_size(make_layer: MakeLayer, settle: Any) -> None:
    layer = make_layer(capacity_bytes=1000)
    channel = await layer.new_channel()
    await layer.send(channel, BIG)
    await layer.send(channel, MESSAGE)
    await settle(layer)
    with pytest.raises(ChannelFull) as caught:
        await layer.send(channel, MESSAGE)
    assert caught.value.args == (channel,)
    stats = layer.channel_stats(channel)
    assert (stats.depth, stats.dropped_full, stats.full_by_bytes) == (2, 1, 1)
    assert 5600 < stats.bytes < 6000
    assert layer.stats().bytes == stats.bytes
    assert layer.stats().full_by_bytes == 1


async def test_a_message_that_is_received_makes_room(make_layer: MakeLayer, settle: Any, drain: Drain) -> None:
    layer = make_layer(capacity_bytes=1000)
    channel = await layer.new_channel()
    for _ in range(2):
        await layer.send(channel, MESSAGE)
    await layer.receive(channel)
    await layer.send(channel, MESSAGE)
    await settle(layer)
    with pytest.raises(ChannelFull):
        await layer.send(channel, MESSAGE)
    assert await drain(layer, channel) == [MESSAGE, MESSAGE]
    assert layer.stats().bytes == 0


async def test_a_group_send_passes_by_the_mailboxes_that_are_full(make_layer: MakeLayer, settle: Any) -> None:
    layer = make_layer(capacity_bytes=1000)
    full, other = await layer.new_channel(), await layer.new_channel()
    for channel in (full, other):
        await layer.group_add("room", channel)
    for _ in range(2):
        await layer.send(full, MESSAGE)
    await settle(layer)
    await layer.group_send("room", MESSAGE)
    await settle(layer)
    one, two = layer.channel_stats(full), layer.channel_stats(other)
    assert (one.depth, one.dropped_full, one.full_by_bytes) == (2, 1, 1)
    assert (two.depth, two.dropped_full) == (1, 0)
    # A message that waits in several mailboxes counts in each.
    assert layer.stats().bytes == one.bytes + two.bytes


@pytest.mark.parametrize("value", [-1, 1.5, None, True])
def test_it_is_a_positive_whole_number(make_layer: MakeLayer, value: Any) -> None:
    with pytest.raises(ValueError, match="capacity_bytes must be a positive integer"):
        make_layer(capacity_bytes=value)
