"""Groups with a history against the obvious model: each stream is a list of all that was ever sent to it.

Channels join with positions of every kind, are lost, and receive when they like; streams end by time and by a flush.
The layer and the model agree on each answer and on each message that is received: complete is all, once and in order,
and what is not complete is nothing.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from headrace.exceptions import ChannelEmpty
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock

KEY = "__headrace_position__"
SIZE, TTL, CAPACITY = 4, 10, 5
GROUPS = ["kept.1", "kept.2"]

groups = st.sampled_from(GROUPS)
channels = st.sampled_from(["a", "b", "c"])


@dataclass(frozen=True)
class Sent:
    """A message in the model: its stream, its number in that, and what it holds."""

    stream: int
    number: int
    value: int


@dataclass
class Stream:
    """A stream in the model; gone a while after its last message."""

    identity: int
    used: float
    sent: list[Sent] = field(default_factory=list)

    def held(self) -> list[Sent]:
        """Return what is kept."""
        return self.sent[-SIZE:]

    def behind(self, stream: int, number: int) -> list[Sent] | None:
        """Return what is behind a position, or None if it is not complete."""
        if stream != self.identity or number < len(self.sent) - len(self.held()):
            return None
        return self.sent[number:]


@dataclass
class Mailbox:
    """A channel in the model: what it is to receive, each with whether that was sent to it while it was a member."""

    waiting: list[tuple[Sent, bool]] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)


class HistoryMachine(RuleBasedStateMachine):
    """Does the same to both."""

    positions: Bundle[tuple[str, tuple[int, int], str]] = Bundle("positions")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.layer = InMemoryChannelLayer(
            expiry=1e9,
            group_expiry=1e9,
            capacity=CAPACITY,
            history={"kept.*": {"size": SIZE, "ttl": TTL}},
            clock=self.clock,
        )
        self.now = 0.0
        self.values = self.streams_made = self.full = 0
        self.streams: dict[str, Stream] = {}
        self.mailboxes: dict[str, Mailbox] = {}

    def stream(self, group: str) -> Stream:
        """Return the stream of a group, which is made if there is none."""
        stream = self.streams.get(group)
        if stream is None or stream.used + TTL <= self.now:
            self.streams_made += 1
            stream = self.streams[group] = Stream(self.streams_made, self.now)
        return stream

    def mailbox(self, channel: str) -> Mailbox:
        """Return a channel."""
        return self.mailboxes.setdefault(channel, Mailbox())

    @rule(target=positions, group=groups)
    def send(self, group: str) -> Any:
        """Send to a group, whose members have room for it or not."""
        stream = self.stream(group)
        self.values += 1
        sent = Sent(stream.identity, len(stream.sent) + 1, self.values)
        stream.sent.append(sent)
        stream.used = self.now
        delivered = 0
        for mailbox in self.mailboxes.values():
            if group in mailbox.groups:
                if sum(is_live for _, is_live in mailbox.waiting) < CAPACITY:
                    mailbox.waiting.append((sent, True))
                    delivered += 1
                else:
                    self.full += 1
        report = self.layer.group_send_sync(group, {"value": self.values})
        assert report.delivered == delivered
        assert report.position is not None
        return group, (sent.stream, sent.number), report.position

    @rule(target=positions, group=groups)
    def look(self, group: str) -> Any:
        """Ask where a stream is."""
        stream = self.stream(group)
        position = self.layer.group_position_sync(group)
        assert position is not None
        return group, (stream.identity, len(stream.sent)), position

    @rule(group=groups, channel=channels)
    def join(self, group: str, channel: str) -> None:
        """Join without a position."""
        self.mailbox(channel).groups.add(group)
        assert self.layer.group_add_sync(group, channel) is None

    @rule(group=groups, channel=channels, position=positions)
    def resume(self, group: str, channel: str, position: tuple[str, tuple[int, int], str]) -> None:
        """Join with a position, of this group or of another."""
        behind = self.stream(group).behind(*position[1]) if position[0] == group else None
        self.replay(group, channel, behind)
        assert self.layer.group_add_sync(group, channel, since=position[2]) is (behind is not None)

    @rule(group=groups, channel=channels, text=st.text(max_size=30))
    def resume_from_nonsense(self, group: str, channel: str, text: str) -> None:
        """Join with any text."""
        self.stream(group)
        self.replay(group, channel, None)
        assert self.layer.group_add_sync(group, channel, since=text) is False

    @rule(group=groups, channel=channels, count=st.integers(0, SIZE + 1))
    def join_with_the_newest(self, group: str, channel: str, count: int) -> None:
        """Join, and get some of the newest messages."""
        held = self.stream(group).held()
        self.replay(group, channel, held[len(held) - min(count, len(held)) :])
        assert self.layer.group_add_sync(group, channel, since=count) is True

    def replay(self, group: str, channel: str, behind: list[Sent] | None) -> None:
        """Make a channel a member that is to receive these."""
        mailbox = self.mailbox(channel)
        mailbox.groups.add(group)
        if behind is not None:
            mailbox.waiting = [(sent, is_live) for sent, is_live in mailbox.waiting if sent not in behind]
            mailbox.waiting += [(sent, False) for sent in behind]

    @rule(group=groups, channel=channels)
    def leave(self, group: str, channel: str) -> None:
        """Leave; what waits goes on waiting."""
        self.mailbox(channel).groups.discard(group)
        self.layer.group_discard_sync(group, channel)

    @rule(channel=channels)
    def lose(self, channel: str) -> None:
        """Lose a channel with all that it has."""
        self.mailboxes.pop(channel, None)
        self.layer.close_channel(channel)

    @rule(target=positions, channel=channels)
    def receive(self, channel: str) -> Any:
        """Receive the next message; its position is one to resume from."""
        mailbox = self.mailbox(channel)
        if not mailbox.waiting:
            try:
                message = self.layer.receive_nowait(channel)
            except ChannelEmpty:
                return multiple()
            raise AssertionError(f"{message} was not to be received")
        sent, _ = mailbox.waiting.pop(0)
        message = self.layer.receive_nowait(channel)
        assert message.keys() == {"value", KEY}
        assert message["value"] == sent.value
        group = next((group for group in GROUPS if self.layer.group_history_sync(group, message[KEY]).complete), None)
        for other in GROUPS:
            self.stream(other)
        alive = [group for group in GROUPS if self.streams[group].behind(sent.stream, sent.number) is not None]
        assert ([] if group is None else [group]) == alive
        return multiple() if group is None else (group, (sent.stream, sent.number), message[KEY])

    @rule(group=groups, position=st.none() | positions, limit=st.integers(1, SIZE + 1))
    def read(self, group: str, position: tuple[str, tuple[int, int], str] | None, limit: int) -> None:
        """Read what is kept."""
        stream = self.stream(group)
        if position is None:
            expected: list[Sent] | None = stream.held()[-limit:]
        else:
            behind = stream.behind(*position[1]) if position[0] == group else None
            expected = None if behind is None else behind[:limit]
        found = self.layer.group_history_sync(group, position and position[2], limit)
        assert found.complete is (expected is not None)
        assert [message["value"] for message in found.messages] == [sent.value for sent in expected or []]
        if found.messages:
            assert found.position == found.messages[-1][KEY]
        elif position is not None and expected is not None:
            assert found.position == position[2]
        else:
            assert found.position == self.layer.group_position_sync(group)

    @rule()
    def flush(self) -> None:
        """Drop everything."""
        self.layer.flush_sync()
        self.streams.clear()
        self.mailboxes.clear()

    @rule(seconds=st.sampled_from([1, TTL / 2, TTL - 1, TTL]))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.clock.advance(seconds)

    @invariant()
    def counts_agree(self) -> None:
        """Compare what both count."""
        stats = self.layer.stats()
        waiting = {channel: len(mailbox.waiting) for channel, mailbox in self.mailboxes.items()}
        assert {channel: self.layer.channel_stats(channel).depth for channel in waiting} == waiting
        assert stats.depth == sum(waiting.values())
        gone = stats.dropped_expired + stats.dropped_replaced + stats.dropped_other
        assert stats.sent == stats.delivered + stats.depth + gone
        assert stats.dropped_full == self.full
        alive = [stream for stream in self.streams.values() if stream.used + TTL > self.now]
        assert stats.history_messages == sum(len(stream.held()) for stream in alive)
        assert stats.memberships == sum(len(mailbox.groups) for mailbox in self.mailboxes.values())


@pytest.mark.hypothesis
def test_the_layer_agrees_with_the_model() -> None:
    run_state_machine_as_test(HistoryMachine, settings=settings(stateful_step_count=40))
