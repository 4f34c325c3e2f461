"""Each block of settings on the page about Redis is used: with servers that are there, a message goes round."""

import re
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server

from headrace.layers import RedisChannelLayer

PAGES = Path(__file__).parents[2] / "docs/how-to"
PAGE = "\n".join((PAGES / name).read_text() for name in ("redis.md", "moving-a-fleet.md"))
SECRET = "s3cr3t"
USER = {"chat": f"on >{SECRET} ~* &* +@all"}
Changes = dict[str, str]


def block(name: str) -> str:
    found = re.search(rf"<!-- settings: {name} -->\n *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found.group(1))


def layer_of(name: str, changes: Changes) -> RedisChannelLayer:
    """Make the layer of a block in which some text was changed; every change has to find its text."""
    source = block(name)
    for old, new in changes.items():
        assert old in source, old
        source = source.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/how-to/redis.md", "exec"), names)
    config = names["CHANNEL_LAYERS"]["default"]["CONFIG"]
    return RedisChannelLayer(**{**config, "prefix": f"t{uuid.uuid4().hex}"})


async def goes_round(layer: RedisChannelLayer) -> bool:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "to.group"})
    await layer.send(channel, {"type": "to.channel"})
    received = {(await layer.receive(channel))["type"] for _ in range(2)}
    await layer.close()
    return received == {"to.group", "to.channel"}


async def test_one_server(redis_server: Server) -> None:
    assert await goes_round(layer_of("single", {"redis://localhost:6379": redis_server.url}))


async def test_a_unix_socket(redis_server: Server) -> None:
    assert await goes_round(layer_of("unix", {"unix:///run/redis/redis.sock": redis_server.unix_url}))


async def test_a_proxy_that_speaks_only_resp2(redis_server: Server) -> None:
    assert await goes_round(layer_of("resp2", {"redis://proxy.example:6379": redis_server.url}))


@pytest.mark.parametrize("name", ["shards", "moving", "moved"])
async def test_several_servers(name: str, start_redis: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS_KEY", SECRET)
    changes = {f"redis://redis-{n}.example:6379": start_redis().url for n in (1, 2)}
    assert await goes_round(layer_of(name, changes))


async def test_sentinel(redis_sentinels: Sentinels) -> None:
    first, second = redis_sentinels.addresses[:2]
    # The servers of the tests ask for no password.
    changes = {
        '("sentinel-1.example", 26379)': repr(first),
        '("sentinel-2.example", 26379)': repr(second),
        '"password": os.environ["REDIS_PASSWORD"],': "",
        '"sentinel_kwargs": {"password": os.environ["SENTINEL_PASSWORD"]},': "",
        '"mymaster"': repr(redis_sentinels.name),
    }
    assert await goes_round(layer_of("sentinel", changes))


async def test_a_cluster(redis_cluster: Cluster) -> None:
    changes = {f"redis://node-{n}.example:6379": redis_cluster.nodes[n - 1].url for n in (1, 2, 3)}
    assert await goes_round(layer_of("cluster", changes))


async def test_tls_and_an_acl_user(
    start_redis_tls: Callable[..., Server], authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    certificate, key = authority.issue("chat.example")
    for name, pem in {"ca.pem": authority.certificate, "client.pem": certificate, "client.key": key}.items():
        (tmp_path / name).write_bytes(pem)
    server = start_redis_tls(users=USER, options={"tls-auth-clients": "yes"})
    changes = {"redis.example:6380": f"localhost:{server.port}", "/etc/redis": str(tmp_path)}
    assert await goes_round(layer_of("tls", changes))


async def test_a_password_that_changes(
    start_redis_tls: Callable[..., Server], authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis-password").write_text(f"{SECRET}\n")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    # The block names no authority, so those of the system count, and OpenSSL's variable says where they are.
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = start_redis_tls(users=USER)
    changes = {"redis.example:6380": f"localhost:{server.port}", "/run/secrets": str(tmp_path)}
    assert await goes_round(layer_of("rotating", changes))


async def test_serverless(
    redis_serverless: Serverless, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, password = redis_serverless.user
    monkeypatch.setenv("REDIS_PASSWORD", password)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    scheme = redis_serverless.url.partition("://")[0]
    address = f"{scheme}://localhost:{redis_serverless.port}"
    changes = {"rediss://cache.example:6379": address, '"chat"': repr(user)}
    assert await goes_round(layer_of("serverless", changes))
    assert redis_serverless.denied() == []
