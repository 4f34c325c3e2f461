"""The settings on the page about Redis are accepted, and its tables and its list of commands are complete."""

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from channels_redis.core import RedisChannelLayer  # it has no types
from channels_redis.pubsub import RedisPubSubLoopLayer  # it has no types

from headrace._layers.hosts import Endpoint
from headrace._layers.options import KNOWN_OPTIONS, MAPPING_OPTIONS
from headrace._layers.redis_config import RedisConfig, RedisOptions, redis_config

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/how-to"
PAGE = "\n".join((PAGES / name).read_text() for name in ("redis.md", "moving-a-fleet.md"))
NATIVE = ROOT / "rust/core/src/redis"

BLOCKS = {
    name: textwrap.dedent(source)
    for name, source in re.findall(
        r"<!-- settings: (\S+) -->\n *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE
    )
}
# What each block has to mean: its topology, its wire, and how many hosts it has.
MEANINGS = {
    "single": ("auto", "headrace", 1),
    "unix": ("auto", "headrace", 1),
    "shards": ("shards", "headrace", 2),
    "sentinel": ("sentinel", "headrace", 1),
    "cluster": ("cluster", "headrace", 3),
    "tls": ("auto", "headrace", 1),
    "rotating": ("auto", "headrace", 1),
    "serverless": ("serverless", "headrace", 1),
    "resp2": ("auto", "headrace", 1),
    "moving": ("auto", "channels_redis", 2),
    "moved": ("auto", "headrace", 2),
}
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_PASSWORD", "SENTINEL_PASSWORD", "CHANNELS_KEY"):
        monkeypatch.setenv(name, SECRET)


def config_of(block: str, folder: Path) -> dict[str, Any]:
    """Run a block, with the files that it names in a folder of the test's own, and return the CONFIG."""
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "client.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "client.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    (folder / "redis-password").write_text(f"{SECRET}\n")
    source = BLOCKS[block].replace("/etc/redis", str(folder)).replace("/run/secrets", str(folder))
    names: dict[str, Any] = {}
    exec(compile(source, "docs/how-to/redis.md", "exec"), names)
    entry = names["CHANNEL_LAYERS"]["default"]
    assert entry["BACKEND"] == "headrace.layers.RedisChannelLayer"
    config: dict[str, Any] = entry["CONFIG"]
    return config


def settings_of(block: str, folder: Path) -> RedisConfig:
    return redis_config(**config_of(block, folder))


def test_every_block_is_known_here() -> None:
    assert set(BLOCKS) == set(MEANINGS)
    assert PAGE.count("<!-- settings: ") == len(BLOCKS)


@pytest.mark.parametrize("block", MEANINGS)
def test_a_block_means_what_its_title_says(block: str, tmp_path: Path) -> None:
    config = settings_of(block, tmp_path)
    assert (config.topology, config.wire, len(config.hosts)) == MEANINGS[block]
    assert config.ignored == {}
    assert SECRET not in repr(config) + repr(config.hosts)


def test_the_options_in_the_blocks_arrive(tmp_path: Path) -> None:
    def endpoint(block: str) -> Endpoint:
        return settings_of(block, tmp_path).hosts[0].endpoint

    assert endpoint("unix").path == "/run/redis/redis.sock"
    assert endpoint("resp2").protocol == 2
    tls = endpoint("tls")
    assert (tls.username, tls.password) == ("chat", SECRET)
    assert tls.tls is not None
    assert None not in (tls.tls.ca, tls.tls.certificate, tls.tls.key)
    rotating = endpoint("rotating")
    assert rotating.password_source is not None
    assert rotating.password_source() == SECRET
    (sentinel,) = settings_of("sentinel", tmp_path).hosts
    assert [sentinel.endpoint.password, sentinel.sentinels[0].password] == [SECRET, SECRET]
    assert settings_of("moving", tmp_path).encryption_keys == settings_of("moved", tmp_path).encryption_keys


def options_in_tables() -> set[str]:
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_the_tables_name_every_option_of_channels_redis_and_of_this_layer() -> None:
    of_channels_redis = {
        name for each in (RedisChannelLayer, RedisPubSubLoopLayer) for name in inspect.signature(each).parameters
    } - {"channel_layer", "kwargs"}
    of_hosts = KNOWN_OPTIONS | MAPPING_OPTIONS
    assert options_in_tables() == of_channels_redis | set(RedisOptions.__dataclass_fields__) | of_hosts


def test_the_acl_line_allows_every_command_that_the_native_side_sends() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted(NATIVE.rglob("*.rs")))
    found = re.findall(r'(?:Command::new|redis::cmd|\.arg)\("([A-Z]+)"\)(?:\s*\.word\("([A-Z-]+)"\))?', sources)
    sent = {
        f"{name}|{word}".lower() if name in ("CLIENT", "CLUSTER", "SENTINEL") else name.lower() for name, word in found
    }
    assert "publish" in sent
    allowed = set(re.findall(r"\+([a-z|-]+)", PAGE))
    assert sent - allowed == set()
