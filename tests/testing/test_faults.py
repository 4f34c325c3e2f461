"""The fault switch: channels that are full, messages that come late or never."""

import asyncio
from typing import Any, cast

import pytest

from headrace.exceptions import ChannelEmpty, ChannelFull, InvalidMessage, LayerClosed
from headrace.layers import InMemoryChannelLayer
from headrace.testing import FaultyLayer, ManualClock

Message = dict[str, Any]
HELLO: Message = {"type": "hello"}


def numbered(*numbers: int) -> list[Message]:
    return [{"type": "hello", "number": number} for number in numbers]


def waiting(layer: InMemoryChannelLayer, channel: str) -> list[Message]:
    """Take all that waits on a channel."""
    messages = []
    while layer.channel_stats(channel).depth:
        messages.append(layer.receive_nowait(channel))
    return messages


async def with_group(layer: FaultyLayer, *channels: str) -> FaultyLayer:
    for channel in channels:
        await layer.group_add("room", channel)
    return layer


async def test_without_a_fault_it_is_a_layer_like_any_other() -> None:
    layer = await with_group(FaultyLayer(capacity=2, clock=ManualClock()), "a", "b")
    assert isinstance(layer, InMemoryChannelLayer)
    assert layer.capacity == 2
    await layer.send("a", HELLO)
    report = await layer.group_send("room", HELLO)
    assert (report.delivered, report.dropped_full) == (2, 0)
    assert (await layer.send_many([("b", HELLO), ("b", HELLO)])).dropped_full == 1
    assert (await layer.group_send_many([("room", HELLO)])).dropped_full == 2
    with pytest.raises(ChannelFull):
        layer.send_sync("a", HELLO)
    assert layer.group_send_sync("room", HELLO, exclude="a").dropped_full == 1
    assert await layer.receive("a") == HELLO


async def test_a_report_has_the_position_whatever_the_fault() -> None:
    layer = await with_group(FaultyLayer(history={"room": {"size": 9, "ttl": 60}}), "a", "b")
    layer.faults.fill("a")
    report = await layer.group_send("room", HELLO)
    assert (report.delivered, report.dropped_full, report.processes) == (1, 1, 1)
    assert report.position == await layer.group_position("room")


# Full.


async def test_a_filled_channel_raises_channel_full() -> None:
    layer = FaultyLayer()
    fault = layer.faults.fill("chat.*")
    with pytest.raises(ChannelFull) as caught:
        await layer.send("chat.1", HELLO)
    assert caught.value.args == ("chat.1",)
    with pytest.raises(ChannelFull):
        layer.send_sync("chat.2", HELLO)
    await layer.send("mail", HELLO)
    assert (fault.count, layer.stats().depth) == (2, 1)


async def test_a_filled_group_reports_its_members_as_full() -> None:
    layer = await with_group(FaultyLayer(), "a", "b", "c")
    fault = layer.faults.fill("room")
    for report in (
        await layer.group_send("room", HELLO, exclude=["c"]),
        layer.group_send_sync("room", HELLO, exclude="c"),
    ):
        assert (report.delivered, report.dropped_full, report.dropped_other) == (0, 2, 0)
    assert (await layer.group_send_many([("room", HELLO), ("empty", HELLO)])).dropped_full == 3
    assert (fault.count, layer.stats().depth) == (7, 0)


async def test_one_filled_channel_is_missing_from_what_a_group_gets() -> None:
    layer = await with_group(FaultyLayer(), "a", "b", "c")
    layer.faults.fill("b")
    report = await layer.group_send("room", HELLO)
    assert (report.delivered, report.dropped_full) == (2, 1)
    assert [waiting(layer, channel) for channel in "abc"] == [[HELLO], [], [HELLO]]


async def test_a_filled_channel_is_counted_in_a_send_to_many() -> None:
    layer = FaultyLayer(capacity=1)
    layer.faults.fill("a")
    report = await layer.send_many([("a", HELLO), ("b", HELLO), ("b", HELLO), ("a", HELLO)])
    assert (report.delivered, report.dropped_full) == (1, 3)
    assert type(report) is type(await InMemoryChannelLayer().send_many([]))


# Late.


async def test_held_messages_arrive_in_order_when_they_are_released() -> None:
    layer = FaultyLayer()
    fault = layer.faults.hold("a")
    for message in numbered(1, 2, 3):
        await layer.send("a", message)
    await layer.send("b", HELLO)
    assert (layer.faults.held, fault.count, waiting(layer, "a"), waiting(layer, "b")) == (3, 3, [], [HELLO])
    assert layer.faults.release(1).delivered == 1
    assert (layer.faults.held, waiting(layer, "a")) == (2, numbered(1))
    assert layer.faults.release().delivered == 2
    assert (layer.faults.held, waiting(layer, "a")) == (0, numbered(2, 3))
    await layer.send("a", HELLO)
    assert layer.faults.held == 1


async def test_a_receiver_waits_until_the_release() -> None:
    layer = FaultyLayer()
    layer.faults.hold("*")
    receiving = asyncio.create_task(layer.receive("a"))
    await layer.send("a", HELLO)
    await asyncio.sleep(0)
    assert not receiving.done()
    layer.faults.release()
    assert await receiving == HELLO


async def test_a_held_group_message_is_for_those_who_were_members_when_it_was_sent() -> None:
    layer = await with_group(FaultyLayer(), "a", "b")
    with layer.faults.hold("room"):
        report = await layer.group_send("room", HELLO)
        assert (report.delivered, layer.faults.held) == (2, 2)
        await layer.group_discard("room", "a")
        await layer.group_add("room", "c")
    assert [waiting(layer, channel) for channel in "abc"] == [[HELLO], [HELLO], []]


async def test_what_is_held_was_copied_when_it_was_sent() -> None:
    layer = FaultyLayer()
    layer.faults.hold("a")
    message: Message = {"type": "hello", "list": [1]}
    await layer.send("a", message)
    message["list"].append(2)
    layer.faults.release()
    assert await layer.receive("a") == {"type": "hello", "list": [1]}


async def test_what_is_released_to_a_full_channel_is_reported() -> None:
    layer = FaultyLayer(capacity=1)
    with layer.faults.hold("a"):
        await layer.send("a", HELLO)
        await layer.send("a", HELLO)
        report = layer.faults.release()
    assert (report.delivered, report.dropped_full) == (1, 1)


def test_a_negative_number_of_messages_cannot_be_released() -> None:
    with pytest.raises(ValueError, match="count must be None or not negative, got -1"):
        FaultyLayer().faults.release(-1)


# Never.


async def test_dropped_messages_are_gone_and_counted_and_the_sender_does_not_know() -> None:
    layer = await with_group(FaultyLayer(), "a", "b")
    fault = layer.faults.drop("*")
    await layer.send("a", HELLO)
    report = await layer.group_send("room", HELLO)
    assert (report.delivered, report.dropped_full, report.dropped_other) == (2, 0, 0)
    assert (await layer.send_many([("a", HELLO)])).delivered == 1
    assert (fault.count, layer.stats().sent) == (4, 0)
    with pytest.raises(ChannelEmpty):
        layer.receive_nowait("a")


# Faults in force.


async def test_a_fault_ends_with_its_context() -> None:
    layer = FaultyLayer()
    with layer.faults.drop("a") as fault:
        await layer.send("a", HELLO)
    await layer.send("a", HELLO)
    fault.lift()
    assert (repr(fault), layer.stats().depth) == ("<Fault drop 'a' count=1>", 1)


async def test_the_later_of_two_faults_happens() -> None:
    layer = FaultyLayer()
    layer.faults.drop("*")
    with layer.faults.fill("a"):
        with pytest.raises(ChannelFull):
            await layer.send("a", HELLO)
        await layer.send("b", HELLO)
    await layer.send("a", HELLO)
    assert layer.stats().sent == 0


async def test_clear_lifts_all_faults_and_delivers_what_is_held() -> None:
    layer = FaultyLayer()
    layer.faults.hold("a")
    layer.faults.fill("b")
    await layer.send("a", HELLO)
    layer.faults.clear()
    await layer.send("b", HELLO)
    assert (waiting(layer, "a"), waiting(layer, "b")) == ([HELLO], [HELLO])


@pytest.mark.parametrize("kind", ["fill", "hold", "drop"])
async def test_bad_input_is_refused_as_without_a_fault(kind: str) -> None:
    layer = await with_group(FaultyLayer(strict=True), "a")
    fault = getattr(layer.faults, kind)("*")
    for bad in (5, {"type": object()}, {"__asgi_channel__": "x"}):
        message = cast(Message, bad)
        for sending in (
            layer.send("a", message),
            layer.group_send("room", message),
            layer.send_many([("a", HELLO), ("a", message)]),
            layer.group_send_many([("room", HELLO), ("room", message)]),
        ):
            with pytest.raises((InvalidMessage, TypeError)):
                await sending
    for name in ("bad name", cast(str, 5)):
        for sending in (
            layer.send(name, HELLO),
            layer.group_send(name, HELLO),
            layer.send_many([(name, HELLO)]),
            layer.group_send_many([(name, HELLO)]),
        ):
            with pytest.raises(TypeError, match="name must be a valid unicode string"):
                await sending
    with pytest.raises(TypeError):
        await layer.send_many(cast(Any, [5]))
    assert (fault.count, layer.faults.held, layer.stats().sent) == (0, 0, 0)


async def test_a_closed_layer_refuses_under_a_fault_too() -> None:
    layer = FaultyLayer()
    fault = layer.faults.hold("a")
    await layer.send("a", HELLO)
    await layer.close()
    with pytest.raises(LayerClosed):
        await layer.send("a", HELLO)
    with pytest.raises(LayerClosed):
        await layer.group_send("room", HELLO)
    with pytest.raises(LayerClosed):
        fault.lift()


async def test_the_clock_of_the_test_expires_messages() -> None:
    clock = ManualClock()
    layer = FaultyLayer(expiry=10, clock=clock)
    await layer.send("a", HELLO)
    clock.advance(11)
    with pytest.raises(ChannelEmpty):
        layer.receive_nowait("a")


async def test_threads_send_through_one_fault() -> None:
    layer = FaultyLayer()
    fault = layer.faults.hold("a")
    await asyncio.gather(*(asyncio.to_thread(layer.send_sync, "a", message) for message in numbered(*range(50))))
    assert fault.count == 50
    assert layer.faults.release().delivered == 50
    assert sorted(message["number"] for message in waiting(layer, "a")) == list(range(50))
