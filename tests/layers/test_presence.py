"""Who is present in a group: what its members are told, what a list shows, and what ends an entry."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace import ForeignChannel, InMemoryChannelLayer, LayerClosed, MessageTooLarge, Presence
from headrace.testing import ManualClock

GROUP = "room.1"
INTERVAL, LINGER = 0.5, 10.0
SETTING: dict[str, dict[str, Any]] = {
    "room.*": {"interval": INTERVAL, "linger": LINGER, "max": 4},
    "quick.*": {"type": "who.changed", "linger": 0},
}


TASKS = Path("/proc/self/task")


def threads() -> set[str]:
    """Return the threads that tell who is present. A thread may end while it is looked at."""
    found = set()
    for task in TASKS.iterdir():
        with suppress(OSError):
            if (task / "comm").read_text().startswith("headrace-presen"):
                found.add(task.name)
    return found


def until_threads(expected: int, others: set[str]) -> None:
    """Wait until there are so many of them beside those of other layers."""
    pause, end = threading.Event(), time.monotonic() + 60
    while len(threads() - others) != expected:
        assert time.monotonic() < end
        gc.collect()
        pause.wait(0.01)


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock."""
    return ManualClock()


@pytest.fixture
def layer(clock: ManualClock) -> InMemoryChannelLayer:
    """Give a layer that tells who is present."""
    return InMemoryChannelLayer(presence=SETTING, counted=["room.*"], clock=clock)


def add(layer: InMemoryChannelLayer, key: str, meta: dict[str, Any] | None = None, group: str = GROUP) -> str:
    """Show a new channel under a key; return it."""
    channel = layer.new_channel_sync()
    layer.presence_add_sync(group, channel, key=key, meta=meta)
    return channel


def watch(layer: InMemoryChannelLayer, group: str = GROUP) -> str:
    """Make a member that is told, and is not present itself."""
    channel = layer.new_channel_sync()
    layer.group_add_sync(group, channel)
    return channel


def told(layer: InMemoryChannelLayer, channel: str) -> Iterator[dict[str, Any]]:
    """Receive all that is there."""
    while layer.channel_stats(channel).depth:
        yield layer.receive_nowait(channel)


