"""Who is in a group, and what a group_send does."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]
Settle = Callable[[Any], Awaitable[None]]

HELLO = {"type": "hello"}


class TestMembership:
    """A set of channels by a name."""

    async def test_a_channel_that_was_added_is_a_member(self, layer: Any) -> None:
        await layer.group_add("group", "a")
        await layer.group_add("group", "b")
        await layer.group_add("other", "a")
        assert sorted(layer.group_channels("group")) == ["a", "b"]
        assert layer.group_count("group") == 2
        assert sorted(layer.channel_groups("a")) == ["group", "other"]
        assert layer.channel_groups("b") == ["group"]

    async def test_adding_twice_is_adding_once(self, layer: Any, drain: Drain) -> None:
        await layer.group_add("group", "channel")
        await layer.group_add("group", "channel")
        assert layer.group_channels("group") == ["channel"]
        assert (await layer.group_send("group", HELLO)).delivered_here == 1
        assert await drain(layer, "channel") == [HELLO]
        await layer.group_discard("group", "channel")
        assert layer.group_count("group") == 0

    async def test_a_discarded_member_is_sent_nothing_more(self, layer: Any, drain: Drain) -> None:
        for channel in ("stays", "leaves"):
            await layer.group_add("group", channel)
        await layer.group_discard("group", "leaves")
        await layer.group_send("group", HELLO)
        assert await drain(layer, "leaves") == []
        assert await drain(layer, "stays") == [HELLO]

    async def test_a_discarded_member_keeps_the_messages_it_has(self, layer: Any) -> None:
        await layer.group_add("group", "channel")
        await layer.group_send("group", HELLO)
        await layer.group_discard("group", "channel")
        assert await layer.receive("channel") == HELLO

    async def test_discarding_what_is_not_there_is_no_error(self, layer: Any) -> None:
        await layer.group_discard("group", "channel")
        await layer.group_add("group", "channel")
        await layer.group_discard("group", "other")
        await layer.group_discard("other", "channel")
        await layer.group_discard("group", "channel")
        await layer.group_discard("group", "channel")
        assert layer.stats().memberships == 0

    async def test_a_group_without_members_is_gone(self, layer: Any, settle: Settle) -> None:
        await layer.group_add("group", "channel")
        await settle(layer)
        assert (layer.stats().groups, layer.stats().memberships, layer.stats().channels) == (1, 1, 1)
        await layer.group_discard("group", "channel")
        await settle(layer)
        assert (layer.stats().groups, layer.stats().memberships, layer.stats().channels) == (0, 0, 0)

    async def test_a_group_that_was_gone_can_come_back(self, layer: Any, drain: Drain) -> None:
        for _ in range(3):
            await layer.group_add("group", "channel")
            assert (await layer.group_send("group", HELLO)).delivered_here == 1
            await layer.group_discard("group", "channel")
            assert (await layer.group_send("group", HELLO)).delivered_here == 0
        assert await drain(layer, "channel") == [HELLO] * 3

    async def test_a_channel_and_a_group_of_one_name_are_two_things(self, layer: Any, drain: Drain) -> None:
        await layer.group_add("name", "member")
        await layer.send("name", {"type": "to the channel"})
        await layer.group_send("name", {"type": "to the group"})
        assert await drain(layer, "name") == [{"type": "to the channel"}]
        assert await drain(layer, "member") == [{"type": "to the group"}]

    async def test_a_group_that_nobody_knows_has_no_members(self, layer: Any) -> None:
        assert layer.group_channels("nobody") == []
        assert layer.group_count("nobody") == 0
        assert layer.channel_groups("nobody") == []

    async def test_memberships_are_many_to_many(self, layer: Any) -> None:
        joined = {(f"group{n % 7}", f"channel{n % 11}") for n in range(77)}
        left = {(group, channel) for group, channel in joined if (hash_of(group, channel)) % 3 == 0}
        for group, channel in sorted(joined):
            await layer.group_add(group, channel)
        for group, channel in sorted(left):
            await layer.group_discard(group, channel)
        for group in {group for group, _ in joined}:
            assert sorted(layer.group_channels(group)) == sorted(c for g, c in joined - left if g == group)
        for channel in {channel for _, channel in joined}:
            assert sorted(layer.channel_groups(channel)) == sorted(g for g, c in joined - left if c == channel)


def hash_of(group: str, channel: str) -> int:
    return sum(map(ord, group + channel))


class TestGroupSend:
    """One send to every member; never a failure because of one of them."""

    async def test_it_reaches_every_member_once(self, layer: Any, drain: Drain) -> None:
        names = [f"channel{n}" for n in range(30)]
        for name in names:
            await layer.group_add("group", name)
        report = await layer.group_send("group", HELLO)
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (30, 0, 0)
        for name in names:
            assert await drain(layer, name) == [HELLO]

    async def test_it_reaches_those_who_wait_and_those_who_will(self, layer: Any, receivers: Receivers) -> None:
        for name in ("waiting", "absent"):
            await layer.group_add("group", name)
        (task,) = await receivers(layer, "waiting")
        assert (await layer.group_send("group", HELLO)).delivered_here == 2
        assert await task == HELLO
        assert await layer.receive("absent") == HELLO

    async def test_it_gives_one_message_to_a_member_with_several_receivers(
        self, layer: Any, receivers: Receivers
    ) -> None:
        await layer.group_add("group", "channel")
        first, second = await receivers(layer, "channel", 2)
        assert (await layer.group_send("group", {"type": "one"})).delivered_here == 1
        assert await first == {"type": "one"}
        assert not second.done()
        await layer.group_send("group", {"type": "two"})
        assert await second == {"type": "two"}

    async def test_sends_of_one_sender_reach_each_member_in_order(self, layer: Any, drain: Drain) -> None:
        for name in ("a", "b"):
            await layer.group_add("group", name)
        for n in range(20):
            await layer.group_send("group", {"type": "hello", "n": n})
        for name in ("a", "b"):
            assert [message["n"] for message in await drain(layer, name)] == list(range(20))

    async def test_a_group_that_nobody_knows_reaches_nobody(self, layer: Any) -> None:
        report = await layer.group_send("nobody", HELLO)
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (0, 0, 0)

    async def test_a_full_member_is_passed_by_and_reported(self, make_layer: MakeLayer, drain: Drain) -> None:
        layer = make_layer(capacity=1)
        for name in ("full", "free"):
            await layer.group_add("group", name)
        await layer.send("full", {"type": "early"})
        report = await layer.group_send("group", HELLO)
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (1, 1, 0)
        assert await drain(layer, "full") == [{"type": "early"}]
        assert await drain(layer, "free") == [HELLO]

    async def test_a_group_of_full_members_raises_nothing(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=1)
        for n in range(5):
            await layer.group_add("group", f"channel{n}")
        reports = [await layer.group_send("group", HELLO) for _ in range(3)]
        assert [(report.delivered_here, report.dropped_full) for report in reports] == [(5, 0), (0, 5), (0, 5)]

    async def test_a_message_on_its_way_to_a_cancelled_member_goes_back(
        self, engine: Any, layer: Any, receivers: Receivers, drain: Drain
    ) -> None:
        for name in ("a", "b"):
            await layer.group_add("group", name)
        (cancelled,) = await receivers(layer, "a")
        (other,) = await receivers(layer, "b")
        await layer.group_send("group", HELLO)
        cancelled.cancel()
        assert await other == HELLO
        await asyncio.wait([cancelled])
        # Of two servers, one may have answered long ago: then the receiver has it, and nothing goes back.
        had = [] if cancelled.cancelled() else [cancelled.result()]
        assert not (had and engine.topology != "cluster")
        assert had + await drain(layer, "a") == [HELLO]


class TestExclude:
    """Some members can be passed by: the sender itself, most often."""

    @pytest.mark.parametrize(
        ("exclude", "reached"),
        [
            ("a", ["b", "c"]),
            (["a"], ["b", "c"]),
            (("a", "c"), ["b"]),
            ({"a", "b", "c"}, []),
            (frozenset({"b"}), ["a", "c"]),
            ({"c": 1}, ["a", "b"]),
            ([], ["a", "b", "c"]),
            ("stranger", ["a", "b", "c"]),
            (["stranger", "b", "b"], ["a", "c"]),
        ],
    )
    async def test_the_excluded_are_passed_by(
        self, layer: Any, drain: Drain, exclude: str | Collection[str], reached: list[str]
    ) -> None:
        for name in ("a", "b", "c"):
            await layer.group_add("group", name)
        report = await layer.group_send("group", HELLO, exclude=exclude)
        assert (report.delivered_here, report.dropped_full) == (len(reached), 0)
        assert [name for name in ("a", "b", "c") if await drain(layer, name)] == reached

    async def test_the_excluded_are_excluded_once(self, layer: Any, drain: Drain) -> None:
        await layer.group_add("group", "a")
        await layer.group_send("group", {"type": "one"}, exclude="a")
        await layer.group_send("group", {"type": "two"})
        assert await drain(layer, "a") == [{"type": "two"}]

    async def test_a_full_member_that_is_excluded_is_not_reported(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=1)
        await layer.group_add("group", "full")
        await layer.send("full", HELLO)
        assert (await layer.group_send("group", HELLO, exclude="full")).dropped_full == 0

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("exclude", [5, [5], [None], [b"a"], b"a", "not a name", ["a", "not a name"], "x" * 101])
    async def test_what_is_no_name_is_refused(self, layer: Any, drain: Drain, exclude: Any) -> None:
        await layer.group_add("group", "a")
        with pytest.raises(TypeError):
            await layer.group_send("group", HELLO, exclude=exclude)
        assert await drain(layer, "a") == []
