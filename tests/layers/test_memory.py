"""What the in-process layer has beside the contract of engines: its views, its settings, its records."""

import asyncio
import re
from typing import Any

import pytest

from headrace import SendReport
from headrace.exceptions import InvalidMessage, LayerClosed
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock

HELLO = {"type": "hello"}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


class TestChannelsView:
    """``layer.channels`` is a live mapping of the channels that hold messages or receivers."""

    def test_a_new_layer_has_none(self, layer: InMemoryChannelLayer) -> None:
        assert layer.channels == {}
        assert len(layer.channels) == 0
        assert not layer.channels
        assert "channel" not in layer.channels

    def test_a_channel_with_a_message_is_in_it_until_it_is_read_empty(self, layer: InMemoryChannelLayer) -> None:
        channels = layer.channels
        layer.send_sync("channel", HELLO)
        assert "channel" in channels
        assert list(channels) == list(channels.keys()) == ["channel"]
        assert len(channels) == 1
        layer.receive_nowait("channel")
        assert "channel" not in channels
        assert channels == {}

    async def test_a_channel_with_a_receiver_is_in_it(self, layer: InMemoryChannelLayer) -> None:
        task = asyncio.ensure_future(layer.receive("channel"))
        await asyncio.sleep(0)
        assert "channel" in layer.channels
        await layer.send("channel", HELLO)
        await task
        assert "channel" not in layer.channels

    def test_a_channel_with_memberships_alone_is_not_in_it(self, layer: InMemoryChannelLayer) -> None:
        layer.group_add_sync("group", "channel")
        assert layer.channels == {}

    def test_a_channel_whose_messages_expired_is_not_in_it(self) -> None:
        clock = ManualClock()
        layer = InMemoryChannelLayer(expiry=10, clock=clock)
        layer.send_sync("channel", HELLO)
        clock.advance(10)
        assert "channel" not in layer.channels
        assert layer.channels == {}

    def test_its_values_are_read_like_queues(self) -> None:
        layer = InMemoryChannelLayer(capacity=2)
        layer.send_sync("channel", HELLO)
        queue = layer.channels["channel"]
        assert (queue.qsize(), queue.maxsize, queue.empty(), queue.full()) == (1, 2, False, False)
        layer.send_sync("channel", HELLO)
        assert (queue.qsize(), queue.full()) == (2, True)
        assert repr(queue) == "<mailbox of 'channel': 2 of 2>"
        assert [queue.qsize() for queue in layer.channels.values()] == [2]
        assert [name for name, _ in layer.channels.items()] == ["channel"]

    def test_deleting_one_closes_the_channel(self, layer: InMemoryChannelLayer) -> None:
        layer.send_sync("channel", HELLO)
        layer.group_add_sync("group", "channel")
        del layer.channels["channel"]
        assert layer.channels == {}
        assert layer.groups == {}
        assert layer.stats().dropped_other == 1

    def test_clearing_it_closes_them_all(self, layer: InMemoryChannelLayer) -> None:
        for n in range(5):
            layer.send_sync(f"channel{n}", HELLO)
        layer.channels.clear()
        assert layer.channels == {}
        assert layer.stats().depth == 0

    @pytest.mark.parametrize("name", ["nobody", "no name", 5, None])
    def test_what_is_not_there_is_a_key_error(self, layer: InMemoryChannelLayer, name: Any) -> None:
        assert name not in layer.channels
        assert layer.channels.get(name) is None
        with pytest.raises(KeyError):
            layer.channels[name]
        with pytest.raises(KeyError):
            del layer.channels[name]

    def test_it_can_be_shown(self, layer: InMemoryChannelLayer) -> None:
        layer.send_sync("channel", HELLO)
        assert repr(layer.channels) == "{'channel': <mailbox of 'channel': 1 of 100>}"

    def test_it_may_change_while_it_is_walked(self, layer: InMemoryChannelLayer) -> None:
        for n in range(5):
            layer.send_sync(f"channel{n}", HELLO)
        for name in layer.channels:
            del layer.channels[name]
        assert layer.channels == {}


