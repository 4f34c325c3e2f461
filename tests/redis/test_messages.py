"""What is too long, and what is no message at all: refused at the sender, counted at the receiver, and harmless."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from tests.support.envelopes import ENCRYPTED, header, seal
from tests.support.peers import Peer
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.exceptions import ChannelEmpty, MessageTooLarge
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]

ME = bytes(7) + b"\x07"


def envelope(body: bytes, *, version: int = 1, flags: int = 0, sequence: int = 1, deadline: int = 0) -> bytes:
    """Build what travels, from a process that never was."""
    return bytes([version, flags]) + ME + sequence.to_bytes(8, "big") + deadline.to_bytes(8, "big") + body


def deep(levels: int) -> bytes:
    """Nest maps in each other, in msgpack."""
    return b"\x81\xa1a" * levels + b"\xc0"


PAYLOAD = msgpack.packb({"type": "fine", "text": "x" * 50})
HOSTILE_PAYLOADS = {
    "nothing": b"",
    "no-map": b"\x93\x01\x02\x03",
    "nil": b"\xc0",
    "number-for-a-key": b"\x81\x01\x02",
    "key-that-is-no-text": b"\x81\xa2\xff\xfe\xc0",
    "text-that-is-no-text": b"\x81\xa1a\xa2\xff\xfe",
    "two": PAYLOAD * 2,
    "extension": msgpack.packb({"t": msgpack.Timestamp(1)}),
    "deep": deep(65),
    "very-deep": deep(200_000),
    "deep-arrays": b"\x81\xa1a" + b"\x91" * 200_000 + b"\xc0",
    "many-promised": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "long-promised": b"\x81\xa1a\xdb\xff\xff\xff\xff",
    "map-promised": b"\xdf\xff\xff\xff\xff",
    "reserved": b"\x81\xa1a\xc1",
}
HOSTILE = {
    "empty": b"",
    "one-byte": b"\x01",
    "half-a-header": envelope(b"")[:20],
    "no-body": envelope(b""),
    "another-version": envelope(b"\x00" + PAYLOAD, version=2),
    "unknown-flag": envelope(b"\x00" + PAYLOAD, flags=32),
    "unknown-kind": envelope(b"\x00" + PAYLOAD, flags=9),
    "more-excluded-than-there-are": envelope(b"\xff\x01a" + PAYLOAD),
    "excluded-that-is-no-name": envelope(b"\x01\x02\xff\xfe" + PAYLOAD),
    "encrypted": envelope(b"gAAAAABk", flags=16),
    "direct-on-a-group": envelope(b"\x04work" + PAYLOAD, flags=1),
    "control-on-a-group": envelope(b"\x05", flags=2),
    **{f"payload-{name}": envelope(b"\x00" + payload) for name, payload in HOSTILE_PAYLOADS.items()},
}


async def test_what_channels_redis_carries_is_carried(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    sent = {"array": bytearray(b"\xff"), "view": memoryview(b"\xff"), "keys": {b"\xff": {b"": 2**64 - 1}}}
    received = {"array": b"\xff", "view": b"\xff", "keys": {b"\xff": {b"": 2**64 - 1}}}
    await layer.send(channel, sent)
    await layer.group_send("room", sent)
    await layer.send("work", sent)
    assert [await layer.receive(name) for name in (channel, channel, "work")] == [received] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": ""},
        {"prefix": "my app"},
        {"prefix": "gr\u00fcn:\n*"},
        {"capacity": "100", "expiry": "60", "group_expiry": "86400", "channel_capacity": {"work": "2"}},
        {"expiry": "2.5"},
        {"capacity": 0, "group_expiry": 0, "channel_capacity": {"work": 0}},
        {"capacity": "0", "group_expiry": "0"},
        {"serializer_format": "json"},
    ],
    ids=str,
)
async def test_settings_in_the_forms_of_real_projects_work(
    make_layer: MakeLayer, redis_server: Server, redis_prefix: str, settings: dict[str, Any]
) -> None:
    # Each test has a prefix of its own, and so have the names here.
    room, work = f"room.{redis_prefix}"[:90].replace(":", "."), "work"
    layer = make_layer(**settings)
    channel = await layer.new_channel()
    await layer.group_add(room, channel)
    await layer.group_send(room, {"n": 1})
    await layer.send(channel, {"n": 2})
    await layer.send(work, {"n": 3})
    assert [await layer.receive(name) for name in (channel, channel, work)] == [{"n": 1}, {"n": 2}, {"n": 3}]


class TestTooLong:
    async def test_it_is_refused_wherever_it_is_sent(self, make_layer: MakeLayer) -> None:
        layer = make_layer(max_message_bytes=2000)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        message = {"type": "long", "text": "x" * 2000}
        for send in (
            lambda: layer.send(channel, message),
            lambda: layer.send("work", message),
            lambda: layer.group_send("room", message),
            lambda: layer.send_many([(channel, {}), (channel, message)]),
            lambda: layer.group_send_many([("room", {}), ("room", message)]),
        ):
            with pytest.raises(MessageTooLarge, match="2000"):
                await send()
        with pytest.raises(MessageTooLarge):
            layer.send_sync(channel, message)
        with pytest.raises(MessageTooLarge):
            layer.group_send_sync("room", message)
        with pytest.raises(ChannelEmpty):
            layer.receive_nowait(channel)

    async def test_the_limit_is_exact(self, make_layer: MakeLayer) -> None:
        layer = make_layer(max_message_bytes=2000)
        room = 2000 - len(layer.serialize({"text": "x" * 300})) + 300
        await layer.send("work", {"text": "x" * room})
        with pytest.raises(MessageTooLarge):
            await layer.send("work", {"text": "x" * (room + 1)})
        assert await layer.receive("work") == {"text": "x" * room}

    def test_a_megabyte_goes_through(self, make_peer: MakePeer) -> None:
        one, two = (make_peer(symmetric_encryption_keys=["key"]) for _ in range(2))
        message = {"bytes": bytes(range(256)) * 2048, "text": "ü" * 250_000}
        channel = two.call("new_channel")
        two.call("group_add", "room", channel)
        one.call("send", channel, message)
        one.call("group_send", "room", message)
        one.call("send", "work", message)
        assert [two.call("receive", name) for name in (channel, channel, "work")] == [message] * 3

    @pytest.mark.parametrize("length", [10_000, 200_000])
    @pytest.mark.parametrize("keys", [None, ["key"]], ids=["plain", "encrypted"])
    async def test_one_that_comes_from_elsewhere_is_dropped_and_counted(
        self, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture, length: int, keys: list[str] | None
    ) -> None:
        """By a group, to a channel and out of a queue; the connection stays."""
        sender = make_layer(symmetric_encryption_keys=keys)
        layer = make_layer(symmetric_encryption_keys=keys, max_message_bytes=2000)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        waiting = asyncio.ensure_future(layer.receive("work"))
        for message in ({"text": "x" * length}, {"text": "fine"}):
            await sender.send(channel, message)
            await sender.group_send("room", message)
            await sender.send("work", message)
        received = [await layer.receive(channel), await layer.receive(channel), await waiting]
        assert received == [{"text": "fine"}] * 3
        link = layer.stats().connection
        assert (link.oversized, link.malformed, link.state, link.reconnects) == (3, 0, "up", 0)
        await asyncio.to_thread(eventually, lambda: "max_message_bytes is 2000" in caplog.text, "it is logged")
        assert caplog.text.count("max_message_bytes is 2000") == 1


class TestHostileBytes:
    async def _is_well(self, layer: RedisChannelLayer, channel: str) -> None:
        """Send something good by every way, and receive it, and nothing before it."""
        await layer.group_send("room", {"n": 1})
        await layer.send(channel, {"n": 2})
        assert [await asyncio.wait_for(layer.receive(channel), SECONDS) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert layer.stats().connection.reconnects == 0

    @pytest.fixture
    async def channel(self, layer: RedisChannelLayer) -> str:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        return channel

    @pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
    async def test_on_the_topic_of_a_group(
        self, layer: RedisChannelLayer, channel: str, redis_server: Server, redis_prefix: str, data: bytes
    ) -> None:
        assert redis_server.cli("PUBLISH", f"{redis_prefix}:g:room", data) == 1
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == 1

    @pytest.mark.parametrize("payload", HOSTILE_PAYLOADS.values(), ids=HOSTILE_PAYLOADS)
    async def test_in_the_inbox(
        self, layer: RedisChannelLayer, channel: str, redis_server: Server, redis_prefix: str, payload: bytes
    ) -> None:
        name = bytes([len(channel)]) + channel.encode()
        data = envelope(name + payload, flags=1)
        assert redis_server.cli("PUBLISH", f"{redis_prefix}:p:{layer.client_prefix}", data) == 1
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == 1

    async def test_the_log_is_told_once_of_each_reason(
        self,
        layer: RedisChannelLayer,
        channel: str,
        redis_server: Server,
        redis_prefix: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def told() -> list[str]:
            lines = [record.getMessage() for record in caplog.records if record.name == "headrace.redis"]
            return [line for line in lines if line.startswith(f"refused what came by {redis_prefix}:g:room")]

        for data in (envelope(b"\x00\x90"), b"\x01\x00", envelope(b"\x00\x90"), b"\x01\x00"):
            assert redis_server.cli("PUBLISH", f"{redis_prefix}:g:room", data) == 1
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == 4
        await asyncio.to_thread(eventually, lambda: len(told()) == 2, "the log is told")
        assert "it holds no message: the message is not a map (byte 0)" in told()[0]
        assert "the envelope ends too early" in told()[1]
        assert told()[0].endswith("those that follow are only counted, in stats().connection.malformed")

    async def test_names_that_are_none(
        self, layer: RedisChannelLayer, channel: str, redis_server: Server, redis_prefix: str
    ) -> None:
        inbox = f"{redis_prefix}:p:{layer.client_prefix}"
        names = [b"", b"\xff\xfe", b"a b", b"x" * 255, b"a!b!c", b"new\n"]
        direct = [envelope(bytes([len(name)]) + name + PAYLOAD, flags=1) for name in names]
        join = [envelope(b"\x01" + bytes(8) + bytes([len(n)]) + n + b"\x01a" + bytes(8), flags=2) for n in names]
        for data in direct + join:
            assert redis_server.cli("PUBLISH", inbox, data) == 1
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == len(direct + join)

    async def test_in_a_queue(
        self, layer: RedisChannelLayer, channel: str, redis_server: Server, redis_prefix: str
    ) -> None:
        entries = [b"", b"\x01", bytes(17)]
        for number, payload in enumerate(HOSTILE_PAYLOADS.values()):
            entries.append(envelope(b"\x04work" + payload, flags=1, sequence=number, deadline=10**15))
        entries.append(envelope(b"\x05", flags=2, sequence=1000, deadline=10**15))
        for entry in entries:
            redis_server.cli("RPUSH", f"{redis_prefix}:q:{{work}}", entry)
        await layer.send("work", {"n": 3})
        assert await asyncio.wait_for(layer.receive("work"), SECONDS) == {"n": 3}
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == len(entries)
        await asyncio.to_thread(
            eventually, lambda: redis_server.cli("KEYS", f"{redis_prefix}:[qt]:*") == [], "nothing is left of them"
        )

    @pytest.mark.parametrize("keys", [None, ["key"]], ids=["plain", "encrypted"])
    async def test_random_and_damaged_bytes(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, keys: Any
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=keys, capacity=10_000, capacity_bytes=1 << 30)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        chance = random.Random(20261121)
        topics = [f"{redis_prefix}:{name}" for name in ("g:room", f"p:{layer.client_prefix}", "c")]
        good = envelope(b"\x00" + PAYLOAD)
        if keys:
            good = seal("key", topics[0], header(2, ENCRYPTED, 9, 1, 2**62), b"\x00" + PAYLOAD)

        def damaged() -> bytes:
            kind = chance.randrange(4)
            if kind == 0:
                return chance.randbytes(chance.randrange(200))
            if kind == 1:
                return good[: chance.randrange(len(good))]
            data = bytearray(good)
            for _ in range(kind):
                data[chance.randrange(len(data))] = chance.randrange(256)
            return bytes(data)

        with redis_server.admin(decode=False) as connection:
            for _ in range(1000):
                connection.send("PUBLISH", chance.choice(topics), damaged())
            assert {connection.read() for _ in range(1000)} == {1}
        await layer.group_send("room", {"type": "last"})
        # Some of it was a message still, of which a text or a number was changed.
        while (await asyncio.wait_for(layer.receive(channel), SECONDS)).get("type") != "last":
            pass
        link = layer.stats().connection
        assert link.malformed + link.unauthenticated > 500
        await layer.send(channel, {"n": 1})
        assert await layer.receive(channel) == {"n": 1}
        assert layer.stats().connection.reconnects == 0

    async def test_a_wake_up_and_a_topic_of_nobody(
        self, layer: RedisChannelLayer, channel: str, redis_server: Server, redis_prefix: str
    ) -> None:
        waiting = asyncio.create_task(layer.receive("work"))
        topic = f"{redis_prefix}:b:{{work}}"
        await asyncio.to_thread(eventually, lambda: redis_server.cli("PUBLISH", topic, b"\xff" * 100) == 1, "it hears")
        for _ in range(100):
            redis_server.cli("PUBLISH", topic, b"wake")
        await layer.send("work", {"n": 3})
        assert await waiting == {"n": 3}
        await self._is_well(layer, channel)
        assert layer.stats().connection.malformed == 0

    async def test_members_that_are_none(self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str) -> None:
        fields: list[Any] = ["nothing", "a\0", "\0b", "a b\0c", b"\xff\0\xfe", "room\0work"]
        for field in fields:
            redis_server.cli("HSET", f"{redis_prefix}:m", field, "soon" if field == "a\0" else 10**15)
        layer = make_layer()
        report = await layer.group_send("room", {"n": 1})
        assert report.delivered_here == 1
        assert await layer.receive("work") == {"n": 1}
