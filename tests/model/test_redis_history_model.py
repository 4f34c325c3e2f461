"""A group that keeps its history over Redis against the list of all that was ever sent to it.

Three processes send, two listen, and one of these is cut off now and then. The stream is removed, ends, and is taken
back to an older copy, as by a replica that was behind; the clocks of the senders are set. Whatever happens: nothing
comes twice or out of order, what is missing was told, and complete is all.
"""

import asyncio
import re
import uuid
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.traffic import PATIENT, soon
from tests.support.waiting import SECONDS

from headrace.exceptions import ChannelEmpty
from headrace.layers import RedisChannelLayer

GROUP, SIZE = "room", 6
# What the entries of the stream are known by.
NUMBER = re.compile(rb"number-(\d{6})")
POSITION = "__headrace_position__"
HERE, THERE = 0, 1

senders = st.sampled_from([0, 1, 2])
listeners = st.sampled_from([HERE, THERE])


class Machine(RuleBasedStateMachine):
    """Lets things happen, and holds what comes of them against what was sent."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = ExitStack()
        self.times, self.line = (self.stack.enter_context(Proxy(self.server.port)) for _ in range(2))
        prefix = f"t{uuid.uuid4().hex}"
        self.key = f"{prefix}:h:{{{prefix}:g:{GROUP}}}"
        options: dict[str, Any] = {
            "prefix": prefix,
            "history": {GROUP: {"size": SIZE, "ttl": 600}},
            "send_timeout": PATIENT,
            "capacity": 10_000,
            "on_gap": "gap",
        }
        self.senders = [RedisChannelLayer([self.times.url], **options) for _ in range(3)]
        self.listeners = [RedisChannelLayer([url], **options) for url in (self.server.url, self.line.url)]
        # Each message by its number: in which step it was sent, and where it stands.
        self.steps: list[int] = []
        self.positions: list[str] = []
        self.step = 0
        self.came: list[list[int | str]] = [[], []]
        self.settled = 0
        self.is_cut = False
        # What a replica had not got, and what was sent since the stream was lost in this or another way.
        self.lost: set[int] = set()
        self.copy: bytes | None = None
        self.lost_at: int | None = None
        # Nothing was lost since it was settled, or ever; and no replica was behind.
        self.is_whole = self.was_kept = True
        self.was_behind = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, SECONDS))

    @initialize()
    def begin(self) -> None:
        for layer in self.senders:
            self.run(layer.group_position(GROUP))
        self.channels = [self.run(self.join(layer)) for layer in self.listeners]

    async def join(self, layer: RedisChannelLayer) -> str:
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
        # Until then it does not know where the stream is, and what it misses is told.
        await layer.group_add(GROUP, channel, since=0)
        return channel

    async def tell(self, sender: int) -> int:
        number = len(self.steps)
        self.steps.append(self.step)
        self.positions.append("")
        report = await self.senders[sender].group_send(GROUP, {"type": "number", "n": f"number-{number:06}"})
        assert report.position is not None
        self.positions[number] = report.position
        return number

    def kept(self) -> list[int]:
        """Return the numbers of what the stream holds."""
        rows = self.server.cli("XRANGE", self.key, "-", "+", decode=False)
        found = [NUMBER.search(fields[1]) for _, fields in rows]
        return [int(number[1]) for number in found if number]

    @rule(sender=senders)
    def send(self, sender: int) -> None:
        self.step += 1
        self.run(self.tell(sender))

    @rule()
    def race(self) -> None:
        """Have all send at once, to a stream that is there or not."""

        async def all_at_once() -> None:
            await asyncio.gather(*(self.tell(sender) for sender in range(3)))

        self.step += 1
        self.run(all_at_once())

    @rule()
    @precondition(lambda self: not self.is_cut)
    def cut(self) -> None:
        """Cut a listener off."""
        self.is_cut = True
        self.line.refuse()
        self.line.cut()
        there = self.listeners[THERE]
        self.run(soon(lambda: there.stats().connection.state != "up", "it is cut off"))

    @rule()
    @precondition(lambda self: self.is_cut)
    def end_cut(self) -> None:
        self.mend()

    def mend(self) -> None:
        self.is_cut = False
        self.line.accept()
        there = self.listeners[THERE]
        self.run(soon(lambda: there.stats().connection.state == "up", "it is back"))

    @rule(expires=st.booleans())
    def remove(self, expires: bool) -> None:
        """Remove the stream, or have it end."""
        if expires:
            self.server.cli("PEXPIRE", self.key, 1)
            # A listener may have begun another one by then.
            self.run(soon(lambda: not 0 <= self.server.cli("PTTL", self.key) <= 1, "it has ended"))
        else:
            self.server.cli("DEL", self.key)
        self.lost_at, self.is_whole, self.was_kept = len(self.steps), False, False

    @rule()
    def copy_to_replica(self) -> None:
        self.copy = self.server.cli("DUMP", self.key, decode=False)

    @rule()
    @precondition(lambda self: self.copy is not None)
    def replace_by_replica(self) -> None:
        """Take the stream back to what it was."""
        before = set(self.kept())
        assert self.copy is not None
        self.server.cli("RESTORE", self.key, 0, self.copy, "REPLACE")
        self.lost |= before - set(self.kept())
        self.lost_at, self.is_whole, self.was_kept, self.was_behind = None, False, False, True

    @rule(ahead=st.sampled_from([-20, -3, 0, 3, 20]))
    def set_clocks(self, ahead: int) -> None:
        """Set the clock by which senders choose epochs, by less than a message lives."""
        self.times.set_clock(ahead)
        before = [layer.stats().connection.reconnects for layer in self.senders]
        self.times.cut()
        for layer, lost in zip(self.senders, before, strict=True):
            self.run(soon(partial(self.is_back, layer, lost), "it is back"))

    def is_back(self, layer: RedisChannelLayer, before: int) -> bool:
        connection = layer.stats().connection
        return connection.reconnects > before and connection.state == "up"

    def take(self, layer: RedisChannelLayer, channel: str, until: int) -> list[int | str]:
        """Receive all up to a number."""

        async def receive() -> list[int | str]:
            came: list[int | str] = []
            while not came or came[-1] != until:
                message = await layer.receive(channel)
                came.append(message["type"] if message["type"] == "gap" else int(message["n"].removeprefix("number-")))
            return came

        taken: list[int | str] = self.run(receive())
        return taken

    def is_in_order(self, numbers: list[int]) -> bool:
        steps = [self.steps[number] for number in numbers]
        return steps == sorted(steps)

    @rule()
    def settle(self) -> None:
        """See what has come since the last time."""
        if self.is_cut:
            # What comes next comes, whatever was missed.
            self.mend()
        self.step += 1
        last = self.run(self.tell(0))
        due = set(range(self.settled, last + 1))
        for place, layer in enumerate(self.listeners):
            came = self.take(layer, self.channels[place], last)
            numbers = [each for each in came if isinstance(each, int)]
            assert len(set(numbers)) == len(numbers), f"{came} at {place}: something came twice"
            assert set(numbers) <= due, f"{came} at {place}: something of {self.settled} and before came again"
            assert self.is_in_order(numbers), f"{came} at {place}"
            missing = due - set(numbers)
            assert place == THERE or not missing, f"{missing} are missing where nothing was cut"
            assert not missing or "gap" in came, f"{missing} are missing"
            since = self.settled if self.is_whole else self.lost_at
            if since is not None and last - since < SIZE - 1:
                # All that was sent since then is in the stream, with the heads that listeners may have begun it with.
                assert not {number for number in missing if number >= since}, f"{missing} could be healed"
            if self.is_whole and last - self.settled < SIZE:
                assert "gap" not in came
            with pytest.raises(ChannelEmpty):
                layer.receive_nowait(self.channels[place])
        self.settled = last + 1
        # Where a replica was behind, a listener may have counted wrongly until it is cut off: then it is told of a gap.
        if not self.was_behind:
            self.lost_at, self.is_whole = None, True

    @rule(place=listeners, data=st.data())
    @precondition(lambda self: self.steps)
    def resume(self, place: int, data: st.DataObject) -> None:
        """Go on behind a message."""
        if place == THERE and self.is_cut:
            return
        behind = data.draw(st.integers(max(0, len(self.steps) - 2 * SIZE), len(self.steps) - 1))
        layer = self.listeners[place]
        channel = self.run(layer.new_channel())
        is_kept = behind in self.kept()
        complete = self.run(layer.group_add(GROUP, channel, since=self.positions[behind]))
        self.step += 1
        last = self.run(self.tell(0))
        *missed, _ = self.take(layer, channel, last)
        layer.close_channel(channel)
        numbers = [number for number in missed if isinstance(number, int)]
        if not complete:
            # What had not come here yet when it joined is live for it.
            live = set(range(min(numbers, default=last), last))
            assert live - self.lost <= set(numbers), f"{numbers} is a part of what is behind {behind}"
            assert self.is_in_order(numbers), numbers
            assert not (self.was_kept and is_kept)
            return
        assert len(set(numbers)) == len(numbers), numbers
        assert self.is_in_order(numbers), numbers
        after = {number for number in range(last) if self.steps[number] > self.steps[behind]}
        beside = {number for number in range(last) if self.steps[number] == self.steps[behind] and number != behind}
        assert after - self.lost <= set(numbers) <= after | beside, f"{numbers} behind {behind}"

    def teardown(self) -> None:
        try:
            # Hypothesis may give a machine up before it has begun.
            if hasattr(self, "channels"):
                self.settle()
        finally:
            for layer in [*self.senders, *self.listeners]:
                self.run(layer.close())
            self.loop.close()
            self.stack.close()


@pytest.mark.hypothesis
@pytest.mark.timeout(3600)  # it waits for connections to be lost and made again
def test_the_layers_agree_with_what_was_sent(redis_server: Server) -> None:
    run_state_machine_as_test(
        type("MachineOfServer", (Machine,), {"server": redis_server}),
        settings=settings(
            # Each step waits for a server, and some for a connection.
            max_examples=max(1, settings().max_examples // 5),
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
