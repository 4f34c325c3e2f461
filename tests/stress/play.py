"""Threads that use one layer in every way at once, and what must be true of it all the same.

Each message carries its sender and its number. Two promises are checked: a message of a queue goes to exactly one
receiver, and a member gets the messages of each sender in order and none twice.
"""

import asyncio
import gc
import os
import random
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from headrace.exceptions import ChannelEmpty, ChannelFull
from headrace.layers import InMemoryChannelLayer

QUEUES = [f"queue{number}" for number in range(3)]
GROUPS = [f"group{number}" for number in range(3)]
CHILD_SECONDS = 60
"""A child of a fork that has not ended by then is stuck."""

Name = tuple[str, int]


class Play:
    """One layer, the threads that use it until a time, and their records.

    Args:
        seconds: How long it lasts.
        threads: How many threads there are; each plays one role, in the order of ``roles``.
        seed: What the threads do is chosen by it, but for the order in which the system runs them.
    """

    def __init__(self, seconds: float, threads: int, seed: int) -> None:
        self.layer = InMemoryChannelLayer(capacity=50)
        self.sent: list[Name] = []
        self.received: list[Name] = []
        self.operations: Counter[str] = Counter()
        self.faults: list[str] = []
        self._numbers: Counter[str] = Counter()
        self._end = time.monotonic() + seconds
        self._threads = [
            threading.Thread(
                target=self._play, args=(role, f"{role.__name__}-{number}", random.Random(f"{seed}.{number}"))
            )
            for number, role in zip(range(threads), self._repeated_roles(), strict=False)
        ]

    def _repeated_roles(self) -> Iterable[Callable[..., None]]:
        while True:
            yield from (
                self.send,
                self.receive,
                self.run_loops,
                self.join_and_leave,
                self.run_loops,
                self.look,
                self.fork,
            )

    def run(self) -> None:
        """Play, and compare what was sent with what was received."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        for queue in QUEUES:
            self._take_all(queue)
        # A message that was on its way to a member when its channel was closed waits there until it expires.
        for channel in list(self.layer.channels):
            self.layer.close_channel(channel)
        self._compare()

    def _play(self, role: Callable[..., None], name: str, chance: random.Random) -> None:
        try:
            while not self.faults:
                role(name, chance)
                self.operations[role.__name__] += 1
                if time.monotonic() > self._end:
                    return
        except BaseException as error:
            self.faults.append(f"{name}: {error!r}")

    def _compare(self) -> None:
        sent, received = Counter(self.sent), Counter(self.received)
        self.faults += [f"lost: {name}" for name in list((sent - received).elements())[:10]]
        self.faults += [f"received twice, or never sent: {name}" for name in list((received - sent).elements())[:10]]
        stats = self.layer.stats()
        if stats.waiters or stats.memberships or stats.depth:
            self.faults.append(f"left behind: {stats}")

    def _take_all(self, queue: str) -> None:
        with suppress(ChannelEmpty):
            while True:
                self._note_received(self.layer.receive_nowait(queue))

    def _note_received(self, message: dict[str, Any]) -> None:
        self.received.append((message["sender"], message["n"]))

    # The roles: each is called again and again.

    def send(self, name: str, chance: random.Random) -> None:
        """Send to queues and to groups, without a loop."""
        for _ in range(50):
            number = self._next_number(name)
            if chance.random() < 0.5:
                self.layer.group_send_sync(chance.choice(GROUPS), {"sender": name, "n": number})
                continue
            with suppress(ChannelFull):
                self.layer.send_sync(chance.choice(QUEUES), {"sender": name, "n": number})
                self.sent.append((name, number))

    def _next_number(self, name: str) -> int:
        self._numbers[name] += 1
        return self._numbers[name]

    def receive(self, _name: str, chance: random.Random) -> None:
        """Receive from queues, without a loop."""
        queue = chance.choice(QUEUES)
        with suppress(ChannelEmpty, TimeoutError):
            if chance.random() < 0.5:
                self._note_received(self.layer.receive_nowait(queue))
            else:
                self._note_received(self.layer.receive_sync(queue, chance.random() / 100))

    def join_and_leave(self, name: str, chance: random.Random) -> None:
        """Be a member of groups for a while, and receive as one, without a loop."""
        channel, groups = self.layer.new_channel_sync(), chance.sample(GROUPS, 2)
        latest: dict[str, int] = {}
        for group in groups:
            self.layer.group_add_sync(group, channel)
        for _ in range(20):
            with suppress(TimeoutError):
                self._check_order(name, latest, self.layer.receive_sync(channel, 0.002))
        if chance.random() < 0.5:
            for group in groups:
                self.layer.group_discard_sync(group, channel)
        self.layer.close_channel(channel)

    def _check_order(self, name: str, latest: dict[str, int], message: dict[str, Any]) -> None:
        sender, number = message["sender"], message["n"]
        if number <= latest.get(sender, 0):
            self.faults.append(f"{name}: {number} of {sender} behind {latest[sender]}")
        latest[sender] = number

    def run_loops(self, name: str, chance: random.Random) -> None:
        """Run a loop that comes and goes, with members, receivers of queues, and receivers that are cancelled."""

        async def member() -> None:
            latest: dict[str, int] = {}
            async with self.layer.subscription(*chance.sample(GROUPS, 2)) as inbox:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        async for message in inbox:
                            self._check_order(name, latest, message)

        async def receiver() -> None:
            for _ in range(20):
                task = asyncio.ensure_future(self.layer.receive(chance.choice(QUEUES)))
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    self._note_received(await task)

        async def sender() -> None:
            for _ in range(20):
                await self.layer.group_send(chance.choice(GROUPS), {"sender": name, "n": self._next_number(name)})
                await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(member() for _ in range(5)), *(receiver() for _ in range(5)), sender())

        asyncio.run(main())

    def look(self, name: str, _chance: random.Random) -> None:
        """Read everything that can be read; the sums of the counters are right at any moment."""
        stats = self.layer.stats()
        accounted = stats.delivered + stats.depth + stats.dropped_expired + stats.dropped_replaced + stats.dropped_other
        if stats.sent != accounted:
            self.faults.append(f"{name}: {accounted} accounted for of {stats}")
        for queue in QUEUES:
            self.layer.channel_stats(queue)
            self.layer.channel_groups(queue)
        for group in GROUPS:
            self.layer.group_stats(group)
            self.layer.group_count(group)
            self.layer.group_channels(group)
        if _chance.random() < 0.02:
            gc.collect()

    def fork(self, name: str, _chance: random.Random) -> None:
        """Fork, whatever the other threads are about; the child has a layer that works, and is empty."""
        if not hasattr(os, "fork"):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, which is the point
            child = os.fork()
        if child == 0:
            _be_a_child(self.layer)
        _, status = os.waitpid(child, 0)
        if status:
            self.faults.append(f"{name}: a child ended with {status}")
        time.sleep(0.1)


def _be_a_child(layer: InMemoryChannelLayer) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)
        layer.group_add_sync("children", "child")
        layer.group_send_sync("children", {"n": 1})
        fresh = layer.stats().channels == 1 and layer.receive_nowait("child") == {"n": 1}
        status = 0 if fresh else 2
    finally:
        os._exit(status)
