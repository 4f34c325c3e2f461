import asyncio
import random

import pytest

from headrace._sockets.turns import Turns


async def take(turns: Turns, log: list[object], name: object, gate: asyncio.Event | None = None) -> None:
    if turns.taken:
        await turns.wait()
    turns.taken = True
    try:
        log.append(name)
        if gate is not None:
            await gate.wait()
    finally:
        turns.pass_on()


async def test_turns_are_taken_in_the_order_of_coming_and_one_at_a_time() -> None:
    turns, gate = Turns(), asyncio.Event()
    log: list[object] = []
    tasks = [asyncio.create_task(take(turns, log, number, gate)) for number in range(5)]
    await asyncio.sleep(0)
    assert (log, turns.taken) == ([0], True)
    gate.set()
    await asyncio.gather(*tasks)
    assert (log, turns.taken) == ([0, 1, 2, 3, 4], False)


async def test_who_comes_between_the_end_of_one_turn_and_the_next_does_not_push_in() -> None:
    turns, gate = Turns(), asyncio.Event()
    log: list[object] = []
    first = asyncio.create_task(take(turns, log, "first", gate))
    await asyncio.sleep(0)
    second = asyncio.create_task(take(turns, log, "second"))
    await asyncio.sleep(0)
    gate.set()
    while not first.done():
        await asyncio.sleep(0)
    await take(turns, log, "third")
    await second
    assert log == ["first", "second", "third"]


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_turn_that_nobody_takes_any_more_is_passed_on(handed_over: bool) -> None:
    turns, gate = Turns(), asyncio.Event()
    log: list[object] = []
    tasks = [asyncio.create_task(take(turns, log, number, gate if not number else None)) for number in range(3)]
    await asyncio.sleep(0)
    if handed_over:
        gate.set()
        while not tasks[0].done():
            await asyncio.sleep(0)
    tasks[1].cancel()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns.taken is False
    assert log in ([0, 2], [0, 1, 2])
    assert tasks[2].exception() is None


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_is_cancelled_everybody_else_has_a_turn(seed: int) -> None:
    dice, turns = random.Random(seed), Turns()
    log: list[object] = []

    async def slow(number: int) -> None:
        if turns.taken:
            await turns.wait()
        turns.taken = True
        try:
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
            log.append(number)
        finally:
            turns.pass_on()

    tasks = [asyncio.create_task(slow(number)) for number in range(30)]
    for _ in range(10):
        await asyncio.sleep(0)
        dice.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert log == [number for number, task in enumerate(tasks) if not task.cancelled()]
    assert turns.taken is False
