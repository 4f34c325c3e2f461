"""With ``symmetric_encryption_keys``: what somebody can do who reads and writes on the server, and has no key."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.envelopes import CONTROL, DIRECT, ENCRYPTED, GROUP, ahead, header, membership, restamp, seal
from tests.support.monitor import Monitor
from tests.support.servers import Server
from tests.support.traffic import soon
from tests.support.waiting import SECONDS

from headrace import Gap
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]

KEY = "the key of the fleet"
FAR = 10**9
"""Milliseconds that lie far ahead."""
PAST = 60_000
"""Milliseconds back: more than a layer may be wrong by that asks its server what time it is."""
UNDOES_FLUSH = 5


def now() -> int:
    """Give the time in milliseconds, by the clock that the servers have too."""
    return time.time_ns() // 1_000_000


@dataclass
class Scene:
    """Two layers with a key, and somebody at their server who has none."""

    receiver: RedisChannelLayer
    sender: RedisChannelLayer
    channel: str
    server: Server
    prefix: str
    monitor: Monitor
    gaps: list[Gap]

    def name(self, rest: str) -> str:
        """Give the name of a key or a pub/sub channel of the layers."""
        return f"{self.prefix}:{rest}"

    @property
    def inbox(self) -> str:
        """Give the pub/sub channel of the receiver's process."""
        return self.name(f"p:{self.receiver.client_prefix}")

    def recorded(self, command: str, name: str, kind: int | None = None) -> bytes:
        """Give the latest envelope that was published or pushed to a name."""
        words = [seen.words for seen in self.monitor.seen() if seen.name == command and len(seen.words) == 3]
        found = [data for _, place, data in words if place.decode() == name and kind in (None, data[1] & ~ENCRYPTED)]
        return found[-1]

    async def does(self, *words: Any) -> None:
        """Have the attacker do something."""
        await asyncio.to_thread(self.server.cli, *words)

    async def receives(self) -> Any:
        """Receive from the receiver's channel."""
        return await asyncio.wait_for(self.receiver.receive(self.channel), SECONDS)

    def counted(self) -> dict[str, int]:
        """Give the receiver's counters of what it refused."""
        link = self.receiver.stats().connection
        return {
            name: getattr(link, name)
            for name in ("malformed", "unauthenticated", "replayed", "late")
            if getattr(link, name)
        }

    async def refuses(self, **counters: int) -> None:
        """See that so much was refused, that nothing was delivered, and that what is sent now comes without a gap."""
        await soon(lambda: self.counted() == counters, f"{counters} are counted, and not {self.counted()}")
        await self.sender.group_send("room", {"type": "still.there"})
        await self.sender.send(self.channel, {"type": "still.here"})
        assert [await self.receives() for _ in range(2)] == [{"type": "still.there"}, {"type": "still.here"}]
        assert self.counted() == counters
        assert self.receiver.stats().connection.gaps == 0
        assert self.gaps == []


@pytest.fixture
def monitor(redis_server: Server) -> Iterator[Monitor]:
    with redis_server.monitor() as monitor:
        yield monitor


@pytest.fixture
async def scene(make_layer: MakeLayer, redis_server: Server, redis_prefix: str, monitor: Monitor) -> Scene:
    gaps: list[Gap] = []
    receiver, sender = (make_layer(symmetric_encryption_keys=[KEY], gap=gaps.append) for _ in range(2))
    channel = await receiver.new_channel()
    for group in ("room", "admin"):
        await receiver.group_add(group, channel)
    await sender.group_send("room", {"type": "secret", "n": 1})
    await sender.send(channel, {"type": "secret", "n": 2})
    scene = Scene(receiver, sender, channel, redis_server, redis_prefix, monitor, gaps)
    assert [(await scene.receives())["n"] for _ in range(2)] == [1, 2]
    return scene


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """List the warnings that hold a text."""
    records = [record for record in caplog.records if record.name == "headrace.redis"]
    return [record.getMessage() for record in records if text in record.getMessage()]


