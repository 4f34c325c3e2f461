"""What do the methods cost that need no loop?

The reference is a queue.SimpleQueue, the fastest queue that threads share.
"""

import queue

import pytest

from benches.python.timing import MESSAGE, TIMES, Stopwatch
from headrace.layers import InMemoryChannelLayer

CHANNEL, GROUP = "inbox", "room"


@pytest.mark.benchmark(group="send and receive, no loop")
def bench_send_sync_and_receive_nowait(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    def work() -> None:
        for _ in TIMES:
            layer.send_sync(CHANNEL, MESSAGE)
            layer.receive_nowait(CHANNEL)

    stopwatch.time(work)


@pytest.mark.benchmark(group="send and receive, no loop")
def bench_send_sync_and_receive_sync(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer()

    def work() -> None:
        for _ in TIMES:
            layer.send_sync(CHANNEL, MESSAGE)
            layer.receive_sync(CHANNEL)

    stopwatch.time(work)


@pytest.mark.benchmark(group="send and receive, no loop")
def bench_simple_queue(stopwatch: Stopwatch) -> None:
    fifo: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    def work() -> None:
        for _ in TIMES:
            fifo.put(MESSAGE)
            fifo.get()

    stopwatch.time(work)


@pytest.mark.benchmark(group="group_send to one member, no loop")
def bench_group_send_sync(stopwatch: Stopwatch) -> None:
    layer = InMemoryChannelLayer(capacity=len(TIMES), capacity_bytes=1 << 40)

    def refill() -> None:
        layer.close_channel(CHANNEL)
        layer.group_add_sync(GROUP, CHANNEL)

    def work() -> None:
        for _ in TIMES:
            layer.group_send_sync(GROUP, MESSAGE)

    stopwatch.time(work, refill)
