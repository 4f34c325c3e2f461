"""The newest messages of a group, for those who were away."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace import History, InMemoryChannelLayer, InvalidMessage, LayerClosed, SendReport
from headrace.testing import ManualClock, settle

KEY = "__headrace_position__"
HISTORY = {"room.*": {"size": 5, "ttl": 30}, "state.*": {"size": 1, "ttl": 3600}}
GROUP = "room.1"


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock."""
    return ManualClock()


@pytest.fixture
def layer(clock: ManualClock) -> InMemoryChannelLayer:
    """Give a layer with histories."""
    return InMemoryChannelLayer(history=HISTORY, clock=clock)


def send(layer: InMemoryChannelLayer, number: int, group: str = GROUP) -> str:
    """Send a number to a group; return its position."""
    position = layer.group_send_sync(group, {"type": "note", "number": number}).position
    assert position is not None
    return position


def drained(layer: InMemoryChannelLayer, channel: str) -> Iterator[dict[str, Any]]:
    """Receive all that is there."""
    while layer.channel_stats(channel).depth:
        yield layer.receive_nowait(channel)


def numbers(layer: InMemoryChannelLayer, channel: str) -> list[int]:
    """Receive all numbers that are there."""
    return [message["number"] for message in drained(layer, channel)]


class TestSend:
    """What a sender and a receiver learn."""

    async def test_a_report_and_each_copy_have_the_position(self, layer: InMemoryChannelLayer) -> None:
        for channel in ("a", "b"):
            await layer.group_add(GROUP, channel)
        report = await layer.group_send(GROUP, {"type": "note"})
        assert report.delivered == 2
        assert report.position is not None
        assert len(report.position) <= 40
        assert set(report.position) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        for channel in ("a", "b"):
            assert await layer.receive(channel) == {"type": "note", KEY: report.position}
        assert await layer.group_position(GROUP) == layer.group_position_sync(GROUP) == report.position
        assert report.position in repr(report)
        assert report != SendReport(2, 0, 0, processes=1)
        same = SendReport(2, 0, 0, processes=1, position=report.position)
        assert (report, hash(report), repr(report)) == (same, hash(same), repr(same))
        assert (report + report).position is None

    async def test_copies_that_are_received_in_turns_have_each_their_own_position(
        self, layer: InMemoryChannelLayer
    ) -> None:
        groups = ("room.1", "room.2")
        for group in groups:
            for member in ("a", "b"):
                await layer.group_add(group, f"{group}.{member}")
        sent = {group: send(layer, 0, group) for group in groups}
        for member in ("a", "b"):
            for group in groups:
                assert (await layer.receive(f"{group}.{member}"))[KEY] == sent[group]

    async def test_a_group_without_history_has_no_position(self, layer: InMemoryChannelLayer) -> None:
        await layer.group_add("hall", "c")
        report = await layer.group_send("hall", {"type": "note"})
        assert report.position is None
        assert "position" not in repr(report)
        assert await layer.receive("c") == {"type": "note"}
        assert await layer.group_position("hall") is None
        assert await InMemoryChannelLayer().group_position(GROUP) is None

    async def test_a_send_to_several_groups_is_kept_in_each(self, layer: InMemoryChannelLayer) -> None:
        report = await layer.group_send_many([("room.1", {"number": 1}), ("hall", {"number": 2}), ("room.2", {})])
        assert report.position is None
        assert [len((await layer.group_history(group)).messages) for group in ("room.1", "room.2")] == [1, 1]
        assert layer._group_send_unattended("room.1", {}, None)  # type: ignore[arg-type]
        assert len((await layer.group_history("room.1")).messages) == 2

    async def test_exclude_holds_for_live_delivery_only(self, layer: InMemoryChannelLayer) -> None:
        await layer.group_add(GROUP, "c")
        await layer.group_send(GROUP, {"number": 1}, exclude="c")
        assert numbers(layer, "c") == []
        assert await layer.group_add(GROUP, "c", since=1) is True
        assert numbers(layer, "c") == [1]

    @pytest.mark.parametrize("make", [dict, type("Own", (dict,), {})])
    @pytest.mark.parametrize("strict", [False, True])
    async def test_a_sender_must_not_give_the_key(self, make: type[dict[str, Any]], strict: bool) -> None:
        layer = InMemoryChannelLayer(strict=strict)
        message = make({"type": "note", KEY: "x"})
        with pytest.raises(InvalidMessage, match=r"message\['__headrace_position__'\]: this key is reserved"):
            await layer.group_send(GROUP, message)
        with pytest.raises(InvalidMessage, match="reserved"):
            await layer.send("c", message)
        await layer.send("c", {"inner": {KEY: 1}, "_" * len(KEY): 2})

    async def test_a_copy_is_the_receivers_own(self, layer: InMemoryChannelLayer) -> None:
        class Own(dict[str, Any]):
            pass

        await layer.group_send(GROUP, {"list": [1]})
        await layer.group_send(GROUP, Own(list=[2]))
        for _ in range(2):
            one, two = (await layer.group_history(GROUP)).messages
            assert (one["list"], two["list"], type(two)) == ([1], [2], Own)
            assert one[KEY] != two[KEY]
            one["list"].append(3)
            one[KEY] = two["list"] = None


