"""What Python 3.14 and later tell of who waits for what: ``asyncio.capture_call_graph``, ``python -m asyncio ps``."""

import asyncio
import sys
from typing import Any

import pytest
from tests.support.loops import ALL

from headrace.layers import InMemoryChannelLayer

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 14), reason="Python keeps no call graph before 3.14"),
    # Tasks of other code keep a graph of their own, if any.
    pytest.mark.asyncio(loop_factories=[name for name in ALL if name != "foreign-tasks"]),
]


def awaiters(future: Any) -> list[Any]:
    graph = asyncio.capture_call_graph(future)  # type: ignore[attr-defined,unused-ignore]
    assert graph is not None
    return [entry.future for entry in graph.awaited_by]


def functions(future: Any) -> list[str]:
    graph = asyncio.capture_call_graph(future)  # type: ignore[attr-defined,unused-ignore]
    assert graph is not None
    return [entry.frame.f_code.co_name for entry in graph.call_stack]


async def waiting(layer: InMemoryChannelLayer, coroutine: Any) -> "asyncio.Task[Any]":
    before = layer.stats().waiters
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    while layer.stats().waiters == before:
        await asyncio.sleep(0)
    return task


async def test_a_waiting_receiver_is_shown_with_its_calls_and_with_who_waits_for_it(
    layer: InMemoryChannelLayer,
) -> None:
    async def receive() -> Any:
        return await layer.receive("channel")

    receiver = await waiting(layer, receive())

    async def wait_for_it() -> None:
        await receiver

    outer = asyncio.ensure_future(wait_for_it())
    await asyncio.sleep(0)
    assert functions(receiver)[-1] == "receive"
    assert awaiters(receiver) == [outer]
    await layer.send("channel", {})
    await outer


@pytest.mark.parametrize("wake", ["direct"])
async def test_a_receiver_awaits_its_inbox_only_while_it_waits_there(layer: InMemoryChannelLayer) -> None:
    handling = asyncio.Event()

    async def take(inbox: Any) -> None:
        await anext(inbox)
        await handling.wait()

    async with layer.subscription("group") as inbox:
        task = await waiting(layer, take(inbox))
        parked = task._fut_waiter  # type: ignore[attr-defined]
        assert awaiters(parked) == [task]
        await layer.group_send("group", {})
        while layer.stats().waiters or task._fut_waiter is parked:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        assert awaiters(parked) == []
        handling.set()
        await task
