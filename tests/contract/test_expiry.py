"""Messages and memberships live as long as the settings say, by a clock that the tests move."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from headrace.testing import ManualClock

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]

HELLO = {"type": "hello"}


async def test_a_message_is_received_until_it_expires(make_layer: MakeLayer, clock: ManualClock, drain: Drain) -> None:
    layer = make_layer(expiry=10, clock=clock)
    await layer.send("channel", HELLO)
    clock.advance(9.999)
    assert await drain(layer, "channel") == [HELLO]


async def test_an_expired_message_is_not_received(make_layer: MakeLayer, clock: ManualClock, drain: Drain) -> None:
    layer = make_layer(expiry=10, clock=clock)
    await layer.send("channel", HELLO)
    clock.advance(10)
    assert await drain(layer, "channel") == []


async def test_an_expiry_may_be_a_fraction_of_a_second(make_layer: MakeLayer, clock: ManualClock, drain: Drain) -> None:
    layer = make_layer(expiry=0.1, clock=clock)
    await layer.send("channel", {"type": "early"})
    clock.advance(0.06)
    await layer.send("channel", {"type": "late"})
    clock.advance(0.06)
    assert await drain(layer, "channel") == [{"type": "late"}]


async def test_expired_messages_are_passed_over_and_fresh_ones_are_not(
    make_layer: MakeLayer, clock: ManualClock, drain: Drain
) -> None:
    layer = make_layer(expiry=10, clock=clock)
    for n in range(6):
        await layer.send("channel", {"type": "hello", "n": n})
        clock.advance(3)
    assert [message["n"] for message in await drain(layer, "channel")] == [3, 4, 5]


async def test_a_receiver_that_waited_longer_than_the_expiry_gets_its_message(
    make_layer: MakeLayer, clock: ManualClock, receivers: Receivers
) -> None:
    layer = make_layer(expiry=10, clock=clock)
    (task,) = await receivers(layer, "channel")
    clock.advance(100)
    await layer.send("channel", HELLO)
    assert await task == HELLO


async def test_a_receive_that_finds_only_expired_messages_waits_for_a_fresh_one(
    make_layer: MakeLayer, clock: ManualClock, receivers: Receivers
) -> None:
    layer = make_layer(expiry=10, clock=clock)
    await layer.send("channel", {"type": "old"})
    clock.advance(10)
    (task,) = await receivers(layer, "channel")
    await layer.send("channel", {"type": "fresh"})
    assert await task == {"type": "fresh"}


async def test_a_message_that_came_back_keeps_its_age(
    make_layer: MakeLayer, clock: ManualClock, receivers: Receivers, drain: Drain
) -> None:
    layer = make_layer(expiry=10, clock=clock)
    (task,) = await receivers(layer, "channel")
    await layer.send("channel", {"type": "old"})
    clock.advance(6)
    await layer.send("channel", {"type": "fresh"})
    task.cancel()
    await asyncio.wait([task])
    clock.advance(6)
    assert await drain(layer, "channel") == [{"type": "fresh"}]


async def test_messages_that_nobody_asks_for_are_swept_away(make_layer: MakeLayer, clock: ManualClock) -> None:
    layer = make_layer(expiry=10, clock=clock)
    for n in range(50):
        await layer.send(f"channel{n}", HELLO)
    clock.advance(10)
    stats = layer.stats()
    assert (stats.depth, stats.channels, stats.dropped_expired) == (0, 0, 50)


async def test_an_expired_message_is_counted(make_layer: MakeLayer, clock: ManualClock) -> None:
    layer = make_layer(expiry=10, clock=clock)
    await layer.send("channel", HELLO)
    clock.advance(4)
    await layer.send("channel", HELLO)
    clock.advance(6)
    channel = layer.channel_stats("channel")
    assert (channel.depth, channel.dropped_expired) == (1, 1)
    stats = layer.stats()
    assert (stats.sent, stats.depth, stats.dropped_expired) == (2, 1, 1)


class TestMemberships:
    """They last until ``group_expiry`` after the latest ``group_add``; those of a channel with an inbox last."""

    async def test_a_membership_lasts_until_it_expires(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        await layer.group_add("group", "channel")
        clock.advance(99.999)
        assert layer.group_channels("group") == ["channel"]
        assert (await layer.group_send("group", HELLO)).delivered_here == 1

    async def test_an_expired_membership_is_gone(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        await layer.group_add("group", "channel")
        clock.advance(100)
        assert (await layer.group_send("group", HELLO)).delivered_here == 0
        assert layer.group_channels("group") == []
        assert layer.group_count("group") == 0
        assert layer.channel_groups("channel") == []
        stats = layer.stats()
        assert (stats.groups, stats.memberships, stats.channels) == (0, 0, 0)

    async def test_adding_again_renews_it(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        await layer.group_add("group", "renewed")
        await layer.group_add("group", "forgotten")
        clock.advance(60)
        await layer.group_add("group", "renewed")
        clock.advance(60)
        assert layer.group_channels("group") == ["renewed"]
        clock.advance(40)
        assert layer.group_channels("group") == []

    async def test_nothing_else_renews_it(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(expiry=10, group_expiry=100, clock=clock)
        await layer.group_add("group", "channel")
        clock.advance(60)
        await layer.group_add("other", "channel")
        await layer.group_send("group", HELLO)
        await layer.receive("channel")
        clock.advance(60)
        assert layer.channel_groups("channel") == ["other"]

    async def test_it_survives_the_expiry_of_a_message(
        self, make_layer: MakeLayer, clock: ManualClock, drain: Drain
    ) -> None:
        layer = make_layer(expiry=10, group_expiry=100, clock=clock)
        await layer.group_add("group", "channel")
        await layer.group_send("group", {"type": "old"})
        clock.advance(10)
        assert await drain(layer, "channel") == []
        assert (await layer.group_send("group", {"type": "fresh"})).delivered_here == 1
        assert await layer.receive("channel") == {"type": "fresh"}

    async def test_its_end_takes_no_message_with_it(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(expiry=1000, group_expiry=100, clock=clock)
        await layer.group_add("group", "channel")
        await layer.group_send("group", HELLO)
        clock.advance(100)
        assert layer.group_count("group") == 0
        assert await layer.receive("channel") == HELLO

    async def test_an_inbox_keeps_those_before_it_and_after_it(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        await layer.group_add("before", "channel")
        inbox = layer._core.inbox("channel")
        await layer.group_add("after", "channel")
        clock.advance(1000)
        assert sorted(layer.channel_groups("channel")) == ["after", "before"]
        assert (await layer.group_send("before", HELLO)).delivered_here == 1
        inbox.release()
        clock.advance(99.999)
        assert layer.stats().memberships == 2
        clock.advance(0.001)
        assert layer.stats().memberships == 0

    async def test_the_last_of_several_inboxes_lets_go(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        first, second = layer._core.inbox("channel"), layer._core.inbox("channel")
        await layer.group_add("group", "channel")
        first.release()
        first.release()
        clock.advance(1000)
        assert layer.group_count("group") == 1
        del first, second
        clock.advance(100)
        assert layer.stats().channels == 0

    async def test_a_channel_that_was_closed_joins_anew(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        inbox = layer._core.inbox("channel")
        await layer.group_add("group", "channel")
        layer.close_channel("channel")
        assert layer.stats().memberships == 0
        await layer.group_add("group", "channel")
        clock.advance(1000)
        assert layer.group_channels("group") == [inbox.channel]

    async def test_the_subscription_keeps_its_own(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        async with layer.subscription("group") as inbox:
            await layer.group_add("other", inbox.channel)
            clock.advance(1000)
            assert sorted(layer.channel_groups(inbox.channel)) == ["group", "other"]
        assert layer.stats().channels == 0
