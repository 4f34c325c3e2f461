"""What lists of others have got wrong: each fault of Phoenix and Supabase, by the number of its report.

Those of a merge of processes, phoenix_pubsub #74 and #148, are in ``rust/core/src/presence/table/tests/foreign.rs`` as
well.
"""

from collections import Counter
from typing import Any

import pytest

from headrace import InMemoryChannelLayer
from headrace.testing import ManualClock

GROUP = "room.1"
INTERVAL, LINGER = 0.5, 10.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def layer(clock: ManualClock) -> InMemoryChannelLayer:
    rule = {"interval": INTERVAL, "linger": LINGER, "max": 20_000}
    return InMemoryChannelLayer(presence={"room.*": rule}, group_expiry=600, clock=clock)


class Member:
    """A member that reads the list when it comes, and follows the diffs."""

    def __init__(self, layer: InMemoryChannelLayer, channel: str | None = None) -> None:
        self.layer = layer
        self.channel = channel or layer.new_channel_sync()
        layer.group_add_sync(GROUP, self.channel)
        self.events: list[dict[str, Any]] = []
        self.people: dict[str, list[Any]] = {}
        self.version = 0
        self.read()

    def read(self) -> None:
        listed = self.layer.presence_sync(GROUP)
        self.people, self.version = listed.entries, listed.version

    def follow(self) -> list[dict[str, Any]]:
        """Take what has come; return that."""
        came = []
        while self.layer.channel_stats(self.channel).depth:
            event = self.layer.receive_nowait(self.channel)
            came.append(event)
            if event["version"] <= self.version:
                continue
            assert event["previous"] == self.version
            self.version = event["version"]
            for key, metas in event["leaves"].items():
                for meta in metas:
                    self.people[key].remove(meta)
            for key, metas in event["joins"].items():
                self.people.setdefault(key, []).extend(metas)
            for key in event["offline"]:
                assert self.people.pop(key) == []
        self.events += came
        return came


def come(layer: InMemoryChannelLayer, key: str, meta: dict[str, Any] | None = None) -> str:
    channel = layer.new_channel_sync()
    layer.presence_add_sync(GROUP, channel, key=key, meta=meta)
    return channel


def test_phoenix_2306_a_deploy_leaves_no_ghosts(layer: InMemoryChannelLayer, clock: ManualClock) -> None:
    """Everybody's connection ends and is made anew; not everybody comes back."""
    member = Member(layer)
    before = {f"user{number}": come(layer, f"user{number}") for number in range(40)}
    clock.advance(INTERVAL)
    member.follow()
    # One worker after the other is replaced.
    for first in range(0, 40, 10):
        users = [f"user{number}" for number in range(first, first + 10)]
        for user in users:
            layer.close_channel(before[user])
        clock.advance(3)
        for user in users[1:]:
            come(layer, user)
        clock.advance(INTERVAL)
    told = member.follow()
    clock.advance(LINGER)
    clock.advance(INTERVAL)
    told += member.follow()
    missing = {f"user{number}" for number in range(0, 40, 10)}
    assert [key for event in told for key in event["online"]] == []
    assert {key for event in told for key in event["offline"]} == missing
    assert member.people.keys() == layer.presence_sync(GROUP).entries.keys() == before.keys() - missing
    assert layer.stats().presence_entries == 36


def test_phoenix_2255_the_state_and_the_diffs_do_not_race(layer: InMemoryChannelLayer, clock: ManualClock) -> None:
    """Members read the list in between all kinds of changes, and each ends up with the same."""
    members, channels = [Member(layer)], []
    for number in range(30):
        channels.append(come(layer, f"user{number % 7}", {"tab": number}))
        members.append(Member(layer))
        if number % 3 == 0:
            layer.close_channel(channels.pop(0))
            members.append(Member(layer))
        if number % 4 == 0:
            clock.advance(INTERVAL)
            members.append(Member(layer))
    clock.advance(INTERVAL)
    clock.advance(LINGER)
    clock.advance(INTERVAL)
    expected = {key: sorted(map(str, metas)) for key, metas in layer.presence_sync(GROUP).entries.items()}
    for member in members:
        member.follow()
        assert {key: sorted(map(str, metas)) for key, metas in member.people.items()} == expected


