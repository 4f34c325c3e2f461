"""``symmetric_encryption_keys``: who reads what, and that no secret is ever shown."""

import asyncio
import base64
import hashlib
import logging
import re
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from tests.support.envelopes import ENCRYPTED, HEADER, header, membership, seal, unseal
from tests.support.peers import Peer
from tests.support.ports import HOST, Port
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]

KEY, OLD = "the key of today", "the key of yesterday"
COUNTED = ("malformed", "unauthenticated", "replayed", "late", "gaps")
PROTOCOL = Path(__file__).parents[2] / "docs/reference/protocol.md"


def fernet(*keys: str) -> MultiFernet:
    """Derive what channels_redis derives."""
    return MultiFernet([Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest())) for key in keys])


def queued(server: Server, prefix: str, channel: str = "work") -> list[bytes]:
    entries: list[bytes] = server.cli("LRANGE", f"{prefix}:q:{{{channel}}}", 0, -1, decode=False)
    return entries


class TestRotation:
    def test_each_step_of_a_rotation_understands_the_one_before(self, make_peer: MakePeer) -> None:
        for older, newer in (([OLD], [OLD, KEY]), ([OLD, KEY], [KEY, OLD]), ([KEY, OLD], [KEY])):
            peers = [make_peer(symmetric_encryption_keys=keys) for keys in (older, newer)]
            for sender, receiver in (peers, peers[::-1]):
                channel = receiver.call("new_channel")
                receiver.call("group_add", "room", channel)
                sender.call("send", channel, {"n": 1})
                sender.call("group_send", "room", {"n": 2})
                sender.call("send", "work", {"n": 3})
                assert [receiver.call("receive", channel)["n"] for _ in range(2)] == [1, 2]
                assert receiver.call("receive", "work") == {"n": 3}

    def test_control_messages_are_encrypted_too(self, make_peer: MakePeer) -> None:
        owner, other = (make_peer(symmetric_encryption_keys=[KEY]) for _ in range(2))
        channel = owner.call("new_channel")
        other.call("group_add", "room", channel)
        assert owner.call("channel_groups", channel) == ["room"]
        other.call("flush")
        eventually(lambda: owner.call("channel_groups", channel) == [], "it was told to flush")


class TestUpgrade:
    """Processes with version 1, as earlier releases have it, and with version 2, side by side."""

    def exchange(self, sender: Peer, receiver: Peer) -> None:
        channel = receiver.call("new_channel")
        sender.call("group_add", "room", channel)
        sender.call("group_add", "room", "work")
        eventually(lambda: "work" in receiver.call("group_channels", "room"), "both know the members")
        sender.call("send", channel, {"n": 1})
        sender.call("group_send", "room", {"n": 2})
        assert [receiver.call("receive", channel)["n"] for _ in range(2)] == [1, 2]
        assert receiver.call("receive", "work") == {"n": 2}
        sender.call("group_discard", "room", channel)
        sender.call("group_discard", "room", "work")
        eventually(lambda: receiver.call("group_channels", "room") == [], "both have left")
        assert [peer.link()[name] for peer in (sender, receiver) for name in COUNTED] == [0] * 2 * len(COUNTED)

    def test_each_step_understands_the_one_before(self, make_peer: MakePeer) -> None:
        for older, newer in (([1], [1, 2]), ([1, 2], [2, 1]), ([2, 1], [2])):
            peers = [make_peer(symmetric_encryption_keys=[KEY], encryption_versions=step) for step in (older, newer)]
            for sender, receiver in (peers, peers[::-1]):
                self.exchange(sender, receiver)

    def test_by_default_what_is_only_half_authenticated_is_refused(self, make_peer: MakePeer) -> None:
        new, old = (make_peer(symmetric_encryption_keys=[KEY], **step) for step in ({}, {"encryption_versions": [1]}))
        for peer, other in ((new, old), (old, new)):
            other.call("send", peer.call("new_channel"), {"n": 1})
        eventually(lambda: [peer.link()["unauthenticated"] for peer in (new, old)] == [1, 1], "both are counted")

    @pytest.mark.parametrize("versions", [[], [3], [1, 1], [2, 1, 2], 2, None, "2", [None]])
    def test_other_versions_are_an_error(self, versions: Any) -> None:
        with pytest.raises(ValueError, match=r"encryption_versions must be \[2\]"):
            RedisChannelLayer(symmetric_encryption_keys=[KEY], encryption_versions=versions)


