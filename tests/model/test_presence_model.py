"""Who is present against the obvious model: what there is, and members who follow what they are told.

Channels come under keys, change, leave and end in every way; members read the list when they like, lose what does not
fit in their mailbox, and read it anew then. Whatever happens, a member that follows has the list; the list is what is
there as soon as nothing is to come; and whoever returns in time was never away.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock

INTERVAL, LINGER, MAX, CAPACITY = 1.0, 5.0, 5, 3
GROUPS = ["room.1", "room.2"]

groups = st.sampled_from(GROUPS)
keys = st.sampled_from(["ann", "bob", "eve"])
places = st.integers(0, 3)
metas = st.integers(0, 2)

People = dict[str, list[int]]


class Member:
    """A member of a group, and what it believes."""

    def __init__(self, layer: InMemoryChannelLayer, group: str) -> None:
        self.layer, self.group = layer, group
        self.channel = layer.new_channel_sync()
        layer.group_add_sync(group, self.channel)
        self.read()

    def read(self) -> None:
        listed = self.layer.presence_sync(self.group)
        self.people: People | None = None if listed.hidden else people_of(listed.entries)
        self.count, self.version = listed.count, listed.version

    def follow(self) -> None:
        while self.layer.channel_stats(self.channel).depth:
            self.take(self.layer.receive_nowait(self.channel))

    def take(self, event: dict[str, Any]) -> None:
        if event["version"] <= self.version:
            return
        if event["scope"] == "changes" and event["previous"] > self.version:
            self.read()
            return
        self.version, self.count = event["version"], event["count"]
        if event["scope"] == "counts":
            self.people = None
            return
        if event["scope"] == "full":
            self.people = {}
        assert self.people is not None
        before = set(self.people)
        for key, gone in people_of(event["leaves"]).items():
            for meta in gone:
                self.people[key].remove(meta)
        for key, come in people_of(event["joins"]).items():
            self.people[key] = sorted(self.people.get(key, []) + come)
        self.people = {key: sorted(held) for key, held in self.people.items() if held}
        if event["scope"] == "changes":
            assert set(event["online"]) == set(self.people) - before
            assert set(event["offline"]) == before - set(self.people)
        assert len(self.people) == self.count


def people_of(entries: dict[str, list[dict[str, int]]]) -> People:
    return {key: sorted(meta["n"] for meta in held) for key, held in entries.items()}


class PresenceMachine(RuleBasedStateMachine):
    """Does the same to both."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        rule = {"interval": INTERVAL, "linger": LINGER, "max": MAX}
        self.layer = InMemoryChannelLayer(
            expiry=1e9, group_expiry=1e9, capacity=CAPACITY, presence={"room.*": rule}, clock=self.clock
        )
        # The channels that are present, each with its group, its key and its meta.
        self.there: dict[tuple[str, str], tuple[str, int]] = {}
        self.channels: dict[tuple[str, int], str] = {}
        self.members = [Member(self.layer, group) for group in GROUPS]

    def channel(self, group: str, place: int) -> str:
        """Return the channel at a place, which was closed by nobody since it was made."""
        return self.channels.setdefault((group, place), self.layer.new_channel_sync())

    @rule(group=groups, place=places, key=keys, meta=metas)
    def add(self, group: str, place: int, key: str, meta: int) -> None:
        channel = self.channel(group, place)
        self.layer.presence_add_sync(group, channel, key=key, meta={"n": meta})
        self.there[group, channel] = key, meta

    @rule(group=groups, place=places, meta=metas)
    def update(self, group: str, place: int, meta: int) -> None:
        channel = self.channel(group, place)
        updated = self.layer.presence_update_sync(group, channel, meta={"n": meta})
        assert updated == ((group, channel) in self.there)
        if updated:
            self.there[group, channel] = self.there[group, channel][0], meta

    @rule(group=groups, place=places, how=st.sampled_from(["presence_discard", "group_discard", "close"]))
    def leave(self, group: str, place: int, how: str) -> None:
        channel = self.channel(group, place)
        if how == "close":
            self.layer.close_channel(channel)
            del self.channels[group, place]
        else:
            getattr(self.layer, f"{how}_sync")(group, channel)
        self.there.pop((group, channel), None)

    @rule(group=groups, place=places)
    def load_anew(self, group: str, place: int) -> None:
        """Leave, and return with another channel: whatever the time, nobody sees anything of it."""
        channel = self.channel(group, place)
        if (group, channel) not in self.there:
            return
        key, meta = self.there.pop((group, channel))
        self.layer.close_channel(channel)
        del self.channels[group, place]
        self.add(group, place, key, meta)

    @rule(group=groups)
    def join(self, group: str) -> None:
        self.members.append(Member(self.layer, group))

    @precondition(lambda self: len(self.members) > 6)
    @rule()
    def forget_members(self) -> None:
        for member in self.members[2:]:
            self.layer.close_channel(member.channel)
        del self.members[2:]

    @rule(number=st.integers(0, 8))
    def follow(self, number: int) -> None:
        self.members[number % len(self.members)].follow()

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 5.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(int(2 * seconds)):
            self.clock.advance(0.5)

    @rule()
    def settle(self) -> None:
        """When nothing is to come, the list is what is there, and everybody has it."""
        self.wait(LINGER + 2 * INTERVAL)
        for group in GROUPS:
            expected: People = {}
            for (of, _), (key, meta) in self.there.items():
                if of == group:
                    expected[key] = sorted([*expected.get(key, []), meta])
            listed = self.layer.presence_sync(group)
            channels = sum(map(len, expected.values()))
            assert (listed.count, listed.channels) == (len(expected), channels)
            assert self.layer.presence_count_sync(group) == (len(expected), channels)
            assert listed.hidden == (channels > MAX)
            assert people_of(listed.entries) == ({} if listed.hidden else expected)
            for member in self.members:
                if member.group == group:
                    member.follow()
                    if member.version != listed.version:
                        member.read()  # the last diff did not fit in its mailbox
                    assert (member.people, member.count) == (None if listed.hidden else expected, len(expected))
        assert self.layer.stats().presence_entries == len(self.there)

    @invariant()
    def counts_agree(self) -> None:
        for group in GROUPS:
            listed = self.layer.presence_sync(group)
            if not listed.hidden:
                assert listed.count == len(listed.entries)
                assert listed.channels == sum(map(len, listed.entries.values()))

    def teardown(self) -> None:
        self.settle()


@pytest.mark.hypothesis
def test_lists_and_members_follow_the_model() -> None:
    run_state_machine_as_test(PresenceMachine, settings=settings(stateful_step_count=40))
