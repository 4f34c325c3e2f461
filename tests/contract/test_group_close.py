"""``group_close``: one message for a group that no full mailbox loses."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.testing import settle as settle_loop

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Settle = Callable[[Any], Awaitable[None]]

CLOSE = {"type": "headrace.close", "code": 4403, "reason": ""}


async def member(layer: Any, *groups: str) -> str:
    channel: str = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, channel)
    return channel


class TestReceivers:
    """What receives on a bare channel gets a message."""

    async def test_each_member_gets_it_behind_what_is_there(self, layer: Any, drain: Drain, settle: Settle) -> None:
        channels = [await member(layer, "group") for _ in range(3)]
        await layer.group_send("group", {"type": "before"})
        report = await layer.group_close("group", 4401, "signed out")
        assert report.delivered_here == 3
        await settle(layer)
        for channel in channels:
            assert await drain(layer, channel) == [
                {"type": "before"},
                {"type": "headrace.close", "code": 4401, "reason": "signed out"},
            ]

    async def test_the_excluded_and_those_that_join_later_do_not(
        self, layer: Any, drain: Drain, settle: Settle
    ) -> None:
        told, spared, other = [await member(layer, "group") for _ in range(3)]
        await layer.group_close("group", exclude=[spared, other])
        await settle(layer)  # what is on its way reaches whoever is there when it comes
        late = await member(layer, "group")
        await settle(layer)
        assert await drain(layer, told) == [CLOSE]
        for channel in (spared, other, late):
            assert await drain(layer, channel) == []

    async def test_a_group_without_members_is_no_error(self, layer: Any) -> None:
        assert (await layer.group_close("group")).delivered_here == 0

    @pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "coalesce"])
    async def test_a_full_mailbox_takes_it_whatever_its_overflow(
        self, make_layer: MakeLayer, settle: Settle, overflow: Any
    ) -> None:
        layer = make_layer(capacity=3)
        async with layer.subscription("group", overflow=overflow) as inbox:
            for number in range(3):
                await layer.group_send("group", {"type": f"type.{number}"})
            await layer.group_close("group")
            await layer.group_close("group", 4000)
            await settle(layer)
            taken = [(await anext(inbox))["type"] for _ in range(4)]
            assert taken == ["type.0", "type.1", "type.2", "headrace.close"]

    @pytest.mark.parametrize("overflow", ["drop_old", "coalesce"])
    async def test_what_comes_behind_it_does_not_drop_it(
        self, make_layer: MakeLayer, settle: Settle, overflow: Any
    ) -> None:
        layer = make_layer(capacity=2)
        async with layer.subscription("group", overflow=overflow) as inbox:
            await layer.group_close("group")
            for _ in range(5):
                await layer.group_send("group", {"type": "news"})
            await settle(layer)
            assert [(await anext(inbox))["type"] for _ in range(2)] == ["headrace.close", "news"]

    async def test_a_receiver_that_waits_gets_it_at_once(self, layer: Any) -> None:
        async with layer.subscription("group") as inbox:
            await layer.group_close("group")
            assert await anext(inbox) == CLOSE
            await settle_loop()


class TestHistory:
    """It ends those who are there: no history keeps it for those who come later."""

    @pytest.mark.parametrize("way", ["group_close", "group_close_sync"])
    async def test_whoever_resumes_does_not_get_it(
        self, make_layer: MakeLayer, drain: Drain, settle: Settle, way: str
    ) -> None:
        layer = make_layer(history={"group": {"size": 10, "ttl": 60}})
        there = await member(layer, "group")
        start = await layer.group_position("group")
        await layer.group_send("group", {"type": "before"})
        if way == "group_close":
            await layer.group_close("group")
        else:
            layer.group_close_sync("group")
        await layer.group_send("group", {"type": "after"})
        await settle(layer)  # what is on its way reaches whoever is there when it comes
        again = await layer.new_channel()
        assert await layer.group_add("group", again, start) is True
        await settle(layer)
        types = [[message["type"] for message in await drain(layer, channel)] for channel in (there, again)]
        assert types == [["before", "headrace.close", "after"], ["before", "after"]]
        kept = await layer.group_history("group")
        assert [message["type"] for message in kept.messages] == ["before", "after"]


class TestTwin:
    """The same without a loop."""

    async def test_it_does_the_same(self, layer: Any, drain: Drain, settle: Settle) -> None:
        told, spared = await member(layer, "group"), await member(layer, "group")
        layer.group_close_sync("group", 4000, "bye", exclude=spared)
        layer.group_close_sync("group", confirm=True, exclude=spared)
        await settle(layer)
        assert await drain(layer, told) == [{**CLOSE, "code": 4000, "reason": "bye"}, CLOSE]
        assert await drain(layer, spared) == []


@pytest.mark.one_loop
@pytest.mark.one_server
class TestArguments:
    """What is refused at the call."""

    @pytest.mark.parametrize("code", [True, None, "4403", 4403.0])
    async def test_a_code_that_is_no_integer(self, layer: Any, code: Any) -> None:
        with pytest.raises(TypeError, match="code must be an int"):
            await layer.group_close("group", code)
        with pytest.raises(TypeError, match="code must be an int"):
            layer.group_close_sync("group", code)

    @pytest.mark.parametrize("code", [0, -1, 999, 1005, 1006, 1015, 2999, 5000])
    async def test_a_code_that_cannot_be_sent(self, layer: Any, code: int) -> None:
        with pytest.raises(
            ValueError, match="code must be one that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to 4999"
        ):
            await layer.group_close("group", code)

    async def test_a_reason_that_is_no_text_or_too_long(self, layer: Any) -> None:
        with pytest.raises(TypeError, match="reason must be a str, got b'x'"):
            await layer.group_close("group", reason=b"x")
        with pytest.raises(ValueError, match="reason must have at most 123 bytes, got 124"):
            await layer.group_close("group", reason="é" * 62)

    async def test_a_name_that_is_none(self, layer: Any) -> None:
        with pytest.raises(TypeError, match="Group name must be a valid unicode string"):
            await layer.group_close("a group")
