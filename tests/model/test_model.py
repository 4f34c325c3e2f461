"""The layer against the obvious model, a dict of lists: whatever is done to both, they agree.

The model knows when each message and each membership ends, and in which order receivers wait. It settles what the layer
leaves to the loop (resuming tasks, taking messages back) when the machine lets the loop run, and not before, so
receivers are cancelled, flushed and closed while messages are on their way to them.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from headrace.exceptions import ChannelEmpty, ChannelFull
from headrace.layers import InMemoryChannelLayer
from headrace.testing import ManualClock

EXPIRY, GROUP_EXPIRY = 10, 25
CAPACITY, SMALL = 3, 1
CHANNELS = ["a", "b", "p.inmemory!a", "small"]
GROUPS = ["one", "two"]

channels = st.sampled_from(CHANNELS)
groups = st.sampled_from(GROUPS)


@dataclass
class Message:
    """A message in the model."""

    number: int
    end: float


@dataclass
class Receiver:
    """A receiver in the model, beside its task."""

    channel: str
    task: asyncio.Task[Any]
    message: Message | None = None
    cancelled: int = 0  # the how-manieth of all that were cancelled, or 0
    outcome: int | None = None
    done: bool = False


@dataclass
class Channel:
    """A channel in the model: what it holds, who waits, and to whom messages are on their way."""

    capacity: int
    queue: list[Message] = field(default_factory=list)
    line: list[Receiver] = field(default_factory=list)
    on_their_way: list[Receiver] = field(default_factory=list)


class Model:
    """The layer as one would write it without a thought for speed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.channels = {name: Channel(SMALL if name == "small" else CAPACITY) for name in CHANNELS}
        self.groups: dict[str, dict[str, float]] = {name: {} for name in GROUPS}
        self.counted: Counter[str] = Counter()

    def expire(self) -> None:
        for channel in self.channels.values():
            fresh = [message for message in channel.queue if message.end > self.now]
            self.counted["dropped_expired"] += len(channel.queue) - len(fresh)
            channel.queue = fresh
        for name, members in self.groups.items():
            self.groups[name] = {channel: end for channel, end in members.items() if end > self.now}

    def send(self, name: str, number: int) -> bool:
        self.expire()
        channel = self.channels[name]
        message = Message(number, self.now + EXPIRY)
        if channel.line:
            self._hand_over(channel, message)
            self.counted["delivered"] += 1
        elif len(channel.queue) < channel.capacity:
            channel.queue.append(message)
        else:
            self.counted["dropped_full"] += 1
            return False
        self.counted["sent"] += 1
        return True

    def _hand_over(self, channel: Channel, message: Message) -> None:
        receiver = channel.line.pop(0)
        receiver.message = message
        channel.on_their_way.append(receiver)

    def take(self, name: str) -> int | None:
        self.expire()
        queue = self.channels[name].queue
        if not queue:
            return None
        self.counted["delivered"] += 1
        return queue.pop(0).number

    def settle(self) -> None:
        """Do what the loop does when it runs: every receiver goes on that has a message or was cancelled."""
        for channel in self.channels.values():
            for receiver in channel.on_their_way:
                self._resume(receiver)
            leaving = [receiver for receiver in channel.line + channel.on_their_way if receiver.cancelled]
            channel.on_their_way.clear()
            for receiver in sorted(leaving, key=lambda receiver: receiver.cancelled):
                self._leave(channel, receiver)
            for receiver in channel.on_their_way:
                self._resume(receiver)
            channel.on_their_way.clear()

    def _resume(self, receiver: Receiver) -> None:
        if not receiver.cancelled and receiver.message is not None:
            receiver.outcome, receiver.done = receiver.message.number, True

    def _leave(self, channel: Channel, receiver: Receiver) -> None:
        """Let a cancelled receiver go. What it has goes to the next in line, who may be about to leave as well."""
        receiver.done = True
        if receiver.message is None:
            channel.line.remove(receiver)
            return
        self.counted["returned"] += 1
        if channel.line:
            self._hand_over(channel, receiver.message)
        else:
            self.counted["delivered"] -= 1
            channel.queue.append(receiver.message)
            channel.queue.sort(key=lambda message: message.number)

    def drop(self, names: list[str]) -> None:
        self.expire()
        for name in names:
            self.counted["dropped_other"] += len(self.channels[name].queue)
            self.channels[name].queue.clear()
            for members in self.groups.values():
                members.pop(name, None)


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what never waits, without letting the loop run."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class LayerMachine(RuleBasedStateMachine):
    """Does the same to a layer and to the model."""

    wake: ClassVar[Literal["direct", "future"]] = "direct"
    receivers = Bundle("receivers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.layer = InMemoryChannelLayer(
            EXPIRY, GROUP_EXPIRY, CAPACITY, {"sm?ll": SMALL}, wake=self.wake, clock=self.clock
        )
        self.model = Model()
        self.numbers = itertools.count()
        self.cancellations = itertools.count(1)
        self.all: list[Receiver] = []

    def turn(self) -> None:
        async def some_turns() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some_turns())
        self.model.settle()

    @initialize(channel=channels)
    def begin_with_members(self, channel: str) -> None:
        self.group_add("one", channel)

    @rule(target=receivers, channel=channels, count=st.integers(1, 4))
    def receive(self, channel: str, count: int) -> Any:
        started = []
        for _ in range(count):
            self.turn()
            receiver = Receiver(channel, self.loop.create_task(self.layer.receive(channel)))
            number = self.model.take(channel)
            if number is None:
                self.model.channels[channel].line.append(receiver)
            else:
                receiver.outcome, receiver.done = number, True
            self.turn()
            started.append(receiver)
        self.all.extend(started)
        return multiple(*started)

    @rule(receiver=receivers)
    def cancel(self, receiver: Receiver) -> None:
        if receiver.done:
            return
        receiver.cancelled = receiver.cancelled or next(self.cancellations)
        receiver.task.cancel()
        if receiver.message is None:
            # It leaves the line at its next step at the latest.
            self.turn()

    @rule(channel=channels, sends=st.integers(1, 4), cancelled=st.sets(st.integers(0, 3)))
    def send_and_cancel_those_who_have_a_message_on_its_way(
        self, channel: str, sends: int, cancelled: set[int]
    ) -> None:
        for _ in range(sends):
            self.send(channel)
        for place, receiver in enumerate(self.model.channels[channel].on_their_way):
            if place in cancelled:
                self.cancel(receiver)

    @rule()
    def let_the_loop_run(self) -> None:
        self.turn()
        for receiver in self.all:
            assert receiver.task.done() == receiver.done
            if receiver.done:
                assert receiver.task.cancelled() == (receiver.outcome is None)
            if receiver.outcome is not None:
                assert receiver.task.result() == {"n": receiver.outcome}

    @rule(channel=channels)
    def send(self, channel: str) -> None:
        number = next(self.numbers)
        sent = True
        try:
            self.layer.send_sync(channel, {"n": number})
        except ChannelFull:
            sent = False
        assert sent == self.model.send(channel, number)

    @rule(names=st.lists(channels, max_size=6))
    def send_many(self, names: list[str]) -> None:
        numbered = [(name, next(self.numbers)) for name in names]
        report = at_once(self.layer.send_many([(name, {"n": n}) for name, n in numbered]))
        sent = [self.model.send(name, number) for name, number in numbered]
        assert (report.delivered, report.dropped_full) == (sent.count(True), sent.count(False))

    @rule(channel=channels)
    def receive_nowait(self, channel: str) -> None:
        expected = self.model.take(channel)
        try:
            assert self.layer.receive_nowait(channel) == {"n": expected}
        except ChannelEmpty:
            assert expected is None

    @rule(group=groups, channel=channels)
    def group_add(self, group: str, channel: str) -> None:
        self.layer.group_add_sync(group, channel)
        self.model.expire()
        self.model.groups[group][channel] = self.model.now + GROUP_EXPIRY

    @rule(group=groups, channel=channels)
    def group_discard(self, group: str, channel: str) -> None:
        self.layer.group_discard_sync(group, channel)
        self.model.groups[group].pop(channel, None)

    @rule(group=groups, exclude=st.lists(channels, max_size=2))
    def group_send(self, group: str, exclude: list[str]) -> None:
        number = next(self.numbers)
        report = self.layer.group_send_sync(group, {"n": number}, exclude=exclude)
        self.model.expire()
        members = [name for name in self.model.groups[group] if name not in exclude]
        sent = [self.model.send(name, number) for name in members]
        assert (report.delivered, report.dropped_full) == (sent.count(True), sent.count(False))

    @rule(seconds=st.sampled_from([1, 4, 10, 25]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule()
    def flush(self) -> None:
        self.model.drop(CHANNELS)
        for channel in CHANNELS:
            self.layer.channel_stats(channel)  # lets go of what expired, as the model did
        at_once(self.layer.flush())
        self.model.groups = {name: {} for name in GROUPS}

    @rule(channel=channels)
    def close_channel(self, channel: str) -> None:
        self.layer.channel_stats(channel)
        self.model.drop([channel])
        self.layer.close_channel(channel)

    @rule()
    def look_at_everything(self) -> None:
        self.model.expire()
        for name, channel in self.model.channels.items():
            reading = self.layer.channel_stats(name)
            joined = [group for group, members in self.model.groups.items() if name in members]
            assert (reading.depth, reading.capacity) == (len(channel.queue), channel.capacity)
            assert (reading.waiters, reading.groups) == (len(channel.line), len(joined))
            assert sorted(self.layer.channel_groups(name)) == sorted(joined)
            assert (name in self.layer.channels) == bool(channel.queue or channel.line)
        for group, members in self.model.groups.items():
            assert sorted(self.layer.group_channels(group)) == sorted(members)
            assert self.layer.group_count(group) == len(members)
        stats = self.layer.stats()
        for counter in ("sent", "delivered", "returned", "dropped_full", "dropped_expired", "dropped_other"):
            assert getattr(stats, counter) == self.model.counted[counter], counter
        assert stats.depth == sum(len(channel.queue) for channel in self.model.channels.values())
        assert stats.memberships == sum(map(len, self.model.groups.values()))
        assert stats.groups == sum(map(bool, self.model.groups.values()))

    @invariant()
    def the_books_balance(self) -> None:
        stats = self.layer.stats()
        assert stats.sent == stats.delivered + stats.depth + stats.dropped_expired + stats.dropped_other
        assert stats.sent == self.model.counted["sent"]
        assert stats.waiters == sum(len(channel.line) for channel in self.model.channels.values())

    def teardown(self) -> None:
        try:
            self.look_at_everything()
            self.let_the_loop_run()
            self.look_at_everything()
        finally:
            for receiver in self.all:
                receiver.task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.turn()
            self.loop.close()


class FutureMachine(LayerMachine):
    """The same for the other way to wake."""

    wake = "future"


@pytest.mark.hypothesis
@pytest.mark.parametrize("machine", [LayerMachine, FutureMachine])
def test_the_layer_agrees_with_the_model(machine: type[LayerMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
