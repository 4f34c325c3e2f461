"""What tests put together of servers: a proxy before one, sentinels, clusters, and one with little allowed."""

import os
import time
from collections.abc import Callable
from functools import partial

import pytest
from tests.support import binaries
from tests.support.binaries import Binary
from tests.support.certificates import Authority
from tests.support.clients import client, cluster_client, sentinel_client
from tests.support.cluster import SLOTS, Cluster
from tests.support.ports import HOST
from tests.support.proxy import Proxy
from tests.support.resp import Connection, ReplyError
from tests.support.sentinel import Sentinels
from tests.support.serverless import ENDPOINT, Serverless
from tests.support.servers import Server, output_limit
from tests.support.waiting import eventually

pytestmark = pytest.mark.one_python

# Each command that the layer may use, in an order in which each can be carried out.
ALLOWED = [
    *("HELLO 2", "TIME", "ASKING", "CLUSTER SLOTS"),
    *("RPUSH {queue} 1", "LMOVE {queue} {other} LEFT RIGHT", "LRANGE {other} 0 -1", "LREM {other} 1 1", "LLEN {queue}"),
    *("HSET {queue} 1 1", "HDEL {queue} 1", "HGETALL {queue}", "EXPIRE {queue} 1"),
    *("SADD {other} 1", "SMEMBERS {other}", "DEL {queue} {other}"),
    *("PUBLISH {queue} 1", "SPUBLISH {queue} 1", "SSUBSCRIBE {queue}", "SUNSUBSCRIBE {queue}"),
    *("SUBSCRIBE {queue}", "UNSUBSCRIBE {queue}", "PING"),
]
FORBIDDEN = [
    *("SELECT 1", "KEYS *", "CONFIG GET maxmemory", "INFO", "FLUSHALL", "BLPOP queue 1", "MULTI"),
    *("CLIENT LIST", "CLIENT SETNAME me", "CLUSTER NODES", "CLUSTER SHARDS"),
    *("EVAL 1 0", "FUNCTION LIST", "SCRIPT FLUSH"),
]


def through(proxy: Proxy) -> Connection:
    """Connect to a proxy."""
    return Connection((HOST, proxy.port), decode=False)


def has(server: Server, key: str, value: str) -> bool:
    """Tell whether a server has a key with this value."""
    return bool(server.cli("GET", key) == value)


class TestProxy:
    def test_what_both_sides_say_is_passed_on_and_counted(
        self, redis_server: Server, start_proxy: Callable[[Server], Proxy], redis_prefix: str
    ) -> None:
        proxy = start_proxy(redis_server)
        value = os.urandom(3_000_000)
        with through(proxy) as one, through(proxy) as other:
            assert one.ask("SET", redis_prefix, value, "EX", 60) == b"OK"
            assert other.ask("GET", redis_prefix) == value
            assert (proxy.connections, proxy.accepted) == (2, 2)
            assert proxy.to_server > len(value)
            assert proxy.to_client > len(value)
        eventually(lambda: proxy.connections == 0, "the proxy sees that the clients left")

    def test_cut(self, redis_server: Server, start_proxy: Callable[[Server], Proxy]) -> None:
        proxy = start_proxy(redis_server)
        with through(proxy) as connection:
            proxy.cut()
            assert proxy.connections == 0
            with pytest.raises(ConnectionResetError):
                connection.read()
        with through(proxy) as connection:
            assert connection.ask("PING") == b"PONG"

    def test_refuse_and_accept(self, redis_server: Server, start_proxy: Callable[[Server], Proxy]) -> None:
        proxy = start_proxy(redis_server)
        with through(proxy) as connection:
            connection.ask("PING")
            proxy.refuse()
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                through(proxy)
            assert connection.ask("PING") == b"PONG"
            proxy.accept()
            proxy.accept()
            with through(proxy) as another:
                assert another.ask("PING") == b"PONG"

    def test_stall_and_flow(self, redis_server: Server, start_proxy: Callable[[Server], Proxy]) -> None:
        proxy = start_proxy(redis_server)
        with through(proxy) as connection:
            connection.ask("PING")
            proxy.stall()
            passed = proxy.to_server
            with through(proxy) as late:
                for one in (connection, late):
                    one.send("PING")
                    assert not one.hears(0.05)
                assert proxy.to_server == passed
                proxy.flow()
                assert [connection.read(), late.read()] == [b"PONG", b"PONG"]

    def test_a_slow_client_is_slow_for_the_server(
        self, redis_binary: Binary, start_redis: Callable[..., Server], start_proxy: Callable[[Server], Proxy]
    ) -> None:
        server = start_redis(options=output_limit(redis_binary, "pubsub 1mb 0 0"))
        proxy = start_proxy(server)
        with through(proxy) as connection:
            connection.ask("SUBSCRIBE", "channel")
            proxy.stall()
            eventually(lambda: server.cli("PUBLISH", "channel", b"x" * 100_000) == 0, "the server gives it up")

    def test_a_server_that_ends_and_comes_back(
        self, start_redis: Callable[..., Server], start_proxy: Callable[[Server], Proxy]
    ) -> None:
        server = start_redis()
        proxy = start_proxy(server)
        with through(proxy) as connection:
            connection.ask("PING")
            server.kill()
            with pytest.raises(ConnectionError):
                connection.read()
        with through(proxy) as connection, pytest.raises(ConnectionError):
            connection.ask("PING")
        server.restart()
        with through(proxy) as connection:
            assert connection.ask("PING") == b"PONG"


