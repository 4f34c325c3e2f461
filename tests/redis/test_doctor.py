"""`headrace doctor`: what it says about servers that are well, and about what is wrong with others."""

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import redis
from tests.support.cluster import Cluster
from tests.support.ports import HOST, Port
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server

from headrace import _cli as cli

SECRET = "s3cr3t-and-longer"
NATIVE = Path(__file__).parents[2] / "rust/core/src/redis"
OURS = "headrace.layers.RedisChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
# What the page on Redis lists for one server.
ALLOWED = (
    "+hello +auth +ping +time +role +client|setname +publish +spublish +subscribe +unsubscribe +ssubscribe "
    "+sunsubscribe +rpush +lpush +lmove +lrange +lrem +llen +expire +del +hset +hdel +hgetall +sadd +smembers"
)
OWN = """
from headrace.layers import RedisChannelLayer

class Layer(RedisChannelLayer):
    pass

class Made(RedisChannelLayer):
    def __init__(self, server, name):
        super().__init__([server], prefix=name)
"""
Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Call the doctor; give the exit code and what was printed, with every run of white space as one blank."""

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(["doctor", *arguments])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return code, " ".join((out + err).split())

    return call


def user(rules: str) -> dict[str, str]:
    return {"chat": f"on >{SECRET} {rules}"}


class TestAServer:
    def test_one_that_is_well(self, doctor: Doctor, redis_server: Server, redis_prefix: str) -> None:
        code, said = doctor("--hosts", redis_server.url, "--prefix", redis_prefix)
        assert code == 0
        kind, version = redis_server.binary.name.capitalize(), ".".join(map(str, redis_server.binary.version))
        for part in (
            f"layer of --hosts: prefix {redis_prefix!r}, wire headrace",
            f"server {redis_server.url}",
            "ok topology: one server",
            f"ok {kind} {version}, standalone, RESP3, no TLS, user 'default'",
            "ok client-output-buffer-limit: a process that is 32 MiB behind, or 8 MiB behind for 60 s, is cut off",
            "ok user 'default' may do all that the layer needs (found out by ACL DRYRUN)",
            "no problems, no warnings",
        ):
            assert part in said
        took = r"\d+\.\d{3} ms"
        assert re.search(f"ok PING is answered after {took}", said)
        assert re.search(f"ok a group_send arrives after {took}, a message to a plain channel after {took}", said)
        assert redis_server.ask("KEYS", f"{redis_prefix}*") == []

    def test_one_whose_user_may_do_what_the_page_lists_and_no_more(
        self, doctor: Doctor, start_redis: Callable[..., Server]
    ) -> None:
        server = start_redis(users=user(f"resetkeys ~asgi:* resetchannels &asgi:* -@all {ALLOWED}"))
        code, said = doctor("--hosts", server.url_for(("chat", SECRET)))
        assert code == 0
        assert "ok user 'chat' may do all that the layer needs (found out by trying each command)" in said
        assert "chat:***@" in said
        # The layer may not take a name out of its index, and so the doctor may not: that ends by itself.
        assert [key for key in server.ask("KEYS", "*") if not key.startswith("asgi:i:")] == []

    @pytest.mark.parametrize("dry", [False, True])
    def test_permissions_that_are_missing_are_named_and_how_to_give_them(
        self, doctor: Doctor, start_redis: Callable[..., Server], dry: bool
    ) -> None:
        rules = f"~asgi:* &asgi:* -@all {ALLOWED} {'+acl' if dry else ''} -lmove -hset -del"
        server = start_redis(users=user(rules))
        code, said = doctor("--hosts", server.url_for(("chat", SECRET)))
        assert code == 1
        assert "PROBLEM user 'chat' may not do what the layer needs: " in said
        # Who may not undo is not asked to do.
        assert ("-> ACL SETUSER chat +del +hset +lmove" if dry else "-> ACL SETUSER chat +del +hset") in said
        assert "note nothing was sent, because of what is said above" in said
        assert server.ask("KEYS", "*") == []

    @pytest.mark.parametrize("dry", [False, True])
    def test_keys_and_channels_that_are_not_the_users(
        self, doctor: Doctor, start_redis: Callable[..., Server], dry: bool
    ) -> None:
        server = start_redis(users=user(f"~other:* resetchannels &other:* +@all {'' if dry else '-acl'}"))
        code, said = doctor("--hosts", server.url_for(("chat", SECRET)))
        assert code == 1
        assert "may not do what the layer needs: channels of its prefix and keys of its prefix" in said
        assert "-> ACL SETUSER chat ~asgi:* &asgi:*" in said

    def test_a_wrong_password_is_told_and_not_shown(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        server = start_redis(password="another")
        code, said = doctor("--hosts", server.url_for(("", SECRET)))
        assert code == 1
        assert "PROBLEM it refuses the user or the password: " in said

    def test_one_that_is_not_there(self, doctor: Doctor) -> None:
        port = Port()
        try:
            code, said = doctor("--hosts", f"redis://:{SECRET}@{HOST}:{port.number}")
        finally:
            port.release()
        assert code == 1
        assert "PROBLEM it cannot be used: " in said
        assert "-> check that it runs, address and port" in said

    def test_limits_that_lose_messages(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        server = start_redis(
            options={
                "client-output-buffer-limit": "pubsub 512kb 0 0",
                "maxmemory": "100mb",
                "maxmemory-policy": "allkeys-lru",
                "timeout": 1,
            }
        )
        code, said = doctor("--hosts", server.url)
        assert code == 1
        assert "a process that is 512 KiB behind, is cut off; one message may have " in said
        assert "warning maxmemory-policy allkeys-lru: when its 100 MiB are full it removes keys" in said
        assert "warning timeout 1: it closes connections that were idle for 1 s" in said
        assert said.endswith("1 problem, 2 warnings")

    def test_few_connections_that_are_left(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        server = start_redis(options={"maxclients": 8})
        others = [server.connect() for _ in range(6)]
        code, said = doctor("--hosts", server.url)
        for other in others:
            other.close()
        assert re.search(r"warning maxclients 8: [78] connections are open, and each process has 2 here", said)
        assert "-> raise maxclients, or run fewer processes" in said
        assert "please report" not in said
        code, said = doctor("--hosts", server.url)
        assert code == 0
        assert "ok maxclients 8: 1 connections are open" in said

    def test_a_port_that_speaks_another_protocol(
        self, doctor: Doctor, redis_server: Server, start_redis_tls: Callable[..., Server]
    ) -> None:
        code, said = doctor("--hosts", redis_server.url.replace("redis:", "rediss:"))
        assert code == 1
        assert "PROBLEM this port speaks plain Redis and no TLS -> use redis://" in said
        code, said = doctor("--hosts", start_redis_tls().url.replace("rediss:", "redis:"))
        assert code == 1
        assert "PROBLEM this port speaks TLS -> use rediss://" in said

    def test_a_database_that_is_not_there(self, doctor: Doctor, redis_server: Server, redis_cluster: Cluster) -> None:
        code, said = doctor("--hosts", f"{redis_server.url}/4711")
        assert code == 1
        assert "PROBLEM it has no database 4711 -> use a lower number" in said
        code, said = doctor("--hosts", f"{redis_cluster.nodes[0].url}/2")
        assert code == 1
        if redis_cluster.nodes[0].binary.is_valkey(9):
            # Its clusters can have more; as it comes it has one.
            assert "PROBLEM it has no database 2 -> use a lower number" in said
        else:
            assert (
                "PROBLEM it is part of a cluster, which has database 0 alone -> leave the database's number 2 out"
                in said
            )

    def test_a_sentinel_that_is_given_as_a_server(self, doctor: Doctor, redis_sentinels: Sentinels) -> None:
        host, port = redis_sentinels.addresses[0]
        code, said = doctor("--hosts", f"redis://{host}:{port}")
        assert code == 1
        assert "PROBLEM it is a sentinel and keeps nothing -> give it in 'sentinels', with a 'master_name'" in said

    def test_json(self, capsys: pytest.CaptureFixture[str], redis_server: Server, redis_prefix: str) -> None:
        assert cli.main(["doctor", "--json", "--hosts", redis_server.url, "--prefix", redis_prefix]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["problems"], told["warnings"]) == (0, 0)
        server = next(section for section in told["sections"] if section["title"] == f"server {redis_server.url}")
        assert server["depth"] == 1
        assert {"level": "ok", "text": "topology: one server", "advice": ""} in server["findings"]

    def test_a_limit_on_memory_that_keeps_what_is_there(
        self, doctor: Doctor, start_redis: Callable[..., Server]
    ) -> None:
        server = start_redis(options={"maxmemory": "100mb", "maxmemory-policy": "noeviction", "timeout": 60})
        code, said = doctor("--hosts", server.url)
        assert code == 0
        assert "ok maxmemory 100 MiB, noeviction: when it is full, sends to queues are refused" in said
        assert "ok timeout 60: idle connections are closed after 60 s" in said

    def test_one_without_a_limit_for_subscribers(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        server = start_redis(options={"client-output-buffer-limit": "pubsub 0 0 0"})
        code, said = doctor("--hosts", server.url)
        assert code == 0
        assert "note client-output-buffer-limit has no limit for pubsub" in said

    def test_a_database_of_its_own_does_not_part_projects(
        self, doctor: Doctor, redis_server: Server, redis_prefix: str
    ) -> None:
        code, said = doctor("--hosts", f"{redis_server.url}/2", "--prefix", redis_prefix)
        assert code == 0
        assert "note database 2 keeps keys apart, but pub/sub knows no databases" in said

    def test_a_unix_socket_and_resp2(self, doctor: Doctor, redis_server: Server, redis_prefix: str) -> None:
        code, said = doctor("--hosts", f"{redis_server.unix_url}?protocol=2", "--prefix", redis_prefix)
        assert code == 0
        assert "standalone, RESP2, no TLS" in said

    def test_a_server_that_knows_no_resp3(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        server = start_redis(options={"rename-command": "HELLO GONE"})
        code, said = doctor("--hosts", server.url)
        assert code == 0
        assert "note it does not speak RESP3 (unknown command 'HELLO'), so RESP2 is used" in said

    def test_a_replica_takes_no_messages(self, doctor: Doctor, redis_sentinels: Sentinels) -> None:
        code, said = doctor("--hosts", redis_sentinels.replica().url)
        assert code == 1
        assert "PROBLEM it is a replica, which takes no messages for queues" in said

    def test_an_old_version_is_told_what_it_lacks(self) -> None:
        from headrace._doctor.server import Facts, Use, judged

        facts = Facts(
            kind="Redis", version=(6, 0, 16), mode="cluster", role="master", resp=3, why_not_3="", tls=False, user="u"
        )
        texts = [finding.text for finding in judged(facts, Use(sharded=True))]
        assert any("it has no LMOVE" in text and "6.2" in text for text in texts)
        assert any("it has no SPUBLISH" in text and "7.0" in text for text in texts)

    def test_every_command_that_the_native_side_sends_is_looked_at(self) -> None:
        from headrace._doctor.needs import Needs

        sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted(NATIVE.rglob("*.rs")))
        sent = set(re.findall(r'(?:Command::new|redis::cmd|\.arg|Word::Name)\("([A-Z]+)"\)', sources))
        needs = [Needs("asgi", sharded=sharded, history=True) for sharded in (False, True)]
        asked = {command[0] for each in needs for command in each.commands()}
        assert {"PUBLISH", "RPUSH", "LMOVE"} <= sent
        # Everybody may greet; a role that is not told is believed; names are for whoever looks; sentinels are others.
        assert sent - asked - {"HELLO", "AUTH", "ROLE", "CLIENT", "SENTINEL"} == set()


class TestTopologies:
    def test_shards(self, doctor: Doctor, start_redis: Callable[..., Server]) -> None:
        first, second = start_redis(), start_redis()
        code, said = doctor("--hosts", first.url, second.url, "--topology", "shards")
        assert code == 0
        assert "topology: shard 1 of 2; names are spread by the ring 'rendezvous'" in said
        assert "topology: shard 2 of 2" in said
        second.stop()
        code, said = doctor("--hosts", first.url, second.url)
        assert code == 1
        assert f"server {second.url} PROBLEM it cannot be used" in said

    @pytest.mark.parametrize("topology", ["auto", "cluster"])
    def test_a_cluster(self, doctor: Doctor, redis_cluster: Cluster, redis_prefix: str, topology: str) -> None:
        seed = redis_cluster.nodes[0]
        code, said = doctor("--hosts", seed.url, "--topology", topology, "--prefix", redis_prefix)
        assert code == 0
        assert "topology: a cluster of 3 masters and 3 replicas; 16384 of 16384 slots are served" in said
        masters = [node for node in redis_cluster.nodes if f"server redis://{HOST}:{node.port} " in said]
        assert len(masters) == 3
        assert [node.ask("KEYS", f"{redis_prefix}*") for node in masters] == [[], [], []]

    def test_a_cluster_that_is_called_one_server(
        self, doctor: Doctor, redis_cluster: Cluster, redis_prefix: str
    ) -> None:
        code, said = doctor("--hosts", redis_cluster.nodes[0].url, "--topology", "single", "--prefix", redis_prefix)
        assert code == 1
        assert "PROBLEM it is part of a cluster, and topology is 'single'" in said

    def test_one_server_that_is_called_a_cluster(self, doctor: Doctor, redis_server: Server, redis_prefix: str) -> None:
        code, said = doctor("--hosts", redis_server.url, "--topology", "cluster", "--prefix", redis_prefix)
        assert code == 1
        assert "if it is no cluster, topology must not be 'cluster'" in said

    def test_serverless(self, redis_serverless: Serverless, tmp_path: Path, redis_prefix: str) -> None:
        hosts = [{"address": redis_serverless.url}]
        if redis_serverless.tls:
            hosts[0]["ssl_ca_certs"] = str(redis_serverless.ca)
        config = {"hosts": hosts, "topology": "serverless", "prefix": redis_prefix}
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        assert code == 0, said
        assert "topology: a cluster of 1 masters and 0 replicas; 16384 of 16384 slots are served" in said
        assert redis_serverless.user[1] not in said


def project_doctor(folder: Path, layers: Any, *arguments: str, sockets: Any = None) -> tuple[int, str]:
    """Call the doctor for a project with these CHANNEL_LAYERS, in a process of its own."""
    (folder / "settings.py").write_text(
        textwrap.dedent(
            f"""
            import json
            SECRET_KEY = "none"
            CHANNEL_LAYERS = json.loads({json.dumps(layers)!r})
            DJANGO_SOCKETS_CONFIG = json.loads({json.dumps(sockets)!r})
            """
        )
    )
    command = [sys.executable, "-m", "headrace", "doctor", "--settings", "settings", *arguments]
    done = run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, " ".join((done.stdout + done.stderr).split())


class TestAProject:
    def test_each_layer_is_looked_at(self, redis_server: Server, redis_prefix: str, tmp_path: Path) -> None:
        code, said = project_doctor(
            tmp_path,
            {
                "default": {"BACKEND": OURS, "CONFIG": {"hosts": [redis_server.url], "prefix": redis_prefix}},
                "local": {"BACKEND": "headrace.layers.InMemoryChannelLayer"},
            },
        )
        assert code == 0, said
        assert f"layer 'default', {OURS}: prefix {redis_prefix!r}, wire headrace" in said
        assert "ok a group_send arrives after" in said
        assert "layer 'local', headrace.layers.InMemoryChannelLayer note it lives in one process" in said

    @pytest.mark.parametrize("dry", [False, True])
    def test_what_a_history_needs_is_named_and_how_to_give_it(
        self, start_redis: Callable[..., Server], tmp_path: Path, dry: bool
    ) -> None:
        rules = f"~asgi:* &asgi:* -@all {ALLOWED} +del {'+acl' if dry else ''}"
        server = start_redis(users=user(rules))
        config = {"hosts": [server.url_for(("chat", SECRET))], "history": {"room.*": {"size": 10, "ttl": 60}}}
        layers = {"default": {"BACKEND": OURS, "CONFIG": config}}
        code, said = project_doctor(tmp_path, layers)
        assert code == 1
        # Who may not begin a transaction is not asked to end one.
        missing = "+exec +multi +xadd +xrange +xrevrange" if dry else "+multi +xadd +xrange +xrevrange"
        assert f"-> ACL SETUSER chat {missing}" in said
        server.ask("ACL", "SETUSER", "chat", *missing.split(), "+exec")
        code, said = project_doctor(tmp_path, layers)
        assert code == 0, said
        assert server.ask("KEYS", "asgi:h:*") == []

    @pytest.mark.parametrize("missing", ["MULTI", "XADD"])
    def test_a_server_without_what_a_history_needs_is_named(
        self, start_redis: Callable[..., Server], tmp_path: Path, missing: str
    ) -> None:
        server = start_redis(options={"rename-command": f'{missing} ""'})
        for history, found in (({}, False), ({"room.*": {"size": 10, "ttl": 60}}, True)):
            layers = {"default": {"BACKEND": OURS, "CONFIG": {"hosts": [server.url], "history": history}}}
            code, said = project_doctor(tmp_path, layers)
            assert (code == 1) is found, said
            assert (f"{missing} fails: " in said) is found, said
            assert ("'history' needs it: Redis 7.0 or newer, or any Valkey" in said) is found, said

    def test_the_layer_of_socket_servers_is_looked_at(
        self, redis_server: Server, redis_prefix: str, tmp_path: Path
    ) -> None:
        sockets = {"hosts": [{"address": redis_server.url}], "prefix": redis_prefix, "allow_memory": False}
        code, said = project_doctor(tmp_path, {}, sockets=sockets)
        assert code == 0, said
        assert "DJANGO_SOCKETS_CONFIG, as manage.py check reads it ok nothing wrong with it" in said
        assert f"the layer of the socket servers: prefix {redis_prefix!r}, wire headrace" in said
        assert "ok a group_send arrives after" in said

    def test_a_wrong_config_of_socket_servers_is_told(self, tmp_path: Path) -> None:
        code, said = project_doctor(tmp_path, {}, sockets={"host": []})
        assert code == 1, said
        assert "DJANGO_SOCKETS_CONFIG has the unknown setting 'host'; did you mean 'hosts'" in said

    def test_sentinel(self, redis_sentinels: Sentinels, redis_prefix: str, tmp_path: Path) -> None:
        host = {"sentinels": redis_sentinels.addresses, "master_name": redis_sentinels.name}
        config = {"hosts": [host], "prefix": redis_prefix}
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        assert code == 0, said
        assert said.count(f"names {HOST}:{redis_sentinels.master().port}") == 3
        assert "topology: the master that Sentinel names" in said
        # Two of these three would never begin one; see tests.support.sentinel.
        assert said.count("warning it could not begin a failover: NOQUORUM") == 2
        config["hosts"] = [{**host, "master_name": "unknown"}]
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        assert code == 1
        assert "knows no master 'unknown'" in said
        assert "PROBLEM no sentinel names a master" in said

    def test_a_server_that_is_given_as_a_sentinel(
        self, redis_server: Server, redis_prefix: str, tmp_path: Path
    ) -> None:
        host = {"sentinels": [[HOST, redis_server.port]], "master_name": "mymaster"}
        config = {"hosts": [host], "prefix": redis_prefix}
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": config}})
        assert code == 1
        assert f"warning redis://{HOST}:{redis_server.port} is a server and no sentinel" in said

    def test_a_mistyped_setting_is_told_what_may_have_been_meant(self, tmp_path: Path) -> None:
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": OURS, "CONFIG": {"hots": []}}})
        assert code == 1
        assert "does not know: 'hots' (headrace.E003) -> Did you mean 'hosts'" in said

    def test_a_projects_own_class_is_looked_at(self, redis_server: Server, redis_prefix: str, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(OWN)
        plain = {"BACKEND": "own.Layer", "CONFIG": {"hosts": [redis_server.url], "prefix": redis_prefix}}
        made = {"BACKEND": "own.Made", "CONFIG": {"server": redis_server.url, "name": redis_prefix}}
        code, said = project_doctor(tmp_path, {"default": plain, "made": made})
        assert code == 0, said
        assert f"layer 'default', own.Layer: prefix {redis_prefix!r}, wire headrace" in said
        assert f"layer 'made', own.Made: prefix {redis_prefix!r}, wire headrace" in said
        assert said.count("ok a group_send arrives after") == 2
        made["CONFIG"] = {"server": "nowhere", "name": redis_prefix}
        code, said = project_doctor(tmp_path, {"default": made})
        assert (
            "its servers are not looked at before its CONFIG is corrected: ValueError: hosts[0]: a URL must begin with"
            in said
        )

    @pytest.mark.parametrize("url", ["redis://localhost:6379", "http://localhost"])
    def test_it_is_a_command_of_django(self, redis_server: Server, redis_prefix: str, tmp_path: Path, url: str) -> None:
        hosts = [redis_server.url if url.startswith("redis") else url]
        layers = {"default": {"BACKEND": OURS, "CONFIG": {"hosts": hosts, "prefix": redis_prefix}}}
        (tmp_path / "mysite.py").write_text(
            f"SECRET_KEY = 'none'\nINSTALLED_APPS = ['headrace.django']\nCHANNEL_LAYERS = {layers!r}\n"
        )
        command = [sys.executable, "-m", "django", "headrace_doctor", "--json", "--settings", "mysite"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
        told = json.loads(done.stdout)
        assert (done.returncode, told["problems"]) == ((0, 0) if url.startswith("redis") else (1, 1)), done.stderr

    def test_tls(self, start_redis_tls: Callable[..., Server], tmp_path: Path) -> None:
        server = start_redis_tls(password=SECRET, options={"tls-auth-clients": "yes"})
        files = {
            name: str(server.folder / f"client.{end}")
            for name, end in (("ssl_certfile", "pem"), ("ssl_keyfile", "key"))
        }
        host = {"address": server.url, "ssl_ca_certs": str(server.ca), **files}
        layers = {"default": {"BACKEND": OURS, "CONFIG": {"hosts": [host]}}}
        code, said = project_doctor(tmp_path, layers)
        assert code == 0, said
        assert "RESP3, TLS, user 'default'" in said
        del host["ssl_ca_certs"]
        code, said = project_doctor(tmp_path, layers)
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in said

    def test_a_config_that_is_refused_is_a_problem_and_not_connected_to(self, tmp_path: Path) -> None:
        code, said = project_doctor(
            tmp_path, {"default": {"BACKEND": OURS, "CONFIG": {"hosts": f"redis://:{SECRET}@h:1"}}}
        )
        assert code == 1
        assert "You must pass a list of Redis hosts" in said
        assert "(headrace.E005)" in said
        code, said = project_doctor(tmp_path, {"default": f"redis://:{SECRET}@h:1"})
        assert code == 1
        assert "must be a mapping with BACKEND, got a str (headrace.E001)" in said

    def test_the_faults_of_channels_redis_are_named(self, redis_server: Server, tmp_path: Path) -> None:
        hosts = [redis_server.url]
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": CORE, "CONFIG": {"hosts": [*hosts, *hosts]}}})
        assert code == 1
        gives_up = ["gives up reading after 5 s"] if int(redis.__version__.partition(".")[0]) >= 8 else []
        for fault in (
            *gives_up,
            "most such messages are lost",
            "loses messages to groups while other consumers come and go",
            "its capacity (100) is one for all consumers of a process",
        ):
            assert fault in said
        assert "standalone, RESP3" in said
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [f"{hosts[0]}/1"]}}})
        assert code == 0, said
        for fault in (
            "has no capacity, and never calls on_disconnect and on_reconnect",
            "a message to a plain channel reaches every receiver",
            "pub/sub knows no databases",
        ):
            assert fault in said

    def test_channels_redis_on_a_cluster(self, redis_cluster: Cluster, tmp_path: Path) -> None:
        config = {"hosts": [redis_cluster.nodes[0].url]}
        code, said = project_doctor(tmp_path, {"default": {"BACKEND": PUBSUB, "CONFIG": config}})
        assert code == 1
        assert "it is part of a cluster, which channels_redis cannot use" in said

    def test_a_project_without_layers(self, tmp_path: Path) -> None:
        code, said = project_doctor(tmp_path, {})
        assert code == 0
        assert "CHANNEL_LAYERS is not set" in said


class TestBadUsage:
    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ((), "nothing to look at: give --settings MODULE, set DJANGO_SETTINGS_MODULE, or give --hosts URL"),
            (("--hosts", "redis://h", "--settings", "s"), "give either --hosts or --settings"),
            (("--prefix", "p"), "--prefix goes with --hosts"),
            (("--hosts", f"http://:{SECRET}@h"), "a URL must begin with redis://"),
            (("--hosts", "redis://h", "--topology", "ring"), "topology must be one of"),
        ],
    )
    def test_it_is_explained(
        self, doctor: Doctor, arguments: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        code, said = doctor(*arguments)
        assert code == 2
        assert complaint in said

    def test_settings_that_cannot_be_imported(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "headrace", "doctor", "--settings", "nowhere"]
        done = run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "headrace: cannot read the settings 'nowhere': ModuleNotFoundError: No module named 'nowhere'\n"
        )

    def test_without_redis_py_the_extra_is_named(self, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(sys.modules):
            if name.split(".")[0] == "redis" or name.startswith("headrace._doctor"):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "redis", None)
        code, said = doctor("--hosts", "redis://h")
        assert code == 2
        assert said.startswith("headrace: cannot import redis; the doctor needs the extra headrace[doctor]: ")