class TestGroupsView:
    """``layer.groups`` is a live mapping of the groups that have members."""

    def test_a_new_layer_has_none(self, layer: InMemoryChannelLayer) -> None:
        assert layer.groups == {}
        assert len(layer.groups) == 0
        assert "group" not in layer.groups

    def test_a_group_is_in_it_while_it_has_members(self, layer: InMemoryChannelLayer) -> None:
        groups = layer.groups
        layer.group_add_sync("group", "a")
        layer.group_add_sync("group", "b")
        assert "group" in groups
        assert list(groups) == list(groups.keys()) == ["group"]
        members = groups["group"]
        assert sorted(members) == ["a", "b"]
        assert (len(members), "a" in members, "c" in members) == (2, True, False)
        layer.group_discard_sync("group", "a")
        layer.group_discard_sync("group", "b")
        assert groups == {}
        assert members == {}

    def test_a_membership_has_the_time_of_its_latest_group_add(self) -> None:
        clock = ManualClock()
        layer = InMemoryChannelLayer(clock=clock)
        layer.group_add_sync("group", "early")
        clock.advance(60)
        layer.group_add_sync("group", "late")
        members = layer.groups["group"]
        assert members["late"] - members["early"] == pytest.approx(60, abs=5)
        layer.group_add_sync("group", "early")
        assert members["late"] == pytest.approx(members["early"], abs=5)

    def test_a_group_whose_memberships_expired_is_not_in_it(self) -> None:
        clock = ManualClock()
        layer = InMemoryChannelLayer(group_expiry=10, clock=clock)
        layer.group_add_sync("group", "channel")
        members = layer.groups["group"]
        clock.advance(10)
        assert list(members) == []
        assert "group" not in layer.groups
        assert layer.groups == {}

    def test_deleting_a_member_discards_it(self, layer: InMemoryChannelLayer) -> None:
        layer.group_add_sync("group", "a")
        layer.group_add_sync("group", "b")
        del layer.groups["group"]["a"]
        assert layer.group_channels("group") == ["b"]
        with pytest.raises(KeyError):
            del layer.groups["group"]["a"]
        with pytest.raises(KeyError):
            layer.groups["group"]["a"]

    def test_deleting_a_group_discards_its_members(self, layer: InMemoryChannelLayer) -> None:
        for group in ("kept", "deleted"):
            for channel in ("a", "b"):
                layer.group_add_sync(group, channel)
        del layer.groups["deleted"]
        assert list(layer.groups) == ["kept"]
        assert layer.channel_groups("a") == ["kept"]

    def test_clearing_it_discards_everybody(self, layer: InMemoryChannelLayer) -> None:
        for n in range(5):
            layer.group_add_sync(f"group{n}", "channel")
        layer.groups.clear()
        assert layer.groups == {}
        assert layer.stats().memberships == 0

    @pytest.mark.parametrize("name", ["nobody", "no name", 5, None])
    def test_what_is_not_there_is_a_key_error(self, layer: InMemoryChannelLayer, name: Any) -> None:
        assert name not in layer.groups
        with pytest.raises(KeyError):
            layer.groups[name]
        with pytest.raises(KeyError):
            del layer.groups[name]

    def test_it_can_be_shown(self, layer: InMemoryChannelLayer) -> None:
        layer.group_add_sync("group", "channel")
        assert re.fullmatch(r"\{'group': \{'channel': \d+\.\d+\}\}", repr(layer.groups))