class TestSentinels:
    def test_a_client_finds_the_master_and_finds_the_next_one(self, redis_sentinels: Sentinels) -> None:
        finder = sentinel_client(redis_sentinels.addresses)
        try:
            for kill in (True, False):
                old = redis_sentinels.master()
                assert finder.discover_master(redis_sentinels.name) == (HOST, old.port)
                new = redis_sentinels.failover(kill=kill)
                assert new is not old
                assert redis_sentinels.master() is new
                assert finder.discover_master(redis_sentinels.name) == (HOST, new.port)
                with client(new.url) as connected:
                    assert connected.set("key", str(kill))
                redis_sentinels.heal()
                assert redis_sentinels.replica() is old
                assert not list(old.folder.glob("*.rdb"))
                eventually(partial(has, old, "key", str(kill)), "the key is replicated")
        finally:
            for sentinel in finder.sentinels:
                sentinel.close()

    def test_a_password_and_an_end(self, redis_binary: Binary) -> None:
        with Sentinels(redis_binary, password="secret", users={"app": "on >pw ~* &* +@all"}) as sentinels:
            everybody = [*sentinels.servers, *sentinels.sentinels]
            assert sentinels.master() is sentinels.servers[0]
            with client(sentinels.master().url) as connected:
                assert connected.ping()
        assert not any(server.running or server.folder.exists() for server in everybody)


