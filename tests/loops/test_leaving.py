"""The ways out of a single wait, one by one."""

import asyncio
import itertools
from contextlib import suppress

import pytest

from headrace.exceptions import ChannelEmpty
from headrace.layers import InMemoryChannelLayer


class OfTheTest(Exception):
    """What is thrown into a receive."""


def rest(layer: InMemoryChannelLayer) -> list[int]:
    """Take what the channel still holds."""
    messages = []
    with suppress(ChannelEmpty):
        while True:
            messages.append(layer.receive_nowait("channel")["n"])
    return messages


async def test_every_message_that_was_handed_over_comes_back_in_order(layer: InMemoryChannelLayer) -> None:
    for count in range(1, 6):
        for cancelled in itertools.product((False, True), repeat=count):
            received: list[int | None] = [None] * count

            async def take(place: int, received: list[int | None] = received) -> None:
                received[place] = (await layer.receive("channel"))["n"]

            tasks = [asyncio.ensure_future(take(place)) for place in range(count)]
            while layer.stats().waiters < count:
                await asyncio.sleep(0)
            for n in range(count):
                layer.send_sync("channel", {"n": n})
            for task, cancel in zip(tasks, cancelled, strict=True):
                if cancel:
                    task.cancel()
            await asyncio.wait(tasks)
            assert received == [None if cancel else n for n, cancel in enumerate(cancelled)]
            assert rest(layer) == [n for n, cancel in enumerate(cancelled) if cancel]


async def test_a_receiver_that_is_cancelled_twice_gives_back_once(layer: InMemoryChannelLayer) -> None:
    task = asyncio.ensure_future(layer.receive("channel"))
    while layer.stats().waiters == 0:
        await asyncio.sleep(0)
    layer.send_sync("channel", {"n": 0})
    task.cancel()
    task.cancel()
    await asyncio.wait([task])
    assert rest(layer) == [0]
    assert (layer.stats().returned, layer.stats().delivered) == (1, 1)


async def test_a_closed_coroutine_leaves_the_line_and_the_message(layer: InMemoryChannelLayer) -> None:
    for handed_over in (False, True):
        receiving = layer.receive("channel")
        receiving.send(None)
        assert layer.stats().waiters == 1
        if handed_over:
            layer.send_sync("channel", {"n": 0})
        receiving.close()
        assert layer.stats().waiters == 0
        assert rest(layer) == [0] * handed_over


async def test_an_exception_thrown_into_a_receive_leaves_the_message(layer: InMemoryChannelLayer) -> None:
    for handed_over in (False, True):
        receiving = layer.receive("channel")
        receiving.send(None)
        if handed_over:
            layer.send_sync("channel", {"n": 0})
        with pytest.raises(OfTheTest):
            receiving.throw(OfTheTest())
        assert layer.stats().waiters == 0
        assert rest(layer) == [0] * handed_over


async def test_two_tasks_cannot_wait_at_one_inbox(layer: InMemoryChannelLayer) -> None:
    async with layer.subscription("group") as inbox:
        first = asyncio.ensure_future(anext(inbox))
        while layer.stats().waiters == 0:
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task at a time"):
            await anext(inbox)
        layer.group_send_sync("group", {"n": 0})
        assert await first == {"n": 0}
