"""The layer on one server: the ways to it, who may come in, and what is said to those who may not."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.ports import HOST, Port
from tests.support.servers import Server
from tests.support.traffic import Fleet, exchange, soon
from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

PAGE = (Path(__file__).parents[2] / "docs/how-to/redis.md").read_text()
# The commands that the page tells to allow.
COMMANDS = re.findall(r"\+[a-z|-]+", next(line for line in PAGE.splitlines() if line.startswith("user chat on")))
Start = Callable[..., Server]


async def refused(layer: RedisChannelLayer) -> str:
    """Give what a layer says that cannot connect."""
    with pytest.raises(LayerUnavailable) as error:
        await layer.connect()
    return str(error.value)


async def test_a_unix_socket(redis_server: Server, redis_prefix: str) -> None:
    async with Fleet([redis_server.unix_url], redis_prefix) as fleet:
        await exchange(fleet)
        assert redis_server.clients()
        assert any(str(redis_server.socket) in client["addr"] for client in redis_server.clients())


@pytest.mark.parametrize("protocol", [0, 2, 3])
async def test_a_protocol(start_redis: Start, protocol: int) -> None:
    server = start_redis()
    # redis-py speaks of no version 0: that is to leave the option out.
    option = {"protocol": protocol} if protocol else {}
    async with Fleet([{"address": server.url, **option}], "asgi") as fleet:
        await exchange(fleet)
        assert {client["resp"] for client in server.clients()} == {str(protocol or 3)}


async def test_versions_of_the_protocol_understand_each_other(redis_server: Server, redis_prefix: str) -> None:
    async with Fleet([], redis_prefix) as fleet:
        two, three = ([{"address": redis_server.url, "protocol": protocol}] for protocol in (2, 3))
        await exchange(fleet, {"hosts": two}, {"hosts": three})
        await exchange(fleet, {"hosts": three}, {"hosts": two})


async def test_a_database(start_redis: Start) -> None:
    server = start_redis()
    async with Fleet([f"{server.url}/3"], "asgi") as fleet:
        await exchange(fleet)
        await fleet.layer().send("work", {"type": "number"})
        assert "asgi:q:{work}" in server.cli("EVAL", "redis.call('select', 3) return redis.call('keys', '*')", 0)
        assert server.cli("DBSIZE") == 0


async def test_a_user_who_may_run_the_listed_commands_and_no_others(start_redis: Start) -> None:
    server = start_redis(users={"default": "off", "app": f"on >secret ~asgi:* &asgi:* -@all {' '.join(COMMANDS)}"})
    async with Fleet([server.url_for(("app", "secret"))], "asgi") as fleet:
        await exchange(fleet)
        layer = fleet.layer()
        await layer.group_add("room", "work")
        await layer.group_discard("room", "work")
        await layer.flush()
        assert server.denied() == []


async def test_a_password_that_rotates(start_redis: Start) -> None:
    server = start_redis(users={"app": "on >first ~* &* +@all"})
    passwords = ["first"]

    def latest() -> tuple[str, str]:
        return "app", passwords[-1]

    async with Fleet([{"address": server.url, "password": latest}], "asgi") as fleet:
        here, there = await exchange(fleet)
        server.cli("ACL", "SETUSER", "app", "resetpass", ">second")
        passwords.append("second")
        for layer in (here, there):
            assert layer.stats().connection.state == "up"
        server.cli("CLIENT", "KILL", "USER", "app")
        await soon(lambda: all(layer.stats().connection.reconnects for layer in (here, there)), "both are back")
        await exchange(fleet, here=here, there=there)
        assert not [denied for denied in server.denied() if denied.reason == "auth"]


async def test_a_password_that_cannot_be_had_is_a_clear_error(redis_server: Server) -> None:
    def lost() -> str:
        raise LookupError("the vault is closed")

    async with Fleet([{"address": redis_server.url, "password": lost}], "asgi", send_timeout=SECONDS) as fleet:
        assert "LookupError" in await refused(fleet.layer())


async def test_a_wrong_password_is_a_clear_error(start_redis: Start) -> None:
    server = start_redis(password="right")
    async with Fleet([f"redis://:wr0ng@{HOST}:{server.port}"], "asgi", send_timeout=SECONDS) as fleet:
        said = await refused(fleet.layer())
        assert "WRONGPASS" in said
        assert str(server.port) in said
        assert "wr0ng" not in said
    async with Fleet([f"redis://{HOST}:{server.port}"], "asgi", send_timeout=SECONDS) as fleet:
        assert "NOAUTH" in await refused(fleet.layer())


async def test_tls(start_redis_tls: Start) -> None:
    server = start_redis_tls(options={"tls-auth-clients": "yes"})
    files = {
        "ssl_ca_certs": str(server.ca),
        "ssl_certfile": str(server.folder / "client.pem"),
        "ssl_keyfile": str(server.folder / "client.key"),
    }
    async with Fleet([{"address": server.url, **files}], "asgi") as fleet:
        await exchange(fleet)
    async with Fleet([{"address": server.url, **files, "protocol": 2}], "asgi") as fleet:
        await exchange(fleet)


async def test_certificates_are_read_again_for_each_connection(start_redis_tls: Start, tmp_path: Path) -> None:
    server = start_redis_tls(options={"tls-auth-clients": "yes"})
    authority, certificate, key = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
    # As if they had run out: the server does not trust this client, nor this client the server.
    authority.write_bytes(Authority().certificate)
    for file, content in zip((certificate, key), Authority().issue("client"), strict=True):
        file.write_bytes(content)
    files = {"ssl_ca_certs": str(authority), "ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    async with Fleet([{"address": server.url, **files}], "asgi", send_timeout=5) as fleet:
        layer = fleet.layer()
        assert "certificate" in await refused(layer)
        authority.write_bytes(Path(server.ca).read_bytes())
        certificate.write_bytes((server.folder / "client.pem").read_bytes())
        key.write_bytes((server.folder / "client.key").read_bytes())
        await soon(lambda: layer.stats().connection.state == "up", "it connects with the renewed ones")
        await exchange(fleet, here=layer)
        certificate.unlink()
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await soon(lambda: layer.stats().connection.state == "down", "it cannot connect")
        with pytest.raises(LayerUnavailable, match="'ssl_certfile' cannot be read: No such file or directory"):
            await layer.send("work", {"type": "number"})


async def test_a_certificate_that_nobody_vouches_for_is_a_clear_error(start_redis_tls: Start) -> None:
    server = start_redis_tls()
    async with Fleet([server.url], "asgi", send_timeout=SECONDS) as fleet:
        said = await refused(fleet.layer())
        assert str(server.port) in said
        assert "certificate" in said
    other = Authority().certificate.decode()
    async with Fleet([{"address": server.url, "ssl_ca_data": other}], "asgi", send_timeout=SECONDS) as fleet:
        assert "certificate" in await refused(fleet.layer())
    async with Fleet([{"address": server.url, "ssl_cert_reqs": "none"}], "asgi") as fleet:
        await exchange(fleet)


async def test_plain_tcp_to_a_server_with_tls_is_an_error_in_time(start_redis_tls: Start) -> None:
    server = start_redis_tls()
    async with Fleet([f"redis://{HOST}:{server.port}"], "asgi", send_timeout=SECONDS) as fleet:
        assert str(server.port) in await refused(fleet.layer())


async def test_a_name_that_does_not_resolve_is_a_clear_error() -> None:
    async with Fleet(["redis://nowhere.invalid:6379"], "asgi", send_timeout=SECONDS) as fleet:
        layer = fleet.layer()
        said = await refused(layer)
        assert "nowhere.invalid" in said
        with pytest.raises(LayerUnavailable, match=r"nowhere\.invalid"):
            await layer.send("work", {"type": "number"})


async def test_a_database_that_is_not_there_is_a_clear_error(redis_server: Server) -> None:
    for protocol in (2, 3):
        async with Fleet([f"{redis_server.url}/4711?protocol={protocol}"], "asgi", send_timeout=SECONDS) as fleet:
            said = await refused(fleet.layer())
            assert "the server has no database 4711" in said
            assert "use a lower number" in said


async def test_a_database_of_a_cluster_is_a_clear_error(redis_cluster: Cluster) -> None:
    async with Fleet([f"{redis_cluster.nodes[0].url}/2"], "asgi", send_timeout=SECONDS) as fleet:
        error = await refused(fleet.layer())
    if redis_cluster.nodes[0].binary.is_valkey(9):
        # Its clusters can have more; as it comes it has one.
        assert "has no database 2 " in error
        assert "'cluster-databases'" in error
    else:
        assert "part of a cluster, which has database 0 alone: leave the number 2 out" in error


async def test_nobody_who_listens_is_a_clear_error() -> None:
    port = Port()
    async with Fleet([f"redis://{HOST}:{port.number}"], "asgi", send_timeout=SECONDS) as fleet:
        assert re.search(rf"{port.number}.*refused", await refused(fleet.layer()), re.IGNORECASE)
    port.release()


CHILD = """
import asyncio, sys
from headrace.layers import RedisChannelLayer