class TestReplays:
    async def test_what_was_published_is_not_delivered_again(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        group, direct = scene.recorded("PUBLISH", scene.name("g:room")), scene.recorded("PUBLISH", scene.inbox, DIRECT)
        for _ in range(3):
            await scene.does("PUBLISH", scene.name("g:room"), group)
            await scene.does("PUBLISH", scene.inbox, direct)
        await scene.refuses(replayed=6)
        await soon(lambda: told(caplog, "it came before"), "the log is told")
        (line,) = told(caplog, "it came before")
        assert scene.sender.client_prefix in line
        assert line.endswith("stats().connection.replayed")

    async def test_nor_after_the_group_was_left_and_joined_again(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, monitor: Monitor
    ) -> None:
        receiver = make_layer(symmetric_encryption_keys=[KEY], subscription_linger=0)
        sender = make_layer(symmetric_encryption_keys=[KEY])
        channel = await receiver.new_channel()
        scene = Scene(receiver, sender, channel, redis_server, redis_prefix, monitor, [])
        await receiver.group_add("room", channel)
        await sender.group_send("room", {"type": "secret"})
        assert await scene.receives() == {"type": "secret"}
        await receiver.group_discard("room", channel)
        topic = scene.name("g:room")
        await soon(lambda: redis_server.cli("PUBSUB", "NUMSUB", topic)[1] == 0, "the subscription has ended")
        await receiver.group_add("room", channel)
        await scene.does("PUBLISH", topic, scene.recorded("PUBLISH", topic))
        await scene.refuses(replayed=1)

    async def test_what_was_taken_from_a_queue_is_not_delivered_again(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        await scene.sender.send("work", {"n": 1})
        assert await scene.receiver.receive("work") == {"n": 1}
        queue = scene.name("q:{work}")
        entry = scene.recorded("RPUSH", queue)
        for _ in range(2):
            await scene.does("RPUSH", queue, entry)
        await scene.sender.send("work", {"n": 2})
        assert await scene.receiver.receive("work") == {"n": 2}
        await scene.refuses(replayed=2)
        await soon(lambda: told(caplog, f"by {queue}"), "the log is told")
        assert len(told(caplog, "it came before")) == 1

    @pytest.mark.parametrize("deadline", [0, 1, "past"])
    async def test_what_has_expired_comes_late_whoever_sends_it(self, scene: Scene, deadline: Any) -> None:
        until = now() - PAST if deadline == "past" else deadline
        body = b"\x00" + scene.sender.serialize({"type": "old"})
        # A sender that the receiver has not heard of; its number is no measure of what comes.
        for number in (7, 70):
            head = header(2, GROUP | ENCRYPTED, 99, number, until)
            await scene.does("PUBLISH", scene.name("g:room"), seal(KEY, scene.name("g:room"), head, body))
        await scene.refuses(late=2)
        head = header(2, GROUP | ENCRYPTED, 99, 5, now() + FAR)
        await scene.does("PUBLISH", scene.name("g:room"), seal(KEY, scene.name("g:room"), head, body))
        assert await scene.receives() == {"type": "old"}


class TestForgeries:
    async def test_no_number_of_a_header_can_be_changed(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        topic = scene.name("g:room")
        group = scene.recorded("PUBLISH", topic)
        forged = [
            restamp(group, deadline=now() + FAR),
            restamp(group, deadline=0),
            restamp(group, sender=999, sequence=5),
            restamp(group, sequence=2**40),
            ahead(group, 1),
            b"\x01" + group[1:],
        ]
        for envelope in forged:
            await scene.does("PUBLISH", topic, envelope)
        await scene.refuses(unauthenticated=len(forged))
        await soon(lambda: len(told(caplog, "refused")) == 3, "the log is told of each kind and sender")
        assert len(told(caplog, "none of the keys fits")) == 2
        assert len(told(caplog, "encryption_versions")) == 1

    async def test_nothing_counts_at_another_place(self, scene: Scene) -> None:
        group, direct = scene.recorded("PUBLISH", scene.name("g:room")), scene.recorded("PUBLISH", scene.inbox, DIRECT)
        await scene.sender.send("work", {"n": 1})
        entry = scene.recorded("RPUSH", scene.name("q:{work}"))
        moved = [("g:admin", group), ("c", group), ("g:room", direct), ("g:room", entry)]
        for place, envelope in moved:
            await scene.does("PUBLISH", scene.name(place), envelope)
        await scene.does("PUBLISH", scene.inbox, group)
        for envelope in (group, direct, entry):
            await scene.does("RPUSH", scene.name("q:{jobs}"), envelope)
        await scene.sender.send("jobs", {"n": 2})
        assert await scene.receiver.receive("jobs") == {"n": 2}
        await scene.refuses(unauthenticated=len(moved) + 4)
        assert await scene.receiver.receive("work") == {"n": 1}

    async def test_what_is_not_encrypted_is_refused(self, scene: Scene) -> None:
        body = b"\x00" + scene.sender.serialize({"type": "forged"})
        for version in (1, 2):
            head = header(version, GROUP, 99, 1, now() + FAR)
            await scene.does("PUBLISH", scene.name("g:room"), head + body)
        flush = header(1, CONTROL, 99, 1, 0) + bytes([UNDOES_FLUSH])
        await scene.does("PUBLISH", scene.name("c"), flush)
        await scene.refuses(unauthenticated=3)

    async def test_invented_senders_do_not_fill_the_log(self, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
        topic = scene.name("g:room")
        group = scene.recorded("PUBLISH", topic)
        for sender in range(200):
            await scene.does("PUBLISH", topic, restamp(group, sender=sender))
        await scene.refuses(unauthenticated=200)
        await soon(lambda: len(told(caplog, "refused")) == 16, "the log is told of so many")
        assert len(told(caplog, "it came before")) == 0
        await scene.does("PUBLISH", topic, group)
        await soon(lambda: told(caplog, "it came before"), "of another kind it is told all the same")


class TestControlMessages:
    async def test_a_recorded_flush_does_nothing(self, scene: Scene) -> None:
        await scene.sender.flush()
        await soon(lambda: scene.receiver.channel_groups(scene.channel) == [], "it is told to flush")
        for group in ("room", "admin"):
            await scene.receiver.group_add(group, scene.channel)
        await scene.does("PUBLISH", scene.name("c"), scene.recorded("PUBLISH", scene.name("c"), CONTROL))
        await scene.refuses(replayed=1)
        assert sorted(scene.receiver.channel_groups(scene.channel)) == ["admin", "room"]

    async def test_nor_do_a_recorded_leave_and_join(self, scene: Scene) -> None:
        await scene.sender.group_discard("room", scene.channel)
        leave = scene.recorded("PUBLISH", scene.inbox, CONTROL)
        await scene.sender.group_add("hall", scene.channel)
        join = scene.recorded("PUBLISH", scene.inbox, CONTROL)
        assert leave != join
        await scene.receiver.group_add("room", scene.channel)
        await scene.receiver.group_discard("hall", scene.channel)
        for control in (leave, join):
            await scene.does("PUBLISH", scene.inbox, control)
        await scene.refuses(replayed=2)
        assert sorted(scene.receiver.channel_groups(scene.channel)) == ["admin", "room"]

    async def test_one_that_has_expired_does_nothing(self, scene: Scene) -> None:
        place = scene.name("c")
        for number, deadline in enumerate((0, now() - PAST), 1):
            head = header(2, CONTROL | ENCRYPTED, 99, number, deadline)
            await scene.does("PUBLISH", place, seal(KEY, place, head, bytes([UNDOES_FLUSH])))
        await scene.refuses(late=2)
        assert sorted(scene.receiver.channel_groups(scene.channel)) == ["admin", "room"]


class TestMemberships:
    async def test_only_what_a_key_authenticates_is_a_member(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        members = scene.name("m")
        await scene.sender.group_add("room", "plain")
        await soon(lambda: "plain" in scene.receiver.group_channels("room"), "it is a member")
        field = "room\0plain"
        (value,) = scene.server.cli("HVALS", members)
        assert value == membership(KEY, members, field, int(value.split()[0]))
        end = now() + FAR
        for forged, written in (
            ("room\0evil", end),
            ("room\0moved", value),
            ("room\0odd", f"{end} {value.split()[1]}"),
            ("admin\0plain", value),
        ):
            await scene.does("HSET", members, forged, written)

        def counted(*names: str) -> list[int]:
            link = scene.receiver.stats().connection
            return [getattr(link, name) for name in names]

        # Whoever connects again reads it again.
        await scene.does("CLIENT", "KILL", "TYPE", "pubsub")
        await soon(lambda: counted("reconnects", "unauthenticated") == [1, 4], "it is read again")
        await scene.sender.group_add("room", "other")
        await soon(lambda: "other" in scene.receiver.group_channels("room"), "it is announced")
        assert sorted(scene.receiver.group_channels("room")) == ["other", "plain", scene.channel]
        assert "plain" not in scene.receiver.group_channels("admin")
        await scene.sender.group_send("room", {"type": "secret"})
        await scene.receives()
        assert [scene.server.cli("LLEN", scene.name(f"q:{{{name}}}")) for name in ("evil", "plain")] == [0, 1]
        assert counted("unauthenticated") == [4]
        await soon(lambda: told(caplog, "no key authenticates"), "the log is told")
        assert len(told(caplog, members)) <= 2, "once for each layer"


class TestWrongKeys:
    @pytest.mark.parametrize(
        ("theirs", "ours", "counter"),
        [(["another key"], [KEY], "unauthenticated"), (None, [KEY], "unauthenticated"), ([KEY], None, "malformed")],
        ids=["another-key", "no-key-there", "no-key-here"],
    )
    async def test_the_log_is_told_once_of_each_sender(
        self, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture, theirs: Any, ours: Any, counter: str
    ) -> None:
        layer = make_layer(symmetric_encryption_keys=ours)
        channel = await layer.new_channel()
        others = [make_layer(symmetric_encryption_keys=theirs) for _ in range(2)]
        for other in others:
            for number in range(3):
                await other.send(channel, {"n": number})
        await soon(lambda: getattr(layer.stats().connection, counter) == 6, "all are counted")
        await soon(lambda: len(told(caplog, "refused")) == 2, "the log is told")
        for other in others:
            assert len(told(caplog, other.client_prefix)) == 1
