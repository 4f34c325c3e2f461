"""The histories of groups over Redis: streams on the server, of which members get all, once and in order."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import pytest
from tests.support.binaries import Binary
from tests.support.cluster import Cluster
from tests.support.peers import Peer
from tests.support.proxy import Proxy
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server
from tests.support.traffic import Fleet
from tests.support.waiting import eventually

from headrace._layers.registry import channel_layers
from headrace.exceptions import LayerUnavailable
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]
StartProxy = Callable[[Server], Proxy]

HISTORY = {"room*": {"size": 100, "ttl": 60}}
POSITION = "__headrace_position__"
SOON = 20.0


def key(prefix: str, group: str = "room") -> str:
    return f"{prefix}:h:{{{prefix}:g:{group}}}"


async def until(ask: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + SOON
    while not ask():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)


async def send(layer: RedisChannelLayer, *numbers: int, group: str = "room") -> list[str]:
    """Send messages; give their positions."""
    reports = [await layer.group_send(group, {"type": "number", "n": number}) for number in numbers]
    return [str(report.position) for report in reports]


async def take(layer: RedisChannelLayer, channel: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(SOON):
        return [await layer.receive(channel) for _ in range(count)]


async def numbers(layer: RedisChannelLayer, channel: str, count: int) -> list[Any]:
    return [message["n"] for message in await take(layer, channel, count)]


async def member(layer: RedisChannelLayer, since: Any = None, group: str = "room") -> tuple[str, bool | None]:
    channel = await layer.new_channel()
    return channel, await layer.group_add(group, channel, since=since)


class Frames:
    """A server that takes ready-made frames, for one client."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self.written.append(message["text"].encode())

    def write(self, frame: bytes) -> bool:
        self.written.append(frame[2:])
        return True

    def has(self, number: int) -> bool:
        return len(self.written) >= number


class Forwarding(AsyncWebsocketConsumer):
    groups = ("room",)
    forward: ClassVar[Any] = {"number": "text"}


@asynccontextmanager
async def forwarding(layer: RedisChannelLayer) -> AsyncIterator[Frames]:
    """Serve a client that is written frames of what is sent to the group."""
    frames, come = Frames(), asyncio.Queue[dict[str, Any]]()
    come.put_nowait({"type": "websocket.connect"})
    scope = {"type": "websocket", "path": "/", "headers": [], "extensions": {"headrace.frames": frames}}
    replaced = channel_layers.set("default", layer)
    serving = asyncio.ensure_future(Forwarding.as_asgi()(scope, come.get, frames.send))
    try:
        await until(lambda: layer.group_count("room"), "it has joined")
        yield frames
        come.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await serving
    finally:
        serving.cancel()
        if replaced is None:
            channel_layers.backends.pop("default", None)
        else:
            channel_layers.set("default", replaced)


