"""Turns of the loop at an inbox: by time, and on request."""

import asyncio
import time
from typing import Any

import pytest

from headrace import InMemoryChannelLayer

MANY = 50


@pytest.fixture(params=["direct", "future"])
def layer(request: pytest.FixtureRequest) -> InMemoryChannelLayer:
    return InMemoryChannelLayer(wake=request.param)


def spin(seconds: float = 0.001) -> None:
    """Take some time, as a handler that computes."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Counted:
    """Takes all messages of an inbox, and counts how many between two turns of the loop."""

    def __init__(self, layer: InMemoryChannelLayer) -> None:
        self.inbox = layer._inbox("c")
        self.taken: list[Any] = []
        self.most = 0

    async def take(self) -> None:
        async for message in self.inbox:
            self.handle(message)

    def handle(self, message: Any) -> Any:
        spin()
        self.taken.append(message["n"])

    async def run(self) -> None:
        task = asyncio.ensure_future(self.take())
        # An eager task has begun.
        before = len(self.taken)
        async with asyncio.timeout(20):
            while len(self.taken) < MANY:
                await asyncio.sleep(0)
                self.most, before = max(self.most, len(self.taken) - before), len(self.taken)
        task.cancel()
        await asyncio.wait([task])


async def test_a_task_that_finds_one_message_after_the_other_lets_the_loop_turn(layer: InMemoryChannelLayer) -> None:
    counted = Counted(layer)
    for n in range(MANY):
        layer.send_sync("c", {"n": n})
    await counted.run()
    assert counted.taken == list(range(MANY))
    assert counted.most <= 2


@pytest.mark.parametrize("answer", [None, True])
async def test_so_does_one_whose_messages_are_attended_to(layer: InMemoryChannelLayer, answer: bool | None) -> None:
    class Attended(Counted):
        async def take(self) -> None:
            self.inbox.attend(self.attend)
            await super().take()

        def attend(self, message: Any) -> Any:
            self.handle(message)
            return answer

    counted = Attended(layer)
    for n in range(MANY):
        layer.send_sync("c", {"n": n})
    await counted.run()
    assert counted.taken == list(range(MANY))
    assert counted.most <= 2


class Receiving(InMemoryChannelLayer):
    """A layer that receives in its own way."""

    async def receive(self, channel: str) -> dict[str, Any]:
        return await super().receive(channel)


@pytest.mark.parametrize("layer", [InMemoryChannelLayer(), InMemoryChannelLayer(wake="future"), Receiving()])
async def test_a_turn_that_was_ended_comes_before_the_next_message(layer: InMemoryChannelLayer) -> None:
    class Ending(Counted):
        def handle(self, message: Any) -> None:
            self.taken.append(message["n"])
            self.inbox.end_turn()

    counted = Ending(layer)
    for n in range(MANY):
        layer.send_sync("c", {"n": n})
    await counted.run()
    assert counted.taken == list(range(MANY))
    assert counted.most == 1


async def test_a_turn_is_ended_for_a_task_that_parks_before_the_next_message(layer: InMemoryChannelLayer) -> None:
    """What was scheduled runs before the task is resumed, also if the loop's wake had been asked for before that."""
    log: list[Any] = []
    inbox, other = layer._core.inbox("c"), layer._core.inbox("other")
    loop = asyncio.get_running_loop()

    async def take() -> None:
        async for message in inbox:
            if message["n"] == 0:
                # The first in the loop's next turn; the second is this task, and the third what is sent to it.
                loop.call_soon(layer.send_sync, "other", {})
                await asyncio.sleep(0)
                loop.call_soon(log.append, "scheduled by the first")
            log.append(message["n"])
            inbox.end_turn()

    async def drain() -> None:
        async for _ in other:
            pass

    tasks = [asyncio.ensure_future(take()), asyncio.ensure_future(drain())]
    while layer.stats().waiters < 2:
        await asyncio.sleep(0)
    layer.send_sync("c", {"n": 0})
    loop.call_soon(loop.call_soon, lambda: layer.send_sync("c", {"n": 1}))
    async with asyncio.timeout(20):
        while len(log) < 3:
            await asyncio.sleep(0)
    assert log == [0, "scheduled by the first", 1]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def begun_later(inbox: Any) -> "asyncio.Task[Any]":
    """Take the next message in a task that begins in the loop's next turn, eager tasks or not."""

    async def take() -> Any:
        return await anext(inbox)

    return asyncio.Task(take())


async def at_its_turn(layer: InMemoryChannelLayer) -> tuple[Any, "asyncio.Task[Any]"]:
    """Give an inbox that has ended its turn, and a task that waits there for the loop to have one before message 1."""
    inbox = layer._core.inbox("c")
    layer.send_sync("c", {"n": 0})
    layer.send_sync("c", {"n": 1})
    assert await anext(inbox) == {"n": 0}
    inbox.end_turn()
    waiting = begun_later(inbox)
    await asyncio.sleep(0)
    return inbox, waiting


async def test_who_is_cancelled_while_the_loop_has_its_turn_leaves_the_message(layer: InMemoryChannelLayer) -> None:
    _, waiting = await at_its_turn(layer)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert layer.receive_nowait("c") == {"n": 1}


async def test_who_is_called_away_while_the_loop_has_its_turn_gets_the_message_first(
    layer: InMemoryChannelLayer,
) -> None:
    inbox, waiting = await at_its_turn(layer)
    inbox.call_away()
    assert await waiting == {"n": 1}
    assert await anext(inbox) is None


async def test_to_end_a_turn_before_the_first_message_does_nothing(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    inbox.end_turn()
    layer.send_sync("c", {"n": 0})
    assert await anext(inbox) == {"n": 0}


async def test_a_turn_that_is_ended_while_a_task_waits_keeps_no_message_from_it(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    for n in range(3):
        waiting = begun_later(inbox)
        while not layer.stats().waiters:
            await asyncio.sleep(0)
        inbox.end_turn()
        layer.send_sync("c", {"n": n})
        assert await asyncio.wait_for(waiting, 20) == {"n": n}


async def test_a_task_that_is_called_away_by_its_attendant_is_told_in_the_next_turn() -> None:
    layer, log = InMemoryChannelLayer(), list[Any]()
    inbox = layer._core.inbox("c")

    def attend(message: dict[str, Any]) -> None:
        log.append(message["n"])
        asyncio.get_running_loop().call_soon(log.append, "scheduled meanwhile")
        inbox.call_away()

    async def take() -> None:
        inbox.attend(attend)
        async for message in inbox:
            log.append(message)

    task = asyncio.ensure_future(take())
    for n in range(2):
        while not layer.stats().waiters:
            await asyncio.sleep(0)
        layer.send_sync("c", {"n": n})
    async with asyncio.timeout(20):
        while len(log) < 4:
            await asyncio.sleep(0)
    assert log == [{"n": 0}, 1, "scheduled meanwhile", None]
    task.cancel()
    await asyncio.wait([task])