class TestVersion2:
    def test_the_examples_of_the_protocol(self) -> None:
        head = header(2, ENCRYPTED, 0x0123456789ABCDEF, 7, 1700000060000)
        body = b"\x00\x81\xa4type\xa4ping"
        envelope = seal("first secret", "asgi:g:room", head, body, bytes(range(16)))
        example = PROTOCOL.read_text().split("02 10 ")[1].split("```")[0]
        written = re.findall(r"\b[0-9a-f]{2}\b", re.sub(r"  +\S.*", "", example))
        assert "0210" + "".join(written) == envelope.hex()
        assert membership("first secret", "asgi:m", "room\0work", 1700000060000) in PROTOCOL.read_text()

    async def test_it_is_read_as_the_protocol_says(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=[KEY, OLD])
        await layer.send("work", {"type": "secret"})
        (entry,) = queued(redis_server, redis_prefix)
        assert entry[:2] == bytes([2, 1 | ENCRYPTED])
        body = unseal(KEY, f"{redis_prefix}:q:{{work}}", entry)
        assert body == b"\x04work" + layer.serialize({"type": "secret"})
        assert b"secret" not in entry
        assert b"work" not in entry

    async def test_it_is_written_as_the_protocol_says(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=[KEY, OLD])
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        topic = f"{redis_prefix}:g:room"
        head = header(2, ENCRYPTED, 9, 1, 2**62)
        envelope = seal(OLD, topic, head, b"\x00" + layer.serialize({"n": 1}))
        await asyncio.to_thread(redis_server.cli, "PUBLISH", topic, envelope)
        assert await layer.receive(channel) == {"n": 1}

    async def test_what_goes_back_to_its_queue_is_authenticated_anew(
        self, make_layer: MakeLayer, make_peer: MakePeer
    ) -> None:
        layer, peer = make_layer(symmetric_encryption_keys=[KEY]), make_peer(symmetric_encryption_keys=[KEY])
        task = asyncio.create_task(layer.receive("work"))
        await asyncio.to_thread(eventually, lambda: layer.channel_stats("work").waiters == 1, "it waits")
        peer.call("send", "work", {"n": 1})
        eventually(lambda: layer.channel_stats("work").waiters == 0, "it is on its way")
        task.cancel()
        assert await asyncio.to_thread(peer.call, "receive", "work") == {"n": 1}
        assert layer.stats().connection.handed_back == 1
        assert peer.link()["unauthenticated"] == 0


class TestTokens:
    """Version 1, for fleets that are upgraded."""

    async def test_cryptography_reads_them(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=[KEY, OLD], encryption_versions=[1, 2])
        await layer.send("work", {"type": "secret"})
        (entry,) = queued(redis_server, redis_prefix)
        assert entry[:2] == bytes([1, 1 | ENCRYPTED])
        body = fernet(KEY).decrypt(entry[HEADER:])
        assert body == b"\x04work" + layer.serialize({"type": "secret"})
        assert b"secret" not in entry
        assert b"work" not in entry

    async def test_those_of_cryptography_are_read(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=[KEY, OLD], encryption_versions=[2, 1])
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        head = bytes([1, ENCRYPTED]) + bytes(24)
        token = fernet(OLD).encrypt(b"\x00" + layer.serialize({"n": 1}))
        await asyncio.to_thread(redis_server.cli, "PUBLISH", f"{redis_prefix}:g:room", head + token)
        assert await layer.receive(channel) == {"n": 1}


class TestOthersKeys:
    @pytest.mark.parametrize("keys", [["another key"], None], ids=["another-key", "no-key"])
    def test_what_cannot_be_read_is_counted_and_harms_nobody(self, make_peer: MakePeer, keys: Any) -> None:
        good, odd = (
            [make_peer(symmetric_encryption_keys=[KEY]) for _ in range(2)],
            make_peer(symmetric_encryption_keys=keys),
        )
        receiver, sender = good
        channel = receiver.call("new_channel")
        receiver.call("group_add", "room", channel)
        before = receiver.link()["unauthenticated"]
        odd.call("group_send", "room", {"n": "odd"})
        odd.call("send", channel, {"n": "odd"})
        eventually(lambda: receiver.link()["unauthenticated"] >= before + 2, "both are counted")
        sender.call("group_send", "room", {"n": 1})
        assert receiver.call("receive", channel) == {"n": 1}

    def test_what_cannot_be_read_in_a_queue_is_counted_and_the_next_is_delivered(self, make_peer: MakePeer) -> None:
        good, odd = make_peer(symmetric_encryption_keys=[KEY]), make_peer(symmetric_encryption_keys=["another key"])
        odd.call("send", "work", {"n": "odd"})
        good.call("send", "work", {"n": 1})
        assert good.call("receive", "work") == {"n": 1}
        assert good.link()["unauthenticated"] >= 1