class TestPromise:
    async def test_a_message_that_was_written_as_a_frame_has_its_position_for_the_others(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        async with forwarding(here) as frames:
            channel, _ = await member(here)
            positions = []
            # After the first message the task is known, and a frame is made of the message itself.
            for number in range(3):
                report = await there.group_send("room", {"type": "number", "text": str(number)})
                positions.append(report.position)
                await until(partial(frames.has, number + 1), "it was written")
            assert frames.written == [b"0", b"1", b"2"]
            assert [message[POSITION] for message in await take(here, channel, 3)] == positions

    async def test_each_message_has_its_position_wherever_it_is_received(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        (one, _), (two, _) = await member(here), await member(there)
        sent = await send(here, 0, 1, 2)
        sent += await send(there, 3, 4)
        for layer, channel in ((here, one), (there, two)):
            got = await take(layer, channel, 5)
            assert [message[POSITION] for message in got] == sent
            assert [message["n"] for message in got] == [0, 1, 2, 3, 4]
        assert len(set(sent)) == 5
        assert all(len(position) <= 40 for position in sent)
        assert json.loads(json.dumps(sent)) == sent

    async def test_who_was_away_gets_what_is_behind_the_position_and_then_what_is_new(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        sent = await send(here, *range(6))
        for layer in (here, there):
            for missed in range(6):
                channel, complete = await member(layer, sent[missed])
                assert complete is True
                await send(here, 7)
                assert await numbers(layer, channel, 6 - missed) == [*range(missed + 1, 6), 7]
                sent = sent[:6]
                await here.flush()
                sent = await send(here, *range(6))

    async def test_a_position_of_now_has_nothing_behind_it(self, make_layer: MakeLayer) -> None:
        layer = make_layer(history=HISTORY)
        empty = await layer.group_position("room")
        assert empty is not None
        channel, complete = await member(layer, empty)
        assert complete is True
        (first,) = await send(layer, 1)
        assert await numbers(layer, channel, 1) == [1]
        assert await layer.group_position("room") == first
        again, complete = await member(layer, empty)
        assert complete is True
        assert await numbers(layer, again, 1) == [1]

    async def test_a_number_gives_the_newest_and_the_latest_state(self, make_layer: MakeLayer) -> None:
        layer = make_layer(history={**HISTORY, "state": {"size": 1, "ttl": 60}})
        await send(layer, *range(8))
        for count in (3, 8, 100):
            channel, complete = await member(layer, count)
            assert complete is True
            least = min(count, 8)
            assert await numbers(layer, channel, least) == list(range(8 - least, 8))
        await send(layer, 1, 2, 3, group="state")
        channel, _ = await member(layer, 5, "state")
        assert await numbers(layer, channel, 1) == [3]

    async def test_a_position_that_the_stream_holds_no_more_gets_nothing_and_is_told(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = (make_layer(history={"room": {"size": 3, "ttl": 60}}) for _ in range(2))
        sent = await send(here, *range(6))
        for layer in (here, there):
            for place, complete in ((2, False), (3, True), (5, True)):
                channel, told = await member(layer, sent[place])
                assert told is complete
                await send(layer, 100)
                missed = list(range(place + 1, 6)) if complete else []
                assert await numbers(layer, channel, len(missed) + 1) == [*missed, 100]
                layer.close_channel(channel)
                await layer.flush()
                sent = await send(here, *range(6))

    @pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
    async def test_no_text_is_an_error_or_another_groups_message(self, make_layer: MakeLayer, encrypted: bool) -> None:
        keys = {"symmetric_encryption_keys": ["a key"]} if encrypted else {}
        layer = make_layer(history=HISTORY, **keys)
        (position,) = await send(layer, 1)
        (foreign,) = await send(layer, 2, group="room.other")
        forged = position[:-3] + ("AAA" if position[-3:] != "AAA" else "BBB")
        for wrong in ("", "x", position[:-1], position + "A", position * 1000, foreign, forged, "é" * 28, "\udcff"):
            channel, complete = await member(layer, wrong)
            assert complete is False
            await send(layer, 3)
            assert await numbers(layer, channel, 1) == [3]
            layer.close_channel(channel)

    async def test_a_channel_that_is_there_already_gets_no_message_twice(self, make_layer: MakeLayer) -> None:
        layer = make_layer(history=HISTORY)
        channel, _ = await member(layer)
        sent = await send(layer, *range(4))
        await until(lambda: layer.channel_stats(channel).depth == 4, "all have come")
        assert await layer.group_add("room", channel, since=sent[1]) is True
        await send(layer, 9)
        got = await numbers(layer, channel, 5)
        assert sorted(got) == [0, 1, 2, 3, 9]
        assert got[-1] == 9

    async def test_what_was_excluded_is_replayed(self, make_layer: MakeLayer) -> None:
        layer = make_layer(history=HISTORY)
        channel, _ = await member(layer)
        (before,) = await send(layer, 0)
        await layer.group_send("room", {"n": 1}, exclude=channel)
        await send(layer, 2)
        assert await numbers(layer, channel, 2) == [0, 2]
        again, complete = await member(layer, before)
        assert complete is True
        assert await numbers(layer, again, 2) == [1, 2]

    async def test_a_group_without_history_has_no_positions(self, make_layer: MakeLayer) -> None:
        layer = make_layer(history=HISTORY)
        channel, complete = await member(layer, group="hall")
        assert complete is None
        report = await layer.group_send("hall", {"n": 1})
        assert report.position is None
        assert await take(layer, channel, 1) == [{"n": 1}]
        assert await layer.group_position("hall") is None
        with pytest.raises(ValueError, match="'hall' has no history"):
            await layer.group_add("hall", channel, since=5)
        with pytest.raises(ValueError, match="'hall' has no history"):
            await layer.group_history("hall")

    async def test_the_history_is_read_in_parts(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        begun = await there.group_history("room")
        assert (begun.messages, begun.complete) == ([], True)
        sent = await send(here, *range(5))
        newest = await there.group_history("room", limit=3)
        assert [message["n"] for message in newest.messages] == [2, 3, 4]
        assert [message[POSITION] for message in newest.messages] == sent[2:]
        assert (newest.position, newest.complete) == (sent[4], True)
        part = await there.group_history("room", since=begun.position, limit=2)
        assert ([message["n"] for message in part.messages], part.complete) == ([0, 1], True)
        rest = await there.group_history("room", since=part.position)
        assert ([message["n"] for message in rest.messages], rest.position) == ([2, 3, 4], sent[4])
        gone = await there.group_history("room", since="nothing")
        assert (gone.messages, gone.complete, gone.position) == ([], False, sent[4])

    async def test_the_reading_of_a_layer_says_what_its_process_holds(self, make_layer: MakeLayer) -> None:
        history = {"room*": {"size": 3, "ttl": 60}}
        here, there = make_layer(history=history, history_bytes=1500), make_layer(history=history)
        await member(here)
        await send(there, *range(5))
        await until(lambda: here.stats().delivered + here.stats().depth == 5, "not all have come")
        stats = here.stats()
        assert (stats.history_messages, stats.history_evicted) == (3, 0)
        assert 3 * 64 + 256 < stats.history_bytes < 1500
        assert there.stats().history_messages == 0
        for number in range(4):
            await member(here, group=f"room.{number}")
            await send(there, 1, group=f"room.{number}")
        await until(lambda: here.stats().history_evicted > 0, "nothing was evicted")
        assert here.stats().history_bytes <= 1500

    def test_all_of_it_works_from_threads(self, redis_server: Server, redis_prefix: str) -> None:
        layer = RedisChannelLayer([redis_server.url], prefix=redis_prefix, history=HISTORY)
        try:
            position = layer.group_position_sync("room")
            report = layer.group_send_sync("room", {"n": 1}, confirm=True)
            channel = layer.new_channel_sync()
            assert layer.group_add_sync("room", channel, since=position) is True
            assert layer.receive_sync(channel, timeout=SOON) == {"n": 1, POSITION: report.position}
            assert layer.group_history_sync("room").position == report.position
        finally:
            layer.close_sync()

    async def test_a_join_that_is_cancelled_leaves_no_membership(
        self, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        layer = RedisChannelLayer([proxy.url], prefix=redis_prefix, history=HISTORY)
        try:
            channel = await layer.new_channel()
            proxy.stall()
            joining = asyncio.create_task(layer.group_add("room", channel, since=3))
            await asyncio.sleep(0)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            proxy.flow()
            await layer.group_add("hall", channel)
            await send(layer, 1)
            assert layer.channel_groups(channel) == ["hall"]
        finally:
            await layer.close()

    async def test_a_join_that_is_cancelled_leaves_the_membership_of_another_join(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        layer = RedisChannelLayer([proxy.url], prefix=redis_prefix, history=HISTORY)
        try:
            beginning = await layer.group_position("room")
            await send(make_layer(history=HISTORY), *range(5))
            await member(layer)
            channel = await layer.new_channel()
            proxy.stall()
            joining = asyncio.create_task(layer.group_add("room", channel, since=beginning))
            await asyncio.sleep(0)
            await layer.group_add("room", channel)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            assert layer.channel_groups(channel) == ["room"]
            proxy.flow()
            await send(layer, 6)
            assert await numbers(layer, channel, 1) == [6]
        finally:
            await layer.close()

    async def test_flush_removes_the_streams(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(history=HISTORY)
        (position,) = await send(layer, 1)
        assert redis_server.cli("EXISTS", key(redis_prefix)) == 1
        await layer.flush()
        assert redis_server.cli("EXISTS", key(redis_prefix)) == 0
        _, complete = await member(layer, position)
        assert complete is False


class TestServer:
    async def test_what_the_server_has_beyond_the_size_is_not_given(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        sender, reader = (make_layer(history={"room": {"size": 4, "ttl": 60}}) for _ in range(2))
        sent = await send(sender, *range(9))
        assert redis_server.cli("XLEN", key(redis_prefix)) > 4
        for place, complete in ((3, False), (4, False), (5, True)):
            found = await reader.group_history("room", since=sent[place])
            assert found.complete is complete
            assert [message["n"] for message in found.messages] == ([6, 7, 8] if complete else [])
            assert (await member(make_layer(history={"room": {"size": 4, "ttl": 60}}), sent[place]))[1] is complete
        newest = await reader.group_history("room", limit=100)
        assert [message["n"] for message in newest.messages] == [5, 6, 7, 8]

    async def test_messages_that_are_sent_at_once_have_each_its_place_in_their_order(
        self, make_layer: MakeLayer, redis_server: Server
    ) -> None:
        here, there = (make_layer(history=HISTORY, capacity=1000) for _ in range(2))
        (one, _), (other, _) = await member(there), await member(there, group="room.other")
        groups = [("room", "room.other")[number // 7 % 2] for number in range(70)]
        sent = await asyncio.gather(*(send(here, number, group=groups[number]) for number in range(70)))
        for channel, group in ((one, "room"), (other, "room.other")):
            expected = [(number, sent[number][0]) for number in range(70) if groups[number] == group]
            got = await take(there, channel, len(expected))
            assert [(message["n"], message[POSITION]) for message in got] == expected
        before = redis_server.commands_seen()
        await here.group_send_many((group, {"type": "number", "n": number}) for number, group in enumerate(groups))
        asked = redis_server.commands_seen() - before
        # Seven messages for one group, and seven for the other: a transaction ends where the group changes.
        assert (asked["xadd"], asked["exec"]) == (70, 10)
        for channel, group in ((one, "room"), (other, "room.other")):
            of_group = [number for number in range(70) if groups[number] == group]
            assert await numbers(there, channel, len(of_group)) == of_group

    async def test_messages_that_are_sent_at_once_are_refused_by_a_server_that_takes_none(
        self, make_layer: MakeLayer, start_redis: Callable[..., Server]
    ) -> None:
        server = start_redis()
        layer = make_layer(hosts=[server.url], history=HISTORY)
        channel, _ = await member(layer)
        (before,) = await send(layer, 0)
        assert await numbers(layer, channel, 1) == [0]
        server.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            sends = (send(layer, number) for number in range(1, 20))
            failures = await asyncio.gather(*sends, return_exceptions=True)
        finally:
            server.cli("CONFIG", "SET", "maxmemory", "0")
        assert all(isinstance(failure, LayerUnavailable) and "OOM" in str(failure) for failure in failures)
        assert await layer.group_position("room") == before
        await send(layer, 100)
        assert await numbers(layer, channel, 1) == [100]

    async def test_a_stream_is_little_longer_than_it_may_be_and_ends_at_its_time(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(history={"room": {"size": 4, "ttl": 100}})
        await asyncio.gather(*(send(layer, number) for number in range(500)))
        # The server removes entries by the block.
        assert 4 <= redis_server.cli("XLEN", key(redis_prefix)) <= 4 + 100
        assert 100 < redis_server.cli("TTL", key(redis_prefix)) <= 152

    async def test_a_group_is_closed_behind_what_was_sent_before_and_nothing_is_missing(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        elsewhere = make_layer(history={"hall": {"size": 1, "ttl": 60}})
        channels = [(layer, (await member(layer))[0]) for layer in (there, here)]
        channel = await elsewhere.new_channel()
        await elsewhere.group_add("room", channel)
        channels.append((elsewhere, channel))
        for _ in range(3):
            for number in range(3):
                here.group_send_sync("room", {"type": "number", "n": number})
            here.group_close_sync("room")
        for layer, channel in channels:
            got = [message.get("n") for message in await take(layer, channel, 12)]
            assert got == [0, 1, 2, None] * 3
            assert layer.stats().connection.gaps == 0

    async def test_a_group_without_history_is_published_as_ever(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(history=HISTORY)
        await send(layer, 1, group="hall")
        before = redis_server.commands_seen()
        await send(layer, *range(10), group="hall")
        done = redis_server.commands_seen() - before
        assert done["publish"] >= 10
        assert not done["xadd"]
        assert not done["multi"]
        assert redis_server.cli("KEYS", f"{redis_prefix}:h:*") == []

    @pytest.mark.parametrize("lost", ["deleted", "flushed"])
    async def test_a_stream_that_was_lost_gives_nothing_twice_and_no_part(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, lost: str
    ) -> None:
        gaps: list[Any] = []
        here, there = (make_layer(history=HISTORY, gap=gaps.append) for _ in range(2))
        (one, _), (two, _) = await member(here), await member(there)
        sent = await send(here, 0, 1)
        await send(there, 2)
        if lost == "deleted":
            redis_server.cli("DEL", key(redis_prefix))
        else:
            for name in redis_server.cli("KEYS", f"{redis_prefix}:*"):
                redis_server.cli("DEL", name)
        sent += await send(here, 3, 4)
        sent += await send(there, 5)
        for layer, channel in ((here, one), (there, two)):
            assert await numbers(layer, channel, 6) == [0, 1, 2, 3, 4, 5]
        for layer in (here, there):
            _, complete = await member(layer, sent[1])
            assert complete is False
            channel, complete = await member(layer, sent[2])
            assert complete is True
            assert await numbers(layer, channel, 2) == [4, 5]
        assert gaps == []

    async def test_a_server_that_keeps_nothing_publishes_nothing(
        self, start_redis: Callable[..., Server], redis_prefix: str
    ) -> None:
        server = start_redis()
        layer = RedisChannelLayer([server.url], prefix=redis_prefix, history=HISTORY, send_timeout=1)
        try:
            channel, _ = await member(layer)
            sent = await send(layer, 1)
            for setting, refusing, fine, reason in (
                ("maxmemory", "1", "0", "OOM"),
                ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
            ):
                server.cli("CONFIG", "SET", setting, refusing)
                with pytest.raises(LayerUnavailable, match=reason):
                    await send(layer, 100)
                server.cli("CONFIG", "SET", setting, fine)
            server.cli("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(LayerUnavailable):
                await send(layer, 100)
            server.cli("REPLICAOF", "NO", "ONE")
            sent += await send(layer, 2)
            assert await numbers(layer, channel, 2) == [1, 2]
            again, complete = await member(layer, sent[0])
            assert complete is True
            assert await numbers(layer, again, 1) == [2]
        finally:
            await layer.close()

    async def test_three_that_create_a_stream_at_once_agree(self, make_layer: MakeLayer) -> None:
        layers = [make_layer(history=HISTORY) for _ in range(3)]
        channels = [(await member(layer))[0] for layer in layers]
        for round_ in range(5):
            group = f"room.{round_}"
            for layer, channel in zip(layers, channels, strict=True):
                await layer.group_add(group, channel)
            sends = [layer.group_send(group, {"n": n}) for n, layer in enumerate(layers * 4)]
            reports = await asyncio.gather(*sends)
            positions = [report.position for report in reports]
            assert len(set(positions)) == len(positions)
            got = [await take(layer, channel, len(sends)) for layer, channel in zip(layers, channels, strict=True)]
            orders = [[message["n"] for message in messages] for messages in got]
            assert orders[0] == orders[1] == orders[2]
            kept = await layers[0].group_history(group)
            assert [message["n"] for message in kept.messages] == orders[0]
            for messages in got:
                assert [message[POSITION] for message in messages] == [message[POSITION] for message in kept.messages]
            for layer, channel in zip(layers, channels, strict=True):
                await layer.group_discard(group, channel)

    @pytest.mark.parametrize(
        "missing", ["multi", "exec", "xadd", "xrange", "xrevrange"], ids=lambda missing: f"without-{missing}"
    )
    async def test_a_right_that_is_missing_is_named(
        self, start_redis: Callable[..., Server], redis_prefix: str, missing: str
    ) -> None:
        server = start_redis()
        server.cli("ACL", "SETUSER", "weak", "on", "nopass", "~*", "&*", "+@all", f"-{missing}")
        url = server.url_for(("weak", "any"))
        layer = RedisChannelLayer([url], prefix=redis_prefix, history=HISTORY, send_timeout=5)
        try:
            asked: list[Callable[[], Awaitable[Any]]] = [
                lambda: layer.group_send("room", {"n": 1}),
                lambda: layer.group_position("room"),
                lambda: member(layer, 5),
            ]
            failed = []
            for ask in asked:
                try:
                    await ask()
                except LayerUnavailable as error:
                    failed.append(str(error))
            assert failed
            assert [text for text in failed if missing not in text.lower()] == []
        finally:
            await layer.close()


class TestHealing:
    @pytest.mark.parametrize("protocol", [None, 2], ids=["resp3", "resp2"])
    @pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
    async def test_what_was_missed_while_the_connection_was_cut_comes_once_and_in_order(
        self,
        make_layer: MakeLayer,
        redis_server: Server,
        redis_prefix: str,
        start_proxy: StartProxy,
        protocol: int | None,
        encrypted: bool,
    ) -> None:
        options: dict[str, Any] = {"history": HISTORY}
        if encrypted:
            options["symmetric_encryption_keys"] = ["a key"]
        proxy = start_proxy(redis_server)
        url = proxy.url if protocol is None else f"{proxy.url}?protocol={protocol}"
        gaps: list[Any] = []
        there = RedisChannelLayer([url], prefix=redis_prefix, gap=gaps.append, on_gap="gap", **options)
        here = make_layer(**options)
        try:
            channel, _ = await member(there)
            sent = await send(here, *range(3))
            # A second break: redis-streams-adapter #39 and socket.io #5419.
            for first in (3, 10):
                proxy.refuse()
                proxy.cut()
                await until(lambda: there.stats().connection.state != "up", "it is cut off")
                sent += await send(here, *range(first, first + 5))
                proxy.accept()
                await until(lambda: there.stats().connection.state == "up", "it is back")
                sent += await send(here, first + 5, first + 6)
            expected = [0, 1, 2, *range(3, 10), *range(10, 17)]
            got = await take(there, channel, len(expected))
            assert [message["n"] for message in got] == expected
            assert [message[POSITION] for message in got] == sent
            # Nothing is known of messages to its own channels. A thread of its own tells.
            await until(lambda: len(gaps) == 2, "both are told")
            assert [gap.groups for gap in gaps] == [(), ()]
            again, complete = await member(there, sent[4])
            assert complete is True
            assert await numbers(there, again, 12) == expected[5:]
            assert there.stats().connection.reconnects == 2
        finally:
            await there.close()

    async def test_what_the_stream_holds_no_more_is_a_gap(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        history = {"room": {"size": 3, "ttl": 60}}
        proxy = start_proxy(redis_server)
        there = RedisChannelLayer([proxy.url], prefix=redis_prefix, on_gap="gap", history=history)
        here = make_layer(history=history)
        try:
            channel, _ = await member(there)
            await send(here, 0)
            await take(there, channel, 1)
            proxy.refuse()
            proxy.cut()
            await until(lambda: there.stats().connection.state != "up", "it is cut off")
            await send(here, *range(1, 8))
            proxy.accept()
            await until(lambda: there.stats().connection.state == "up", "it is back")
            (last,) = await send(here, 9)
            got = await take(there, channel, 2)
            assert got[0] == {"type": "gap", "group": "room", "missed": 0}
            assert (got[1]["n"], got[1][POSITION]) == (9, last)
        finally:
            await there.close()

    @pytest.mark.parametrize("protocol", [2, 3], ids=["resp2", "resp3"])
    @pytest.mark.parametrize("lost", ["restarted", "flushed"])
    async def test_all_that_was_sent_since_the_server_lost_the_stream_comes_behind_one_gap(
        self,
        start_redis: Callable[..., Server],
        redis_prefix: str,
        start_proxy: StartProxy,
        lost: str,
        protocol: int,
    ) -> None:
        server = start_redis()
        proxy = start_proxy(server)
        gaps: list[Any] = []
        options: dict[str, Any] = {"prefix": redis_prefix, "history": HISTORY, "send_timeout": SOON}
        there = RedisChannelLayer([f"{proxy.url}?protocol={protocol}"], on_gap="gap", gap=gaps.append, **options)
        here = RedisChannelLayer([server.url], **options)
        try:
            channel, _ = await member(there)
            old = await send(here, 0, 1)
            assert await numbers(there, channel, 2) == [0, 1]
            for turn in (1, 2):
                proxy.refuse()
                proxy.cut()
                await until(lambda: there.stats().connection.state != "up", "it is cut off")
                if lost == "restarted":
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)
                else:
                    server.cli("FLUSHALL")
                sent = await send(here, *range(turn * 100, turn * 100 + 20))
                proxy.accept()
                await until(lambda: there.stats().connection.state == "up", "it is back")
                sent += await send(here, turn * 100 + 20)
                gap, *got = await take(there, channel, 22)
                assert gap == {"type": "gap", "group": "room", "missed": 0}
                assert [message["n"] for message in got] == [*range(turn * 100, turn * 100 + 21)]
                assert [message[POSITION] for message in got] == sent
                for layer in (here, there):
                    again, complete = await member(layer, old[-1])
                    assert complete is False
                    layer.close_channel(again)
                    again, complete = await member(layer, sent[4])
                    assert complete is True
                    assert await numbers(layer, again, 16) == [*range(turn * 100 + 5, turn * 100 + 21)]
                    layer.close_channel(again)
                old = sent
            told = [gap.groups for gap in gaps if gap.groups]
            assert told == [("room",)] * 2
        finally:
            await here.close()
            await there.close()

    async def test_what_is_sent_as_soon_as_the_server_is_back_comes_though_nobody_has_subscribed_yet(
        self, start_redis: Callable[..., Server], redis_prefix: str
    ) -> None:
        server = start_redis()
        async with Fleet([server.url], redis_prefix, history=HISTORY, on_gap="gap", send_timeout=SOON) as fleet:
            layers = [fleet.layer() for _ in range(3)]
            channels = [(await member(layer))[0] for layer in layers]
            sent = await send(layers[0], 0)
            for layer, channel in zip(layers, channels, strict=True):
                assert await numbers(layer, channel, 1) == [0]
            for turn in range(1, 5):
                await asyncio.to_thread(server.stop)
                away = [lambda layer=layer: layer.stats().connection.state != "up" for layer in layers]
                for is_away in away:
                    await until(is_away, "they know that it is away")
                sends = [send(layer, turn * 100 + place) for place, layer in enumerate(layers)]
                sending = asyncio.gather(*sends)
                await asyncio.to_thread(server.start)
                positions = await sending
                sent = [position for one in positions for position in one]
                for layer, channel in zip(layers, channels, strict=True):
                    gap, *got = await take(layer, channel, 4)
                    assert gap == {"type": "gap", "group": "room", "missed": 0}
                    assert sorted(message["n"] for message in got) == [turn * 100 + place for place in range(3)]
                kept = await layers[0].group_history("room")
                assert {message[POSITION] for message in kept.messages} == set(sent)

    async def test_a_new_stream_that_has_lost_its_beginning_is_a_gap_and_gives_no_part(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        history = {"room": {"size": 3, "ttl": 60}}
        proxy = start_proxy(redis_server)
        there = RedisChannelLayer([proxy.url], prefix=redis_prefix, on_gap="gap", history=history)
        here = make_layer(history=history)
        try:
            channel, _ = await member(there)
            await send(here, 0)
            await take(there, channel, 1)
            proxy.refuse()
            proxy.cut()
            await until(lambda: there.stats().connection.state != "up", "it is cut off")
            redis_server.cli("DEL", key(redis_prefix))
            await send(here, *range(1, 6))
            proxy.accept()
            await until(lambda: there.stats().connection.state == "up", "it is back")
            (last,) = await send(here, 9)
            got = await take(there, channel, 2)
            assert got[0] == {"type": "gap", "group": "room", "missed": 0}
            assert (got[1]["n"], got[1][POSITION]) == (9, last)
        finally:
            await there.close()

    async def test_a_group_without_messages_heals_from_where_it_was_joined(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        there = RedisChannelLayer([proxy.url], prefix=redis_prefix, history=HISTORY)
        here = make_layer(history=HISTORY)
        try:
            channel, _ = await member(there)
            await there.group_position("room")
            proxy.refuse()
            proxy.cut()
            await until(lambda: there.stats().connection.state != "up", "it is cut off")
            await send(here, 1, 2)
            proxy.accept()
            assert await numbers(there, channel, 2) == [1, 2]
        finally:
            await there.close()


class TestMany:
    async def test_of_many_that_come_back_at_once_one_asks_the_server(
        self, make_layer: MakeLayer, redis_server: Server
    ) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        sent = await send(here, *range(50))
        channels = [await there.new_channel() for _ in range(200)]
        before = redis_server.commands_seen()
        added = [there.group_add("room", channel, since=sent[9]) for channel in channels]
        assert all(await asyncio.gather(*added))
        assert (redis_server.commands_seen() - before)["xrange"] <= 2
        for channel in channels:
            assert await numbers(there, channel, 40) == list(range(10, 50))

    async def test_ten_thousand_clients_resume_at_once_and_each_group_is_read_once(
        self, make_layer: MakeLayer, redis_server: Server
    ) -> None:
        here, there = make_layer(history=HISTORY), make_layer(history=HISTORY)
        groups = ["room.0", "room.1"]
        sent = {group: await send(here, *range(8), group=group) for group in groups}
        channels = [await there.new_channel() for _ in range(10_000)]
        joins = [(groups[place % 2], channel) for place, channel in enumerate(channels)]
        before = redis_server.commands_seen()
        added = await asyncio.gather(
            *(there.group_add(group, channel, since=sent[group][2]) for group, channel in joins)
        )
        seen = redis_server.commands_seen() - before
        assert added == [True] * len(channels)
        assert seen["xrange"] <= len(groups)
        # What a process that begins to listen asks, whoever resumes: where the stream is.
        assert seen["xrevrange"] <= len(groups)
        for channel in channels:
            assert [message["n"] for message in await there.receive_many(channel, 10)] == [3, 4, 5, 6, 7]

    async def test_a_stream_whose_time_is_over_is_begun_anew(
        self, make_layer: MakeLayer, pass_time: Callable[[float], None]
    ) -> None:
        gaps: list[Any] = []
        layer = make_layer(history={"room": {"size": 10, "ttl": 0.5}}, gap=gaps.append)
        channel, _ = await member(layer)
        (old,) = await send(layer, 1)
        await asyncio.to_thread(pass_time, 2.5)
        before = await layer.group_history("room")
        assert before.messages == []
        (new,) = await send(layer, 2)
        got = await take(layer, channel, 2)
        assert [message[POSITION] for message in got] == [old, new]
        _, complete = await member(layer, old)
        assert complete is False
        assert gaps == []

    async def test_entries_that_are_none_of_ours_are_refused_and_hurt_nobody(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(history=HISTORY, symmetric_encryption_keys=["a key"])
        other = make_layer(history=HISTORY, symmetric_encryption_keys=["another key"])
        channel, _ = await member(layer)
        (first,) = await send(layer, 1)
        stream = key(redis_prefix)
        [[newest, [_, envelope]]] = redis_server.cli("XREVRANGE", stream, "+", "-", "COUNT", 1, decode=False)
        epoch = int(newest.split(b"-")[0])
        for fields in (["e", b"nonsense"], ["e", b""], ["e", envelope], ["x", b"y"], ["e", b"a", "f", b"b"]):
            redis_server.cli("XADD", stream, f"{epoch}-*", *fields)
        # Recorded in one epoch, and put into another.
        redis_server.cli("XADD", stream, f"{epoch + 1}-*", "e", envelope)
        await send(other, 3)
        found = await layer.group_history("room", since=first)
        assert [message["n"] for message in found.messages if message["n"] != 1] == []
        again, _ = await member(layer, 10)
        sent = await send(layer, 4)
        got = [await take(layer, each, 1) for each in (channel, again)]
        assert got[0][0]["n"] == 1
        assert (await numbers(layer, channel, 1)) == [4]
        assert layer.stats().connection.unauthenticated + layer.stats().connection.malformed > 0
        assert await layer.group_position("room") == sent[0]


class TestRace:
    SENDERS, EACH = 3, 4000

    @staticmethod
    def _has_all(peer: Peer, total: int) -> bool:
        delivered: int = peer.stats()["delivered"]
        return delivered >= total

    def test_each_of_two_listening_processes_gets_what_the_stream_holds(
        self, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        """Three processes send as fast as they can: what each listener gets is the stream, message for message."""
        total = self.SENDERS * self.EACH
        settings: dict[str, Any] = {"history": {"room": {"size": 10_000, "ttl": 600}}, "capacity": total + 1}
        senders = [make_peer(**settings) for _ in range(self.SENDERS)]
        listeners = [make_peer(**settings, capacity_bytes=2**30) for _ in range(2)]
        channels = [peer.call("new_channel") for peer in listeners]
        for peer, channel in zip(listeners, channels, strict=True):
            peer.call("group_add", "room", channel)
            peer.collect(channel)
        for begun in range(0, self.EACH, 200):
            asked = [
                peer.start("group_send", "room", {"from": number, "n": begun + place})
                for place in range(200)
                for number, peer in enumerate(senders)
            ]
            positions = [answer.result(60)["position"] for answer in asked]
            assert len(set(positions)) == len(positions)
        for peer in listeners:
            eventually(partial(self._has_all, peer, total), "all came", 60)
        one, other = [peer.collected(channel) for peer, channel in zip(listeners, channels, strict=True)]
        assert one == other
        assert len({message[POSITION] for message in one}) == total
        for number in range(self.SENDERS):
            mine = [message["n"] for message in one if message["from"] == number]
            assert sorted(mine) == list(range(self.EACH))
        layer = RedisChannelLayer([redis_server.url], prefix=redis_prefix, history=settings["history"])
        try:
            kept = layer.group_history_sync("room", limit=10_000)
        finally:
            layer.close_sync()
        assert kept.messages == one[-len(kept.messages) :]
        assert len(kept.messages) == 10_000


class TestTopologies:
    """Cut off, healed, resumed: wherever the group's server is."""

    async def _heals(self, here: RedisChannelLayer, there: RedisChannelLayer, groups: list[str]) -> None:
        channels = {group: (await member(there, group=group))[0] for group in groups}
        sent = {group: await send(here, 0, 1, group=group) for group in groups}
        for group, channel in channels.items():
            got = await take(there, channel, 2)
            assert [message[POSITION] for message in got] == sent[group]
            assert await here.group_position(group) == sent[group][1]
            for layer in (here, there):
                again, complete = await member(layer, sent[group][0], group)
                assert complete is True
                assert await numbers(layer, again, 1) == [1]

    async def test_a_cluster(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="cluster", history=HISTORY) as fleet:
            await self._heals(fleet.layer(), fleet.layer(), [f"room.{number}" for number in range(12)])
            await fleet.layer().flush()
            for node in redis_cluster.nodes:
                assert not node.running or node.cli("KEYS", f"{redis_prefix}:h:*") == []

    async def test_a_cluster_that_is_found_out_to_be_one_over_resp2_keeps_nothing_and_says_so(
        self, redis_cluster: Cluster, redis_prefix: str
    ) -> None:
        url = f"{redis_cluster.nodes[0].url}?protocol=2"
        async with Fleet([url], redis_prefix, history=HISTORY) as fleet:
            layer = fleet.layer()
            channel, _ = await member(layer, group="hall")
            reason = "'history' needs sharded pub/sub on a cluster, and so RESP 3"
            asked: list[Awaitable[Any]] = [
                *(send(layer, 1), layer.group_position("room"), layer.group_history("room"), member(layer, 5)),
            ]
            for ask in asked:
                with pytest.raises(LayerUnavailable, match=reason):
                    await ask
            await layer.group_send("hall", {"n": 2})
            assert await numbers(layer, channel, 1) == [2]

    async def test_messages_are_healed_while_slots_move(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        # Hundreds may be sent while a slot moves. All have to fit into the history and into the channel, read last.
        many = {"history": {"room": {"size": 10_000, "ttl": 60}}, "capacity": 10_000, "capacity_bytes": 1 << 24}
        settings: dict[str, Any] = {"topology": "cluster", "on_gap": "gap", **many}
        async with Fleet([redis_cluster.nodes[0].url], redis_prefix, **settings) as fleet:
            here, there = fleet.layer(), fleet.layer()
            channel, _ = await member(there)
            await send(here, *range(5))
            slot = redis_cluster.slot_of(f"{redis_prefix}:g:room")
            home, number = redis_cluster.node_of(slot), 5
            targets = [redis_cluster.node_of(other) for other in (0, 8191, 16383)]
            for target in [next(node for node in targets if node is not home), home]:
                moving = asyncio.create_task(asyncio.to_thread(redis_cluster.migrate_slot, slot, target))
                while not moving.done():
                    await send(here, number)
                    number += 1
                await moving
                await send(here, number)
                number += 1
            assert await numbers(there, channel, number) == list(range(number))

    async def test_shards(self, start_redis: Callable[..., Server]) -> None:
        hosts = [start_redis().url for _ in range(3)]
        async with Fleet(hosts, "asgi", topology="shards", history=HISTORY) as fleet:
            await self._heals(fleet.layer(), fleet.layer(), [f"room.{number}" for number in range(12)])

    async def test_a_master_that_is_replaced(self, redis_sentinels: Sentinels, redis_prefix: str) -> None:
        hosts = [{"sentinels": redis_sentinels.addresses, "master_name": redis_sentinels.name}]
        async with Fleet(hosts, redis_prefix, history=HISTORY, send_timeout=20) as fleet:
            here, there = fleet.layer(), fleet.layer()
            await self._heals(here, there, ["room"])
            channel, _ = await member(there)
            await send(here, 5)
            await asyncio.to_thread(redis_sentinels.failover, kill=False)
            await send(here, 6, 7)
            got = [message.get("n") for message in await take(there, channel, 3)]
            assert got == [5, 6, 7]
            await asyncio.to_thread(redis_sentinels.heal)

    async def test_a_serverless_server_that_allows_transactions(
        self, redis_binary: Binary, make_serverless: Callable[..., Serverless], redis_prefix: str
    ) -> None:
        with make_serverless(redis_binary) as server:
            tls = {} if server.tls is None else {"ssl_ca_certs": str(server.ca)}
            hosts = [{"address": server.url, **tls}]
            settings: dict[str, Any] = {"topology": "serverless", "history": HISTORY, "send_timeout": 2}
            async with Fleet(hosts, redis_prefix, **settings) as fleet:
                with pytest.raises(LayerUnavailable, match="multi"):
                    await send(fleet.layer(), 1)
                rights = ["+multi", "+exec", "+xadd", "+xrange", "+xrevrange"]
                server.ask("ACL", "SETUSER", server.user[0], *rights)
                await self._heals(fleet.layer(), fleet.layer(), ["room", "room.1"])


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"wire": "channels_redis"}, "history needs the wire format of headrace"),
            (
                {"topology": "cluster", "hosts": [{"host": "localhost", "port": 1, "protocol": 2}]},
                "history needs sharded pub/sub on a cluster",
            ),
            ({"history": {"room": {"size": 0, "ttl": 1}}}, r"history\['room'\]\['size'\] must be"),
        ],
        ids=["wire", "resp2-cluster", "size"],
    )
    def test_what_cannot_have_a_history_is_refused_in_words(self, settings: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            RedisChannelLayer(**{"history": HISTORY, **settings})
