"""Who is present, over Redis: each process tells its members the same, whatever becomes of others and the server."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.cluster import Cluster
from tests.support.envelopes import GROUP as GROUP_KIND
from tests.support.envelopes import header
from tests.support.peers import Peer
from tests.support.presence import GROUP, Watcher, enter, listed, lists, presence
from tests.support.proxy import Proxy
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server
from tests.support.traffic import Fleet, soon

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]
StartProxy = Callable[[Server], Proxy]

PRESENCE = presence()


def names(prefix: str, group: str = GROUP) -> tuple[str, str]:
    """Give the names of the hash of a group and of the hash in which the processes count."""
    return f"{prefix}:v:{{{prefix}:g:{group}}}", f"{prefix}:a"


def _is_away(watcher: Watcher) -> bool:
    return watcher.entries["bob"] == [{"away": True}]


class TestPromise:
    @pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
    async def test_each_join_and_leave_is_told_once_in_each_process(
        self, make_layer: MakeLayer, encrypted: bool
    ) -> None:
        keys = {"symmetric_encryption_keys": ["a key"]} if encrypted else {}
        here, there = (make_layer(presence=PRESENCE, **keys) for _ in range(2))
        async with Watcher(here) as one, Watcher(there) as two:
            ann = await enter(here, "ann", name="Ann")
            bob = await enter(there, "bob")
            tab = await enter(there, "ann", name="Ann")
            for watcher in (one, two):
                await watcher.has({"ann": 2, "bob": 1})
                assert watcher.entries["ann"] == [{"name": "Ann"}] * 2
            await here.presence_discard(GROUP, ann)
            await there.presence_update(GROUP, bob, meta={"away": True})
            await there.group_discard(GROUP, tab)
            for watcher in (one, two):
                await watcher.has({"bob": 1})
                await soon(partial(_is_away, watcher), "he is away")
                assert sorted(watcher.events) == sorted(["+ann", "+ann", "-ann", "-ann", "+bob", "-bob", "+bob"])
                assert sorted(watcher.turns) == ["+ann", "+bob", "-ann"]

    async def test_who_comes_later_sees_who_is_there_and_all_processes_list_the_same(
        self, make_layer: MakeLayer
    ) -> None:
        layers = [make_layer(presence=PRESENCE) for _ in range(3)]
        for number in range(20):
            await enter(layers[number % 2], f"user-{number % 7}", n=number)
        expected = {f"user-{number}": 3 if number < 6 else 2 for number in range(7)}
        async with Watcher(layers[2]) as late:
            await late.has(expected)
            for layer in layers:
                await lists(layer, expected)
                assert await layer.presence_count(GROUP) == (7, 20)

    async def test_a_process_with_a_member_asks_the_server_nothing_and_one_without_asks_once(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        here, there = (make_layer(presence=PRESENCE) for _ in range(2))
        await enter(here, "ann")
        await lists(here, {"ann": 1})
        hash_name = names(redis_prefix)[0].encode()
        with redis_server.monitor() as monitor:
            for _ in range(100):
                assert await listed(here) == {"ann": 1}
                assert await here.presence_count(GROUP) == (1, 1)
            assert [seen for seen in monitor.seen() if hash_name in seen.words] == []
            assert await listed(there) == {"ann": 1}
            assert await there.presence_count(GROUP) == (1, 1)
            asked = [seen.name for seen in monitor.seen() if hash_name in seen.words]
            assert asked == ["HGETALL", "HGETALL"]
        assert there.presence_sync(GROUP).entries == {"ann": [{}]}

    async def test_groups_without_presence_cost_the_server_nothing(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(presence=PRESENCE)
        with redis_server.monitor() as monitor:
            channel = await layer.new_channel()
            await layer.group_add("hall", channel)
            await layer.group_send("hall", {"type": "x"})
            assert (await layer.receive(channel))["type"] == "x"
            start = f"{redis_prefix}:".encode()
            words = {word for seen in monitor.seen() for word in seen.words if word.startswith(start)}
        assert [word for word in words if word[len(start) :].startswith((b"v:", b"a"))] == []

    async def test_a_rolling_deploy_of_four_processes_with_linger_is_no_event(self, make_layer: MakeLayer) -> None:
        settings = presence(linger=600)
        watching = make_layer(presence=settings)
        fleet = [make_layer(presence=settings) for _ in range(4)]
        users = [f"user-{number}" for number in range(8)]
        for number, user in enumerate(users):
            await enter(fleet[number % 4], user)
        async with Watcher(watching) as watcher:
            await watcher.has(dict.fromkeys(users, 1))
            told = list(watcher.events)
            for place, old in enumerate(fleet):
                await old.close()
                new = make_layer(presence=settings)
                for user in users[place::4]:
                    await enter(new, user)
            # Somebody else, of whom it is told: what was to be told before that was told.
            await enter(new, "last")
            await watcher.has(dict.fromkeys([*users, "last"], 1))
            assert watcher.events == [*told, "+last"]

    async def test_an_entry_takes_few_bytes_of_the_server(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(presence=PRESENCE)
        for number in range(1000):
            await enter(layer, f"user-{number}", name=f"User {number}")
        hash_name, _ = names(redis_prefix)
        await soon(lambda: redis_server.cli("HLEN", hash_name) == 1000, "all are written")
        size = redis_server.cli("MEMORY", "USAGE", hash_name, "SAMPLES", 0)
        print(f"{size / 1000:.0f} bytes for an entry")
        assert size / 1000 <= 300

    async def test_a_flush_removes_who_is_present_everywhere(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        here, there = (make_layer(presence=PRESENCE) for _ in range(2))
        async with Watcher(here) as one, Watcher(there) as two:
            await enter(here, "ann")
            await enter(there, "bob")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})
            await here.flush()
            for layer in (here, there):
                await lists(layer, {})
        await soon(lambda: redis_server.cli("EXISTS", names(redis_prefix)[0]) == 0, "nothing is left")
        await enter(there, "bob")
        await lists(there, {"bob": 1})
        await lists(here, {"bob": 1})

    async def test_a_layer_that_is_closed_leaves_nothing_behind(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        here, there = (make_layer(presence=PRESENCE) for _ in range(2))
        await enter(here, "ann")
        async with Watcher(there) as watcher:
            await watcher.has({"ann": 1})
            await here.close()
            await watcher.has({})
        await there.close()
        hash_name, counts = names(redis_prefix)
        assert redis_server.cli("HGETALL", hash_name) in ({}, [])
        assert redis_server.cli("HGETALL", counts) in ({}, [])


class TestBadInput:
    async def test_a_channel_of_another_process_is_refused(self, make_layer: MakeLayer) -> None:
        here, there = (make_layer(presence=PRESENCE) for _ in range(2))
        foreign = await there.new_channel()
        for channel in (foreign, "work"):
            with pytest.raises(ValueError, match="process"):
                await here.presence_add(GROUP, channel, key="ann", meta={})

    async def test_a_group_without_presence_is_refused(self, make_layer: MakeLayer) -> None:
        layer = make_layer(presence=PRESENCE)
        channel = await layer.new_channel()
        for ask in (
            lambda: layer.presence_add("hall", channel, key="ann", meta={}),
            lambda: layer.presence("hall"),
            lambda: layer.presence_count("hall"),
        ):
            with pytest.raises(ValueError, match="has no presence"):
                await ask()

    def test_the_wire_of_channels_redis_has_none(self) -> None:
        with pytest.raises(ValueError, match="presence needs the wire format of headrace"):
            RedisChannelLayer(presence=PRESENCE, wire="channels_redis")
        with pytest.raises(ValueError, match="counted needs the wire format of headrace"):
            RedisChannelLayer(counted=["room.*"], wire="channels_redis")

    @pytest.mark.parametrize("seconds", [0, -1, "soon", float("nan"), 0.01, 3601])
    def test_a_timeout_that_is_none_is_refused(self, seconds: Any) -> None:
        with pytest.raises(ValueError, match="presence_timeout"):
            RedisChannelLayer(presence=PRESENCE, presence_timeout=seconds)

    async def test_what_no_key_authenticates_is_refused_and_hurts_nobody(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        layer = make_layer(presence=PRESENCE, symmetric_encryption_keys=["a key"])
        other = make_layer(presence=PRESENCE, symmetric_encryption_keys=["another key"])
        plain = make_layer(presence=PRESENCE)
        channel = await enter(layer, "ann")
        await lists(layer, {"ann": 1})
        await enter(other, "eve")
        await enter(plain, "eve")
        hash_name, _ = names(redis_prefix)
        await soon(lambda: redis_server.cli("HLEN", hash_name) == 3, "all are written")
        value = redis_server.cli("HGET", hash_name, channel, decode=False)
        # Recorded, and put under another channel.
        redis_server.cli("HSET", hash_name, channel[:-1] + "_", value, "no name", b"\xff", channel + "x", b"")
        late = make_layer(presence=PRESENCE, symmetric_encryption_keys=["a key"])
        async with Watcher(late) as watcher:
            await watcher.has({"ann": 1})
            assert await listed(layer) == {"ann": 1}
            link = late.stats().connection
            assert link.unauthenticated >= 3
        redis_server.cli("DEL", hash_name)

    async def test_a_right_that_is_missing_is_told(
        self, start_redis: Callable[..., Server], redis_prefix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = start_redis()
        server.cli("ACL", "SETUSER", "weak", "on", "nopass", "~*", "&*", "+@all", "-hset")
        layer = RedisChannelLayer([server.url_for(("weak", "any"))], prefix=redis_prefix, presence=PRESENCE)
        try:
            await enter(layer, "ann")
            await soon(lambda: "hset" in caplog.text.lower(), "it is logged")
        finally:
            await layer.close()


class TestHealing:
    async def test_what_changed_while_a_process_was_cut_off_is_told_when_it_is_back(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        here = make_layer(presence=PRESENCE)
        there = make_layer(presence=PRESENCE, hosts=[proxy.url])
        async with Watcher(here) as one, Watcher(there) as two:
            ann, bob = await enter(here, "ann"), await enter(there, "bob")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})
            proxy.refuse()
            proxy.cut()
            await soon(lambda: there.stats().connection.state != "up", "it is cut off")
            await enter(here, "eve")
            await here.presence_discard(GROUP, ann)
            await there.presence_discard(GROUP, bob)
            await two.has({"ann": 1})
            await one.has({"bob": 1, "eve": 1})
            proxy.accept()
            for watcher in (one, two):
                await watcher.has({"eve": 1})
            assert sorted(two.events[-3:]) == ["+eve", "-ann", "-bob"]

    async def test_who_is_cut_off_for_long_leaves_and_joins_again(
        self, make_layer: MakeLayer, redis_server: Server, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        here = make_layer(presence=PRESENCE, presence_timeout=1)
        there = make_layer(presence=PRESENCE, presence_timeout=1, hosts=[proxy.url], send_timeout=1)
        async with Watcher(here) as one, Watcher(there) as two:
            await enter(here, "ann")
            await enter(there, "bob")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})
            proxy.refuse()
            proxy.cut()
            await one.has({"ann": 1})
            # The one that is cut off does not know who lives.
            assert two.counts == {"ann": 1, "bob": 1}
            proxy.accept()
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})

    async def test_what_a_lost_announcement_said_is_read(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str
    ) -> None:
        """What drifts at a merge stays so for ever (phoenix_pubsub #74)."""
        layer = make_layer(presence=PRESENCE)
        hash_name, _ = names(redis_prefix)
        sender, channel = 0x1234, f"specific.{0x1234:016x}!t".encode()
        async with Watcher(layer) as watcher:
            await enter(layer, "ann")
            await watcher.has({"ann": 1})
            redis_server.cli("HSET", hash_name, channel, header(1, GROUP_KIND, sender, 7, 0) + b"\0\0\3bob\x80")
            gone = b"\0\2" + bytes([len(channel) - 1]) + channel[:-1] + bytes(8)
            for sequence in (5, 6):
                redis_server.cli("PUBLISH", hash_name, header(1, GROUP_KIND, sender, sequence, 0) + gone)
            await layer.close_pools()
            assert watcher.counts == {"ann": 1}
            # Two are missing.
            redis_server.cli("PUBLISH", hash_name, header(1, GROUP_KIND, sender, 9, 0) + gone)
            await watcher.has({"ann": 1, "bob": 1})

    @pytest.mark.parametrize("changes", [b"", b"\5", b"\2\3a b" + bytes(8), b"\3\3\0", b"\1\1a" + bytes(8) + b"\0\0"])
    async def test_what_says_nothing_of_who_is_there_is_refused(
        self, make_layer: MakeLayer, redis_server: Server, redis_prefix: str, changes: bytes
    ) -> None:
        layer = make_layer(presence=PRESENCE)
        async with Watcher(layer) as watcher:
            await enter(layer, "ann")
            await watcher.has({"ann": 1})
            before = layer.stats().connection.malformed
            forged = header(1, GROUP_KIND, 0x1234, 1, 0) + b"\0" + changes
            redis_server.cli("PUBLISH", names(redis_prefix)[0], forged)
            if changes:
                await soon(lambda: layer.stats().connection.malformed == before + 1, "it is counted")
            await enter(layer, "bob")
            await watcher.has({"ann": 1, "bob": 1})

    async def test_a_flush_of_the_server_is_no_event_and_all_is_written_again(
        self, make_layer: MakeLayer, start_redis: Callable[..., Server]
    ) -> None:
        server = start_redis()
        here, there = (make_layer(presence=PRESENCE, presence_timeout=5, hosts=[server.url]) for _ in range(2))
        async with Watcher(here) as one, Watcher(there) as two:
            await enter(here, "ann")
            await enter(there, "bob")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})
            told = [list(watcher.events) for watcher in (one, two)]
            server.cli("FLUSHALL")
            hash_name, _ = names(here.prefix)
            await soon(lambda: server.cli("HLEN", hash_name) == 2, "all is written again")
            late = make_layer(presence=PRESENCE, hosts=[server.url])
            await lists(late, {"ann": 1, "bob": 1})
            assert [watcher.events for watcher in (one, two)] == told

    async def test_a_server_that_begins_anew_with_nothing_is_no_event(
        self, make_layer: MakeLayer, start_redis: Callable[..., Server]
    ) -> None:
        server = start_redis()
        here, there = (make_layer(presence=PRESENCE, hosts=[server.url]) for _ in range(2))
        async with Watcher(here) as one, Watcher(there) as two:
            await enter(here, "ann")
            await enter(there, "bob")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1})
            await asyncio.to_thread(server.restart)
            hash_name, _ = names(here.prefix)
            await soon(lambda: server.cli("HLEN", hash_name) == 2, "all is written again")
            await enter(here, "eve")
            for watcher in (one, two):
                await watcher.has({"ann": 1, "bob": 1, "eve": 1})
                assert sorted(watcher.events) == ["+ann", "+bob", "+eve"]


