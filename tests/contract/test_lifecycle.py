"""Names for new channels, subscriptions, and the ends of a channel, of all messages, and of the layer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.exceptions import LayerClosed
from headrace.testing import ManualClock

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]
Settle = Callable[[Any], Awaitable[None]]

HELLO = {"type": "hello"}


class TestNewChannel:
    """The name of a channel that nobody else has."""

    async def test_it_is_a_valid_name_of_a_specific_channel(self, layer: Any) -> None:
        name = await layer.new_channel()
        assert layer.require_valid_channel_name(name)
        assert name.startswith("specific.")
        assert name.count("!") == 1
        assert not name.endswith("!")
        assert len(name) < 100

    async def test_it_begins_with_the_prefix(self, layer: Any) -> None:
        name = await layer.new_channel("prefix")
        assert name.startswith("prefix.")
        assert name.count("!") == 1
        assert (await layer.new_channel(prefix="by.keyword")).startswith("by.keyword.")

    async def test_no_two_are_the_same(self, layer: Any) -> None:
        assert len({await layer.new_channel() for _ in range(1000)}) == 1000

    async def test_it_does_not_depend_on_the_seed_of_random(self, layer: Any) -> None:
        random.seed(1)
        first = await layer.new_channel()
        random.seed(1)
        assert await layer.new_channel() != first

    async def test_it_makes_a_name_and_no_channel(self, layer: Any) -> None:
        await layer.new_channel()
        assert layer.stats().channels == 0

    async def test_it_works_like_any_channel(self, layer: Any) -> None:
        name = await layer.new_channel()
        await layer.group_add("group", name)
        await layer.group_send("group", HELLO)
        assert await layer.receive(name) == HELLO

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("prefix", ["two words", "a!b", "caf\u00e9", "x" * 100])
    async def test_a_prefix_that_no_name_begins_with_is_a_type_error(self, layer: Any, prefix: str) -> None:
        with pytest.raises(TypeError, match="Channel name must be"):
            await layer.new_channel(prefix)


class TestFlush:
    """Messages and memberships are gone when it returns; receivers that wait go on waiting."""

    async def test_it_drops_messages_and_memberships(self, layer: Any, drain: Drain) -> None:
        await layer.send("channel", HELLO)
        await layer.group_add("group", "channel")
        await layer.flush()
        assert await drain(layer, "channel") == []
        assert (await layer.group_send("group", HELLO)).delivered_here == 0
        assert (layer.group_count("group"), layer.channel_groups("channel")) == (0, [])
        stats = layer.stats()
        assert (stats.channels, stats.groups, stats.memberships, stats.depth) == (0, 0, 0, 0)

    async def test_receivers_that_wait_are_not_deaf_afterwards(self, layer: Any, receivers: Receivers) -> None:
        tasks = [(await receivers(layer, name))[0] for name in ("a", "a", "b")]
        await layer.flush()
        for name in ("a", "a", "b"):
            await layer.send(name, {"type": name})
        assert [(await task)["type"] for task in tasks] == ["a", "a", "b"]

    async def test_a_message_on_its_way_to_a_receiver_arrives(self, layer: Any, receivers: Receivers) -> None:
        (task,) = await receivers(layer, "channel")
        await layer.send("channel", HELLO)
        await layer.flush()
        assert await task == HELLO

    async def test_what_was_dropped_is_counted(self, layer: Any, settle: Settle) -> None:
        for _ in range(3):
            await layer.send("channel", HELLO)
        await settle(layer)
        await layer.flush()
        assert (layer.stats().sent, layer.stats().dropped_other) == (3, 3)

    async def test_an_empty_layer_can_be_flushed(self, layer: Any) -> None:
        await layer.flush()
        await layer.flush()
        await layer.send("channel", HELLO)
        assert await layer.receive("channel") == HELLO


class TestCloseChannel:
    """A channel that is closed drops its messages and leaves its groups."""

    async def test_its_messages_are_gone(self, layer: Any, drain: Drain, settle: Settle) -> None:
        for name in ("closed", "open"):
            await layer.send(name, HELLO)
        await settle(layer)
        layer.close_channel("closed")
        assert await drain(layer, "closed") == []
        assert await drain(layer, "open") == [HELLO]
        assert layer.stats().dropped_other == 1

    async def test_it_leaves_all_its_groups(self, layer: Any) -> None:
        for group in ("one", "two", "three"):
            await layer.group_add(group, "closed")
        await layer.group_add("two", "open")
        layer.close_channel("closed")
        assert layer.channel_groups("closed") == []
        assert [layer.group_channels(group) for group in ("one", "two", "three")] == [[], ["open"], []]

    async def test_a_receiver_that_waits_there_goes_on_waiting(self, layer: Any, receivers: Receivers) -> None:
        (task,) = await receivers(layer, "closed")
        layer.close_channel("closed")
        await layer.send("closed", HELLO)
        assert await task == HELLO

    async def test_closing_what_is_not_there_is_no_error(self, layer: Any) -> None:
        layer.close_channel("nobody")
        layer.close_channel("nobody")


class TestClose:
    """The layer refuses everything from then on, and tells everybody who waits."""

    async def test_receivers_that_wait_are_told(self, layer: Any, receivers: Receivers) -> None:
        tasks = [*await receivers(layer, "a", 2), *await receivers(layer, "b")]
        await layer.close()
        for task in tasks:
            with pytest.raises(LayerClosed, match="closed"):
                await task
        assert layer.stats().waiters == 0

    async def test_a_receiver_that_has_its_message_keeps_it(self, layer: Any, receivers: Receivers) -> None:
        (task,) = await receivers(layer, "channel")
        await layer.send("channel", HELLO)
        await layer.close()
        assert await task == HELLO

    async def test_a_message_that_comes_back_too_late_is_counted(self, layer: Any, receivers: Receivers) -> None:
        (task,) = await receivers(layer, "channel")
        await layer.send("channel", HELLO)
        task.cancel()
        await layer.close()
        await asyncio.wait([task])
        stats = layer.stats()
        assert (stats.sent, stats.delivered, stats.depth, stats.dropped_other) == (1, 0, 0, 1)

    async def test_everything_else_is_refused(self, layer: Any) -> None:
        await layer.send("channel", HELLO)
        await layer.group_add("group", "channel")
        await layer.close()
        calls: list[Callable[[], Any]] = [
            lambda: layer.send("channel", HELLO),
            lambda: layer.receive("channel"),
            lambda: layer.receive_many("channel", 2),
            lambda: layer.group_add("group", "channel"),
            lambda: layer.group_discard("group", "channel"),
            lambda: layer.group_send("group", HELLO),
            lambda: layer.send_many([]),
            lambda: layer.group_send_many([]),
        ]
        for call in calls:
            with pytest.raises(LayerClosed, match="closed"):
                await call()
        for ask, name in (
            (layer.receive_nowait, "channel"),
            (layer.close_channel, "channel"),
            (layer.channel_groups, "channel"),
            (layer.group_channels, "group"),
            (layer.group_count, "group"),
        ):
            with pytest.raises(LayerClosed, match="closed"):
                ask(name)

    async def test_flush_and_close_are_not_refused(self, layer: Any) -> None:
        await layer.close()
        await layer.flush()
        await layer.close()

    async def test_its_counters_can_be_read(self, layer: Any, settle: Settle) -> None:
        await layer.send("channel", HELLO)
        await settle(layer)
        await layer.close()
        stats = layer.stats()
        assert (stats.channels, stats.depth, stats.sent, stats.dropped_other) == (0, 0, 1, 1)

    async def test_another_layer_is_not_affected(self, make_layer: MakeLayer) -> None:
        closed, other = make_layer(), make_layer()
        await closed.close()
        await other.send("channel", HELLO)
        assert await other.receive("channel") == HELLO


class TestSubscription:
    """A channel that is in some groups for the length of a context."""

    async def test_it_iterates_over_what_the_groups_are_sent(self, layer: Any) -> None:
        async with layer.subscription("news", "weather") as inbox:
            await layer.group_send("news", {"type": "one"})
            await layer.group_send("weather", {"type": "two"})
            await layer.group_send("sport", {"type": "three"})
            await layer.send(inbox.channel, {"type": "four"})
            received = []
            async for message in inbox:
                received.append(message["type"])
                if message["type"] == "four":
                    break
        assert received == ["one", "two", "four"]

    async def test_its_channel_is_a_member_meanwhile(self, layer: Any) -> None:
        async with layer.subscription("news") as inbox:
            assert layer.group_channels("news") == [inbox.channel]
        assert layer.group_channels("news") == []

    async def test_unread_messages_are_dropped_at_the_end(self, layer: Any, drain: Drain) -> None:
        async with layer.subscription("news") as inbox:
            await layer.group_send("news", HELLO)
        assert await drain(layer, inbox.channel) == []
        assert layer.stats().channels == 0

    async def test_it_ends_with_an_exception_too(self, layer: Any) -> None:
        with pytest.raises(RuntimeError, match="of the application"):
            async with layer.subscription("news"):
                raise RuntimeError("of the application")
        assert layer.stats().memberships == 0

    async def test_a_wrong_group_leaves_no_membership_behind(self, layer: Any) -> None:
        with pytest.raises(TypeError, match="Group name must be"):
            async with layer.subscription("news", "no name"):
                raise AssertionError("the context is not entered")
        assert layer.stats().memberships == 0

    async def test_two_subscriptions_are_two_members(self, layer: Any) -> None:
        async with layer.subscription("news") as first, layer.subscription("news") as second:
            assert first.channel != second.channel
            await layer.group_send("news", HELLO)
            assert await anext(first) == HELLO
            assert await anext(second) == HELLO

    async def test_a_subscription_to_no_group_is_a_channel(self, layer: Any) -> None:
        async with layer.subscription() as inbox:
            await layer.send(inbox.channel, HELLO)
            assert await anext(inbox) == HELLO

    async def test_the_iteration_ends_with_the_context(self, layer: Any) -> None:
        async def read() -> list[str]:
            return [message["type"] async for message in inbox]

        async with layer.subscription("news") as inbox:
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            await layer.group_send("news", {"type": "one"})
            while layer.stats().delivered == 0:
                await asyncio.sleep(0)
        assert await reading == ["one"]
        assert layer.stats().waiters == 0
        with pytest.raises(StopAsyncIteration):
            await anext(inbox)

    async def test_a_reader_is_told_when_the_layer_is_closed(self, layer: Any) -> None:
        async def read() -> None:
            async for _ in inbox:
                pass

        subscription = layer.subscription("news")
        inbox = await subscription.__aenter__()
        reading = asyncio.ensure_future(read())
        while layer.stats().waiters == 0:
            await asyncio.sleep(0)
        await layer.close()
        with pytest.raises(LayerClosed):
            await reading

    async def test_its_memberships_do_not_expire(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(group_expiry=100, clock=clock)
        await layer.group_add("news", "other")
        async with layer.subscription("news") as inbox:
            clock.advance(1000)
            assert layer.group_channels("news") == [inbox.channel]
            assert (await layer.group_send("news", HELLO)).delivered_here == 1
            assert await anext(inbox) == HELLO
        assert layer.group_channels("news") == []

    async def test_its_unread_messages_are_counted(self, layer: Any, settle: Settle) -> None:
        async with layer.subscription("news"):
            await layer.group_send("news", HELLO)
            await settle(layer)
        assert layer.stats().dropped_other == 1

    async def test_it_can_be_entered_again_but_not_twice_at_once(self, layer: Any) -> None:
        subscription = layer.subscription("news")
        async with subscription as first:
            with pytest.raises(RuntimeError, match="entered already"):
                await subscription.__aenter__()
            assert layer.group_channels("news") == [first.channel]
        async with subscription as second:
            assert second.channel != first.channel
            await layer.group_send("news", HELLO)
            assert await anext(second) == HELLO
        assert layer.group_channels("news") == []

    async def test_it_joins_and_leaves_groups_meanwhile(self, layer: Any) -> None:
        subscription = layer.subscription("news")
        async with subscription as inbox:
            await subscription.join("sport")
            await subscription.leave("news")
            assert layer.channel_groups(inbox.channel) == ["sport"]
            await layer.group_send("news", {"type": "one"})
            await layer.group_send("sport", {"type": "two"})
            assert await anext(inbox) == {"type": "two"}
        assert layer.stats().memberships == 0
        async with subscription as inbox:
            assert layer.channel_groups(inbox.channel) == ["news"]

    async def test_a_group_with_a_bad_name_is_not_joined(self, layer: Any) -> None:
        subscription = layer.subscription("news")
        async with subscription as inbox:
            with pytest.raises(TypeError, match="Group name must be"):
                await subscription.join("no name")
            await subscription.leave("never.joined")
            assert layer.channel_groups(inbox.channel) == ["news"]

    async def test_groups_are_joined_and_left_only_within_the_context(self, layer: Any) -> None:
        subscription = layer.subscription("news")
        for change in (subscription.join, subscription.leave):
            with pytest.raises(RuntimeError, match="not entered"):
                await change("sport")
        async with subscription:
            pass
        for change in (subscription.join, subscription.leave):
            with pytest.raises(RuntimeError, match="not entered"):
                await change("sport")
        assert layer.stats().memberships == 0

    async def test_its_backlog_is_its_own(self, layer: Any, settle: Settle) -> None:
        async with layer.subscription("news", max_backlog=2) as short, layer.subscription("news") as long:
            for number in range(3):
                await layer.group_send("news", {"type": "number", "number": number})
                await settle(layer)
            assert [(await anext(short))["number"] for _ in range(2)] == [0, 1]
            assert [(await anext(long))["number"] for _ in range(3)] == [0, 1, 2]
            assert layer.channel_stats(short.channel).dropped_full == 1

    async def test_it_says_what_becomes_of_further_messages(self, layer: Any, settle: Settle) -> None:
        async with (
            layer.subscription("news", max_backlog=2, overflow="drop_old") as newest,
            layer.subscription("news", max_backlog=2, overflow="coalesce") as states,
        ):
            for number, kind in enumerate(("a", "b", "a")):
                await layer.group_send("news", {"type": kind, "number": number})
                await settle(layer)
            assert [(await anext(newest))["number"] for _ in range(2)] == [1, 2]
            assert [(await anext(states))["number"] for _ in range(2)] == [1, 2]
            assert layer.channel_stats(newest.channel).dropped_replaced == 1

    async def test_its_backlog_is_bounded_in_bytes(self, layer: Any, settle: Settle) -> None:
        async with layer.subscription("news", max_backlog_bytes=100) as inbox:
            for _ in range(3):
                await layer.group_send("news", {"type": "long", "text": "x" * 1000})
                await settle(layer)
            assert layer.channel_stats(inbox.channel).depth == 1

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            ({"max_backlog": 0}, "max_backlog must be a positive integer, got 0"),
            ({"max_backlog_bytes": -1}, "max_backlog_bytes must be a positive integer, got -1"),
            ({"overflow": "close"}, "overflow must be one of 'drop_new', 'drop_old', 'coalesce', got 'close'"),
        ],
    )
    async def test_a_wrong_limit_is_refused(self, layer: Any, limits: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            layer.subscription("news", **limits)