class TestSettings:
    """What the constructor takes, beside what every engine takes."""

    @pytest.mark.parametrize("wake", ["", "Direct", "futures", None, 1, []])
    def test_an_unknown_way_to_wake_is_a_value_error(self, wake: Any) -> None:
        with pytest.raises(ValueError, match="wake must be 'direct' or 'future'"):
            InMemoryChannelLayer(wake=wake)

    @pytest.mark.parametrize("clock", [5, "clock", object(), ManualClock])
    def test_a_clock_that_is_none_is_refused(self, clock: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=r"[Cc]lock"):
            InMemoryChannelLayer(clock=clock)

    @pytest.mark.parametrize(
        "settings",
        [
            {"capacity": 2**70},
            {"channel_capacity": {"a*": 2**70}},
            {"expiry": 10**400},
            {"expiry": 1e300},
            {"group_expiry": 10**400},
            {"group_expiry": 1e300},
        ],
        ids=repr,
    )
    def test_a_number_that_no_machine_can_count_to_is_a_value_error_that_names_the_setting(
        self, settings: dict[str, Any]
    ) -> None:
        (name,) = settings
        with pytest.raises(ValueError, match=name):
            InMemoryChannelLayer(**settings)

    def test_capacities_may_be_given_as_the_base_layer_reads_them(self) -> None:
        compiled = InMemoryChannelLayer(channel_capacity={"a*": 1}).channel_capacity
        layer = InMemoryChannelLayer(channel_capacity=compiled)  # type: ignore[arg-type]
        assert layer.channel_stats("abc").capacity == 1

    def test_strict_and_wake_and_clock_are_given_by_name(self) -> None:
        with pytest.raises(TypeError, match="positional"):
            InMemoryChannelLayer(60, 86400, 100, None, True)  # type: ignore[call-arg]

    def test_a_pattern_that_fails_matches_nothing_and_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken:
            def match(self, name: str) -> bool:
                raise LookupError("of the pattern")

        reported: list[Any] = []
        monkeypatch.setattr("sys.unraisablehook", reported.append)
        layer = InMemoryChannelLayer(capacity=3, channel_capacity={Broken(): 1})
        layer.send_sync("channel", HELLO)
        assert layer.channel_stats("channel").capacity == 3
        assert {type(report.exc_value) for report in reported} == {LookupError}

    def test_a_pattern_may_use_the_layer(self) -> None:
        class Asks:
            def match(self, name: str) -> bool:
                return asked.group_count("group") > 0

        asked = InMemoryChannelLayer(capacity=3, channel_capacity={Asks(): 1})
        asked.send_sync("before", HELLO)
        asked.group_add_sync("group", "member")
        asked.send_sync("after", HELLO)
        assert asked.channel_stats("before").capacity == 3
        assert asked.channel_stats("after").capacity == 1

    def test_the_settings_are_fixed_when_the_layer_is_made(self) -> None:
        capacities = {"a*": 1}
        layer = InMemoryChannelLayer(channel_capacity=capacities)
        capacities["a*"] = 5
        assert layer.channel_stats("abc").capacity == 1


class TestClosed:
    """A closed layer holds nothing and can still be looked at."""

    def test_its_views_are_empty(self, layer: InMemoryChannelLayer) -> None:
        layer.send_sync("channel", HELLO)
        layer.group_add_sync("group", "channel")
        asyncio.run(layer.close())
        assert layer.channels == {}
        assert layer.groups == {}
        assert (len(layer.channels), len(layer.groups)) == (0, 0)

    def test_closing_twice_closes_once(self, layer: InMemoryChannelLayer) -> None:
        layer.send_sync("channel", HELLO)
        asyncio.run(layer.close())
        asyncio.run(layer.close())
        assert layer.stats().dropped_other == 1

    def test_its_error_says_what_to_do(self, layer: InMemoryChannelLayer) -> None:
        asyncio.run(layer.close())
        with pytest.raises(LayerClosed, match="the layer is closed: make a new one"):
            layer.send_sync("channel", HELLO)


class TestReports:
    """Stats and reports are values: they can be compared and shown, and do not change."""

    def test_all_is_in_this_process(self, layer: InMemoryChannelLayer) -> None:
        layer.group_add_sync("group", "a")
        layer.group_add_sync("group", "b")
        assert layer.group_send_sync("group", HELLO, confirm=True) == SendReport(2, 0, 0, processes=1)
        report = layer.group_send_many_sync([("group", HELLO), ("group", HELLO), ("nobody", HELLO)])
        assert report == SendReport(4, 0, 0, delivered_here=4, processes=2)
        assert layer.send_many_sync([("a", HELLO), ("c", HELLO)]).processes == 2

    def test_they_can_be_added(self) -> None:
        here, unknown = SendReport(1, 2, 3, processes=1), SendReport(None, 1, 1, delivered_here=4)
        assert here + here == SendReport(2, 4, 6, processes=2)
        assert here + unknown == SendReport(None, 3, 4, delivered_here=5)

    def test_they_can_be_compared_and_shown(self, layer: InMemoryChannelLayer) -> None:
        report = layer.group_send_sync("group", HELLO)
        assert report == layer.group_send_sync("group", HELLO)
        assert repr(report) == "SendReport(delivered=0, delivered_here=0, dropped_full=0, dropped_other=0, processes=0)"
        before = layer.stats()
        layer.send_sync("channel", HELLO)
        assert before != layer.stats()
        assert repr(layer.stats()).startswith("LayerStats(channels=1, groups=0,")
        assert repr(layer.channel_stats("channel")).startswith("ChannelStats(depth=1, capacity=100,")
        assert repr(layer.group_stats("group")) == "GroupStats(members=0, sends=0, delivered=0, dropped_full=0)"

    def test_they_do_not_change(self, layer: InMemoryChannelLayer) -> None:
        stats = layer.stats()
        layer.send_sync("channel", HELLO)
        assert stats.sent == 0
        with pytest.raises(AttributeError):
            stats.sent = 1  # type: ignore[misc]


