"""One channel: what goes in comes out, in order, once."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.exceptions import ChannelEmpty

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"type": "number", "n": n} for n in range(count)]


async def test_a_message_is_received_as_it_was_sent(layer: Any) -> None:
    message = {"type": "test.message", "text": "hello", "list": [1, 2.5, None, True, b"bytes"], "deep": {"a": {}}}
    await layer.send("channel", message)
    assert await layer.receive("channel") == message


async def test_messages_come_out_in_the_order_in_which_they_went_in(layer: Any) -> None:
    for message in numbered(50):
        await layer.send("channel", message)
    assert [await layer.receive("channel") for _ in range(50)] == numbered(50)


async def test_a_waiting_receiver_is_given_the_next_message(layer: Any, receivers: Receivers) -> None:
    (task,) = await receivers(layer, "channel")
    await layer.send("channel", {"type": "hello"})
    assert await task == {"type": "hello"}


async def test_channels_do_not_mix(layer: Any, receivers: Receivers) -> None:
    own = layer.new_channel_sync().partition("!")[0]
    tasks = {name: (await receivers(layer, name))[0] for name in ("a", f"{own}!a", f"{own}!b", f"{own}!")}
    for name in reversed(tasks):
        await layer.send(name, {"type": name})
    assert {name: await task for name, task in tasks.items()} == {name: {"type": name} for name in tasks}


async def test_a_specific_channel_is_received_from_by_its_full_name(layer: Any, drain: Drain) -> None:
    own = layer.new_channel_sync().partition("!")[0]
    await layer.send(f"{own}!a", {"type": "hello"})
    assert await drain(layer, f"{own}!") == []
    assert await layer.receive(f"{own}!a") == {"type": "hello"}


async def test_receivers_are_served_in_the_order_in_which_they_came(layer: Any, receivers: Receivers) -> None:
    tasks = await receivers(layer, "channel", 5)
    for message in numbered(5):
        await layer.send("channel", message)
    assert [await task for task in tasks] == numbered(5)


async def test_each_message_goes_to_exactly_one_receiver(layer: Any, drain: Drain) -> None:
    async def take(count: int) -> list[dict[str, Any]]:
        return [await layer.receive("channel") for _ in range(count)]

    tasks = [asyncio.ensure_future(take(10)) for _ in range(3)]
    for message in numbered(30):
        await layer.send("channel", message)
    received = [message["n"] for task in tasks for message in await task]
    assert sorted(received) == list(range(30))
    assert await drain(layer, "channel") == []


async def test_messages_beyond_those_who_wait_stay_for_those_who_come(layer: Any, receivers: Receivers) -> None:
    tasks = await receivers(layer, "channel", 2)
    for message in numbered(4):
        await layer.send("channel", message)
    assert [await task for task in tasks] == numbered(2)
    assert [await layer.receive("channel") for _ in range(2)] == numbered(4)[2:]


async def test_receive_nowait_takes_the_oldest_message_or_says_that_there_is_none(
    layer: Any, settle: Callable[[Any], Awaitable[None]]
) -> None:
    for message in numbered(2):
        await layer.send("channel", message)
    await settle(layer)
    assert [layer.receive_nowait("channel") for _ in range(2)] == numbered(2)
    with pytest.raises(ChannelEmpty) as caught:
        layer.receive_nowait("channel")
    assert caught.value.args == ("channel",)


async def test_receive_nowait_takes_nothing_from_those_who_wait(layer: Any, receivers: Receivers) -> None:
    (task,) = await receivers(layer, "channel")
    with pytest.raises(ChannelEmpty):
        layer.receive_nowait("channel")
    await layer.send("channel", {"type": "hello"})
    with pytest.raises(ChannelEmpty):
        layer.receive_nowait("channel")
    assert await task == {"type": "hello"}


async def test_a_message_of_a_megabyte_is_carried(layer: Any) -> None:
    message = {"type": "big", "text": "x" * 1_000_000, "bytes": b"\x00" * 1_000_000, "list": list(range(100_000))}
    await layer.send("channel", message)
    assert await layer.receive("channel") == message


async def test_a_receive_may_be_bound_to_its_channel_beforehand(layer: Any) -> None:
    receive = functools.partial(layer.receive, "channel")
    await layer.send("channel", {"type": "hello"})
    assert await receive() == {"type": "hello"}
    task = asyncio.ensure_future(receive())
    await layer.send("channel", {"type": "again"})
    assert await task == {"type": "again"}


async def test_methods_can_be_tasks(layer: Any) -> None:
    receiving = asyncio.create_task(layer.receive("channel"))
    await asyncio.create_task(layer.send("channel", {"type": "hello"}))
    assert await receiving == {"type": "hello"}


async def test_a_channel_that_is_read_empty_is_gone(layer: Any, settle: Callable[[Any], Awaitable[None]]) -> None:
    await layer.send("channel", {"type": "hello"})
    await settle(layer)
    assert layer.stats().channels == 1
    await layer.receive("channel")
    assert layer.stats().channels == 0


class TestCancelling:
    """A receive either took its message or left it where it was."""

    async def test_a_cancelled_receiver_leaves_its_place_to_the_next(self, layer: Any, receivers: Receivers) -> None:
        first, second = await receivers(layer, "channel", 2)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        await layer.send("channel", {"type": "hello"})
        assert await second == {"type": "hello"}

    async def test_cancelling_one_of_two_receivers_leaves_nobody_deaf(self, layer: Any, receivers: Receivers) -> None:
        first, second = await receivers(layer, "channel", 2)
        second.cancel()
        await asyncio.wait([second])
        for message in numbered(2):
            await layer.send("channel", message)
        assert await first == numbered(2)[0]
        assert await layer.receive("channel") == numbered(2)[1]

    async def test_a_message_on_its_way_to_a_cancelled_receiver_goes_to_the_next(
        self, layer: Any, receivers: Receivers
    ) -> None:
        first, second = await receivers(layer, "channel", 2)
        await layer.send("channel", {"type": "hello"})
        first.cancel()
        assert await second == {"type": "hello"}
        assert first.cancelled()

    @pytest.mark.usefixtures("immediate")
    async def test_a_message_on_its_way_to_a_cancelled_receiver_returns_in_front_of_younger_ones(
        self, layer: Any, receivers: Receivers, drain: Drain
    ) -> None:
        (task,) = await receivers(layer, "channel")
        for message in numbered(3):
            await layer.send("channel", message)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await drain(layer, "channel") == numbered(3)

    @pytest.mark.usefixtures("immediate")
    async def test_several_messages_on_their_way_return_in_their_order(
        self, layer: Any, receivers: Receivers, drain: Drain
    ) -> None:
        tasks = await receivers(layer, "channel", 3)
        for message in numbered(5):
            await layer.send("channel", message)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert await drain(layer, "channel") == numbered(5)

    async def test_a_receive_that_timed_out_leaves_the_message_for_the_next(self, layer: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(layer.receive("channel"), 0.001)
        await layer.send("channel", {"type": "hello"})
        assert await asyncio.wait_for(layer.receive("channel"), 30) == {"type": "hello"}

    async def test_a_cancelled_receiver_leaves_nothing_behind(self, layer: Any, receivers: Receivers) -> None:
        tasks = await receivers(layer, "channel", 3)
        assert layer.stats().waiters == 3
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert layer.stats().waiters == 0
        assert layer.stats().channels == 0
