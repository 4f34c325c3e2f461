"""What do joining and leaving a group cost, what a new name, and what a group_send that finds nobody waiting?

A round of the group_send is as many sends as make 1,000 deliveries, so that the sizes can be compared.
"""

import itertools

import pytest

from benches.python.timing import MESSAGE, TIMES, Stopwatch
from headrace.layers import InMemoryChannelLayer

GROUP = "room"


@pytest.mark.benchmark(group="join and leave")
def bench_group_add_and_discard(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        for _ in TIMES:
            await layer.group_add(GROUP, "inbox")
            await layer.group_discard(GROUP, "inbox")

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="join and leave")
def bench_group_add_again(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        for _ in TIMES:
            await layer.group_add(GROUP, "inbox")

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="join and leave")
def bench_group_add_of_a_thousandth_member(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()
    names = (f"specific.member!{number}" for number in itertools.count())
    for _ in TIMES:
        layer.group_add_sync(GROUP, next(names))

    async def work() -> None:
        for _ in TIMES:
            name = next(names)
            await layer.group_add(GROUP, name)
            await layer.group_discard(GROUP, name)

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="a new name")
def bench_new_channel(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    async def work() -> None:
        for _ in TIMES:
            await layer.new_channel()

    stopwatch.time_async(work)


@pytest.mark.benchmark(group="group_send to mailboxes, 1,000 deliveries")
@pytest.mark.parametrize("members", [1, 10, 100, 1000])
def bench_group_send(stopwatch: Stopwatch, members: int) -> None:
    sends = range(len(TIMES) // members)
    layer = InMemoryChannelLayer(capacity=len(sends), capacity_bytes=1 << 40)
    channels = [f"member.{number}" for number in range(members)]

    def refill() -> None:
        for channel in channels:
            layer.close_channel(channel)
            layer.group_add_sync(GROUP, channel)

    async def work() -> None:
        for _ in sends:
            await layer.group_send(GROUP, MESSAGE)

    stopwatch.time_async(work, refill)
