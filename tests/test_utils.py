"""Channels' tools, with their faults mended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import channels.utils
import pytest

from headrace.consumer import AsyncConsumer
from headrace.utils import await_many_dispatch, name_that_thing


class Thing:
    """Something with a name."""

    def method(self) -> None: ...

    @classmethod
    def made(cls) -> None: ...


class Named(Thing):
    """An object that has a name of its own."""

    __name__ = "own"


@pytest.mark.parametrize(
    "thing",
    [
        *(Thing, Thing(), Named(), Thing.method, Thing.made, type, int, 5, None, partial(Thing), Mock(), asyncio),
        *(AsyncConsumer, AsyncConsumer(), AsyncConsumer.as_asgi, AsyncConsumer.as_asgi(), name_that_thing),
    ],
)
def test_a_thing_is_named_as_channels_names_it(thing: Any) -> None:
    assert name_that_thing(thing) == channels.utils.name_that_thing(thing)


def test_what_channels_fails_at_is_named_too() -> None:
    assert name_that_thing(Thing().method) == f"{__name__}.Thing.method"
    assert name_that_thing(len) == "builtins.builtin_function_or_method"


# await_many_dispatch


class Source:
    """Gives the items of a list, then waits for ever."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.waiting = 0
        self.asked_in_vain = asyncio.Event()

    async def __call__(self) -> Any:
        if self.items:
            item = self.items.pop(0)
            if isinstance(item, Exception):
                raise item
            return item
        self.waiting += 1
        self.asked_in_vain.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1


class Enough(Exception):
    """Ends a dispatch."""


def collect(into: list[Any], count: int) -> Callable[[Any], Awaitable[None]]:
    async def dispatch(item: Any) -> None:
        into.append(item)
        if len(into) == count:
            raise Enough

    return dispatch


async def test_items_are_dispatched_in_order_the_first_source_first() -> None:
    got: list[Any] = []
    with pytest.raises(Enough):
        await await_many_dispatch([Source("a1", "a2"), Source("b1", "b2")], collect(got, 4))
    assert got == ["a1", "b1", "a2", "b2"]


async def test_one_item_is_dispatched_at_a_time_and_its_source_not_asked_meanwhile() -> None:
    asked = []
    busy = asyncio.Lock()

    async def source() -> int:
        assert not busy.locked()
        asked.append(1)
        return len(asked)

    async def dispatch(item: int) -> None:
        assert not busy.locked()
        async with busy:
            await asyncio.sleep(0)
            assert len(asked) == item
        if item == 3:
            raise Enough

    with pytest.raises(Enough):
        await await_many_dispatch([source], dispatch)


async def test_any_awaitable_will_do() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result("item")
    got: list[Any] = []
    with pytest.raises(Enough):
        await await_many_dispatch([lambda: future], collect(got, 1))
    assert got == ["item"]


async def test_no_source_is_left_waiting_when_a_dispatch_fails() -> None:
    sources = Source(), Source("item"), Source()
    with pytest.raises(Enough):
        await await_many_dispatch(sources, collect([], 1))
    assert [source.waiting for source in sources] == [0, 0, 0]


async def test_no_source_is_left_waiting_when_it_is_cancelled() -> None:
    source = Source()
    task = asyncio.create_task(await_many_dispatch([source], collect([], 1)))
    await source.asked_in_vain.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.waiting == 0


async def test_the_error_of_a_source_ends_it() -> None:
    other = Source()
    with pytest.raises(LookupError, match="source"):
        await await_many_dispatch([other, Source(LookupError("source"))], collect([], 1))
    assert other.waiting == 0


async def test_a_source_that_cannot_be_asked_leaves_no_other_waiting() -> None:
    def refuses() -> Any:
        raise LookupError("refused")

    source = Source()
    with pytest.raises(LookupError, match="refused"):
        await await_many_dispatch([source, refuses], collect([], 1))
    assert source.waiting == 0


async def test_the_error_of_a_dispatch_is_not_replaced_by_that_of_a_source(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("source")

    with caplog.at_level(logging.ERROR, logger="headrace.utils"), pytest.raises(Enough):
        await await_many_dispatch([Source("item"), fails_when_cancelled], collect([], 1))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "LookupError('source')"
