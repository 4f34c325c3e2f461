"""Sending and receiving many messages with one call."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from headrace.exceptions import LayerClosed

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]
Settle = Callable[[Any], Awaitable[None]]

HELLO = {"type": "hello"}


class TestSendMany:
    """Pairs of a channel and a message."""

    async def test_each_message_goes_to_its_channel_in_order(self, layer: Any, drain: Drain) -> None:
        pairs = [(f"channel{n % 3}", {"type": "hello", "n": n}) for n in range(30)]
        report = await layer.send_many(pairs)
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (30, 0, 0)
        for channel in range(3):
            received = await drain(layer, f"channel{channel}")
            assert [message["n"] for message in received] == list(range(channel, 30, 3))

    async def test_those_who_wait_are_woken(self, layer: Any, receivers: Receivers) -> None:
        tasks = [*await receivers(layer, "a", 2), *await receivers(layer, "b")]
        await layer.send_many([("a", {"n": 0}), ("b", {"n": 1}), ("a", {"n": 2}), ("a", {"n": 3})])
        assert [(await task)["n"] for task in tasks] == [0, 2, 1]
        assert await layer.receive("a") == {"n": 3}

    async def test_a_full_channel_is_no_error_but_reported(self, make_layer: MakeLayer, drain: Drain) -> None:
        layer = make_layer(capacity=2)
        report = await layer.send_many([("full", {"n": n}) for n in range(5)] + [("other", HELLO)])
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (3, 3, 0)
        assert [message["n"] for message in await drain(layer, "full")] == [0, 1]
        assert await drain(layer, "other") == [HELLO]

    async def test_any_iterable_will_do(self, layer: Any, drain: Drain) -> None:
        def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
            yield "channel", {"n": 0}
            yield "channel", {"n": 1}

        assert (await layer.send_many(pairs())).delivered_here == 2
        assert (await layer.send_many({"channel": {"n": 2}}.items())).delivered_here == 1
        assert (await layer.send_many([])).delivered_here == 0
        assert [message["n"] for message in await drain(layer, "channel")] == [0, 1, 2]

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize(
        "wrong",
        [("no name", HELLO), ("channel", "no dict"), (HELLO, "channel"), ("channel",), ("channel", HELLO, 1), 5, None],
    )
    async def test_nothing_is_sent_if_one_pair_is_wrong(self, layer: Any, drain: Drain, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError, AssertionError)):
            await layer.send_many([("channel", HELLO), wrong, ("channel", HELLO)])
        assert await drain(layer, "channel") == []

    async def test_an_error_of_the_iterable_is_raised_and_nothing_is_sent(self, layer: Any, drain: Drain) -> None:
        def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
            yield "channel", HELLO
            raise LookupError("of the application")

        with pytest.raises(LookupError, match="of the application"):
            await layer.send_many(pairs())
        assert await drain(layer, "channel") == []

    async def test_an_iterable_may_use_the_layer(self, layer: Any, drain: Drain) -> None:
        def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
            for n in range(3):
                layer.group_count("group")
                yield "channel", {"n": n}

        await layer.send_many(pairs())
        assert [message["n"] for message in await drain(layer, "channel")] == [0, 1, 2]


class TestGroupSendMany:
    """Pairs of a group and a message."""

    async def test_each_message_goes_to_its_group_in_order(self, layer: Any, drain: Drain) -> None:
        for group, channel in (("one", "a"), ("one", "b"), ("two", "b")):
            await layer.group_add(group, channel)
        report = await layer.group_send_many([("one", {"n": 0}), ("two", {"n": 1}), ("one", {"n": 2}), ("no", HELLO)])
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (5, 0, 0)
        assert [message["n"] for message in await drain(layer, "a")] == [0, 2]
        assert [message["n"] for message in await drain(layer, "b")] == [0, 1, 2]

    async def test_the_excluded_get_none_of_the_messages(self, layer: Any, drain: Drain) -> None:
        for group, channel in (("one", "a"), ("one", "b"), ("two", "b"), ("two", "c")):
            await layer.group_add(group, channel)
        pairs = [("one", {"n": 0}), ("two", {"n": 1})]
        report = await layer.group_send_many(pairs, exclude="b")
        assert report.delivered_here == 2
        report = await asyncio.to_thread(layer.group_send_many_sync, pairs, exclude=["a", "b"])
        assert report.delivered_here == 1
        assert [message["n"] for message in await drain(layer, "a")] == [0]
        assert [message["n"] for message in await drain(layer, "c")] == [1, 1]
        assert layer.channel_stats("b").depth == 0
        with pytest.raises(TypeError, match="exclude is a channel or several"):
            await layer.group_send_many(pairs, exclude=3)

    async def test_full_members_are_reported(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=1)
        for channel in ("a", "b"):
            await layer.group_add("group", channel)
        report = await layer.group_send_many([("group", HELLO)] * 3)
        assert (report.delivered_here, report.dropped_full) == (2, 4)

    async def test_those_who_wait_are_woken(self, layer: Any, receivers: Receivers) -> None:
        await layer.group_add("group", "channel")
        tasks = await receivers(layer, "channel", 2)
        await layer.group_send_many([("group", {"n": 0}), ("group", {"n": 1})])
        assert [(await task)["n"] for task in tasks] == [0, 1]

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("wrong", [("no name", HELLO), ("a!b", HELLO), ("group", None), ("group",), None])
    async def test_nothing_is_sent_if_one_pair_is_wrong(self, layer: Any, drain: Drain, wrong: Any) -> None:
        await layer.group_add("group", "channel")
        with pytest.raises((TypeError, ValueError, AssertionError)):
            await layer.group_send_many([("group", HELLO), wrong])
        assert await drain(layer, "channel") == []


class TestReceiveMany:
    """A wait for one message, and what is behind it."""

    async def test_it_takes_what_is_there_up_to_the_number(self, layer: Any, settle: Settle) -> None:
        for n in range(5):
            await layer.send("channel", {"n": n})
        await settle(layer)
        assert [message["n"] for message in await layer.receive_many("channel", 3)] == [0, 1, 2]
        assert [message["n"] for message in await layer.receive_many("channel", 3)] == [3, 4]

    async def test_it_waits_for_the_first(self, layer: Any, settle: Settle) -> None:
        task = asyncio.ensure_future(layer.receive_many("channel", 3))
        while layer.channel_stats("channel").waiters == 0:
            await asyncio.sleep(0)
        await layer.send_many([("channel", {"n": n}) for n in range(2)])
        assert [message["n"] for message in await task] == [0, 1]

    async def test_cancelling_it_loses_nothing(self, layer: Any, drain: Drain) -> None:
        task = asyncio.ensure_future(layer.receive_many("channel", 3))
        while layer.channel_stats("channel").waiters == 0:
            await asyncio.sleep(0)
        await layer.send_many([("channel", {"n": n}) for n in range(2)])
        task.cancel()
        await asyncio.wait([task])
        assert [message["n"] for message in await drain(layer, "channel")] == [0, 1]

    @pytest.mark.parametrize("number", [0, -1, -(2**70)])
    async def test_it_takes_at_least_one(self, layer: Any, number: int) -> None:
        with pytest.raises(ValueError, match="limit"):
            await layer.receive_many("channel", number)

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("number", [1.5, 2.0, float("nan"), float("inf"), "2", None, [2]])
    async def test_what_is_no_number_of_messages_is_refused_and_takes_none(
        self, layer: Any, drain: Drain, number: Any
    ) -> None:
        await layer.send_many([("channel", {"n": n}) for n in range(3)])
        with pytest.raises((TypeError, ValueError)):
            await layer.receive_many("channel", number)
        assert [message["n"] for message in await drain(layer, "channel")] == [0, 1, 2]

    async def test_any_number_is_large_enough(self, layer: Any, settle: Settle) -> None:
        await layer.send_many([("channel", {"n": n}) for n in range(3)])
        await settle(layer)
        assert [message["n"] for message in await layer.receive_many("channel", 2**70)] == [0, 1, 2]


@pytest.mark.usefixtures("sync")
class TestTwins:
    """The same in a thread without a loop."""

    async def test_they_send_and_receive_many(self, layer: Any, settle: Settle) -> None:
        pairs = [("channel", {"n": n}) for n in range(5)]
        report = await asyncio.to_thread(layer.send_many_sync, pairs)
        assert (report.delivered_here, report.dropped_full, report.dropped_other) == (5, 0, 0)
        await settle(layer)
        first = await asyncio.to_thread(layer.receive_many_sync, "channel", 3)
        rest = await asyncio.to_thread(layer.receive_many_sync, "channel", 10, 1)
        assert [message["n"] for message in first + rest] == list(range(5))

    async def test_they_send_to_many_groups(self, layer: Any, drain: Drain) -> None:
        for group, channel in (("one", "a"), ("one", "b"), ("two", "b")):
            await layer.group_add(group, channel)
        report = await asyncio.to_thread(layer.group_send_many_sync, [("one", {"n": 0}), ("two", {"n": 1})])
        assert (report.delivered_here, report.dropped_full) == (3, 0)
        assert [message["n"] for message in await drain(layer, "b")] == [0, 1]

    async def test_receiving_many_waits_for_the_first_and_no_longer_than_it_may(self, layer: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(layer.receive_many_sync, "channel", 3, 0)
        receiving = asyncio.create_task(asyncio.to_thread(layer.receive_many_sync, "channel", 3))
        while layer.channel_stats("channel").waiters == 0:
            await asyncio.sleep(0)
        await layer.send("channel", HELLO)
        assert await receiving == [HELLO]

    async def test_receiving_many_takes_at_least_one(self, layer: Any) -> None:
        with pytest.raises(ValueError, match="limit"):
            layer.receive_many_sync("channel", 0)

    async def test_they_flush_and_close(self, layer: Any, drain: Drain) -> None:
        await layer.send("channel", HELLO)
        await layer.group_add("group", "channel")
        await asyncio.to_thread(layer.flush_sync)
        assert await drain(layer, "channel") == []
        assert layer.group_count("group") == 0
        await asyncio.to_thread(layer.close_sync)
        with pytest.raises(LayerClosed):
            await layer.send("channel", HELLO)
        await asyncio.to_thread(layer.close_sync)