SECRETS = [KEY, "pa55word", "pa55%2Fword", "s3ntinel"]
DERIVED = base64.urlsafe_b64encode(hashlib.sha256(KEY.encode()).digest()).decode()


def assert_no_secret(text: str) -> None:
    assert [secret for secret in [*SECRETS, DERIVED] if secret in text] == [], text


@pytest.fixture
def nobody() -> Any:
    """Give a port at which nobody listens."""
    port = Port()
    yield port.number
    port.release()


class TestNothingSecretIsShown:
    @pytest.fixture(params=["url", "url-with-user", "dict", "sentinel", "several"])
    def hosts(self, request: pytest.FixtureRequest, nobody: int) -> list[Any]:
        """Give hosts with passwords, in each form."""
        url = f"redis://:pa55%2Fword@{HOST}:{nobody}"
        forms: dict[str, list[Any]] = {
            "url": [url],
            "url-with-user": [f"redis://user:pa55word@{HOST}:{nobody}/0"],
            "dict": [{"host": HOST, "port": nobody, "password": "pa55word"}],
            "sentinel": [
                {
                    "sentinels": [(HOST, nobody)],
                    "master_name": "main",
                    "password": "pa55word",
                    "sentinel_kwargs": {"password": "s3ntinel"},
                }
            ],
            "several": [url, url],
        }
        return forms[request.param]

    @pytest.mark.usefixtures("redis_binary")
    async def test_when_no_server_can_be_reached(
        self, hosts: list[Any], nobody: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        layer = RedisChannelLayer(hosts, symmetric_encryption_keys=[KEY], send_timeout=SECONDS)
        try:
            assert_no_secret(repr(layer) + str(layer) + repr(vars(layer)))
            calls: list[Callable[[], Awaitable[object]]] = [
                layer.connect,
                lambda: layer.send("work", {}),
                lambda: layer.group_send("room", {}),
                layer.new_channel,
            ]
            for call in calls:
                with pytest.raises(LayerUnavailable, match=f"{HOST}:{nobody}") as caught:
                    await call()
                told = "".join(traceback.format_exception(caught.value))
                assert_no_secret(told)
                assert_no_secret(repr(caught.value.__cause__))
            assert_no_secret(repr(layer.stats()))
        finally:
            await layer.close()
        assert_no_secret(caplog.text)

    async def test_when_the_password_is_refused(
        self, start_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server = start_redis(password="another")
        layer = RedisChannelLayer([f"redis://:pa55word@{HOST}:{server.port}"], send_timeout=SECONDS)
        try:
            with pytest.raises(LayerUnavailable) as caught:
                await layer.connect()
            told = "".join(traceback.format_exception(caught.value))
            assert "WRONGPASS" in told or "password" in told
            assert_no_secret(told)
        finally:
            await layer.close()
        assert_no_secret(caplog.text)

    async def test_when_the_connection_is_lost(
        self, start_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server = start_redis(password="pa55word")
        layer = RedisChannelLayer([server.url], symmetric_encryption_keys=[KEY])
        try:
            await layer.new_channel()
            server.kill()
            await asyncio.to_thread(eventually, lambda: "lost" in caplog.text, "it is logged")
        finally:
            await layer.close()
        assert_no_secret(caplog.text)

    @pytest.mark.parametrize(
        "settings",
        [
            {"symmetric_encryption_keys": KEY},
            {"symmetric_encryption_keys": [KEY, 3]},
            {"hosts": "redis://:pa55word@localhost:6379"},
            {"hosts": ["redys://:pa55word@localhost:6379"]},
            {"hosts": ["redis://:pa55word@localhost:sixthousand"]},
            {"hosts": [{"host": "localhost", "pasword": "pa55word"}]},
            {"hosts": ["redis://:pa55word@localhost"], "topology": "serverles"},
        ],
    )
    def test_when_a_setting_is_wrong(self, settings: dict[str, Any]) -> None:
        with pytest.raises((ValueError, TypeError)) as caught:
            RedisChannelLayer(**settings)
        assert_no_secret("".join(traceback.format_exception_only(caught.value)))
        assert_no_secret(str(caught.value.__cause__) + str(caught.value.__context__))