async def main(url: str, prefix: str) -> None:
    layer = RedisChannelLayer(hosts=[url], prefix=prefix, capacity=1000)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print(channel, flush=True)
    while True:
        message = await layer.receive(channel)
        await layer.send("answers", {"type": "number", "number": message["number"], "from": channel})
        if message["number"] == -1:
            return await layer.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_of_their_own(redis_server: Server, redis_prefix: str) -> None:
    async with Fleet([redis_server.url], redis_prefix) as fleet:
        layer = fleet.layer()
        children = [
            subprocess.Popen([sys.executable, "-c", CHILD, redis_server.url, redis_prefix], stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        try:
            channels = [await asyncio.to_thread(_line, child) for child in children]
            for number in range(50):
                await layer.group_send("room", {"type": "number", "number": number})
            answers: dict[str, list[int]] = {channel: [] for channel in channels}
            for _ in range(50 * len(children)):
                answer = await asyncio.wait_for(layer.receive("answers"), SECONDS)
                answers[answer["from"]].append(answer["number"])
            assert answers == {channel: list(range(50)) for channel in channels}
            for channel in channels:
                await layer.send(channel, {"type": "number", "number": -1})
            assert [await asyncio.to_thread(child.wait, SECONDS) for child in children] == [0, 0, 0]
        finally:
            for child in children:
                child.kill()
                child.communicate()


def _line(child: Any) -> str:
    return str(child.stdout.readline().decode().strip())
