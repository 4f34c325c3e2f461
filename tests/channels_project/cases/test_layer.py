"""What Channels' in-memory layer does, and a layer in its place must do as well."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

MakeLayer = Callable[..., Any]
MakeTimedLayer = Callable[..., tuple[Any, Callable[[float], None]]]

HELLO = {"type": "test.message", "text": "hello"}
WRONG_NAMES = ["", "two words", "colon:", "question?", "é", "a!b!c", "x" * 101, b"bytes", None, 5]


async def receiving(layer: Any, channel: str) -> asyncio.Task[Any]:
    """Start a receive, and return it once it waits."""
    task = asyncio.create_task(layer.receive(channel))
    while channel not in layer.channels:
        await asyncio.sleep(0)
    return task


async def test_a_message_is_received_as_it_was_sent(layer: Any) -> None:
    await layer.send("channel", HELLO)
    assert await layer.receive("channel") == HELLO


async def test_messages_are_received_in_the_order_of_sending(layer: Any) -> None:
    for number in range(50):
        await layer.send("channel", {"type": "n", "n": number})
    assert [(await layer.receive("channel"))["n"] for _ in range(50)] == list(range(50))


async def test_a_waiting_receive_gets_the_next_message(layer: Any) -> None:
    task = await receiving(layer, "channel")
    await layer.send("channel", HELLO)
    assert await task == HELLO


async def test_a_message_sent_before_the_waiting_receiver_runs_stays_for_the_next(
    layer: Any,
) -> None:
    task = await receiving(layer, "channel")
    await layer.send("channel", {"type": "first"})
    await layer.send("channel", {"type": "second"})
    assert await task == {"type": "first"}
    assert await layer.receive("channel") == {"type": "second"}


async def test_channels_do_not_mix(layer: Any) -> None:
    tasks = {name: await receiving(layer, name) for name in ("a", "b.inmemory!1", "b.inmemory!2")}
    for name in reversed(tasks):
        await layer.send(name, {"type": name})
    assert {name: await task for name, task in tasks.items()} == {name: {"type": name} for name in tasks}


async def test_a_cancelled_receive_takes_no_message_with_it(layer: Any) -> None:
    task = await receiving(layer, "channel")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await layer.send("channel", HELLO)
    assert await layer.receive("channel") == HELLO


async def test_a_receive_cancelled_after_the_send_leaves_the_message(layer: Any) -> None:
    task = await receiving(layer, "channel")
    await layer.send("channel", HELLO)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await layer.receive("channel") == HELLO


async def test_a_channel_that_is_read_empty_is_gone(layer: Any) -> None:
    await layer.send("channel", HELLO)
    assert "channel" in layer.channels
    assert len(layer.channels) == 1
    await layer.receive("channel")
    assert "channel" not in layer.channels
    assert len(layer.channels) == 0


async def test_a_full_channel_raises_channel_full(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=3)
    for _ in range(3):
        await layer.send("full", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("full", HELLO)
    await layer.send("other", HELLO)
    for _ in range(3):
        assert await layer.receive("full") == HELLO
    await layer.send("full", HELLO)


async def test_the_capacity_is_a_hundred(layer: Any) -> None:
    for _ in range(100):
        await layer.send("full", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("full", HELLO)


async def test_an_expired_message_is_not_received(make_timed_layer: MakeTimedLayer) -> None:
    layer, advance = make_timed_layer(expiry=60)
    await layer.send("channel", {"type": "old"})
    advance(61)
    await layer.send("channel", {"type": "new"})
    assert await layer.receive("channel") == {"type": "new"}
    assert len(layer.channels) == 0


async def test_a_message_is_received_until_it_expires(make_timed_layer: MakeTimedLayer) -> None:
    layer, advance = make_timed_layer(expiry=60)
    await layer.send("channel", HELLO)
    advance(59)
    assert await layer.receive("channel") == HELLO


async def test_an_expired_message_is_gone_though_nobody_reads_its_channel(
    make_timed_layer: MakeTimedLayer,
) -> None:
    layer, advance = make_timed_layer(expiry=60)
    await layer.send("unread", HELLO)
    advance(61)
    await layer.send("channel", HELLO)
    await layer.receive("channel")
    assert len(layer.channels) == 0


async def test_a_membership_expires_unless_it_is_renewed(make_timed_layer: MakeTimedLayer) -> None:
    layer, advance = make_timed_layer(group_expiry=100)
    for channel in ("lapses", "renewed"):
        await layer.group_add("group", channel)
    advance(60)
    await layer.group_add("group", "renewed")
    await layer.group_send("group", HELLO)
    assert [await layer.receive(channel) for channel in ("lapses", "renewed")] == [HELLO] * 2
    advance(60)
    await layer.group_send("group", HELLO)
    assert await layer.receive("renewed") == HELLO
    assert "lapses" not in layer.channels


async def test_sender_and_receivers_share_nothing(layer: Any) -> None:
    message: dict[str, Any] = {"type": "test", "list": [{"n": 1}]}
    for channel in ("a", "b"):
        await layer.group_add("group", channel)
    await layer.group_send("group", message)
    message["list"].append("changed by the sender")
    first = await layer.receive("a")
    assert first == {"type": "test", "list": [{"n": 1}]}
    first["list"][0]["n"] = "changed by a receiver"
    assert await layer.receive("b") == {"type": "test", "list": [{"n": 1}]}


async def test_any_value_that_can_be_copied_is_carried(layer: Any) -> None:
    message = {"type": "t", "tuple": (1, b"\x00"), "set": {1}, 5: None, "pi": 3.5, "on": True}
    await layer.send("channel", message)
    assert await layer.receive("channel") == message


@pytest.mark.parametrize("message", [None, "text", b"bytes", 5, [("type", "t")]])
async def test_a_message_that_is_no_dict_raises_assertion_error(layer: Any, message: Any) -> None:
    with pytest.raises(AssertionError):
        await layer.send("channel", message)
    with pytest.raises(AssertionError):
        await layer.group_send("group", message)
    assert "channel" not in layer.channels


async def test_the_reserved_key_raises_assertion_error(layer: Any) -> None:
    with pytest.raises(AssertionError):
        await layer.send("channel", {"type": "t", "__asgi_channel__": "other"})


@pytest.mark.parametrize("name", WRONG_NAMES)
async def test_a_wrong_name_raises_type_error(layer: Any, name: Any) -> None:
    for call in (
        layer.send(name, HELLO),
        layer.receive(name),
        layer.group_add("group", name),
        layer.group_add(name, "channel"),
        layer.group_discard("group", name),
        layer.group_discard(name, "channel"),
        layer.group_send(name, HELLO),
    ):
        with pytest.raises(TypeError, match="name must be a valid unicode string with length"):
            await call
    assert len(layer.channels) == len(layer.groups) == 0


async def test_a_specific_channel_is_no_group(layer: Any) -> None:
    with pytest.raises(TypeError, match="Group name must be"):
        await layer.group_add("specific!name", "channel")


async def test_new_channels_are_valid_specific_and_different(layer: Any) -> None:
    names = {await layer.new_channel() for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert name.count("!") == 1
        assert not name.endswith("!")
        assert len(name) < 100
        assert layer.require_valid_channel_name(name)
    assert len(layer.channels) == 0


async def test_a_new_channel_begins_with_the_prefix(layer: Any) -> None:
    assert (await layer.new_channel("prefix")).startswith("prefix.")
    assert (await layer.new_channel(prefix="other")).startswith("other.")


async def test_a_group_send_reaches_every_member_once(layer: Any) -> None:
    members = [await layer.new_channel() for _ in range(5)]
    outsider = await layer.new_channel()
    for channel in members:
        await layer.group_add("group", channel)
    await layer.group_add("group", members[0])
    await layer.group_send("group", HELLO)
    for channel in members:
        assert await layer.receive(channel) == HELLO
        assert channel not in layer.channels
    assert outsider not in layer.channels


async def test_a_discarded_member_gets_nothing_more(layer: Any) -> None:
    for channel in ("stays", "goes"):
        await layer.group_add("group", channel)
    await layer.group_discard("group", "goes")
    await layer.group_send("group", HELLO)
    assert await layer.receive("stays") == HELLO
    assert "goes" not in layer.channels


async def test_discarding_what_is_not_there_is_no_error(layer: Any) -> None:
    await layer.group_discard("group", "channel")
    await layer.group_add("group", "other")
    await layer.group_discard("group", "channel")
    assert "other" in layer.groups["group"]


async def test_a_group_without_members_is_gone(layer: Any) -> None:
    await layer.group_add("group", "channel")
    assert list(layer.groups.keys()) == ["group"]
    assert list(layer.groups["group"]) == ["channel"]
    await layer.group_discard("group", "channel")
    assert "group" not in layer.groups
    assert len(layer.groups) == 0


async def test_a_send_to_an_unknown_group_reaches_nobody(layer: Any) -> None:
    await layer.group_send("nobody", HELLO)
    assert len(layer.channels) == len(layer.groups) == 0


async def test_a_full_member_keeps_a_group_send_from_nobody_else(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    for channel in ("a", "full", "z"):
        await layer.group_add("group", channel)
    await layer.send("full", {"type": "earlier"})
    await layer.group_send("group", HELLO)
    assert await layer.receive("a") == HELLO
    assert await layer.receive("z") == HELLO
    assert await layer.receive("full") == {"type": "earlier"}
    assert "full" not in layer.channels


async def test_flush_drops_messages_and_groups(layer: Any) -> None:
    await layer.send("channel", HELLO)
    await layer.group_add("group", "channel")
    await layer.flush()
    assert len(layer.channels) == len(layer.groups) == 0
    await layer.group_send("group", HELLO)
    assert len(layer.channels) == 0
    await layer.send("channel", {"type": "new"})
    assert await layer.receive("channel") == {"type": "new"}


async def test_the_methods_take_channels_names_of_arguments(layer: Any) -> None:
    await layer.group_add(group="group", channel="channel")
    await layer.group_send(group="group", message=HELLO)
    await layer.send(channel="channel", message=HELLO)
    assert await layer.receive(channel="channel") == HELLO
    await layer.group_discard(group="group", channel="channel")


def test_the_methods_are_coroutine_functions(layer: Any) -> None:
    for name in (
        *("send", "receive", "new_channel", "flush", "close"),
        *("group_add", "group_discard", "group_send"),
    ):
        assert inspect.iscoroutinefunction(getattr(layer, name)), name


def test_the_layer_serves_synchronous_code(layer: Any) -> None:
    async_to_sync(layer.group_add)("group", "channel")
    async_to_sync(layer.group_send)("group", HELLO)
    async_to_sync(layer.send)("channel", {"type": "second"})
    assert async_to_sync(layer.receive)("channel") == HELLO
    assert async_to_sync(layer.receive)("channel") == {"type": "second"}


def test_the_configuration_can_be_read(make_layer: MakeLayer) -> None:
    layer = make_layer(expiry=5, group_expiry=6, capacity=7)
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (5, 6, 7)
    layer = make_layer()
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (60, 86400, 100)
    assert sorted(layer.extensions) == ["flush", "groups"]


def test_an_unknown_argument_raises_type_error(make_layer: MakeLayer) -> None:
    with pytest.raises(TypeError, match="colour"):
        make_layer(colour="red")
