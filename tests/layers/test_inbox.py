"""What a consumer's dispatch asks of an inbox: to be called away from it, and to say what it does when it is full."""

import asyncio
from typing import Any, Literal

import pytest

from headrace import ChannelFull, InMemoryChannelLayer

WAKES: tuple[Literal["direct", "future"], ...] = ("direct", "future")


@pytest.fixture(params=WAKES)
def layer(request: pytest.FixtureRequest) -> InMemoryChannelLayer:
    return InMemoryChannelLayer(wake=request.param)


def numbered(number: int, kind: str = "n") -> dict[str, Any]:
    return {"type": kind, "n": number}


def taken(layer: InMemoryChannelLayer, channel: str) -> list[int]:
    depth = layer.channel_stats(channel).depth
    return [layer.receive_nowait(channel)["n"] for _ in range(depth)]


async def started(waiting: Any, layer: InMemoryChannelLayer) -> "asyncio.Task[Any]":
    """Start a task, and wait until it is in line for a message."""
    before = layer.stats().waiters
    task: asyncio.Task[Any] = asyncio.ensure_future(waiting)
    while layer.stats().waiters == before:
        await asyncio.sleep(0)
    return task


async def test_who_is_called_away_from_an_inbox_gets_none(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    waiting = await started(anext(inbox), layer)
    inbox.call_away()
    assert await waiting is None
    assert layer.stats().waiters == 0


async def test_a_call_with_nobody_there_is_for_the_next_to_come(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    inbox.call_away()
    inbox.call_away()
    assert await anext(inbox) is None
    layer.send_sync("c", numbered(1))
    assert await anext(inbox) == numbered(1)


async def test_a_call_before_the_attendant_comes_is_kept(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    inbox.call_away()
    inbox.attend(print)
    assert await anext(inbox) is None
    layer.send_sync("c", numbered(1))
    assert await anext(inbox) == numbered(1)


async def test_a_message_that_is_on_its_way_comes_before_the_call(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    waiting = await started(anext(inbox), layer)
    layer.send_sync("c", numbered(1))
    inbox.call_away()
    assert await waiting == numbered(1)
    assert await anext(inbox) is None


async def test_being_called_away_loses_no_message(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    got: list[Any] = []

    async def receive() -> None:
        async for message in inbox:
            got.append(message)
            if message == numbered(200):
                return

    receiving = await started(receive(), layer)
    for number in range(1, 201):
        if number % 3 == 0:
            inbox.call_away()
        layer.send_sync("c", numbered(number))
        if number % 5 == 0:
            inbox.call_away()
        if number % 7 == 0:
            await asyncio.sleep(0)
    await receiving
    assert [message["n"] for message in got if message] == list(range(1, 201))
    assert layer.stats().delivered == 200


async def test_one_that_was_cancelled_is_still_called_away_the_next_time(layer: InMemoryChannelLayer) -> None:
    inbox = layer._core.inbox("c")
    waiting = await started(anext(inbox), layer)
    inbox.call_away()
    waiting.cancel()
    await asyncio.wait([waiting])
    layer.send_sync("c", numbered(1))
    first = await anext(inbox)
    second = numbered(1) if first == numbered(1) else await anext(inbox)
    assert second == numbered(1)


async def test_drop_new_refuses_what_does_not_fit(layer: InMemoryChannelLayer) -> None:
    layer._core.inbox("c").own(2, "drop_new")
    layer.send_sync("c", numbered(1))
    layer.send_sync("c", numbered(2))
    with pytest.raises(ChannelFull):
        layer.send_sync("c", numbered(3))
    assert layer.channel_stats("c").dropped_full == 1
    assert taken(layer, "c") == [1, 2]


async def test_drop_old_gives_up_the_oldest(layer: InMemoryChannelLayer) -> None:
    layer._core.inbox("c").own(2, "drop_old")
    layer.group_add_sync("g", "c")
    reports = [layer.group_send_sync("g", numbered(number)) for number in range(5)]
    assert [report.delivered for report in reports] == [1] * 5
    assert taken(layer, "c") == [3, 4]
    stats = layer.stats()
    assert (stats.sent, stats.delivered, stats.dropped_replaced, stats.dropped_full) == (5, 2, 3, 0)


async def test_coalesce_gives_up_what_the_new_message_makes_out_of_date(layer: InMemoryChannelLayer) -> None:
    layer._core.inbox("c").own(3, "coalesce")
    for number, kind in enumerate(["price", "news", "price", "price"]):
        layer.send_sync("c", numbered(number, kind))
    assert taken(layer, "c") == [1, 3]
    assert layer.channel_stats("c").dropped_replaced == 2


async def test_coalesce_gives_up_the_oldest_if_nothing_is_out_of_date(layer: InMemoryChannelLayer) -> None:
    layer._core.inbox("c").own(2, "coalesce")
    for number, kind in enumerate(["a", "b", "c"]):
        layer.send_sync("c", numbered(number, kind))
    layer.send_sync("c", {"n": 3})
    assert taken(layer, "c") == [2, 3]


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
async def test_the_alarm_is_sounded_once_and_in_the_loop(layer: InMemoryChannelLayer, overflow: str) -> None:
    sounded = asyncio.Event()
    calls: list[asyncio.AbstractEventLoop] = []

    def alarm() -> None:
        calls.append(asyncio.get_running_loop())
        sounded.set()

    layer._core.inbox("c").own(1, overflow, alarm)
    layer.group_add_sync("g", "c")

    def flood() -> None:
        for number in range(4):
            layer.group_send_sync("g", numbered(number))

    await asyncio.to_thread(flood)
    await sounded.wait()
    assert calls == [asyncio.get_running_loop()]


async def test_a_channel_that_is_closed_has_no_owner_any_more(layer: InMemoryChannelLayer) -> None:
    layer._core.inbox("c").own(1, "drop_old", lambda: None)
    assert layer.stats().channels == 1
    layer.close_channel("c")
    assert layer.stats().channels == 0
    assert layer.channel_stats("c").capacity == layer.capacity


async def test_an_unknown_overflow_is_refused(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(ValueError, match="overflow must be 'drop_new', 'drop_old' or 'coalesce', got 'burn'"):
        layer._core.inbox("c").own(1, "burn")


@pytest.mark.parametrize("capacity", [0, -1, 2**70, 1.5, "2", None])
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
async def test_a_capacity_that_holds_nothing_is_refused(
    layer: InMemoryChannelLayer, capacity: Any, overflow: str
) -> None:
    with pytest.raises(ValueError, match="capacity must be a positive integer, got "):
        layer._core.inbox("c").own(capacity, overflow)
    assert layer.stats().channels == 0


async def test_what_cannot_be_called_is_refused_at_once(layer: InMemoryChannelLayer) -> None:
    inbox: Any = layer._core.inbox("c")
    with pytest.raises(TypeError, match="alarm must be callable, got int 1"):
        inbox.own(1, "drop_new", 1)
    with pytest.raises(TypeError, match="attendant must be callable, got str 'x'"):
        inbox.attend("x")


async def test_an_inbox_that_has_ended_owns_no_channel(layer: InMemoryChannelLayer) -> None:
    async with layer.subscription("g") as inbox:
        inbox.own(1, "drop_old")
    with pytest.raises(RuntimeError, match="the inbox has ended"):
        inbox.own(1, "drop_old")
    assert layer.stats().channels == 0
