"""Who is present in a group: what every engine tells its members, and lists."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headrace.exceptions import ForeignChannel, MessageTooLarge

MakeLayer = Callable[..., Any]

GROUP = "room"
SECONDS = 60


def setting(**options: Any) -> dict[str, Any]:
    return {GROUP: {"type": "presence.diff", "interval": 0.02, "linger": 0, **options}}


@pytest.fixture
def layer(make_layer: MakeLayer) -> Any:
    return make_layer(presence=setting(), counted=["hall"])


async def watch(layer: Any) -> str:
    """Have a channel be a member; give it."""
    channel: str = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    # Whoever reads the list knows it from then on.
    await layer.presence(GROUP)
    return channel


async def told(layer: Any, channel: str) -> dict[str, Any]:
    """Give the next that a member is told."""
    event: dict[str, Any] = await asyncio.wait_for(layer.receive(channel), SECONDS)
    return event


def changes(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["joins"], event["leaves"], event["online"], event["offline"], event["count"], event["channels"]


class TestTold:
    async def test_who_joins_changes_and_leaves_is_told_and_listed(self, layer: Any) -> None:
        member, ann = await watch(layer), await layer.new_channel()
        await layer.presence_add(GROUP, ann, key="ann", meta={"n": 1})
        joined = await told(layer, member)
        assert (joined["type"], joined["group"], joined["scope"]) == ("presence.diff", GROUP, "changes")
        assert changes(joined) == ({"ann": [{"n": 1}]}, {}, ["ann"], [], 1, 1)
        found = await layer.presence(GROUP)
        assert (found.entries, found.version) == ({"ann": [{"n": 1}]}, joined["version"])
        assert await layer.presence_update(GROUP, ann, meta={"n": 2})
        changed = await told(layer, member)
        assert changes(changed) == ({"ann": [{"n": 2}]}, {"ann": [{"n": 1}]}, [], [], 1, 1)
        assert changed["previous"] == joined["version"]
        await layer.presence_discard(GROUP, ann)
        left = await told(layer, member)
        assert changes(left) == ({}, {"ann": [{"n": 2}]}, [], ["ann"], 0, 0)
        assert (await layer.presence(GROUP)).entries == {}
        assert not await layer.presence_update(GROUP, ann, meta={})

    @pytest.mark.parametrize("ending", ["group_discard", "close_channel", "flush"])
    async def test_an_entry_ends_with_its_membership(self, layer: Any, ending: str) -> None:
        member, ann = await watch(layer), await layer.new_channel()
        await layer.presence_add(GROUP, ann, key="ann", meta={})
        assert changes(await told(layer, member))[2] == ["ann"]
        if ending == "flush":
            await layer.flush()
        elif ending == "close_channel":
            layer.close_channel(ann)
        else:
            await layer.group_discard(GROUP, ann)
        if ending != "flush":
            assert changes(await told(layer, member))[3] == ["ann"]
        assert (await layer.presence(GROUP)).entries == {}

    async def test_a_key_has_as_many_entries_as_channels(self, layer: Any) -> None:
        member = await watch(layer)
        tabs = [await layer.new_channel() for _ in range(3)]
        for tab in tabs:
            await layer.presence_add(GROUP, tab, key="ann", meta={})
        channels = 0
        while channels < 3:
            event = await told(layer, member)
            channels = event["channels"]
        assert event["count"] == 1
        assert await layer.presence_count(GROUP) == (1, 3)
        for tab in tabs:
            await layer.presence_discard(GROUP, tab)
        while event["offline"] != ["ann"]:
            event = await told(layer, member)
        assert event["channels"] == 0

    async def test_of_too_many_the_counts_alone_are_told(self, make_layer: MakeLayer) -> None:
        layer = make_layer(presence=setting(max=1))
        member = await watch(layer)
        for name in ("ann", "bob"):
            await layer.presence_add(GROUP, await layer.new_channel(), key=name, meta={})
        event = await told(layer, member)
        while event["channels"] < 2:
            event = await told(layer, member)
        assert (event["scope"], event["joins"], event["count"]) == ("counts", {}, 2)
        found = await layer.presence(GROUP)
        assert (found.hidden, found.entries, found.count) == (True, {}, 2)

    async def test_a_key_that_returns_within_linger_is_no_event(self, make_layer: MakeLayer) -> None:
        layer = make_layer(presence=setting(linger=600))
        member, ann, again = await watch(layer), await layer.new_channel(), await layer.new_channel()
        await layer.presence_add(GROUP, ann, key="ann", meta={})
        assert changes(await told(layer, member))[2] == ["ann"]
        layer.close_channel(ann)
        await layer.presence_add(GROUP, again, key="ann", meta={})
        await layer.presence_add(GROUP, await layer.new_channel(), key="bob", meta={})
        assert changes(await told(layer, member)) == ({"bob": [{}]}, {}, ["bob"], [], 2, 2)

    async def test_members_are_counted(self, layer: Any) -> None:
        for expected in range(1, 4):
            await layer.group_add("hall", await layer.new_channel())
            assert await layer.group_count_everywhere("hall") == expected


class TestBadInput:
    async def test_what_is_wrong_is_refused_where_it_is_said(self, layer: Any) -> None:
        channel = await layer.new_channel()
        for wrong, error in (
            ({"key": 7}, TypeError),
            ({"key": ""}, ValueError),
            ({"key": "x" * 257}, ValueError),
            ({"meta": [1]}, TypeError),
            ({"meta": {"x": object()}}, TypeError),
            ({"meta": {"x": "x" * 5000}}, MessageTooLarge),
        ):
            with pytest.raises(error):
                await layer.presence_add(GROUP, channel, **{"key": "ann", "meta": {}, **wrong})
        with pytest.raises(ForeignChannel):
            await layer.presence_add(GROUP, "specific.0123456789abcdef!t", key="ann")
        for ask in (layer.presence, layer.presence_count):
            with pytest.raises(ValueError, match="has no presence"):
                await ask("hall")
        with pytest.raises(ValueError, match="not counted"):
            await layer.group_count_everywhere(GROUP)
        assert (await layer.presence(GROUP)).entries == {}


@pytest.mark.usefixtures("sync")
def test_the_twins_do_the_same_without_a_loop(layer: Any) -> None:
    channel = layer.new_channel_sync()
    layer.presence_add_sync(GROUP, channel, key="ann", meta={"n": 1})
    assert layer.receive_sync(channel, timeout=SECONDS)["joins"] == {"ann": [{"n": 1}]}
    assert layer.presence_update_sync(GROUP, channel, meta={"n": 2})
    assert layer.receive_sync(channel, timeout=SECONDS)["joins"] == {"ann": [{"n": 2}]}
    assert layer.presence_sync(GROUP).entries == {"ann": [{"n": 2}]}
    assert layer.presence_count_sync(GROUP) == (1, 1)
    layer.presence_discard_sync(GROUP, channel)
    assert layer.receive_sync(channel, timeout=SECONDS)["offline"] == ["ann"]
    layer.group_add_sync("hall", channel)
    assert layer.group_count_everywhere_sync("hall") == 1