def test_the_clock_does_not_go_back() -> None:
    clock = ManualClock()
    for seconds in (-1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            clock.advance(seconds)


class TestLateFaults:
    """What fails on the receiver's side."""

    async def test_receive_many_returns_what_it_has_when_the_layer_is_closed(self, layer: InMemoryChannelLayer) -> None:
        task = asyncio.ensure_future(layer.receive_many("channel", 5))
        while layer.stats().waiters < 1:
            await asyncio.sleep(0)
        layer.send_sync("channel", HELLO)
        await layer.close()
        assert await task == [HELLO]

    async def test_a_value_that_cannot_be_copied_again_is_dropped_and_counted(
        self, layer: InMemoryChannelLayer
    ) -> None:
        class CopiedOnce:
            copies = 0

            def __deepcopy__(self, memo: object) -> Any:
                CopiedOnce.copies += 1
                if CopiedOnce.copies > 1:
                    raise LookupError("of the value")
                return self

        for channel in ("a", "b"):
            layer.group_add_sync("group", channel)
        layer.send_sync("a", {"n": 0})
        layer.group_send_sync("group", {"value": CopiedOnce()})
        layer.send_sync("a", {"n": 1})
        assert await layer.receive_many("a", 5) == [{"n": 0}]
        with pytest.raises(TypeError, match=r"message\['value'\]: CopiedOnce cannot be copied"):
            await layer.receive("a")
        assert await layer.receive("a") == {"n": 1}
        stats = layer.stats()
        assert (stats.sent, stats.delivered, stats.depth, stats.dropped_other) == (4, 2, 1, 1)

    def test_a_message_that_is_copied_into_something_else_is_refused(self, layer: InMemoryChannelLayer) -> None:
        class Odd(dict[str, Any]):
            def __deepcopy__(self, memo: object) -> Any:
                return (1, 2)

        with pytest.raises(InvalidMessage, match="once it is copied, but tuple"):
            layer.send_sync("channel", Odd())

    @pytest.mark.usefixtures("uncollected")
    def test_a_small_message_does_not_unfold_without_end(self, layer: InMemoryChannelLayer) -> None:
        value: Any = []
        for _ in range(40):
            value = [value, value]
        with pytest.raises(ValueError, match="containers"):
            layer.send_sync("channel", {"value": value})
        assert layer.stats().sent == 0

    async def test_receive_sync_does_not_stop_a_loop(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(RuntimeError, match="await receive"):
            layer.receive_sync("channel", timeout=1)
        layer.send_sync("channel", HELLO)
        assert layer.receive_sync("channel", timeout=1) == HELLO

    @pytest.mark.parametrize("pairs", [None, 5, {"a": HELLO}, [("a",)], [("a", HELLO, 1)], ["ab"]])
    async def test_what_is_no_pairs_is_said(self, layer: InMemoryChannelLayer, pairs: Any) -> None:
        with pytest.raises(TypeError, match="pairs are tuples of a name and a message"):
            await layer.send_many(pairs)
        with pytest.raises(TypeError, match="pairs are tuples of a name and a message"):
            await layer.group_send_many(pairs)

    async def test_what_is_no_channels_to_exclude_is_said(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(TypeError, match="exclude is a channel or several"):
            await layer.group_send("group", HELLO, exclude=5)  # type: ignore[arg-type]


class TestOddArguments:
    """What looks like nothing, or like text, and is not."""

    @pytest.mark.parametrize("prefix", [5, None, "", "a b", "a!", b"a", "x" * 100])
    async def test_what_no_name_can_begin_with_is_refused(self, layer: InMemoryChannelLayer, prefix: Any) -> None:
        with pytest.raises(TypeError, match="Channel name must be"):
            await layer.new_channel(prefix)

    @pytest.mark.parametrize("exclude", [0, False, 0.0])
    async def test_what_is_no_collection_is_not_taken_for_an_empty_one(
        self, layer: InMemoryChannelLayer, exclude: Any
    ) -> None:
        with pytest.raises(TypeError, match="exclude is a channel or several"):
            await layer.group_send("group", HELLO, exclude=exclude)

    async def test_the_views_of_a_closed_layer_are_empty(self, layer: InMemoryChannelLayer) -> None:
        await layer.close()
        assert "channel" not in layer.channels
        assert "group" not in layer.groups
        assert not layer.channels
        assert not layer.groups