class TestResume:
    """What a channel that was away receives."""

    async def test_what_was_missed_comes_first_then_what_is_sent(self, layer: InMemoryChannelLayer) -> None:
        first = send(layer, 1)
        send(layer, 2)
        send(layer, 3)
        assert await layer.group_add(GROUP, "c", since=first) is True
        send(layer, 4)
        assert numbers(layer, "c") == [2, 3, 4]

    async def test_a_replayed_message_has_its_position(self, layer: InMemoryChannelLayer) -> None:
        positions = [send(layer, number) for number in range(4)]
        assert layer.group_add_sync(GROUP, "c", since=positions[0]) is True
        assert [message[KEY] for message in drained(layer, "c")] == positions[1:]

    async def test_the_newest_messages(self, layer: InMemoryChannelLayer) -> None:
        for number in range(9):
            send(layer, number)
        for newest, expected in [(0, []), (2, [7, 8]), (5, [4, 5, 6, 7, 8]), (10**30, [4, 5, 6, 7, 8])]:
            assert await layer.group_add(GROUP, f"c{newest % 97}", since=newest) is True
            assert numbers(layer, f"c{newest % 97}") == expected

    async def test_a_size_of_one_keeps_the_latest_state(self, layer: InMemoryChannelLayer) -> None:
        for number in range(3):
            send(layer, number, "state.1")
        assert await layer.group_add("state.1", "c", since=1) is True
        assert numbers(layer, "c") == [2]

    async def test_too_old_is_not_complete_and_gets_no_part(self, layer: InMemoryChannelLayer) -> None:
        positions = [send(layer, number) for number in range(7)]
        assert await layer.group_add(GROUP, "c", since=positions[0]) is False
        send(layer, 7)
        assert numbers(layer, "c") == [7]
        assert await layer.group_add(GROUP, "d", since=positions[2]) is True

    async def test_without_since_nothing_is_answered(self, layer: InMemoryChannelLayer) -> None:
        send(layer, 1)
        assert await layer.group_add(GROUP, "c") is None
        assert layer.group_add_sync(GROUP, "c") is None
        assert numbers(layer, "c") == []

    async def test_a_receiver_that_waits_gets_it(self, layer: InMemoryChannelLayer) -> None:
        send(layer, 1)
        send(layer, 2)
        waiting = asyncio.ensure_future(layer.receive("c"))
        await settle()
        assert await layer.group_add(GROUP, "c", since=2) is True
        assert (await waiting)["number"] == 1
        assert numbers(layer, "c") == [2]

    async def test_a_receiver_that_is_cancelled_gives_it_back_to_its_place(self, layer: InMemoryChannelLayer) -> None:
        send(layer, 1)
        send(layer, 2)
        waiting = [asyncio.ensure_future(layer.receive("c")) for _ in range(2)]
        await settle()
        await layer.group_add(GROUP, "c", since=2)
        for each in waiting:
            each.cancel()
        await settle()
        send(layer, 3)
        assert numbers(layer, "c") == [1, 2, 3]

    async def test_a_channel_takes_what_was_missed_beyond_its_capacity(self) -> None:
        layer = InMemoryChannelLayer(capacity=2, history=HISTORY)
        for number in range(5):
            send(layer, number)
        await layer.group_add(GROUP, "c", since=5)
        for number in range(5, 9):
            send(layer, number)
        assert layer.stats().dropped_full == 2
        assert layer.channel_stats("c").depth == 7
        assert numbers(layer, "c") == [0, 1, 2, 3, 4, 5, 6]

    async def test_what_the_ring_drops_meanwhile_is_no_hole(self, layer: InMemoryChannelLayer) -> None:
        first = send(layer, 0)
        for number in range(1, 5):
            send(layer, number)
        assert await layer.group_add(GROUP, "c", since=first) is True
        await layer.group_discard(GROUP, "c")
        for number in range(5, 50):
            send(layer, number)
        assert numbers(layer, "c") == [1, 2, 3, 4]

    async def test_a_member_that_asks_again_gets_once_what_waits(self, layer: InMemoryChannelLayer) -> None:
        first = send(layer, 0)
        await layer.group_add(GROUP, "c")
        send(layer, 1)
        for _ in range(3):
            assert await layer.group_add(GROUP, "c", since=first) is True
        send(layer, 2)
        assert numbers(layer, "c") == [1, 2]

    async def test_what_is_replayed_expires(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        layer = InMemoryChannelLayer(expiry=10, history=HISTORY, clock=clock)
        send(layer, 1)
        await layer.group_add(GROUP, "c", since=1)
        clock.advance(10)
        assert layer.channel_stats("c").depth == 0
        stats = layer.stats()
        assert (stats.dropped_expired, stats.sent, stats.history_messages) == (1, 1, 1)

    async def test_the_books_balance(self, layer: InMemoryChannelLayer) -> None:
        for number in range(4):
            send(layer, number)
        await layer.group_add(GROUP, "c", since=3)
        await layer.receive("c")
        assert (layer.stats().sent, layer.stats().delivered, layer.stats().depth) == (3, 1, 2)
        layer.close_channel("c")
        stats = layer.stats()
        assert (stats.sent, stats.delivered, stats.depth, stats.dropped_other) == (3, 1, 0, 2)
        assert stats.channels == 0


class TestNotComplete:
    """Positions that are none of the stream."""

    async def test_another_group_an_evicted_stream_a_flush_and_another_layer(self, clock: ManualClock) -> None:
        layer, other = (InMemoryChannelLayer(history=HISTORY, clock=clock) for _ in range(2))
        position = send(layer, 1)
        send(layer, 1, "room.2")
        send(other, 1)
        assert await layer.group_add("room.2", "c", since=position) is False
        assert await other.group_add(GROUP, "c", since=position) is False
        await layer.flush()
        assert await layer.group_add(GROUP, "c", since=position) is False
        send(layer, 1)
        assert await layer.group_add(GROUP, "c", since=position) is False
        position = send(layer, 1)
        clock.advance(31)
        assert await layer.group_add(GROUP, "c", since=position) is False

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0",
            "null",
            "é",
            "\ud800",
            "a" * 27,
            "a" * 28,
            "A" * 28,
            "a" * 1_000_000,
            "' OR 1=1",
            "\0" * 28,
            "=" * 28,
        ],
        ids=lambda text: ascii(text[:12]) + str(len(text)),
    )
    async def test_a_text_that_is_no_position_is_not_complete(self, layer: InMemoryChannelLayer, text: str) -> None:
        send(layer, 1)
        assert await layer.group_add(GROUP, "c", since=text) is False
        assert layer.group_add_sync(GROUP, "c", since=text) is False
        assert await layer.group_history(GROUP, text) == History([], layer.group_position_sync(GROUP) or "", False)
        assert numbers(layer, "c") == []

    async def test_a_forged_position_gives_what_a_member_gets_at_most(self, layer: InMemoryChannelLayer) -> None:
        send(layer, 1)
        position = send(layer, 2)
        send(layer, 3, "room.2")
        complete = 0
        for place, character in enumerate(position):
            for other in "ABCDEFGH_":
                if other != character:
                    forged = position[:place] + other + position[place + 1 :]
                    complete += await layer.group_add(GROUP, "c", since=forged) is True
                    received = numbers(layer, "c")
                    assert received == [1, 2][2 - len(received) :]
        # The number of another message of the stream is that message's position.
        assert complete == 2

    @pytest.mark.parametrize("since", [True, 1.0, b"position", ["x"], {}, object])
    async def test_since_of_another_kind_is_an_error(self, layer: InMemoryChannelLayer, since: Any) -> None:
        send(layer, 1)
        match = r"since must be a position \(str\), or a number of messages \(int\), got"
        with pytest.raises(TypeError, match=match):
            await layer.group_add(GROUP, "c", since=since)
        with pytest.raises(TypeError, match=match):
            layer.group_add_sync(GROUP, "c", since=since)
        with pytest.raises(TypeError, match="since must be a position"):
            await layer.group_history(GROUP, since)
        assert layer.group_count(GROUP) == 0

    async def test_a_negative_number_is_an_error(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(ValueError, match="since must not be a negative number of messages, got int -1"):
            await layer.group_add(GROUP, "c", since=-1)
        with pytest.raises(TypeError, match="since must be a position"):
            await layer.group_history(GROUP, 3)  # type: ignore[arg-type]

    async def test_a_group_without_history_names_the_setting(self, layer: InMemoryChannelLayer) -> None:
        match = "the group 'hall' has no history: no glob of the layer's setting 'history' fits its name"
        for since in (1, "x"):
            with pytest.raises(ValueError, match=match):
                await layer.group_add("hall", "c", since=since)
        with pytest.raises(ValueError, match=match):
            await layer.group_history("hall")
        with pytest.raises(ValueError, match="has no history"):
            InMemoryChannelLayer().group_add_sync("hall", "c", since=1)
        assert layer.group_count("hall") == layer.stats().channels == 0

    async def test_names_are_checked(self, layer: InMemoryChannelLayer) -> None:
        for group, channel in [("room.1!", "c"), (GROUP, "c c"), (1, "c"), (GROUP, None)]:
            with pytest.raises(TypeError, match="must be a valid unicode string"):
                await layer.group_add(group, channel, since=1)  # type: ignore[arg-type]
        for bad in ("", "a b", None):
            with pytest.raises(TypeError, match="Group name"):
                await layer.group_position(bad)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="Group name"):
                await layer.group_history(bad)  # type: ignore[arg-type]

    async def test_a_closed_layer_refuses(self, layer: InMemoryChannelLayer) -> None:
        send(layer, 1)
        await layer.close()
        with pytest.raises(LayerClosed):
            await layer.group_add(GROUP, "c", since=1)
        with pytest.raises(LayerClosed):
            await layer.group_position(GROUP)
        with pytest.raises(LayerClosed):
            await layer.group_history(GROUP)
        with pytest.raises(LayerClosed):
            await layer.group_send(GROUP, {})


