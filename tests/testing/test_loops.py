"""Letting a loop come to rest, without time."""

import asyncio
import itertools
import socket

import pytest

from headrace.testing import settle


async def relay(source: asyncio.Queue[int], target: asyncio.Queue[int]) -> None:
    while True:
        await target.put(await source.get())


async def test_settle_sees_a_long_chain_of_tasks_to_its_end() -> None:
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(300)]

    tasks = [asyncio.create_task(relay(*pair)) for pair in itertools.pairwise(queues)]
    queues[0].put_nowait(1)
    await settle()
    assert queues[-1].get_nowait() == 1
    for task in tasks:
        task.cancel()


async def test_settle_says_when_the_loop_does_not_come_to_rest() -> None:
    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    with pytest.raises(RuntimeError, match="had work in each of 50 turns"):
        await settle(limit=50)
    task.cancel()


async def test_settle_reads_what_a_socket_has() -> None:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        reading = asyncio.create_task(loop.sock_recv(there, 100))
        await settle()
        here.send(b"hello")
        await settle()
        assert reading.done()
        assert await reading == b"hello"


async def test_settle_counts_no_other_settle_as_work() -> None:
    await asyncio.gather(*(settle(limit=20) for _ in range(10)))


async def test_settle_does_not_wait_for_a_timer_that_is_not_due() -> None:
    loop = asyncio.get_running_loop()
    due = loop.create_future()
    timer = loop.call_later(50, due.set_result, None)
    await settle()
    assert not due.done()
    timer.cancel()


def test_settle_gives_a_loop_that_tells_nothing_many_turns() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> int:
        queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(300)]
        tasks = [asyncio.create_task(relay(*pair)) for pair in itertools.pairwise(queues)]
        queues[0].put_nowait(1)
        await settle()
        for task in tasks:
            task.cancel()
        return queues[-1].get_nowait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == 1