class TestCluster:
    def test_a_client_writes_and_reads_everywhere(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        with cluster_client(redis_cluster) as connected:
            for number in range(20):
                key = f"{redis_prefix}{number}"
                assert connected.set(key, number)
                assert int(connected.get(key)) == number
                assert redis_cluster.node_of(redis_cluster.slot_of(key)).cli("GET", key) == str(number)

    def test_a_slot_is_moved_with_its_keys(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        tag = f"{{{redis_prefix}}}"
        slot = redis_cluster.slot_of(tag)
        source = redis_cluster.node_of(slot)
        target = redis_cluster.node_of((slot + SLOTS // 2) % SLOTS)
        assert target is not source
        with cluster_client(redis_cluster) as connected:
            for number in range(250):
                connected.set(f"{tag}{number}", b"\x80")
            with redis_cluster.migrating(slot, target):
                with pytest.raises(ReplyError, match=f"ASK {slot} {HOST}:{target.port}"):
                    source.cli("SET", f"{tag}new", "")
                assert connected.set(f"{tag}new", "asked")
            assert redis_cluster.node_of(slot) is target
            with pytest.raises(ReplyError, match=f"MOVED {slot} {HOST}:{target.port}"):
                source.cli("GET", f"{tag}1")
            assert connected.get(f"{tag}249") == b"\x80"
            # Other tests have left keys too, which may share the slot.
            moved = target.cli("CLUSTER", "GETKEYSINSLOT", slot, SLOTS, decode=False)
            assert sum(key.startswith(tag.encode()) for key in moved) == 251
            redis_cluster.migrate_slot(slot, source)
            assert connected.get(f"{tag}new") == b"asked"

    def test_a_replica_takes_over(self, redis_cluster: Cluster, redis_prefix: str) -> None:
        slot = redis_cluster.slot_of(redis_prefix)
        for kill in (True, False):
            old, replica = redis_cluster.node_of(slot), redis_cluster.replica_of(slot)
            assert redis_cluster.failover(slot, kill=kill) is replica
            assert redis_cluster.node_of(slot) is replica
            with cluster_client(redis_cluster) as connected:
                assert connected.set(redis_prefix, str(kill))
            redis_cluster.heal()
            assert redis_cluster.replica_of(slot) is old

    def test_it_starts_fast_and_leaves_nothing(self, redis_binary: Binary) -> None:
        began = time.perf_counter()
        with Cluster(redis_binary, password="secret") as cluster:
            took = time.perf_counter() - began
            nodes = cluster.nodes
            cluster.migrate_slot(0, cluster.node_of(SLOTS - 1))
        assert not any(node.running or node.folder.exists() for node in nodes)
        assert took < 30

    def test_tls(self, redis_binary: Binary, authority: Authority) -> None:
        if not redis_binary.tls:
            pytest.skip(binaries.missing(redis_binary.name, tls=True))
        with Cluster(redis_binary, tls=authority) as cluster, cluster_client(cluster) as connected:
            assert connected.set("key", "value")
            cluster.migrate_slot(cluster.slot_of("key"), cluster.node_of(0))
            assert connected.get("key") == b"value"


class TestServerless:
    def test_what_the_layer_needs_is_allowed_and_nothing_else(
        self, redis_serverless: Serverless, redis_prefix: str
    ) -> None:
        queue, other = f"{{{redis_prefix}}}q", f"{{{redis_prefix}}}t"
        with redis_serverless.connect(redis_serverless.user) as connection:
            for command in ALLOWED:
                connection.ask(*command.format(queue=queue, other=other).split(" "))
        assert not redis_serverless.denied()
        with redis_serverless.connect(redis_serverless.user) as connection:
            for command in FORBIDDEN:
                with pytest.raises(ReplyError, match="NOPERM"):
                    connection.ask(*command.split(" "))
        tried = {denied.what.split("|")[0] for denied in redis_serverless.denied()}
        assert tried == {command.split(" ")[0].lower() for command in FORBIDDEN}

    def test_keys_of_two_slots_are_refused(self, redis_serverless: Serverless) -> None:
        before = redis_serverless.errors_seen()
        with (
            redis_serverless.connect(redis_serverless.user) as connection,
            pytest.raises(ReplyError, match="CROSSSLOT"),
        ):
            connection.ask("DEL", "a", "b")
        assert redis_serverless.errors_seen() - before == {"CROSSSLOT": 1}

    def test_it_names_one_endpoint(self, redis_serverless: Serverless, redis_prefix: str) -> None:
        options = {} if redis_serverless.tls is None else {"ssl_ca_certs": str(redis_serverless.ca)}
        with client(redis_serverless.url, **options) as connected:
            assert connected.rpush(redis_prefix, "value")
            assert connected.delete(redis_prefix)
        with redis_serverless.connect(redis_serverless.user) as connection:
            [[first, last, [host, port, *_]]] = connection.ask("CLUSTER", "SLOTS")
        assert (first, last, host, port) == (0, SLOTS - 1, ENDPOINT, redis_serverless.port)

    def test_nobody_comes_in_without_a_name(self, redis_serverless: Serverless) -> None:
        with redis_serverless.connect() as connection, pytest.raises(ReplyError, match="NOAUTH"):
            connection.ask("PING")

    def test_idle_connections_are_closed_and_it_comes_back(
        self, redis_binary: Binary, make_serverless: Callable[..., Serverless]
    ) -> None:
        with make_serverless(redis_binary, idle=1) as server:
            with server.connect(server.user) as idle, server.connect(server.user) as subscriber:
                subscriber.ask("SUBSCRIBE", "channel")
                with pytest.raises(ConnectionError):
                    idle.read()
                assert server.cli("PUBLISH", "channel", "message") == 1
            server.restart()
            with server.connect(server.user) as connection:
                assert connection.ask("RPUSH", "key", "value") == 1
