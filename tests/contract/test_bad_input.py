"""Names and messages that are none are refused, with Channels' exceptions, and change nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.ids import label

from headrace.exceptions import ForeignChannel

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]

HELLO = {"type": "hello"}
CHANNEL = (
    "Channel name must be a valid unicode string with length < 100 "
    "containing only ASCII alphanumerics, hyphens, underscores, or periods."
)
GROUP = CHANNEL.replace("Channel", "Group")

NAMES = ["a", "A", "0", "-", "_", ".", "A-z_0.9", "a.b.c", "x" * 100]
# Of no process here.
FOREIGN = ["a!", "process!local", "inmemory!a", "a.inmemory.b!c", "specific.0123456789abcdef!a", "x" * 99 + "!"]
NO_NAMES: list[Any] = [
    *("", " ", "a b", "a\n", "\na", "a\0", "a:b", "a?", "a/b", "a,b", "a*"),
    *("caf\u00e9", "\u0661", "1\u0662", "\uff41", "a\u0301", "\udc80"),
    *("x" * 101, "x" * 400, "\u00e9" * 100, "x" * 101 + "!"),
    *(None, 5, 5.0, True, b"a", bytearray(b"a"), ["a"], ("a",), {"a": 1}, object()),
]
NO_CHANNEL_NAMES: list[Any] = [*NO_NAMES, "!", "!a", "a!b!c", "a!!", "a!b\n", "a!b c", "a!\u00e9", "a!b?"]
NO_GROUP_NAMES: list[Any] = [*NO_NAMES, "a!", "a!b", "!"]
NO_MESSAGES: list[Any] = [None, "text", b"bytes", 5, [("type", "hello")], ("type", "hello"), {"type"}, object(), dict]


class TestChannelNames:
    """Letters, digits, hyphens, underscores and periods of ASCII, and one ``!`` that is not in front."""

    @pytest.mark.one_loop
    @pytest.mark.parametrize("name", [*NAMES, "{own}!", "{own}!aB3-_.", "other.{own}!a", "{own}!" + "y" * 60])
    async def test_a_valid_name_works_everywhere(self, layer: Any, name: str) -> None:
        name = name.format(own=layer.new_channel_sync().partition("!")[0])
        await layer.group_add("group", name)
        await layer.send(name, HELLO)
        assert await layer.receive(name) == HELLO
        assert layer.channel_groups(name) == ["group"]
        assert layer.channel_stats(name).groups == 1
        await layer.group_discard("group", name)

    @pytest.mark.parametrize("name", FOREIGN)
    async def test_nothing_is_received_from_a_channel_of_nobody_here(self, layer: Any, name: str) -> None:
        if "0123456789abcdef" not in name:  # what is sent to another process goes on its way
            await layer.send(name, HELLO)
        before = layer.stats().waiters
        for error in (AssertionError, ValueError, ForeignChannel):
            for call in (layer.receive(name), layer.receive_many(name, 2), asyncio.to_thread(layer.receive_sync, name)):
                with pytest.raises(error, match=re.escape(f"nothing comes here for {name!r}")):
                    await asyncio.wait_for(call, 20)
            with pytest.raises(error, match="receive from what new_channel\\(\\) gives, or from a name without"):
                layer.receive_nowait(name)
            with pytest.raises(error):
                layer._inbox(name)
        assert layer.stats().waiters == before

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("name", NO_CHANNEL_NAMES, ids=label)
    async def test_anything_else_is_a_type_error_with_channels_text(self, layer: Any, name: Any) -> None:
        before = layer.stats()
        calls: list[Callable[[], Any]] = [
            lambda: layer.send(name, HELLO),
            lambda: layer.receive(name),
            lambda: layer.group_add("group", name),
            lambda: layer.group_discard("group", name),
            lambda: layer.send_many([("channel", HELLO), (name, HELLO)]),
            lambda: layer.receive_many(name, 2),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=re.escape(CHANNEL)):
                await call()
        for ask in (
            layer.receive_nowait,
            layer.close_channel,
            layer.channel_groups,
            layer.channel_stats,
            layer.require_valid_channel_name,
        ):
            with pytest.raises(TypeError, match=re.escape(CHANNEL)):
                ask(name)
        assert layer.stats() == before

    @pytest.mark.one_loop
    @pytest.mark.one_server
    async def test_the_error_shows_the_name_and_what_is_wrong_with_it(self, layer: Any) -> None:
        with pytest.raises(TypeError, match=r"'two words': character ' ' at position 3 is not allowed"):
            await layer.send("two words", HELLO)
        with pytest.raises(TypeError, match="101 characters, and at most 100 fit"):
            await layer.send("x" * 101, HELLO)
        with pytest.raises(TypeError, match="int"):
            await layer.send(5, HELLO)


class TestGroupNames:
    """As channel names, without the ``!``."""

    @pytest.mark.one_loop
    @pytest.mark.parametrize("name", NAMES)
    async def test_a_valid_name_works_everywhere(self, layer: Any, name: str) -> None:
        await layer.group_add(name, "channel")
        assert layer.group_channels(name) == ["channel"]
        assert (await layer.group_send(name, HELLO)).delivered_here == 1
        assert layer.group_stats(name).sends == 1
        await layer.group_discard(name, "channel")
        assert layer.group_count(name) == 0

    @pytest.mark.one_loop
    @pytest.mark.one_server
    @pytest.mark.parametrize("name", NO_GROUP_NAMES, ids=label)
    async def test_anything_else_is_a_type_error_with_channels_text(self, layer: Any, name: Any) -> None:
        before = layer.stats()
        calls: list[Callable[[], Any]] = [
            lambda: layer.group_add(name, "channel"),
            lambda: layer.group_discard(name, "channel"),
            lambda: layer.group_send(name, HELLO),
            lambda: layer.group_send_many([("group", HELLO), (name, HELLO)]),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=re.escape(GROUP)):
                await call()
        for ask in (layer.group_channels, layer.group_count, layer.group_stats, layer.require_valid_group_name):
            with pytest.raises(TypeError, match=re.escape(GROUP)):
                ask(name)
        assert layer.stats() == before

    async def test_a_membership_with_one_wrong_name_is_not_made(self, layer: Any) -> None:
        for group, channel in (("group", "no name"), ("no name", "channel")):
            with pytest.raises(TypeError):
                await layer.group_add(group, channel)
        assert (layer.stats().groups, layer.stats().channels, layer.stats().memberships) == (0, 0, 0)


@pytest.mark.one_loop
@pytest.mark.one_server
class TestMessages:
    """A message is a dict without the key that layers keep for themselves."""

    @pytest.mark.parametrize("message", NO_MESSAGES, ids=label)
    async def test_what_is_no_dict_is_an_assertion_error(self, layer: Any, drain: Drain, message: Any) -> None:
        await layer.group_add("group", "channel")
        calls: list[Callable[[], Any]] = [
            lambda: layer.send("channel", message),
            lambda: layer.group_send("group", message),
            lambda: layer.group_send("nobody", message),
            lambda: layer.send_many([("channel", HELLO), ("channel", message)]),
            lambda: layer.group_send_many([("group", HELLO), ("group", message)]),
        ]
        for call in calls:
            with pytest.raises(AssertionError, match="is not a dict"):
                await call()
        assert await drain(layer, "channel") == []

    async def test_the_reserved_key_is_an_assertion_error(self, layer: Any, drain: Drain) -> None:
        await layer.group_add("group", "channel")
        message = {"type": "hello", "__asgi_channel__": "channel"}
        calls: list[Callable[[], Any]] = [
            lambda: layer.send("channel", message),
            lambda: layer.group_send("group", message),
            lambda: layer.group_send("nobody", message),
        ]
        for call in calls:
            with pytest.raises(AssertionError, match="__asgi_channel__"):
                await call()
        assert await drain(layer, "channel") == []

    async def test_a_container_that_holds_itself_is_a_value_error(self, layer: Any, drain: Drain) -> None:
        message: dict[str, Any] = {"type": "hello", "loop": []}
        message["loop"].append({"back": message["loop"]})
        with pytest.raises(ValueError, match=r"message\['loop'\].*holds itself"):
            await layer.send("channel", message)
        assert await drain(layer, "channel") == []

    async def test_a_message_of_65_containers_deep_is_a_value_error(self, layer: Any, drain: Drain) -> None:
        message: dict[str, Any] = {}
        for _ in range(64):
            message = {"deeper": message}
        with pytest.raises(ValueError, match=r"message\['deeper'\].*nested deeper than 64"):
            await layer.send("channel", message)
        assert await drain(layer, "channel") == []

    async def test_a_refused_message_disturbs_nothing(self, layer: Any) -> None:
        await layer.send("channel", HELLO)
        before = layer.stats()
        with pytest.raises(AssertionError):
            await layer.send("channel", "no dict")
        deep: list[Any] = []
        for _ in range(100):
            deep = [deep]
        with pytest.raises(ValueError, match="64"):
            await layer.send("channel", {"deep": deep})
        assert layer.stats() == before
        assert await layer.receive("channel") == HELLO
