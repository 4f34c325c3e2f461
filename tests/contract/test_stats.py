"""Everything is counted: nothing is lost silently."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.exceptions import ChannelFull
from headrace.testing import ManualClock

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]
Settle = Callable[[Any], Awaitable[None]]

HELLO = {"type": "hello"}
COUNTERS = ("sent", "delivered", "returned", "dropped_full", "dropped_expired", "dropped_other")
READINGS = ("channels", "groups", "memberships", "waiters", "depth")


def read(stats: Any) -> dict[str, int]:
    """Give what is not zero."""
    return {name: getattr(stats, name) for name in READINGS + COUNTERS if getattr(stats, name) != 0}


def is_balanced(layer: Any) -> bool:
    """Tell whether every message that was accepted is accounted for."""
    stats = layer.stats()
    accounted: int = stats.delivered + stats.depth + stats.dropped_expired + stats.dropped_other
    return bool(stats.sent == accounted)


async def test_a_new_layer_has_counted_nothing(layer: Any) -> None:
    assert read(layer.stats()) == {}


async def test_what_is_there_is_read(layer: Any, receivers: Receivers, settle: Settle) -> None:
    await receivers(layer, "waiting", 2)
    await layer.send("holding", HELLO)
    await layer.group_add("one", "holding")
    await layer.group_add("one", "member")
    await layer.group_add("two", "member")
    await settle(layer)
    assert read(layer.stats()) == {
        "channels": 3,
        "groups": 2,
        "memberships": 3,
        "waiters": 2,
        "depth": 1,
        "sent": 1,
    }


async def test_a_message_is_delivered_when_a_receiver_has_it_for_good(layer: Any, receivers: Receivers) -> None:
    await layer.send("channel", HELLO)
    await layer.receive("channel")
    assert read(layer.stats()) == {"sent": 1, "delivered": 1}
    (task,) = await receivers(layer, "channel")
    await layer.send("channel", HELLO)
    await task
    assert read(layer.stats()) == {"sent": 2, "delivered": 2}


async def test_a_message_that_came_back_is_counted_as_returned_and_as_not_delivered(
    layer: Any, receivers: Receivers
) -> None:
    (task,) = await receivers(layer, "channel")
    await layer.send("channel", HELLO)
    task.cancel()
    await asyncio.wait([task])
    assert read(layer.stats()) == {"channels": 1, "depth": 1, "sent": 1, "returned": 1}
    await layer.receive("channel")
    assert read(layer.stats()) == {"sent": 1, "delivered": 1, "returned": 1}


async def test_a_message_that_came_back_to_the_next_receiver_is_delivered_once(
    layer: Any, receivers: Receivers
) -> None:
    first, second = await receivers(layer, "channel", 2)
    await layer.send("channel", HELLO)
    first.cancel()
    await second
    assert read(layer.stats()) == {"sent": 1, "delivered": 1, "returned": 1}


async def test_what_a_full_channel_refused_was_not_sent(make_layer: MakeLayer, settle: Settle) -> None:
    layer = make_layer(capacity=1)
    await layer.group_add("group", "full")
    await layer.send("full", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("full", HELLO)
    await layer.group_send("group", HELLO)
    await layer.send_many([("full", HELLO)])
    await settle(layer)
    stats = layer.stats()
    assert (stats.sent, stats.depth, stats.dropped_full) == (1, 1, 3)


async def test_each_member_that_a_group_send_reaches_is_one_message(layer: Any, settle: Settle) -> None:
    for n in range(5):
        await layer.group_add("group", f"channel{n}")
    await layer.group_send("group", HELLO)
    await settle(layer)
    assert (layer.stats().sent, layer.stats().depth) == (5, 5)


async def test_the_books_balance_at_every_step(
    make_layer: MakeLayer, clock: ManualClock, receivers: Receivers, drain: Drain
) -> None:
    layer = make_layer(capacity=3, expiry=10, clock=clock)
    for n in range(4):
        await layer.group_add("group", f"channel{n}")

    async def wait() -> None:
        clock.advance(6)

    async def close_channel() -> None:
        layer.close_channel("channel2")

    steps: list[Callable[[], Awaitable[Any]]] = [
        *(lambda: layer.group_send("group", HELLO),) * 4,
        lambda: layer.receive("channel0"),
        lambda: receivers(layer, "idle", 2),
        lambda: layer.send("idle", HELLO),
        wait,
        lambda: layer.group_send("group", HELLO),
        wait,
        lambda: layer.group_send("group", HELLO, exclude="channel1"),
        close_channel,
        lambda: drain(layer, "channel3"),
        lambda: layer.send("channel1", HELLO),
        layer.flush,
        lambda: layer.send("channel1", HELLO),
        layer.close,
    ]
    for step in steps:
        await step()
        assert is_balanced(layer)
    stats = layer.stats()
    assert stats.dropped_full > 0
    assert stats.dropped_expired > 0
    assert stats.dropped_other > 0
    assert stats.delivered > 0


async def test_counters_never_go_back_and_survive_a_flush(layer: Any, receivers: Receivers, settle: Settle) -> None:
    await layer.send("channel", HELLO)
    await layer.receive("channel")
    await layer.send("channel", HELLO)
    await settle(layer)
    await layer.flush()
    assert read(layer.stats()) == {"sent": 2, "delivered": 1, "dropped_other": 1}


class TestOneChannel:
    """The counters of a channel begin anew when it was gone and comes back."""

    async def test_its_reading(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(capacity=2, expiry=10, clock=clock)
        await layer.group_add("one", "channel")
        await layer.group_add("two", "channel")
        await layer.send("channel", HELLO)
        clock.advance(10)
        await layer.send("channel", HELLO)
        await layer.receive("channel")
        await layer.send_many([("channel", HELLO)] * 5)
        channel = layer.channel_stats("channel")
        assert (channel.depth, channel.capacity, channel.waiters, channel.groups) == (2, 2, 0, 2)
        assert (channel.delivered, channel.dropped_full, channel.dropped_expired) == (1, 3, 1)

    async def test_those_who_wait_are_counted(self, layer: Any, receivers: Receivers) -> None:
        await receivers(layer, "channel", 3)
        assert layer.channel_stats("channel").waiters == 3

    async def test_a_channel_that_nobody_knows_is_empty(self, layer: Any) -> None:
        channel = layer.channel_stats("nobody")
        assert (channel.depth, channel.capacity, channel.waiters, channel.groups) == (0, 100, 0, 0)
        assert layer.stats().channels == 0


class TestOneGroup:
    """The counters of a group begin anew when it was gone and comes back."""

    async def test_its_reading(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=1)
        for channel in ("a", "b", "c"):
            await layer.group_add("group", channel)
        await layer.group_send("group", HELLO, exclude="c")
        await layer.group_send("group", HELLO)
        group = layer.group_stats("group")
        assert (group.members, group.sends, group.delivered, group.dropped_full) == (3, 2, 3, 2)

    async def test_a_group_that_nobody_knows_is_empty(self, layer: Any) -> None:
        group = layer.group_stats("nobody")
        assert (group.members, group.sends, group.delivered, group.dropped_full) == (0, 0, 0, 0)