class TestHistory:
    """Reading what is kept."""

    async def test_the_newest_messages_oldest_first(self, layer: InMemoryChannelLayer) -> None:
        for number in range(8):
            send(layer, number)
        found = await layer.group_history(GROUP, limit=3)
        assert [message["number"] for message in found.messages] == [5, 6, 7]
        assert (found.position, found.complete) == (found.messages[-1][KEY], True)
        assert layer.group_history_sync(GROUP, limit=3) == found
        assert layer.stats().sent == 0

    async def test_page_by_page(self, layer: InMemoryChannelLayer) -> None:
        position = await layer.group_position(GROUP)
        for number in range(5):
            send(layer, number)
        pages = []
        while True:
            found = await layer.group_history(GROUP, position, 2)
            assert found.complete
            if not found.messages:
                break
            pages.append([message["number"] for message in found.messages])
            position = found.position
        assert pages == [[0, 1], [2, 3], [4]]
        assert found.position == position

    async def test_an_empty_group(self, layer: InMemoryChannelLayer) -> None:
        found = await layer.group_history(GROUP)
        assert found == History([], found.position, True)
        send(layer, 1)
        assert await layer.group_add(GROUP, "c", since=found.position) is True
        assert numbers(layer, "c") == [1]

    @pytest.mark.parametrize("limit", [0, -1, 1.5, "1", None])
    async def test_a_limit_is_a_positive_integer(self, layer: InMemoryChannelLayer, limit: Any) -> None:
        with pytest.raises(ValueError, match="limit must be a positive integer"):
            await layer.group_history(GROUP, limit=limit)


