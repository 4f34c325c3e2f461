"""What servers and networks do to a layer: receivers wait on, senders are told, gaps are told, and all comes back."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.envelopes import ahead
from tests.support.proxy import Proxy
from tests.support.resp import Connection
from tests.support.servers import Server, output_limit
from tests.support.traffic import soon as until
from tests.support.waiting import SECONDS, eventually

from headrace._layers.redis import Gap
from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

Start = Callable[..., Server]
StartProxy = Callable[[Server], Proxy]

# Long enough for what is to succeed, on a machine that is busy with other tests.
SEND_TIMEOUT = 3


class Side:
    """A layer with one channel in the group ``room``, and all that came to it.

    Attributes:
        gaps: What the hook was told.
    """

    def __init__(self, url: Any, prefix: str = "t", send_timeout: float = SEND_TIMEOUT, **options: Any) -> None:
        self.gaps: list[Gap] = []
        self.layer = RedisChannelLayer(
            [url],
            prefix=prefix,
            send_timeout=send_timeout,
            on_disconnect="test.lost",
            on_reconnect="test.back",
            on_gap="test.gap",
            gap=self.gaps.append,
            **options,
        )
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def join(self, group: str | None = "room") -> str:
        """Make a channel, in a group or in none; from now on what comes to it is in ``seen``."""
        channel = await self.layer.new_channel()
        if group is not None:
            await self.layer.group_add(group, channel)
        self.read(channel)
        return channel

    def read(self, channel: str) -> None:
        """Read what comes to a channel."""
        self.seen[channel] = []
        self._readers.append(asyncio.create_task(self._read(channel)))

    async def _read(self, channel: str) -> None:
        while True:
            self.seen[channel].append(await self.layer.receive(channel))

    def kinds(self, channel: str) -> list[str]:
        """Give the types of what came, in order."""
        return [message["type"] for message in self.seen[channel]]

    def notices(self, channel: str) -> list[str]:
        """Give those of them that are not of ``flows``: a message may arrive before all is back."""
        return [kind for kind in self.kinds(channel) if not kind.startswith("test.mark")]

    def still_reads(self) -> bool:
        """Tell whether no receiver was told to end."""
        return not any(reader.done() for reader in self._readers)

    async def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self.layer.close()


@asynccontextmanager
async def sides(*urls: Any, **options: Any) -> AsyncIterator[list[Side]]:
    made = [Side(url, **options) for url in urls]
    try:
        yield made
    finally:
        for side in made:
            await side.close()


async def flows(sender: Side, receiver: Side, channel: str) -> None:
    """Send until a message arrives."""
    began = time.monotonic()
    mark = f"test.mark{began}"
    while mark not in receiver.kinds(channel):
        assert time.monotonic() - began < SECONDS, f"no message in {SECONDS} s: {receiver.layer.stats().connection}"
        with suppress(LayerUnavailable):
            await sender.layer.group_send("room", {"type": mark})
        # A server that is away refuses at once.
        await asyncio.sleep(0.01)


@contextmanager
def refused() -> Iterator[None]:
    """Expect an error that says why, with a cause, and no long wait for it."""
    began = time.monotonic()
    with pytest.raises(LayerUnavailable) as caught:
        yield
    assert time.monotonic() - began < SEND_TIMEOUT + SECONDS
    assert len(str(caught.value)) > 10
    assert isinstance(caught.value.__cause__, Exception)
    assert str(caught.value.__cause__)


async def is_refused(call: Callable[[], Awaitable[Any]]) -> None:
    """Expect the same of a call."""
    with refused():
        await call()


class Breaker:
    """A way to break the connection between the layers and the server, and to mend it."""

    def __init__(self, server: Server, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def pause(self) -> None:
        self.server.pause()

    def resume(self) -> None:
        self.server.resume()

    def stall(self) -> None:
        self.proxy.stall()

    def flow(self) -> None:
        self.proxy.flow()

    def cut(self) -> None:
        self.proxy.refuse()
        self.proxy.cut()

    def accept(self) -> None:
        self.proxy.accept()

    def vanish(self) -> None:
        """Lose the packets of the connections that are there, and refuse new ones."""
        self.proxy.refuse()
        self.proxy.stall()

    def appear(self) -> None:
        """Be back without the connections that were there."""
        self.proxy.cut()
        self.proxy.flow()
        self.proxy.accept()


OUTAGES = [
    ("stop", "start"),
    ("kill", "start"),
    ("pause", "resume"),
    ("stall", "flow"),
    ("cut", "accept"),
    ("vanish", "appear"),
]


@pytest.fixture
def breaker(start_redis: Start, start_proxy: StartProxy) -> Breaker:
    server = start_redis()
    return Breaker(server, start_proxy(server))


@pytest.mark.parametrize(("begin", "end"), OUTAGES, ids=[begin for begin, _ in OUTAGES])
class TestOutages:
    async def test_senders_are_told_receivers_wait_and_all_comes_back(
        self, breaker: Breaker, begin: str, end: str
    ) -> None:
        async with sides(breaker.proxy.url, breaker.proxy.url) as (sender, receiver):
            channel, alone = await receiver.join(), await receiver.join(None)
            receiver.read("work")
            await flows(sender, receiver, channel)
            # The first one looks into the queue before it waits there, and only who waits is told of an outage.
            await until(lambda: receiver.layer.channel_stats("work").waiters, "the queue has a receiver")
            getattr(breaker, begin)()
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: sender.layer.group_send("room", {"type": "test.no"}),
                lambda: sender.layer.send(channel, {"type": "test.no"}),
                lambda: sender.layer.send("other-work", {"type": "test.no"}),
                lambda: sender.layer.group_add("another", "work"),
                sender.layer.flush,
                lambda: receiver.layer.group_add("another", channel),
                lambda: asyncio.to_thread(sender.layer.send_sync, channel, {"type": "test.no"}, confirm=True),
            ]
            # Those of one server wait side by side, until the outage is noticed or their time is over.
            await asyncio.gather(*map(is_refused, calls))
            assert receiver.still_reads()
            await until(lambda: receiver.kinds(channel)[-1:] == ["test.lost"], "the channel is told of the loss")
            assert receiver.layer.stats().connection.state == "down"
            # And now that it has been noticed.
            await asyncio.gather(*map(is_refused, calls))

            getattr(breaker, end)()
            await flows(sender, receiver, channel)
            await until(lambda: "test.gap" in receiver.kinds(channel), "the member is told of the gap")
            assert receiver.notices(channel)[:3] == ["test.lost", "test.back", "test.gap"]
            await until(lambda: receiver.kinds(alone)[1:] and receiver.kinds("work")[1:], "the others are told as well")
            assert receiver.kinds(alone)[:2] == ["test.lost", "test.back"]
            assert receiver.kinds("work")[:2] == ["test.lost", "test.back"]
            assert "test.gap" not in receiver.kinds(alone)
            await until(lambda: receiver.gaps, "the hook is told")
            assert "room" in receiver.gaps[0].groups
            await until(lambda: receiver.layer.stats().connection.state == "up", "so is what it sends by")
            link = receiver.layer.stats().connection
            assert (link.reconnects >= 1, link.gaps >= 1) == (True, True)
            # Queues and direct sends flow as well.
            await sender.layer.send("work", {"type": "test.work"})
            await sender.layer.send(channel, {"type": "test.direct"})
            await until(lambda: "test.work" in receiver.kinds("work"), "the queue flows")
            await until(lambda: "test.direct" in receiver.kinds(channel), "direct sends flow")
            assert receiver.still_reads()


class TestStart:
    async def test_a_server_that_appears_later_is_found(self, start_redis: Start) -> None:
        server = start_redis()
        server.stop()
        async with sides(server.url, server.url) as (sender, receiver):
            receiver.read("work")
            with refused():
                await sender.layer.send("work", {"type": "test.no"})
            with refused():
                await receiver.layer.new_channel()
            assert receiver.still_reads()
            assert receiver.layer.stats().connection.state == "connecting"
            server.start()
            # The one that had no answer in time is given up, and is not sent later.
            began = time.monotonic()
            while True:
                try:
                    await sender.layer.send("work", {"type": "test.work"})
                    break
                except LayerUnavailable:
                    assert time.monotonic() - began < SECONDS
            await until(lambda: receiver.kinds("work") == ["test.work"], "the queue flows")
            assert receiver.layer.stats().connection.reconnects == 0

    @pytest.mark.usefixtures("redis_binary")
    async def test_a_name_that_is_not_known(self) -> None:
        async with sides("redis://no-such-host.invalid:6379") as (side,):
            side.read("work")
            with pytest.raises(LayerUnavailable, match=r"no-such-host\.invalid") as caught:
                await side.layer.send("work", {"type": "test.no"})
            assert caught.value.__cause__ is not None
            with refused():
                await side.layer.group_send("room", {"type": "test.no"})
            assert side.still_reads()

    async def test_a_server_that_accepts_and_says_nothing(self, start_redis: Start, start_proxy: StartProxy) -> None:
        proxy = start_proxy(start_redis())
        proxy.stall()
        async with sides(proxy.url, connect_timeout=2) as (side,):
            side.read("work")
            with refused():
                await side.layer.connect()
            assert side.still_reads()
            proxy.flow()
            await until(lambda: side.layer.stats().connection.state == "up", "it connects")
            channel = await side.join()
            await flows(side, side, channel)

    async def test_a_server_that_is_not_there_refuses_at_once(self, start_redis: Start) -> None:
        server = start_redis()
        server.kill()
        # Whatever waits for longer than the test may take has not heard of the refusal.
        async with sides(server.url, send_timeout=600) as (side,):
            for ask in (
                lambda: side.layer.group_send("room", {"type": "test.no"}),
                lambda: side.layer.send("work", {"type": "test.no"}),
                side.layer.new_channel,
                lambda: side.layer.group_add("room", "work"),
                side.layer.flush,
                lambda: asyncio.to_thread(side.layer.group_send_sync, "room", {"type": "test.no"}),
                lambda: asyncio.to_thread(side.layer.send_sync, "work", {"type": "test.no"}, confirm=True),
            ):
                with pytest.raises(LayerUnavailable, match="refused"):
                    await ask()
            side.read("work")
            assert side.layer.stats().connection.unsent == 4
            server.start()
            await until(lambda: side.layer.stats().connection.state == "up", "it connects")
            await side.layer.send("work", {"type": "test.work"})
            await until(lambda: side.kinds("work") == ["test.work"], "the queue flows")


class TestUnconfirmed:
    async def test_what_was_not_taken_is_counted(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url, send_timeout=5) as (side,):
            channel = await side.join()
            server.kill()
            before = side.layer.stats().connection.unsent
            for _ in range(5):
                side.layer.send_sync(channel, {"type": "test.no"})
                side.layer.group_send_sync("room", {"type": "test.no"})
            await until(lambda: side.layer.stats().connection.unsent == before + 10, "all are counted")
            assert "test.no" not in side.kinds(channel)

    async def test_a_message_waits_for_a_server_that_is_back_in_time(self, start_redis: Start) -> None:
        server = start_redis()
        layer = RedisChannelLayer([server.url], send_timeout=20)
        try:
            await layer.connect()
            server.kill()
            await until(lambda: layer.stats().connection.state == "down", "the loss is noticed")
            sending = [asyncio.create_task(layer.send("work", {"type": "test.work", "n": n})) for n in range(20)]
            await asyncio.sleep(0)
            server.start()
            await asyncio.gather(*sending)
            assert [(await layer.receive("work"))["n"] for _ in range(20)] == list(range(20))
        finally:
            await layer.close()


class TestRefusals:
    async def test_a_server_that_has_too_many_clients(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url) as (side,):
            channel = await side.join()
            with server.admin() as admin:
                admin.ask("CONFIG", "SET", "maxclients", 1)
                admin.ask("CLIENT", "KILL", "USER", "default")
                await until(lambda: side.layer.stats().connection.state == "down", "the loss is noticed")
                with pytest.raises(LayerUnavailable, match="max number of clients") as caught:
                    await side.layer.group_send("room", {"type": "test.no"})
                assert "max number of clients" in str(caught.value.__cause__)
                admin.ask("CONFIG", "SET", "maxclients", 100)
            await flows(side, side, channel)

    async def test_a_full_memory_refuses_queues_and_lets_groups_pass(self, start_redis: Start) -> None:
        server = start_redis(options={"maxmemory-policy": "noeviction"})
        async with sides(server.url) as (side,):
            channel = await side.join()
            server.ask("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(LayerUnavailable, match="OOM") as caught:
                await side.layer.send("work", {"type": "test.no"})
            assert "OOM" in str(caught.value.__cause__)
            with pytest.raises(LayerUnavailable, match="OOM"):
                side.layer.send_sync("work", {"type": "test.no"})
            with pytest.raises(LayerUnavailable, match="OOM"):
                await side.layer.group_add("room", "work")
            await flows(side, side, channel)
            side.read("work")
            assert side.layer.stats().connection.reconnects == 0

            server.ask("CONFIG", "SET", "maxmemory", 0)
            await side.layer.send("work", {"type": "test.work"})
            await until(lambda: side.kinds("work") == ["test.work"], "the queue flows")
            # What the index missed then it has now.
            await side.layer.flush()
            await side.layer.send("idle", {"type": "test.work"})
            await side.layer.flush()
            assert server.ask("KEYS", "t:q:*") == []

    async def test_a_queue_made_while_memory_was_full_is_flushed(self, start_redis: Start) -> None:
        server = start_redis(options={"maxmemory-policy": "noeviction"})
        async with sides(server.url) as (side,):
            await side.layer.connect()
            server.ask("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(LayerUnavailable, match="OOM"):
                await side.layer.send("work", {"type": "test.no"})
            server.ask("CONFIG", "SET", "maxmemory", 0)
            await side.layer.send("work", {"type": "test.work"})
            assert server.ask("KEYS", "t:q:*") != []
            await side.layer.flush()
            assert server.ask("KEYS", "t:q:*") == []

    async def test_a_master_that_became_a_replica(self, start_redis: Start) -> None:
        master, server = start_redis(), start_redis()
        async with sides(server.url) as (side,):
            channel = await side.join()
            side.read("work")
            server.ask("REPLICAOF", "127.0.0.1", master.port)
            began = time.monotonic()
            with pytest.raises(LayerUnavailable, match="READONLY") as caught:
                await side.layer.send("work", {"type": "test.no"})
            assert time.monotonic() - began < SEND_TIMEOUT + SECONDS
            assert "READONLY" in str(caught.value.__cause__)
            server.ask("REPLICAOF", "NO", "ONE")
            began = time.monotonic()
            while "test.work" not in side.kinds("work"):
                assert time.monotonic() - began < SECONDS
                with suppress(LayerUnavailable):
                    await side.layer.send("work", {"type": "test.work"})
                await asyncio.sleep(0.01)
            await flows(side, side, channel)

    @pytest.mark.parametrize("how", ["deleted", "changed"])
    async def test_a_user_who_lost_the_right(self, start_redis: Start, how: str) -> None:
        rules = ["~*", "&*", "+@all"]
        server = start_redis(users={"app": f"on >secret {' '.join(rules)}"})
        async with sides(server.url_for(("app", "secret"))) as (side,):
            channel = await side.join()
            if how == "deleted":
                server.ask("ACL", "DELUSER", "app")
            else:
                server.ask("ACL", "SETUSER", "app", "resetpass", ">other")
                server.ask("CLIENT", "KILL", "USER", "app")
            await until(lambda: side.layer.stats().connection.state == "down", "the loss is noticed")
            with pytest.raises(LayerUnavailable, match=r"(?i)password|WRONGPASS") as caught:
                await side.layer.group_send("room", {"type": "test.no"})
            assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
            assert side.still_reads()
            server.ask("ACL", "SETUSER", "app", "on", "resetpass", ">secret", *rules)
            await flows(side, side, channel)
            await until(lambda: side.notices(channel)[:3] == ["test.lost", "test.back", "test.gap"], "it is told")

    async def test_a_password_that_changed_is_asked_for_again(self, start_redis: Start) -> None:
        server = start_redis(users={"app": "on >first ~* &* +@all"})
        password = ["first"]
        host = {"address": f"redis://127.0.0.1:{server.port}", "username": "app", "password": lambda: password[0]}
        async with sides(host) as (side,):
            channel = await side.join()
            password[0] = "second"
            server.ask("ACL", "SETUSER", "app", "resetpass", ">second")
            server.ask("CLIENT", "KILL", "USER", "app")
            await until(lambda: side.kinds(channel)[:1] == ["test.lost"], "it is told")
            await flows(side, side, channel)

    async def test_a_connection_that_is_killed_alone(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url) as (side,):
            channel = await side.join()
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: side.notices(channel)[:3] == ["test.lost", "test.back", "test.gap"], "it is told")
            await flows(side, side, channel)
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            await flows(side, side, channel)
            # Nothing was missed: what receives was not touched.
            assert side.layer.stats().connection.reconnects == 1


class TestSubscriptions:
    async def test_thousands_are_all_back(self, start_redis: Start) -> None:
        count = 3000
        server = start_redis()
        # Each group's gap is a message to its member.
        async with sides(server.url, capacity=2 * count, send_timeout=SECONDS) as (side,):
            channel = await side.join()
            groups = [f"group-{number}" for number in range(count)]
            await asyncio.gather(*(side.layer.group_add(group, channel) for group in groups))
            # Where all of them would have to be one command, a server may refuse it.
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: side.gaps, "all are back")
            assert set(side.gaps[0].groups) == {"room", *groups}
            some = (groups[0], groups[-1])
            await side.layer.group_send_many((group, {"type": group}) for group in some)
            await until(lambda: set(some) <= set(side.kinds(channel)), "messages flow")
            assert server.ask("PUBSUB", "NUMSUB", "t:g:group-0")[1] == 1

    @pytest.mark.parametrize(
        ("protocol", "count"),
        [
            (2, 5_000),
            (3, 10_000),
            pytest.param(2, 20_000, marks=pytest.mark.deep),
            pytest.param(3, 100_000, marks=pytest.mark.deep),
        ],
    )
    async def test_each_of_very_many_is_asked_for_once(self, start_redis: Start, protocol: int, count: int) -> None:
        together = 5000
        server = start_redis()

        def asked() -> int:
            stats = server.ask("INFO", "commandstats")
            return int(stats.partition("cmdstat_subscribe:calls=")[2].partition(",")[0])

        host = {"address": server.url, "protocol": protocol}
        async with sides(host, send_timeout=60) as (side,):
            channel = await side.join()
            for first in range(0, count, together):
                joins = (
                    side.layer.group_add(f"group-{number}", f"{channel}{number}")
                    for number in range(first, first + together)
                )
                await asyncio.gather(*joins)
            # The inbox, what all processes hear, the memberships of queues, and the room.
            assert asked() == count + 4
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: side.gaps, "all are back")
            assert asked() == 2 * (count + 4)
            assert len(side.gaps[0].groups) == count + 1
            link = side.layer.stats().connection
            assert (link.state, link.reconnects, link.gaps) == ("up", 1, 1)
            await flows(side, side, channel)


class TestNotices:
    async def test_they_reach_channels_between_two_messages(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url) as (side,):
            channel, idle = await side.join(), await side.layer.new_channel()
            for name in (idle, "work"):
                await side.layer.send(name, {"type": "test.first"})
                await side.layer.receive(name)
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: "test.gap" in side.kinds(channel), "it is told")
            assert [(await side.layer.receive(idle))["type"] for _ in range(2)] == ["test.lost", "test.back"]
            # What nobody here takes from a queue goes back to the fleet, to whom it says nothing.
            assert side.layer.channel_stats("work").depth == 0

    async def test_a_closed_channel_gets_none(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url) as (side,):
            channel, closed = await side.join(), await side.layer.new_channel()
            await side.layer.send(closed, {"type": "test.first"})
            await side.layer.receive(closed)
            side.layer.close_channel(closed)
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: "test.gap" in side.kinds(channel), "it is told")
            assert side.layer.channel_stats(closed).depth == 0


class TestSlowness:
    async def test_the_limit_of_the_output_buffer(self, redis_binary: Binary, start_redis: Start) -> None:
        server = start_redis(options=output_limit(redis_binary, "pubsub 64kb 64kb 1"))
        async with sides(server.url, server.url) as (sender, receiver):
            channel = await receiver.join()
            sends = [sender.layer.group_send("room", {"type": "test.big", "text": "x" * 400_000}) for _ in range(10)]
            await asyncio.gather(*sends)
            await until(lambda: "test.lost" in receiver.kinds(channel), "the loss is told")
            await until(lambda: "test.gap" in receiver.kinds(channel), "the gap is told")
            await until(lambda: receiver.gaps, "the hook is told")
            assert "room" in receiver.gaps[0].groups
            await flows(sender, receiver, channel)

    async def test_a_loop_that_is_blocked_keeps_its_subscription(self, start_redis: Start) -> None:
        # 20 MB for a loop that does not run, where the server would not hold a tenth of it for a client.
        server = start_redis(options={"client-output-buffer-limit": "pubsub 2mb 2mb 1"})
        count, text = 2000, "x" * 10_000
        async with sides(server.url, server.url, capacity=count, capacity_bytes=1 << 30) as (sender, receiver):
            channel = await receiver.join()

            def send() -> None:
                for number in range(count):
                    sender.layer.group_send_sync("room", {"type": "test.n", "n": number, "text": text}, confirm=True)

            thread = threading.Thread(target=send)
            thread.start()
            # It is the loop that is blocked here, until all is sent.
            thread.join()
            await until(lambda: len(receiver.seen[channel]) >= count, "all arrive")
            assert [message.get("n") for message in receiver.seen[channel]] == list(range(count))
            link = receiver.layer.stats().connection
            assert (link.reconnects, link.gaps) == (0, 0)


class TestHoles:
    async def test_a_hole_in_the_numbers_of_a_sender_is_told(self, start_redis: Start) -> None:
        server = start_redis()
        async with sides(server.url, server.url) as (sender, receiver):
            channel = await receiver.join()
            await flows(sender, receiver, channel)
            with server.connect(decode=False) as listener:
                topic = listened(server, listener)
                await sender.layer.group_send("room", {"type": "test.copied"})
                _, _, envelope = listener.read()
                server.cli("PUBLISH", topic, ahead(envelope, 5))
            await until(lambda: receiver.gaps == [Gap(("room",), direct=False, missed=4)], "the hook is told")
            gap = {"type": "test.gap", "group": "room", "missed": 4}
            await until(lambda: receiver.seen[channel][-2:][0] == gap, "the member is told first")
            link = receiver.layer.stats().connection
            assert (link.state, link.gaps, link.missed, link.reconnects) == ("up", 1, 4, 0)


def listened(server: Server, listener: Connection) -> str:
    """Subscribe to the one group that there is."""
    names: list[str] = eventually(lambda: server.ask("PUBSUB", "CHANNELS", "t:g:*"), "there is a group")
    listener.ask("SUBSCRIBE", names[0])
    return names[0]