class TestProcesses:
    """Processes that end without a word, or stand still."""

    async def test_the_entries_of_a_process_that_was_killed_leave(
        self, make_layer: MakeLayer, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        """Ghosts stay in the list after a node is gone (phoenix_pubsub #80, phoenix #2306)."""
        layers = [make_layer(presence=PRESENCE, presence_timeout=3) for _ in range(2)]
        peer = make_peer(presence=PRESENCE, presence_timeout=3)
        async with Watcher(layers[0]) as one, Watcher(layers[1]) as two:
            for number in range(3):
                channel = await asyncio.to_thread(peer.call, "new_channel")
                await asyncio.to_thread(peer.call, "presence_add", GROUP, channel, key=f"user-{number}", meta={})
            await enter(layers[1], "user-0")
            for watcher in (one, two):
                await watcher.has({"user-0": 2, "user-1": 1, "user-2": 1})
            began = asyncio.get_running_loop().time()
            await asyncio.to_thread(peer.kill)
            for watcher in (one, two):
                await watcher.has({"user-0": 1})
                assert "-user-0" not in watcher.turns
            print(f"{asyncio.get_running_loop().time() - began:.1f} s after the kill, with presence_timeout=3")
        hash_name, counts = names(redis_prefix)
        await soon(lambda: redis_server.cli("HLEN", hash_name) == 1, "its fields are removed")
        await soon(lambda: redis_server.cli("HLEN", counts) == 2, "it counts no more")

    async def test_a_process_that_stood_still_leaves_and_joins_again(
        self, make_layer: MakeLayer, make_peer: MakePeer
    ) -> None:
        layer = make_layer(presence=PRESENCE, presence_timeout=3)
        peer = make_peer(presence=PRESENCE, presence_timeout=3)
        async with Watcher(layer) as watcher:
            await enter(layer, "ann")
            channel = await asyncio.to_thread(peer.call, "new_channel")
            await asyncio.to_thread(peer.call, "presence_add", GROUP, channel, key="bob", meta={"n": 1})
            await watcher.has({"ann": 1, "bob": 1})
            peer.stop()
            try:
                await watcher.has({"ann": 1})
            finally:
                peer.resume()
            await watcher.has({"ann": 1, "bob": 1})
            found = await asyncio.to_thread(peer.call, "presence_count", GROUP)
            assert tuple(found) == (2, 2)

    async def test_a_fleet_that_died_together_is_not_in_the_list_of_the_next(
        self, make_layer: MakeLayer, make_peer: MakePeer
    ) -> None:
        peer = make_peer(presence=PRESENCE)
        channel = await asyncio.to_thread(peer.call, "new_channel")
        await asyncio.to_thread(peer.call, "presence_add", GROUP, channel, key="ghost", meta={})
        reader = make_layer(presence=PRESENCE)
        await lists(reader, {"ghost": 1})
        await asyncio.to_thread(peer.kill)
        layer = make_layer(presence=PRESENCE, presence_timeout=1)
        async with Watcher(layer) as watcher:
            await watcher.has({})


class TestTopologies:
    async def _agree(self, here: RedisChannelLayer, there: RedisChannelLayer, groups: list[str]) -> None:
        async with AsyncExitStack() as stack:
            watchers = {
                group: [await stack.enter_async_context(Watcher(layer, group)) for layer in (here, there)]
                for group in groups
            }
            channels = {group: (await enter(here, "ann", group), await enter(there, "bob", group)) for group in groups}
            for group in groups:
                for watcher in watchers[group]:
                    await watcher.has({"ann": 1, "bob": 1})
                await here.presence_discard(group, channels[group][0])
            for group in groups:
                for watcher in watchers[group]:
                    await watcher.has({"bob": 1})
                await there.presence_discard(group, channels[group][1])
                for watcher in watchers[group]:
                    await watcher.has({})

    @pytest.mark.parametrize("protocol", [3, 2], ids=["resp3", "resp2"])
    async def test_a_cluster(self, redis_cluster: Cluster, redis_prefix: str, protocol: int) -> None:
        hosts = [f"{redis_cluster.nodes[0].url}?protocol={protocol}"]
        async with Fleet(hosts, redis_prefix, topology="cluster", presence=PRESENCE) as fleet:
            await self._agree(fleet.layer(), fleet.layer(), [f"room.{number}" for number in range(12)])

    async def test_a_slot_that_moves_loses_nobody(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="cluster", presence=PRESENCE) as fleet:
            here, there = fleet.layer(), fleet.layer()
            slot = redis_cluster.slot_of(f"{redis_prefix}:g:{GROUP}")
            home = redis_cluster.node_of(slot)
            targets = [redis_cluster.node_of(other) for other in (0, 8191, 16383)]
            expected: dict[str, int] = {}
            async with Watcher(there) as watcher:
                for target in [next(node for node in targets if node is not home), home]:
                    moving = asyncio.create_task(asyncio.to_thread(redis_cluster.migrate_slot, slot, target))
                    while not moving.done():
                        await enter(here, f"user-{len(expected)}")
                        expected[f"user-{len(expected)}"] = 1
                        await asyncio.sleep(0.01)
                    await moving
                await watcher.has(expected)
                await lists(here, expected)

    async def test_shards(self, start_redis: Callable[..., Server]) -> None:
        hosts = [start_redis().url for _ in range(3)]
        async with Fleet(hosts, "asgi", topology="shards", presence=PRESENCE) as fleet:
            await self._agree(fleet.layer(), fleet.layer(), [f"room.{number}" for number in range(12)])

    async def test_a_master_that_is_replaced(self, redis_sentinels: Sentinels, redis_prefix: str) -> None:
        hosts = [{"sentinels": redis_sentinels.addresses, "master_name": redis_sentinels.name}]
        async with Fleet(hosts, redis_prefix, presence=PRESENCE, send_timeout=20) as fleet:
            here, there = fleet.layer(), fleet.layer()
            await self._agree(here, there, [GROUP])
            async with Watcher(there) as watcher:
                await enter(here, "ann")
                await watcher.has({"ann": 1})
                await asyncio.to_thread(redis_sentinels.failover)
                await enter(here, "bob")
                await watcher.has({"ann": 1, "bob": 1})
                await lists(here, {"ann": 1, "bob": 1})
            await asyncio.to_thread(redis_sentinels.heal)

    async def test_a_serverless_server(
        self, redis_binary: Binary, make_serverless: Callable[..., Serverless], redis_prefix: str
    ) -> None:
        with make_serverless(redis_binary) as server:
            tls = {} if server.tls is None else {"ssl_ca_certs": str(server.ca)}
            settings: dict[str, Any] = {"topology": "serverless", "presence": PRESENCE}
            async with Fleet([{"address": server.url, **tls}], redis_prefix, **settings) as fleet:
                await self._agree(fleet.layer(), fleet.layer(), [f"room.{number}" for number in range(3)])
            assert server.denied() == []


class TestUnreachable:
    async def test_an_entry_that_could_not_be_written_is_written_when_the_server_is_back(
        self, make_layer: MakeLayer, redis_server: Server, start_proxy: StartProxy
    ) -> None:
        proxy = start_proxy(redis_server)
        here = make_layer(presence=PRESENCE, hosts=[proxy.url], send_timeout=1)
        there = make_layer(presence=PRESENCE)
        reader = make_layer(presence=PRESENCE, hosts=[proxy.url], send_timeout=1)
        first = await enter(here, "ann")
        await lists(here, {"ann": 1})
        proxy.refuse()
        proxy.cut()
        await soon(lambda: here.stats().connection.state != "up", "it is cut off")
        await here.presence_update(GROUP, first, meta={"n": 2})
        with pytest.raises(LayerUnavailable):
            await reader.presence(GROUP)
        assert await listed(here) == {"ann": 1}
        proxy.accept()
        async with asyncio.timeout(60):
            while (await there.presence(GROUP)).entries != {"ann": [{"n": 2}]}:
                await asyncio.sleep(0.02)


class TestCounts:
    """How many members a group has in all processes."""

    async def test_the_members_of_all_processes_are_counted(
        self, make_layer: MakeLayer, make_peer: MakePeer, redis_server: Server, redis_prefix: str
    ) -> None:
        settings: dict[str, Any] = {"counted": ["hall*"], "presence_timeout": 3}
        here, there, reader = (make_layer(**settings) for _ in range(3))
        peer = make_peer(**settings)

        async def count(expected: int) -> None:
            for layer in (here, there, reader):
                async with asyncio.timeout(60):
                    while (got := await layer.group_count_everywhere("hall")) != expected:
                        await asyncio.sleep(0.02)
                assert got == expected

        await count(0)
        channels = [await here.new_channel() for _ in range(3)]
        for channel in channels:
            await here.group_add("hall", channel)
        await there.group_add("hall", await there.new_channel())
        await count(4)
        # A queue is in the group once, whatever the number of processes.
        await here.group_add("hall", "work")
        await count(5)
        await here.group_discard("hall", channels[0])
        here.close_channel(channels[1])
        await here.group_discard("hall", "work")
        await count(2)
        channel = await asyncio.to_thread(peer.call, "new_channel")
        await asyncio.to_thread(peer.call, "group_add", "hall", channel)
        await count(3)
        await asyncio.to_thread(peer.kill)
        await count(2)
        redis_server.cli("DEL", *names(redis_prefix, "hall"))
        await soon(lambda: redis_server.cli("HLEN", names(redis_prefix, "hall")[0]) == 2, "it is written again")
        assert reader.group_count_everywhere_sync("hall") == 2
        await here.close()
        await there.close()
        assert await reader.group_count_everywhere("hall") == 0

    async def test_a_group_that_is_not_counted_is_refused(self, make_layer: MakeLayer) -> None:
        layer = make_layer(counted=["hall*"])
        with pytest.raises(ValueError, match="not counted"):
            await layer.group_count_everywhere("room")
        with pytest.raises(ValueError, match="counted needs the wire format of headrace"):
            RedisChannelLayer(counted=["hall*"], wire="channels_redis")