def test_phoenix_pubsub_74_what_is_counted_does_not_drift(layer: InMemoryChannelLayer, clock: ManualClock) -> None:
    """Keys that come, go and return in every order are counted as they are."""
    member, open_channels = Member(layer), []
    for number in range(200):
        open_channels.append(come(layer, f"user{number % 5}", {"tab": number % 2}))
        if number % 2:
            layer.close_channel(open_channels.pop(number % len(open_channels)))
        if number % 7 == 0:
            clock.advance(INTERVAL)
    for channel in open_channels[3:]:
        layer.close_channel(channel)
    clock.advance(LINGER)
    clock.advance(INTERVAL)
    member.follow()
    listed = layer.presence_sync(GROUP)
    assert listed.channels == sum(map(len, listed.entries.values())) == layer.stats().presence_entries == 3
    assert listed.count == len(listed.entries) == len(member.people)


@pytest.mark.parametrize("end", ["closed", "expired", "flushed", "added again"])
def test_phoenix_pubsub_80_nobody_stays_without_a_connection(
    layer: InMemoryChannelLayer, clock: ManualClock, end: str
) -> None:
    """Whatever ends a connection, and however often it was added, nothing of it stays."""
    channel = come(layer, "ghost")
    clock.advance(INTERVAL)
    match end:
        case "closed":
            layer.close_channel(channel)
        case "expired":
            clock.advance(601)
            layer.stats()
        case "flushed":
            layer.flush_sync()
        case "added again":
            for key in ("ghost", "other", "ghost"):
                layer.presence_add_sync(GROUP, channel, key=key)
            layer.close_channel(channel)
    clock.advance(LINGER)
    clock.advance(INTERVAL)
    assert layer.presence_sync(GROUP).entries == {}
    assert (layer.stats().presence_entries, layer.group_count(GROUP)) == (0, 0)


def test_phoenix_pubsub_175_a_list_does_not_grow_at_each_update(
    layer: InMemoryChannelLayer, clock: ManualClock
) -> None:
    """A meta is replaced, here and at each member."""
    member, channel = Member(layer), come(layer, "ann", {"n": 0})
    for number in range(1, 50):
        layer.presence_update_sync(GROUP, channel, meta={"n": number})
        if number % 5 == 0:
            clock.advance(INTERVAL)
    clock.advance(INTERVAL)
    member.follow()
    assert layer.presence_sync(GROUP).entries == member.people == {"ann": [{"n": 49}]}
    assert layer.stats().presence_entries == 1


def test_phoenix_pubsub_148_an_old_state_does_not_replace_a_newer_one(
    layer: InMemoryChannelLayer, clock: ManualClock
) -> None:
    """A list that was read and comes late is known to be old by its version, as the diffs that it has are."""
    come(layer, "ann")
    clock.advance(INTERVAL)
    old = layer.presence_sync(GROUP)
    member = Member(layer)
    come(layer, "bob")
    clock.advance(INTERVAL)
    new = layer.presence_sync(GROUP)
    (event,) = member.follow()
    assert old.version < new.version == event["version"]
    # Whoever has the new list has that diff: it changes nothing.
    late = Member(layer, member.channel)
    late.follow()
    assert late.people == member.people == {"ann": [{}], "bob": [{}]}


def test_supabase_realtime_360_ten_thousand_joins_are_no_stampede(clock: ManualClock) -> None:
    """Ten thousand that come within a second cost each member three messages at most, and nobody a list."""
    rule = {"interval": INTERVAL, "linger": LINGER, "max": 1000}
    layer = InMemoryChannelLayer(presence={"room.*": rule}, clock=clock)
    first = layer.new_channel_sync()
    layer.group_add_sync(GROUP, first)
    channels = []
    for step in range(100):
        channels += [come(layer, f"user{step}.{number}") for number in range(100)]
        clock.advance(0.01)
    clock.advance(INTERVAL)
    got = Counter(layer.channel_stats(channel).depth for channel in (first, *channels))
    assert max(got) <= 3
    events = [layer.receive_nowait(first) for _ in range(layer.channel_stats(first).depth)]
    assert {event["scope"] for event in events} == {"counts"}
    assert events[-1]["count"] == 10_000
    assert layer.presence_sync(GROUP).entries == {}
