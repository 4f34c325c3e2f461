"""A mailbox holds as many messages as its capacity, and a send beyond that is refused."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.exceptions import ChannelFull
from headrace.testing import ManualClock

Drain = Callable[[Any, str], Awaitable[list[dict[str, Any]]]]
MakeLayer = Callable[..., Any]
Receivers = Callable[..., Awaitable[list[asyncio.Task[Any]]]]

HELLO = {"type": "hello"}


async def room(layer: Any, channel: str) -> int:
    """Send until the channel is full, and count what it took."""
    sent = 0
    while True:
        try:
            await layer.send(channel, {"type": "hello", "n": sent})
        except ChannelFull:
            return sent
        sent += 1


async def test_a_full_channel_refuses_the_message_and_says_which_channel(make_layer: MakeLayer, drain: Drain) -> None:
    layer = make_layer(capacity=2)
    await layer.send("full", {"type": "first"})
    await layer.send("full", {"type": "second"})
    with pytest.raises(ChannelFull) as caught:
        await layer.send("full", {"type": "third"})
    assert caught.value.args == ("full",)
    assert await drain(layer, "full") == [{"type": "first"}, {"type": "second"}]


async def test_a_full_channel_is_full_for_nobody_else(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("process!full", HELLO)
    await layer.send("process!other", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("process!full", HELLO)


async def test_a_message_that_is_received_makes_room_for_one_more(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2)
    assert await room(layer, "channel") == 2
    await layer.receive("channel")
    assert await room(layer, "channel") == 1


async def test_the_capacity_is_a_hundred(layer: Any) -> None:
    assert layer.capacity == 100
    assert await room(layer, "channel") == 100


async def test_what_is_handed_to_a_waiting_receiver_needs_no_room(make_layer: MakeLayer, receivers: Receivers) -> None:
    layer = make_layer(capacity=1)
    tasks = await receivers(layer, "channel", 3)
    assert await room(layer, "channel") == 4
    assert [(await task)["n"] for task in tasks] == [0, 1, 2]


@pytest.mark.usefixtures("immediate")
async def test_a_message_that_comes_back_to_a_full_channel_is_kept(
    make_layer: MakeLayer, receivers: Receivers, drain: Drain
) -> None:
    layer = make_layer(capacity=1)
    (task,) = await receivers(layer, "channel")
    assert await room(layer, "channel") == 2
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(ChannelFull):
        await layer.send("channel", HELLO)
    assert [message["n"] for message in await drain(layer, "channel")] == [0, 1]


@pytest.mark.one_loop
@pytest.mark.one_server
class TestPatterns:
    """Other capacities, by the first glob or pattern object that matches the channel's name."""

    @pytest.mark.parametrize(
        ("glob", "fits", "does_not_fit"),
        [
            ("http.request", "http.request", "http.request2"),
            ("http.*", "http.request", "https.request"),
            ("http.?", "http.1", "http.12"),
            ("*!*", "process!a", "process"),
            ("room[0-9]", "room7", "rooma"),
            ("room[!0-9]", "rooma", "room7"),
            ("A*", "Abc", "abc"),
        ],
    )
    async def test_a_glob_gives_the_channels_that_it_matches_their_capacity(
        self, make_layer: MakeLayer, glob: str, fits: str, does_not_fit: str
    ) -> None:
        layer = make_layer(capacity=3, channel_capacity={glob: 1})
        assert await room(layer, fits) == 1
        assert await room(layer, does_not_fit) == 3

    async def test_the_first_pattern_that_matches_decides(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=9, channel_capacity={"http.slow.*": 1, "http.*": 2, "*.slow.*": 3})
        rooms = {name: await room(layer, name) for name in ("http.slow.a", "http.a", "ftp.slow.a", "ftp")}
        assert rooms == {"http.slow.a": 1, "http.a": 2, "ftp.slow.a": 3, "ftp": 9}

    async def test_a_compiled_pattern_matches_from_the_start_of_the_name(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=3, channel_capacity={re.compile(r"http\.(get|put)"): 1, "*": 2})
        rooms = {name: await room(layer, name) for name in ("http.get", "http.putter", "http.post", "a.http.get")}
        assert rooms == {"http.get": 1, "http.putter": 1, "http.post": 2, "a.http.get": 2}

    async def test_anything_with_a_match_method_is_a_pattern(self, make_layer: MakeLayer) -> None:
        class Even:
            def match(self, name: str) -> bool:
                return len(name) % 2 == 0

        layer = make_layer(capacity=3, channel_capacity={Even(): 1})
        assert await room(layer, "even") == 1
        assert await room(layer, "odd") == 3

    async def test_the_capacities_can_be_read(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=3, channel_capacity={"big*": 7})
        assert layer.get_capacity("bigger") == 7
        assert layer.get_capacity("small") == 3
        assert layer.channel_stats("bigger").capacity == 7
        assert layer.channel_stats("small").capacity == 3


class TestExpiredMessages:
    """They do not count."""

    async def test_a_channel_full_of_expired_messages_is_not_full(
        self, make_layer: MakeLayer, clock: ManualClock, drain: Drain
    ) -> None:
        layer = make_layer(capacity=2, expiry=10, clock=clock)
        assert await room(layer, "channel") == 2
        clock.advance(10)
        await layer.send("channel", {"type": "fresh"})
        assert await drain(layer, "channel") == [{"type": "fresh"}]

    async def test_only_the_fresh_ones_take_up_room(self, make_layer: MakeLayer, clock: ManualClock) -> None:
        layer = make_layer(capacity=3, expiry=10, clock=clock)
        await layer.send("channel", HELLO)
        clock.advance(6)
        await layer.send("channel", HELLO)
        clock.advance(6)
        assert await room(layer, "channel") == 2
