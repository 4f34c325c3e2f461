"""Two Redis layers against the obvious model, a dict of lists: whatever is done through either, they agree.

The two are as two processes to each other: they share nothing but a server. What is on its way is let arrive before the
next step, so the model needs to know no more than what a queue, a mailbox and a group are.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace.exceptions import ChannelEmpty, ChannelFull
from headrace.layers import RedisChannelLayer

CAPACITY, SMALL = 3, 1
PLAIN = ["work", "small", "odd.name"]
# The channels of the first and of the second layer, by what they are called here.
SPECIFIC = ["first.a", "first.b", "second.a"]
GROUPS = ["one", "two"]


places = st.sampled_from([0, 1])
channels = st.sampled_from(PLAIN + SPECIFIC)
groups = st.sampled_from(GROUPS)


def owner(channel: str) -> int | None:
    """Say whose a channel is; nobody's if it is a queue."""
    return None if channel in PLAIN else int(channel.startswith("second"))


class Machine(RuleBasedStateMachine):
    """Does the same to the layers and to the model."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        prefix = f"t{uuid.uuid4().hex}"
        self.layers = [RedisChannelLayer([self.url], prefix, 60, 86400, CAPACITY, {"sm?ll": SMALL}) for _ in range(2)]
        self.numbers = itertools.count()
        self.queues: dict[str, list[int]] = {name: [] for name in PLAIN + SPECIFIC}
        self.groups: dict[str, set[str]] = {name: set() for name in GROUPS}
        self.refused = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, SECONDS))

    @initialize()
    def begin(self) -> None:
        self.names = {name: name for name in PLAIN}
        for name in SPECIFIC:
            self.names[name] = self.run(self.layers[owner(name) or 0].new_channel())
        self.called = {name: called for called, name in self.names.items()}
        self.probes = [self.run(layer.new_channel()) for layer in self.layers]

    def arrive(self) -> None:
        """Let what was sent arrive: a later message on the same way has."""
        for layer, probe in zip(self.layers, self.probes, strict=True):
            self.run(layer.send(probe, {}))
            self.run(layer.receive(probe))

    def agree(self, ask: Callable[[], bool], what: str) -> None:
        """Wait for what nobody is told of when it is done."""
        end = time.monotonic() + SECONDS
        while not ask():
            assert time.monotonic() < end, what
            self.run(asyncio.sleep(0.001))

    def members_agree(self) -> None:
        def known(layer: RedisChannelLayer, place: int, group: str) -> bool:
            there = {name for name in self.groups[group] if owner(name) in (None, place)}
            return {self.called[name] for name in layer.group_channels(group)} == there

        for (place, layer), group in itertools.product(enumerate(self.layers), GROUPS):
            self.agree(partial(known, layer, place, group), f"the members of {group}")

    def put(self, channel: str, number: int) -> bool:
        capacity = SMALL if channel == "small" else CAPACITY
        if len(self.queues[channel]) >= capacity:
            self.refused += 1
            return False
        self.queues[channel].append(number)
        return True

    @rule(place=places, channel=channels)
    def send(self, place: int, channel: str) -> None:
        number, sent = next(self.numbers), True
        try:
            self.run(self.layers[place].send(self.names[channel], {"n": number}))
        except ChannelFull:
            sent = False
        taken = self.put(channel, number)
        # Of a full mailbox elsewhere the sender hears nothing.
        assert sent == (taken or owner(channel) == 1 - place)
        self.arrive()

    @rule(place=places, names=st.lists(channels, max_size=6))
    def send_many(self, place: int, names: list[str]) -> None:
        # Mailboxes here refuse what is beyond those messages that have arrived.
        names = list(dict.fromkeys(names))
        numbered = [(name, next(self.numbers)) for name in names]
        report = self.run(self.layers[place].send_many([(self.names[name], {"n": n}) for name, n in numbered]))
        put = {name: self.put(name, n) for name, n in numbered}
        # Of a mailbox elsewhere the sender hears nothing.
        taken = [put[name] for name in names if owner(name) != 1 - place]
        assert (report.delivered_here, report.dropped_full) == (taken.count(True), taken.count(False))
        self.arrive()

    @rule(place=places, channel=channels)
    def receive_nowait(self, place: int, channel: str) -> None:
        layer = self.layers[place if owner(channel) is None else owner(channel) or 0]
        expected = self.queues[channel].pop(0) if self.queues[channel] else None
        try:
            assert layer.receive_nowait(self.names[channel]) == {"n": expected}
        except ChannelEmpty:
            assert expected is None

    @rule(place=places, channel=channels, most=st.integers(1, 4))
    def receive_many(self, place: int, channel: str, most: int) -> None:
        if not self.queues[channel]:
            return
        layer = self.layers[place if owner(channel) is None else owner(channel) or 0]
        expected = [self.queues[channel].pop(0) for _ in range(min(most, len(self.queues[channel])))]
        messages = self.run(layer.receive_many(self.names[channel], most))
        assert messages == [{"n": number} for number in expected]

    @rule(place=places, channel=st.sampled_from(PLAIN), receivers=st.integers(1, 3))
    def receivers_wait_and_one_layer_sends(self, place: int, channel: str, receivers: int) -> None:
        """They wait at both layers, and each message goes to one of them."""
        while self.queues[channel]:
            self.receive_nowait(place, channel)

        async def exchange() -> list[Any]:
            waiting = [
                asyncio.ensure_future(self.layers[number % 2].receive(self.names[channel]))
                for number in range(receivers)
            ]
            await asyncio.sleep(0)
            for _ in range(receivers):
                message = {"n": next(self.numbers)}
                while True:
                    try:
                        await self.layers[place].send(self.names[channel], message)
                    except ChannelFull:
                        continue
                    break
            return sorted(message["n"] for message in await asyncio.gather(*waiting))

        came = self.run(exchange())
        assert len(set(came)) == receivers

    @rule(place=places, group=groups, channel=channels)
    def group_add(self, place: int, group: str, channel: str) -> None:
        self.run(self.layers[place].group_add(group, self.names[channel]))
        self.groups[group].add(channel)
        self.members_agree()

    @rule(place=places, group=groups, channel=channels)
    def group_discard(self, place: int, group: str, channel: str) -> None:
        self.run(self.layers[place].group_discard(group, self.names[channel]))
        self.groups[group].discard(channel)
        self.members_agree()

    @rule(place=places, group=groups, exclude=st.lists(channels, max_size=2))
    def group_send(self, place: int, group: str, exclude: list[str]) -> None:
        number = next(self.numbers)
        excluded = [self.names[name] for name in exclude]
        report = self.run(self.layers[place].group_send(group, {"n": number}, exclude=excluded))
        members = self.groups[group] - set(exclude)
        taken = {name: self.put(name, number) for name in members}
        # Members here are counted as they are, queues by what became of it, and those elsewhere are not known.
        here = sum(owner(name) == place for name in members)
        queues = [taken[name] for name in members if owner(name) is None]
        assert (report.delivered_here, report.dropped_full) == (here + queues.count(True), queues.count(False))
        self.arrive()

    @rule(place=places, channel=channels)
    def close_channel(self, place: int, channel: str) -> None:
        place = place if owner(channel) is None else owner(channel) or 0
        self.layers[place].close_channel(self.names[channel])
        self.queues[channel].clear()
        for members in self.groups.values():
            members.discard(channel)
        self.run(self.layers[place].close_pools())
        self.members_agree()

    @rule(place=places)
    def flush(self, place: int) -> None:
        self.run(self.layers[place].flush())
        for queue in self.queues.values():
            queue.clear()
        for members in self.groups.values():
            members.clear()
        self.arrive()
        self.members_agree()

    @invariant()
    def mailboxes_agree(self) -> None:
        for name in SPECIFIC if hasattr(self, "names") else []:
            layer = self.layers[owner(name) or 0]
            assert layer.channel_stats(self.names[name]).depth == len(self.queues[name]), name

    def agree_at_the_end(self) -> None:
        self.members_agree()
        for channel in PLAIN + SPECIFIC:
            while self.queues[channel]:
                self.receive_nowait(0, channel)
            self.receive_nowait(1, channel)
        stats = [layer.stats() for layer in self.layers]
        assert sum(reading.dropped_full for reading in stats) >= self.refused
        assert [reading.connection.malformed for reading in stats] == [0, 0]
        assert [reading.connection.gaps for reading in stats] == [0, 0]

    def teardown(self) -> None:
        try:
            # Hypothesis may give a machine up before it has begun.
            if hasattr(self, "names"):
                self.agree_at_the_end()
        finally:
            for layer in self.layers:
                self.run(layer.close())
            self.loop.close()


@pytest.mark.hypothesis
@pytest.mark.timeout(900)  # it waits for a server some ten thousand times
def test_the_layers_agree_with_the_model(redis_server: Server) -> None:
    run_state_machine_as_test(
        type("MachineOfServer", (Machine,), {"url": redis_server.url}),
        settings=settings(
            # Each step waits for a server.
            max_examples=settings().max_examples * 2 // 5,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )
