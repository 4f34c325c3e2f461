"""The sender may change its message after the send, a receiver what it got: nobody sees anybody else's change."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]


def containers(value: Any) -> list[Any]:
    """List all containers that can be changed in a message, itself included."""
    if isinstance(value, dict):
        return [value, *(inner for item in value.values() for inner in containers(item))]
    if isinstance(value, list):
        return [value, *(inner for item in value for inner in containers(item))]
    if isinstance(value, tuple):
        return [inner for item in value for inner in containers(item)]
    return []


def share_a_container(*messages: Any) -> bool:
    """Tell whether any container stands in two of the messages, or twice in one."""
    found = [id(container) for message in messages for container in containers(message)]
    return len(found) != len(set(found))


def nested() -> dict[str, Any]:
    return {"type": "hello", "list": [[1], [2, {"deep": []}]], "dict": {"a": {"b": {}}}, "flat": "text"}


async def test_a_change_by_the_sender_is_not_received(layer: Any) -> None:
    message = nested()
    await layer.send("channel", message)
    message["list"][1][1]["deep"].append("changed")
    message["dict"]["a"]["b"]["c"] = "changed"
    message["new"] = "changed"
    del message["type"]
    assert await layer.receive("channel") == nested()


async def test_a_change_by_the_sender_while_the_message_is_on_its_way_is_not_received(
    layer: Any, receivers: Receivers
) -> None:
    (task,) = await receivers(layer, "channel")
    message = nested()
    await layer.send("channel", message)
    message["list"].clear()
    assert await task == nested()


@pytest.mark.parametrize("message", [{"type": "flat", "n": 1}, nested()], ids=["flat", "nested"])
async def test_the_same_message_sent_twice_is_received_as_two(layer: Any, message: dict[str, Any]) -> None:
    await layer.send("channel", message)
    await layer.send("channel", message)
    first, second = await layer.receive("channel"), await layer.receive("channel")
    assert first == second == message
    assert not share_a_container(message, first, second)


@pytest.mark.parametrize("message", [{"type": "flat", "n": 1}, nested()], ids=["flat", "nested"])
async def test_the_members_of_a_group_share_nothing(layer: Any, receivers: Receivers, message: dict[str, Any]) -> None:
    names = ("waiting", "later", "latest")
    for name in names:
        await layer.group_add("group", name)
    (task,) = await receivers(layer, "waiting")
    await layer.group_send("group", message)
    received = [await task, await layer.receive("later"), await layer.receive("latest")]
    assert received == [message] * 3
    assert not share_a_container(message, *received)


async def test_what_one_member_does_to_its_message_is_seen_by_no_other(layer: Any) -> None:
    for name in ("a", "b"):
        await layer.group_add("group", name)
    await layer.group_send("group", nested())
    changed = await layer.receive("a")
    changed["list"][0].append("changed")
    changed["dict"].clear()
    assert await layer.receive("b") == nested()


async def test_a_list_that_stands_in_a_message_twice_comes_out_as_two_lists(layer: Any) -> None:
    both = [1]
    await layer.send("channel", {"type": "hello", "first": both, "second": both, "both": [both, both]})
    received = await layer.receive("channel")
    assert received == {"type": "hello", "first": [1], "second": [1], "both": [[1], [1]]}
    assert not share_a_container(received)


async def test_many_channels_at_once_are_given_messages_of_their_own(layer: Any) -> None:
    message = nested()
    await layer.send_many([("a", message), ("b", message)])
    received = [await layer.receive("a"), await layer.receive("b")]
    assert received == [message] * 2
    assert not share_a_container(message, *received)


@pytest.mark.one_loop
@pytest.mark.one_server
@pytest.mark.parametrize(
    "value",
    [0, 1, -1, 2**63 - 1, -(2**63), 0.5, -0.0, float("inf"), True, False, None, "", "é\n\0", b"", b"\xff", [], {}],
)
async def test_the_types_of_the_specification_arrive_as_they_were(layer: Any, value: Any) -> None:
    message = {"type": "hello", "value": value, "list": [value], "dict": {"": {"key": value}}}
    await layer.send("channel", message)
    received = await layer.receive("channel")
    assert received == message
    assert type(received["value"]) is type(value)
    assert type(received["list"][0]) is type(value)


async def test_an_empty_message_is_a_message(layer: Any) -> None:
    await layer.send("channel", {})
    assert await layer.receive("channel") == {}


@pytest.mark.one_loop
@pytest.mark.one_server
async def test_a_message_may_be_64_containers_deep(layer: Any) -> None:
    message: dict[str, Any] = {}
    for _ in range(63):
        message = {"deeper": message}
    await layer.send("channel", message)
    assert await layer.receive("channel") == message


@pytest.mark.usefixtures("any_value")
class TestAnyValue:
    """Of engines that carry whatever can be copied."""

    async def test_a_tuple_stays_a_tuple(self, layer: Any) -> None:
        await layer.send("channel", {"type": "hello", "flat": (1, "a", None), "deep": ([1], ({"a": 1},))})
        received = await layer.receive("channel")
        assert received == {"type": "hello", "flat": (1, "a", None), "deep": ([1], ({"a": 1},))}

    async def test_containers_in_a_tuple_are_nobody_elses(self, layer: Any) -> None:
        message = {"type": "hello", "tuple": ([1], ({"a": [2]},))}
        for name in ("a", "b"):
            await layer.group_add("group", name)
        await layer.group_send("group", message)
        received = [await layer.receive("a"), await layer.receive("b")]
        assert received == [message] * 2
        assert not share_a_container(message, *received)

    async def test_other_values_are_copied_for_each_receiver(self, layer: Any) -> None:
        message = {"type": "hello", "when": datetime.datetime(2026, 11, 1), "set": {1}, "bytes": bytearray(b"abc")}
        for name in ("a", "b"):
            await layer.group_add("group", name)
        await layer.group_send("group", message)
        first, second = await layer.receive("a"), await layer.receive("b")
        assert first == second == message
        first["set"].add(2)
        first["bytes"].extend(b"d")
        assert second == message == {**message, "set": {1}, "bytes": bytearray(b"abc")}

    async def test_keys_need_not_be_text(self, layer: Any) -> None:
        message = {"type": "hello", 1: "one", None: {2.5: ()}}
        await layer.send("channel", message)
        assert await layer.receive("channel") == message