class TestSubscription:
    """Subscriptions that resume."""

    async def test_an_inbox_says_whether_it_is_complete(self, layer: InMemoryChannelLayer) -> None:
        first = send(layer, 1)
        send(layer, 2)
        async with layer.subscription(GROUP, since=first) as inbox:
            assert inbox.complete is True
            send(layer, 3)
            assert [(await anext(inbox))["number"] for _ in range(2)] == [2, 3]
        async with layer.subscription(GROUP, since="gone") as inbox:
            assert inbox.complete is False
        async with layer.subscription(GROUP) as inbox:
            assert inbox.complete is None
        assert layer.stats().memberships == 0

    async def test_of_several_groups_each_is_to_be_complete(self, layer: InMemoryChannelLayer) -> None:
        position = send(layer, 1)
        async with layer.subscription(GROUP, "room.2", since=position) as inbox:
            assert inbox.complete is False
        send(layer, 2, "room.2")
        async with layer.subscription(GROUP, "room.2", since=1) as inbox:
            assert inbox.complete is True
            assert [(await anext(inbox))["number"] for _ in range(2)] == [1, 2]

    async def test_a_later_join_answers_itself(self, layer: InMemoryChannelLayer) -> None:
        position = send(layer, 1)
        send(layer, 2)
        subscription = layer.subscription()
        async with subscription as inbox:
            assert await subscription.join(GROUP, since=position) is True
            assert await subscription.join("room.2", since=position) is False
            assert await subscription.join("room.3") is None
            assert inbox.complete is None
            assert (await anext(inbox))["number"] == 2

    async def test_a_wrong_since_joins_nothing(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(TypeError, match="since must be"):
            async with layer.subscription(GROUP, since=1.5):  # type: ignore[arg-type]
                pass
        with pytest.raises(ValueError, match="has no history"):
            async with layer.subscription("hall", since=1):
                pass
        assert layer.stats().memberships == layer.stats().channels == 0

    async def test_an_inbox_of_a_layer_with_its_own_receive(self) -> None:
        class Own(InMemoryChannelLayer):
            async def receive(self, channel: str) -> dict[str, Any]:
                return await super().receive(channel)

        layer = Own(history=HISTORY)
        first = send(layer, 1)
        send(layer, 2)
        async with layer.subscription(GROUP, since=first) as inbox:
            assert inbox.complete is True
            assert (await anext(inbox))["number"] == 2


class TestOverrides:
    """Subclasses that know nothing of histories."""

    async def test_one_that_overrides_group_add_works_without_since(self) -> None:
        class Old(InMemoryChannelLayer):
            async def group_add(self, group: str, channel: str) -> None:  # type: ignore[override]
                await super().group_add(group, channel)

        layer = Old(history=HISTORY)
        async with layer.subscription(GROUP) as inbox:
            await layer.group_send(GROUP, {"number": 1})
            assert (await anext(inbox))["number"] == 1
        await asyncio.to_thread(layer.group_add_sync, GROUP, "c")
        assert layer.group_channels(GROUP) == ["c"]
        with pytest.raises(TypeError, match="group_add"):
            async with layer.subscription(GROUP, since=1):
                pass

    async def test_the_twin_of_one_that_knows_them_passes_it_on(self) -> None:
        class New(InMemoryChannelLayer):
            async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
                return await super().group_add(group, channel, since)

        layer = New(history=HISTORY)
        send(layer, 1)
        assert await asyncio.to_thread(layer.group_add_sync, GROUP, "c", 1) is True
        assert numbers(layer, "c") == [1]


class TestBounds:
    """How much is kept, and for how long."""

    async def test_a_stream_ends_so_long_after_its_last_message(
        self, layer: InMemoryChannelLayer, clock: ManualClock
    ) -> None:
        first = send(layer, 1)
        clock.advance(29)
        send(layer, 2)
        clock.advance(29)
        assert await layer.group_add(GROUP, "c", since=first) is True
        clock.advance(1)
        assert layer.stats().history_messages == layer.stats().history_bytes == 0
        assert (await layer.group_history(GROUP)).messages == []

    async def test_the_group_that_was_unused_for_longest_goes_first(self) -> None:
        layer = InMemoryChannelLayer(history={"*": {"size": 9, "ttl": 60}}, history_bytes=2_000)
        positions = {group: send(layer, 1, group) for group in ("a", "b", "c")}
        assert await layer.group_add("a", "c", since=positions["a"]) is True
        for number in range(2, 5):
            send(layer, number, "c")
        stats = layer.stats()
        assert stats.history_bytes <= layer.history_bytes == 2_000
        assert stats.history_evicted > 0
        assert await layer.group_add("b", "c", since=positions["b"]) is False

    async def test_redis_streams_adapter_47_any_number_of_groups_is_bounded(self) -> None:
        layer = InMemoryChannelLayer(history={"*": {"size": 9, "ttl": 60}}, history_bytes=100_000)
        for number in range(3_000):
            send(layer, 1, f"room.{number}")
            await layer.group_position(f"empty.{number}")
        stats = layer.stats()
        assert stats.history_bytes <= 100_000
        assert stats.history_evicted > 5_000

    @pytest.mark.parametrize(
        ("history", "match"),
        [
            ([], "history must be a mapping of globs of groups, such as"),
            ("room.*", "history must be a mapping"),
            ({1: {"size": 1, "ttl": 1}}, r"history keys must be globs \(str\) of the names of groups, got 1"),
            ({"": {"size": 1, "ttl": 1}}, "history keys must be globs"),
            ({"a": 100}, r"history\['a'\] must be a mapping with the keys 'size', in messages, and 'ttl', in seconds"),
            ({"a": {"size": 1}}, r"history\['a'\] must be a mapping"),
            ({"a": {"size": 1, "ttl": 1, "more": 1}}, r"history\['a'\] must be a mapping"),
            ({"a": {"size": 0, "ttl": 1}}, r"history\['a'\]\['size'\] must be an integer from 1 to 10000, got 0"),
            ({"a": {"size": 10_001, "ttl": 1}}, "from 1 to 10000, got 10001"),
            ({"a": {"size": True, "ttl": 1}}, "from 1 to 10000, got True"),
            ({"a": {"size": 1.0, "ttl": 1}}, "from 1 to 10000, got 1.0"),
            ({"a": {"size": 1, "ttl": 0}}, r"history\['a'\]\['ttl'\] must be a positive number of seconds, got 0"),
            ({"a": {"size": 1, "ttl": "1"}}, "must be a positive number of seconds, got '1'"),
            ({"a": {"size": 1, "ttl": 1e11}}, "must be at most 1e"),
        ],
    )
    def test_a_wrong_setting_is_named(self, history: Any, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            InMemoryChannelLayer(history=history)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
    def test_a_wrong_bound_is_named(self, value: Any) -> None:
        with pytest.raises(ValueError, match="history_bytes must be a positive integer"):
            InMemoryChannelLayer(history_bytes=value)

    def test_what_is_kept_of_a_layer_that_nobody_has_is_garbage(self) -> None:
        class Marker:
            def __deepcopy__(self, _memo: object) -> "Marker":
                return self

        marker = Marker()
        layer = InMemoryChannelLayer(history=HISTORY)
        gone = weakref.ref(marker)
        layer.group_send_sync(GROUP, {"layer": marker})
        marker.layer = layer  # type: ignore[attr-defined]
        del marker, layer
        gc.collect()
        assert gone() is None


class TestFaultsOfOthers:
    """What went wrong elsewhere, each by where that was told."""

    async def test_socket_io_5538_zero_events_missed_is_complete(self, layer: InMemoryChannelLayer) -> None:
        """One that had received nothing yet could not resume."""
        position = await layer.group_position(GROUP)
        assert position is not None
        assert await layer.group_add(GROUP, "c", since=position) is True
        send(layer, 1)
        assert numbers(layer, "c") == [1]
        assert await layer.group_add(GROUP, "d", since=position) is True
        position = send(layer, 2)
        assert await layer.group_add(GROUP, "e", since=position) is True
        assert numbers(layer, "e") == []

    async def test_socket_io_5419_redis_streams_adapter_39_a_second_break_is_complete_too(
        self, layer: InMemoryChannelLayer
    ) -> None:
        """What was replayed had no position, so that the second resume began at the first one's."""
        position = send(layer, 0)
        for turn in range(1, 10):
            send(layer, turn)
            assert await layer.group_add(GROUP, f"c{turn}", since=position) is True
            received = list(drained(layer, f"c{turn}"))
            assert [message["number"] for message in received] == [turn]
            position = received[-1][KEY]
            layer.close_channel(f"c{turn}")

    def test_redis_streams_adapter_26_what_was_delivered_can_be_resumed_from(self) -> None:
        """A client came back before the message that it had was stored."""
        layer = InMemoryChannelLayer(capacity=10_000, history={"room.*": {"size": 10_000, "ttl": 60}})
        start, done = layer.group_position_sync(GROUP), threading.Event()

        def send_all() -> None:
            for number in range(3_000):
                send(layer, number)
            done.set()

        def come_and_go(name: str) -> list[int]:
            position, seen, turn = start, [], 0
            while True:
                is_last = done.is_set()
                turn += 1
                assert layer.group_add_sync(GROUP, f"{name}.{turn}", since=position) is True
                for message in drained(layer, f"{name}.{turn}"):
                    seen.append(message["number"])
                    position = message[KEY]
                layer.close_channel(f"{name}.{turn}")
                if is_last:
                    return seen

        with ThreadPoolExecutor(4) as threads:
            clients = [threads.submit(come_and_go, f"client{number}") for number in range(3)]
            threads.submit(send_all).result()
            assert [client.result() for client in clients] == [list(range(3_000))] * 3

    @pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
    async def test_socket_io_5539_a_message_that_is_dropped_moves_no_position(
        self, layer: InMemoryChannelLayer, overflow: Any
    ) -> None:
        """What a full mailbox dropped was passed over when the client came back."""
        position = send(layer, 0)
        async with layer.subscription(GROUP, max_backlog=2, overflow=overflow) as inbox:
            for number in range(1, 5):
                send(layer, number)
            seen = []
            if overflow == "drop_new":
                for _ in range(2):
                    message = await anext(inbox)
                    seen.append(message["number"])
                    position = message[KEY]
        assert await layer.group_add(GROUP, "c", since=position) is True
        assert seen + numbers(layer, "c") == [1, 2, 3, 4]

    async def test_a_message_that_comes_during_a_replay_is_neither_early_nor_lost(
        self, layer: InMemoryChannelLayer
    ) -> None:
        """Elsewhere a live message overtook the replay, or came between the look at the store and the subscription."""
        first = send(layer, 0)
        send(layer, 1)
        send(layer, 2)
        async with layer.subscription(GROUP, since=first) as inbox:
            seen = []
            for number in range(3, 9):
                seen.append((await anext(inbox))["number"])
                send(layer, number)
            seen += [(await anext(inbox))["number"] for _ in range(2)]
        assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_ten_thousand_clients_resume_at_once() -> None:
    layer = InMemoryChannelLayer(history={"room.*": {"size": 100, "ttl": 60}})
    first = send(layer, 0)
    for number in range(1, 51):
        send(layer, number)
    channels = [await layer.new_channel() for _ in range(10_000)]
    answers = await asyncio.gather(*(layer.group_add(GROUP, channel, since=first) for channel in channels))
    assert answers == [True] * 10_000
    send(layer, 51)
    stats = layer.stats()
    assert (stats.depth, stats.sent) == (510_000, 510_000)
    # What is replayed is in no mailbox: all share one list.
    assert stats.bytes == 10_000 * layer.channel_stats(channels[0]).bytes < 10_000 * stats.history_bytes / 50
    for channel in channels[::20]:
        messages = await layer.receive_many(channel, 100)
        assert [message["number"] for message in messages] == list(range(1, 52))
    for channel in channels:
        layer.close_channel(channel)
    stats = layer.stats()
    assert (stats.depth, stats.delivered, stats.dropped_other) == (0, 25_500, 484_500)