class TestTold:
    """What members are told."""

    async def test_a_diff_says_who_came(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        channel = await layer.new_channel()
        await layer.presence_add(GROUP, channel, key="ann", meta={"name": "Ann"})
        clock.advance(INTERVAL)
        event = await layer.receive(channel)
        assert (event.pop("version"), event.pop("previous")) == (1, 0)
        assert event == {
            "type": "presence.diff",
            "group": GROUP,
            "scope": "changes",
            "joins": {"ann": [{"name": "Ann"}]},
            "leaves": {},
            "online": ["ann"],
            "offline": [],
            "count": 1,
            "channels": 1,
        }

    def test_the_type_is_that_of_the_setting(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        channel = add(layer, "ann", group="quick.1")
        clock.advance(INTERVAL)
        assert [event["type"] for event in told(layer, channel)] == ["who.changed"]

    def test_all_changes_of_an_interval_are_one_message(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        watcher = watch(layer)
        channels = [add(layer, key) for key in ("ann", "bob", "ann", "eve")]
        layer.presence_discard_sync(GROUP, channels[-1])
        clock.advance(INTERVAL)
        for channel in (watcher, *channels):
            (event,) = told(layer, channel)
            assert event["joins"] == {"ann": [{}, {}], "bob": [{}]}
            assert (event["online"], event["count"], event["channels"]) == (["ann", "bob"], 2, 3)
        clock.advance(3 * LINGER)
        assert list(told(layer, watcher)) == []

    def test_a_key_that_returns_within_linger_is_no_event(
        self, layer: InMemoryChannelLayer, clock: ManualClock
    ) -> None:
        watcher, channel = watch(layer), add(layer, "ann", {"tab": 1})
        clock.advance(INTERVAL)
        layer.close_channel(channel)
        clock.advance(LINGER - 1)
        add(layer, "ann", {"tab": 1})
        clock.advance(3 * LINGER)
        assert len(list(told(layer, watcher))) == 1
        assert layer.presence_sync(GROUP).entries == {"ann": [{"tab": 1}]}

    def test_a_key_that_does_not_return_is_offline_after_linger(
        self, layer: InMemoryChannelLayer, clock: ManualClock
    ) -> None:
        watcher, channel = watch(layer), add(layer, "ann")
        clock.advance(INTERVAL)
        layer.group_discard_sync(GROUP, channel)
        clock.advance(LINGER)
        assert layer.presence_count_sync(GROUP) == (1, 1)
        clock.advance(INTERVAL)
        assert [event["offline"] for event in told(layer, watcher)] == [[], ["ann"]]
        assert layer.presence_count_sync(GROUP) == (0, 0)
        assert layer.stats().presence_entries == 0

    def test_beyond_max_only_counts_are_told(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        watcher, channels = watch(layer), [add(layer, f"user{number}") for number in range(5)]
        clock.advance(INTERVAL)
        (event,) = told(layer, watcher)
        assert (event["scope"], event["joins"], event["online"]) == ("counts", {}, [])
        assert (event["count"], event["channels"]) == (5, 5)
        listed = layer.presence_sync(GROUP)
        assert listed == Presence({}, event["version"], count=5, channels=5, hidden=True)
        assert layer.stats().presence_hidden == 1
        layer.presence_discard_sync(GROUP, channels[0])
        clock.advance(LINGER)
        clock.advance(INTERVAL)
        (event,) = told(layer, watcher)
        assert (event["scope"], len(event["joins"]), event["online"]) == ("full", 4, [])
        assert not layer.presence_sync(GROUP).hidden

    def test_what_a_full_mailbox_drops_is_counted_and_seen(self, clock: ManualClock) -> None:
        layer = InMemoryChannelLayer(presence=SETTING, capacity=1, clock=clock)
        watcher = watch(layer)
        for key in ("ann", "bob"):
            add(layer, key)
            clock.advance(INTERVAL)
        assert layer.channel_stats(watcher).dropped_full == 1
        (event,) = told(layer, watcher)
        add(layer, "eve")
        clock.advance(INTERVAL)
        (later,) = told(layer, watcher)
        assert later["previous"] > event["version"]
        assert layer.stats().presence_diffs == 3

    async def test_without_a_clock_of_ones_own_it_comes_by_itself(self) -> None:
        layer = InMemoryChannelLayer(presence={"*": {"interval": 0.01, "linger": 0}})
        channel = await layer.new_channel()
        await layer.presence_add("hall", channel, key="ann")
        # Nobody does anything else: a thread of the layer's tells it.
        assert (await layer.receive(channel))["online"] == ["ann"]
        gone = await layer.new_channel()
        await layer.presence_add("hall", gone, key="bob")
        assert (await layer.receive(channel))["online"] == ["bob"]
        layer.close_channel(gone)
        assert (await layer.receive(channel))["offline"] == ["bob"]

    def test_a_thread_that_sleeps_is_woken(self) -> None:
        layer = InMemoryChannelLayer(presence={"*": {"interval": 0.2, "linger": 0}})
        channel = layer.new_channel_sync()
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(layer.receive_sync, channel, 60)
            layer.presence_add_sync("hall", channel, key="ann")
            assert received.result()["online"] == ["ann"]

    @pytest.mark.skipif(not TASKS.exists(), reason="the names of threads are read from /proc")
    def test_the_thread_of_a_layer_ends_with_it(self) -> None:
        # Those of layers that other tests have not let go of.
        others = threads()
        layer = InMemoryChannelLayer(presence={"*": {}})
        channel = layer.new_channel_sync()
        layer.group_add_sync("hall", channel)
        assert threads() <= others
        layer.presence_add_sync("hall", channel, key="ann")
        until_threads(1, others)
        del layer
        until_threads(0, others)


class TestEntries:
    """What makes an entry, changes it, and ends it."""

    async def test_an_entry_is_in_no_list_before_it_was_told(
        self, layer: InMemoryChannelLayer, clock: ManualClock
    ) -> None:
        add(layer, "ann", {"tab": 1})
        assert await layer.presence(GROUP) == Presence({}, 0, count=0, channels=0, hidden=False)
        clock.advance(INTERVAL)
        listed = await layer.presence(GROUP)
        assert (listed.entries, listed.count, listed.channels) == ({"ann": [{"tab": 1}]}, 1, 1)
        assert await layer.presence_count(GROUP) == layer.presence_count_sync(GROUP) == (1, 1)

    async def test_whoever_is_present_is_a_member(self, layer: InMemoryChannelLayer) -> None:
        channel = add(layer, "ann")
        assert layer.group_channels(GROUP) == [channel]
        await layer.presence_discard(GROUP, channel)
        await layer.presence_discard(GROUP, channel)
        assert layer.group_channels(GROUP) == [channel]

    async def test_an_update_replaces_the_meta(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        watcher, channel = watch(layer), add(layer, "ann", {"n": 0})
        clock.advance(INTERVAL)
        for number in range(1, 5):
            assert await layer.presence_update(GROUP, channel, meta={"n": number})
        clock.advance(INTERVAL)
        event = list(told(layer, watcher))[-1]
        assert (event["leaves"], event["joins"]) == ({"ann": [{"n": 0}]}, {"ann": [{"n": 4}]})
        assert (event["online"], event["offline"]) == ([], [])
        assert not layer.presence_update_sync(GROUP, watcher, meta={})
        assert not await layer.presence_update("room.9", channel, meta={})

    @pytest.mark.parametrize("end", ["group_discard", "close_channel", "flush", "expiry", "forgotten"])
    async def test_an_entry_ends_with_its_membership(self, clock: ManualClock, end: str) -> None:
        layer = InMemoryChannelLayer(presence=SETTING, group_expiry=50, clock=clock)
        channel = add(layer, "ann")
        held = None if end == "expiry" else layer._inbox(channel)
        clock.advance(INTERVAL)
        assert layer.presence_count_sync(GROUP) == (1, 1)
        match end:
            case "group_discard":
                await layer.group_discard(GROUP, channel)
            case "close_channel":
                layer.close_channel(channel)
            case "flush":
                await layer.flush()
            case "expiry" | "forgotten":
                del held
                gc.collect()
                clock.advance(60)
                assert layer.stats().memberships == 0
        clock.advance(LINGER)
        clock.advance(INTERVAL)
        assert layer.presence_count_sync(GROUP) == (0, 0)
        assert layer.stats().presence_entries == 0

    def test_metas_of_all_kinds_are_read_back(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        meta = {"text": "ä", "list": [1, -1, 2**63, 1.5, None, True], "map": {"a": {"b": b"c"}}, "": ()}
        add(layer, "Ännchen", meta)
        clock.advance(INTERVAL)
        assert layer.presence_sync(GROUP).entries == {"Ännchen": [{**meta, "": []}]}

    async def test_a_close_refuses_all_further_work(self, layer: InMemoryChannelLayer) -> None:
        channel = add(layer, "ann")
        await layer.close()
        for call in (
            layer.presence_add(GROUP, channel, key="ann"),
            layer.presence_update(GROUP, channel, meta={}),
            layer.presence_discard(GROUP, channel),
            layer.presence(GROUP),
            layer.presence_count(GROUP),
            layer.group_count_everywhere(GROUP),
        ):
            with pytest.raises(LayerClosed):
                await call

    async def test_many_threads_and_a_reader_agree(self, clock: ManualClock) -> None:
        layer = InMemoryChannelLayer(presence={"*": {"interval": 0.01, "linger": 0, "max": 10_000}})
        watcher = await layer.new_channel()
        await layer.group_add("hall", watcher)

        def come_and_go(number: int) -> str:
            for _ in range(50):
                layer.close_channel(add(layer, f"user{number}", group="hall"))
            return add(layer, f"user{number}", group="hall")

        with ThreadPoolExecutor(4) as pool:
            stayed = list(pool.map(come_and_go, range(4)))
        seen: dict[str, list[dict[str, Any]]] = {}
        while len(seen) < len(stayed):
            event = await asyncio.wait_for(layer.receive(watcher), 60)
            follow(seen, event)
        listed = await layer.presence("hall")
        assert listed.entries == {f"user{number}": [{}] for number in range(4)}


def follow(seen: dict[str, list[dict[str, Any]]], event: dict[str, Any]) -> None:
    """Do with an event what a client does."""
    for key, metas in event["leaves"].items():
        for meta in metas:
            seen[key].remove(meta)
    for key, metas in event["joins"].items():
        seen.setdefault(key, []).extend(metas)
    for key in event["offline"]:
        assert seen.pop(key) == []


class TestCountEverywhere:
    """The number of members in all processes."""

    async def test_in_process_it_is_the_same_number(self, layer: InMemoryChannelLayer) -> None:
        watch(layer)
        watch(layer)
        assert await layer.group_count_everywhere(GROUP) == layer.group_count(GROUP) == 2
        assert layer.group_count_everywhere_sync("room.2") == 0

    async def test_a_group_that_is_not_counted_is_refused(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(ValueError, match=r"the group 'hall' is not counted .* setting 'counted'"):
            await layer.group_count_everywhere("hall")
        with pytest.raises(TypeError, match="Group name"):
            layer.group_count_everywhere_sync("no room")
        with pytest.raises(ValueError, match="is not counted"):
            InMemoryChannelLayer().group_count_everywhere_sync(GROUP)

    @pytest.mark.parametrize("counted", ["room.*", b"room.*", 7, [1], [""]])
    def test_bad_settings_are_refused(self, counted: Any) -> None:
        with pytest.raises(ValueError, match="counted must be a list of globs"):
            InMemoryChannelLayer(counted=counted)


class TestBadInput:
    """What is refused, and in which words."""

    @pytest.mark.parametrize("key", [None, 7, b"ann", ["ann"]])
    async def test_keys_that_are_no_text(self, layer: InMemoryChannelLayer, key: Any) -> None:
        channel = await layer.new_channel()
        with pytest.raises(TypeError, match=r"key of a presence must be text \(str\), such as str\(user.pk\), got"):
            await layer.presence_add(GROUP, channel, key=key)

    @pytest.mark.parametrize("key", ["", "x" * 257, "ä" * 129, "\ud800"])
    async def test_keys_that_do_not_fit(self, layer: InMemoryChannelLayer, key: str) -> None:
        channel = await layer.new_channel()
        with pytest.raises(ValueError, match="key of a presence must"):
            await layer.presence_add(GROUP, channel, key=key)
        await layer.presence_add(GROUP, channel, key="x" * 256)

    @pytest.mark.parametrize("meta", [7, "name", [1], {"a": object()}, {1: 2}, {"a": {1, 2}}])
    async def test_metas_that_cannot_be_packed(self, layer: InMemoryChannelLayer, meta: Any) -> None:
        channel = await layer.new_channel()
        for refused in (
            lambda: layer.presence_add(GROUP, channel, key="ann", meta=meta),
            lambda: layer.presence_update(GROUP, channel, meta=meta),
        ):
            with pytest.raises(TypeError, match=r"^(the )?meta"):
                await refused()
        assert layer.group_channels(GROUP) == []

    @pytest.mark.parametrize("value", [2**64, "\ud800"])
    async def test_values_that_do_not_fit(self, layer: InMemoryChannelLayer, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^meta\['a'\]: "):
            await layer.presence_add(GROUP, await layer.new_channel(), key="ann", meta={"a": value})

    async def test_metas_that_are_nested_too_deep(self, layer: InMemoryChannelLayer, clock: ManualClock) -> None:
        def nested(depth: int) -> dict[str, Any]:
            meta: dict[str, Any] = {}
            for _ in range(depth):
                meta = {"a": meta}
            return meta

        channel = await layer.new_channel()
        with pytest.raises(ValueError, match="nested deeper"):
            await layer.presence_add(GROUP, channel, key="ann", meta=nested(61))
        # The deepest that is taken can be received.
        await layer.presence_add(GROUP, channel, key="ann", meta=nested(60))
        clock.advance(INTERVAL)
        assert (await layer.receive(channel))["joins"] == {"ann": [nested(60)]}

    async def test_metas_that_are_too_long(self, layer: InMemoryChannelLayer) -> None:
        channel = await layer.new_channel()
        with pytest.raises(MessageTooLarge, match="meta of a presence may take 4096 bytes of msgpack"):
            await layer.presence_add(GROUP, channel, key="ann", meta={"a": "x" * 4096})
        await layer.presence_add(GROUP, channel, key="ann", meta={"a": "x" * 4000})
        with pytest.raises(MessageTooLarge, match="may take 4096 bytes"):
            await layer.presence_update(GROUP, channel, meta={"a": "x" * 4096})

    async def test_groups_that_have_no_presence(self, layer: InMemoryChannelLayer) -> None:
        channel = await layer.new_channel()
        for call in (
            layer.presence_add("hall", channel, key="ann"),
            layer.presence_update("hall", channel, meta={}),
            layer.presence_discard("hall", channel),
            layer.presence("hall"),
            layer.presence_count("hall"),
        ):
            with pytest.raises(ValueError, match=r"the group 'hall' has no presence: no glob of .* 'presence' fits"):
                await call
        with pytest.raises(TypeError, match="Group name"):
            await layer.presence("no room")
        assert layer.group_count("hall") == 0

    @pytest.mark.parametrize("channel", ["specific.other!0123456789abcdef01234567", "queue"])
    async def test_channels_of_another_process(self, layer: InMemoryChannelLayer, channel: str) -> None:
        for call in (
            layer.presence_add(GROUP, channel, key="ann"),
            layer.presence_update(GROUP, channel, meta={}),
            layer.presence_discard(GROUP, channel),
        ):
            with pytest.raises(ForeignChannel, match=f"{channel}.* is no channel of this process"):
                await call
        with pytest.raises(TypeError, match="Channel name"):
            await layer.presence_add(GROUP, "no channel", key="ann")

    @pytest.mark.parametrize(
        ("setting", "text"),
        [
            (["room.*"], r"presence must be a mapping of globs of groups"),
            ({"": {}}, r"presence keys must be globs"),
            ({7: {}}, r"presence keys must be globs"),
            ({"room.*": 7}, r"presence\['room.\*'\] must be a mapping with some of the keys 'type', 'interval'"),
            ({"room.*": {"ttl": 7}}, r"with some of the keys 'type', 'interval', 'linger', 'max', got"),
            ({"room.*": {"type": ""}}, r"\['type'\] must be the type of a message"),
            ({"room.*": {"interval": 0}}, r"\['interval'\] must be a positive number of seconds"),
            ({"room.*": {"interval": 61}}, r"\['interval'\] must be from 0.01 to 60 seconds, got 61"),
            ({"room.*": {"linger": -1}}, r"\['linger'\] must be a positive number of seconds"),
            ({"room.*": {"linger": 3601}}, r"\['linger'\] must be from 0 to 3600 seconds, got 3601"),
            ({"room.*": {"max": 0}}, r"\['max'\] must be an integer from 1 to 100000, got 0"),
            ({"room.*": {"max": True}}, r"\['max'\] must be an integer"),
        ],
    )
    def test_bad_settings(self, setting: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            InMemoryChannelLayer(presence=setting)
