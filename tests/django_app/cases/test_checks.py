"""What ``manage.py check`` says about CHANNEL_LAYERS."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.core.checks import INFO, CheckMessage
from django.core.checks.registry import registry
from django.test import override_settings

from headrace.django._checks import (
    check_channel_layers,
    check_deployment,
    check_runserver,
    check_sockets_config,
)
from headrace.layers import RedisChannelLayer

OURS = "headrace.layers.InMemoryChannelLayer"
REDIS = "headrace.layers.RedisChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
ABSENT = "not set"


class Core:
    def __init__(self, hosts: Any = None, prefix: str = "asgi", expiry: int = 60, capacity: int = 100) -> None: ...


class PubSub:
    def __init__(self, *args: Any, symmetric_encryption_keys: Any = None, **kwargs: Any) -> None: ...


class OwnRedisLayer(RedisChannelLayer):
    """A project's own, with the constructor of ours."""


class OwnConstructor(RedisChannelLayer):
    """Makes settings of what ``CONFIG`` has."""

    def __init__(self, server: str) -> None:
        super().__init__([f"redis://{server}"])


def made(_: object) -> None:
    raise RuntimeError("a check makes no layer that connects")


@pytest.fixture(autouse=True)
def _redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for channels_redis and redis-py 7, which this environment has not."""
    for name in ("channels_redis", "channels_redis.core", "channels_redis.pubsub", "redis"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["channels_redis.core"], "RedisChannelLayer", Core, raising=False)
    monkeypatch.setattr(sys.modules["channels_redis.pubsub"], "RedisPubSubChannelLayer", PubSub, raising=False)
    use_redis(monkeypatch, "7.1.0")
    monkeypatch.setattr(RedisChannelLayer, "_start_empty", made)


def use_redis(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "redis", SimpleNamespace(__version__=version))


def check(layers: Any, **others: Any) -> list[CheckMessage]:
    with override_settings(CHANNEL_LAYERS=layers, **others):
        return check_channel_layers()


def layer(backend: str = OURS, **config: Any) -> dict[str, Any]:
    return {"BACKEND": backend, "CONFIG": config}


def ids(found: list[CheckMessage]) -> list[str]:
    assert all(message.hint for message in found)
    return [message.id.removeprefix("headrace.") for message in found]


@pytest.mark.parametrize(
    "entry",
    [
        {"BACKEND": OURS},
        layer(capacity=1, channel_capacity={"a.*": 5}, strict=True),
        layer(REDIS),
        layer(REDIS, hosts=["redis://one", "redis://two"], prefix="chat", capacity=10, wire="channels_redis"),
        layer("headrace.layers.BaseChannelLayer"),
        {"BACKEND": OURS, "TEST_CONFIG": {}},
    ],
)
def test_a_sound_setting_is_not_complained_about(entry: dict[str, Any]) -> None:
    assert check({"default": entry}) == []


@pytest.mark.parametrize("layers", [None, {}])
def test_no_setting_is_a_warning(layers: Any) -> None:
    assert ids(check(layers)) == ["W001"]


@pytest.mark.parametrize("config", [{}, {"hosts": [{"address": "redis://localhost"}], "prefix": "x", "gap": print}])
def test_a_project_of_socket_servers_needs_no_channel_layers(config: dict[str, Any]) -> None:
    assert check(None, DJANGO_SOCKETS_CONFIG=config) == []
    with override_settings(CHANNEL_LAYERS=None, DJANGO_SOCKETS_CONFIG=config):
        assert check_sockets_config() == []


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ([], "DJANGO_SOCKETS_CONFIG must be a mapping"),
        ({"host": []}, "DJANGO_SOCKETS_CONFIG has the unknown setting 'host'; did you mean 'hosts'?"),
        ({"hosts": [{"address": "redis://:secret@localhost:port"}]}, "hosts[0]: "),
        ({"allow_memory": False}, "hosts are not given and allow_memory is False"),
    ],
)
def test_a_config_that_socket_servers_refuse_is_an_error(config: Any, text: str) -> None:
    with override_settings(CHANNEL_LAYERS={}, DJANGO_SOCKETS_CONFIG=config):
        found = check_sockets_config()
    assert ids(found) == ["E006"]
    assert text in found[0].msg
    assert "secret" not in found[0].msg


def test_no_default_is_a_warning() -> None:
    found = check({"chat": layer(), "mail": layer()})
    assert ids(found) == ["W002"]
    assert found[0].msg == "CHANNEL_LAYERS has no 'default', only 'chat', 'mail'"


@pytest.mark.parametrize("layers", [["default"], "default", {"default": OURS}, {"default": {**layer(), "CONFIG": [1]}}])
def test_what_is_no_mapping_is_an_error_and_is_not_shown(layers: Any) -> None:
    found = check(layers)
    assert ids(found) == ["E001"]
    # It may be a URL with a password.
    assert found[0].msg.endswith((", got a list", ", got a str"))


@pytest.mark.parametrize("backend", ["not_there.Layer", "headrace.layers.Nothing", "InMemory", None, 3])
def test_a_backend_that_cannot_be_imported_is_an_error(backend: Any) -> None:
    found = check({"default": {"BACKEND": backend}})
    assert ids(found) == ["E002"]
    expected = f"['BACKEND'] is {backend!r}, which cannot be imported: " if backend else "has no BACKEND"
    assert expected in found[0].msg


@pytest.mark.parametrize(("backend", "others"), [(OURS, []), (CORE, ["W009"])])
def test_unknown_keys_of_the_configuration_are_an_error(backend: str, others: list[str]) -> None:
    found = check({"default": layer(backend, capcity=5, group_expire=3)})
    assert ids(found) == ["E003", *others]
    message = found[0]
    assert message.msg.endswith("does not know: 'capcity', 'group_expire'")
    assert message.hint.startswith("Did you mean 'capacity'")
    assert " It knows '" in message.hint


@pytest.mark.parametrize("config", [{"capacity": "many"}, {"hosts": "redis://one"}])
def test_a_projects_own_class_over_redis_is_read_as_ours(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    monkeypatch.setattr(sys.modules["channels_redis"], "Layer", OwnRedisLayer, raising=False)
    assert ids(check({"default": layer("channels_redis.Layer", **config)})) == ["E005"]
    assert ids(check({"default": layer("channels_redis.Layer", hosts=["redis://one/1"])})) == ["I002"]


def test_what_a_constructor_of_a_projects_own_takes_is_for_that_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["channels_redis"], "Layer", OwnConstructor, raising=False)
    assert check({"default": layer("channels_redis.Layer", server="one")}) == []
    assert ids(check({"default": layer("channels_redis.Layer", servers="one")})) == ["E003"]


@pytest.mark.parametrize("config", [{"capacity": 0}, {"capacity": -1}, {"channel_capacity": {"a.*": 0}}])
def test_a_capacity_below_1_is_an_error(config: dict[str, Any]) -> None:
    assert ids(check({"default": layer(**config)})) == ["E004"]


def test_channels_layer_in_memory_is_a_warning_that_names_ours() -> None:
    found = check({"default": layer("channels.layers.InMemoryChannelLayer")})
    assert ids(found) == ["W003"]
    assert OURS in found[0].hint


@pytest.mark.parametrize(
    ("workers", "debug", "expected"),
    [("4", False, ["W004"]), ("4", True, []), ("1", False, []), ("", False, [])],
)
def test_a_layer_in_memory_for_several_processes_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, workers: str, debug: bool, expected: list[str]
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    assert ids(check({"default": layer()}, DEBUG=debug)) == expected


@pytest.mark.parametrize(
    ("layers", "workers", "expected"),
    [
        ({"default": layer()}, "1", ["W010"]),
        ({"default": layer("channels.layers.InMemoryChannelLayer")}, "", ["W010"]),
        ({"default": layer()}, "4", []),  # which W004 tells
        ({"default": layer(REDIS), "local": layer()}, "1", []),
        ({}, "1", []),
        ("no mapping", "1", []),
        ({"default": "no mapping"}, "1", []),
    ],
)
def test_a_layer_in_memory_is_a_warning_for_what_is_deployed(
    monkeypatch: pytest.MonkeyPatch, layers: Any, workers: str, expected: list[str]
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    with override_settings(CHANNEL_LAYERS=layers, DEBUG=False):
        assert ids(check_deployment()) == expected
    assert check_deployment in registry.get_checks(include_deployment_checks=True)
    assert check_deployment not in registry.get_checks()


@pytest.mark.parametrize("version", ["8.0.0", "10.1"])
def test_the_core_layer_with_a_redis_py_that_gives_up_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    use_redis(monkeypatch, version)
    assert ids(check({"default": layer(CORE)})) == ["W005", "W009"]
    assert ids(check({"default": layer(CORE, hosts=["redis://one"])})) == ["W005", "W009"]
    waiting = {"address": "redis://one", "socket_timeout": None}
    assert ids(check({"default": layer(CORE, hosts=[waiting])})) == ["W009"]
    assert ids(check({"default": layer(PUBSUB, hosts=["redis://one"])})) == ["W009"]


@pytest.mark.parametrize("version", ["7.1", "unknown"])
def test_another_redis_py_is_fine(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    use_redis(monkeypatch, version)
    assert ids(check({"default": layer(CORE)})) == ["W009"]


def test_several_hosts_of_the_core_layer_are_a_warning() -> None:
    assert ids(check({"default": layer(CORE, hosts=["redis://one", "redis://two"])})) == ["W006", "W009"]


def test_hosts_that_the_layer_itself_refuses_are_left_to_it() -> None:
    assert ids(check({"default": layer(CORE, hosts="redis://one")})) == ["W009"]


@pytest.mark.parametrize(("backend", "wire"), [(CORE, False), (PUBSUB, True)])
def test_a_layer_of_channels_redis_is_a_warning_that_says_how_to_move(backend: str, wire: bool) -> None:
    (found,) = check({"default": layer(backend, hosts=["redis://one"])})
    assert found.id == "headrace.W009"
    assert REDIS in found.hint
    assert ("'wire': 'channels_redis'" in found.hint) == wire
    assert "correct" not in found.hint


def test_what_stands_in_the_way_of_moving_is_in_the_hint() -> None:
    (found,) = check({"default": layer(PUBSUB, serializer_format="mine")})
    assert "But before, correct this: serializer_format must be 'msgpack' or 'json', got 'mine'" in found.hint


@pytest.mark.parametrize(
    "config",
    [{"hosts": ["redis//one"]}, {"hosts": "redis://one"}, {"topology": "cluster", "hosts": ["redis://one/1"]}],
)
def test_a_setting_that_the_redis_layer_refuses_is_an_error(config: dict[str, Any]) -> None:
    assert ids(check({"default": layer(REDIS, **config)})) == ["E005"]


def test_no_finding_about_the_redis_layer_shows_a_password() -> None:
    (found,) = check({"default": layer(REDIS, hosts=["redis://user:s3cr3t@one/chat"])})
    assert found.id == "headrace.E005"
    assert "hosts[0]: 'db' must be a number" in found.msg
    assert "s3cr3t" not in found.msg + found.hint


def test_keys_that_the_redis_layer_does_not_know_are_an_error() -> None:
    assert ids(check({"default": layer(REDIS, capcity=5)})) == ["E003"]


def test_options_that_the_redis_layer_does_not_need_are_explained() -> None:
    host = {"address": "redis://one", "socket_timeout": None}
    (found,) = check({"default": layer(REDIS, hosts=[host], random_prefix_length=12)})
    assert (found.id, found.level) == ("headrace.I001", INFO)
    assert "does not need: random_prefix_length: it keeps equal messages apart" in found.msg
    assert "; socket_timeout: receiving waits for as long as it takes" in found.msg


@pytest.mark.parametrize(
    ("backend", "others"), [(PUBSUB, ["W009"]), ("channels.layers.InMemoryChannelLayer", ["W003"])]
)
def test_keys_that_a_backend_takes_and_ignores_are_a_warning(backend: str, others: list[str]) -> None:
    found = check({"default": layer(backend, capcity=5, group_expire=3)})
    assert ids(found) == ["W007", *others]
    assert found[0].msg.endswith("takes and ignores: 'capcity', 'group_expire'")


def test_the_pubsub_layer_has_no_capacity() -> None:
    assert ids(check({"default": layer(PUBSUB, capacity=5)})) == ["W007", "W009"]


def test_keys_of_an_entry_that_nobody_reads_are_a_warning() -> None:
    assert ids(check({"default": {"BACKEND": OURS, "OPTIONS": {}}})) == ["W008"]


def test_a_backend_that_tells_nothing_of_its_arguments_is_not_complained_about(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opaque:
        __signature__ = "no signature"

    class Open:
        def __init__(self, **kwargs: Any) -> None: ...

    for kind in (Opaque, Open):
        monkeypatch.setattr(sys.modules["channels_redis"], "Layer", kind, raising=False)
        assert check({"default": layer("channels_redis.Layer", anything=1, channel_capacity=[])}) == []


def test_no_limit_over_redis_is_no_error() -> None:
    assert check({"default": layer(REDIS, capacity=0, channel_capacity={"a.*": 0})}) == []
    assert ids(check({"default": layer(REDIS, capacity=-1)})) == ["E004"]


@pytest.mark.parametrize("config", [{"capacity": "50"}, {"expiry": -1}, {"group_expiry": None}])
def test_a_value_that_the_layer_refuses_is_an_error(config: dict[str, Any]) -> None:
    assert ids(check({"default": {"BACKEND": OURS, "CONFIG": config}})) in (["E004"], ["E005"])


def test_a_database_number_keeps_nobody_apart() -> None:
    (found,) = check({"default": layer(REDIS, hosts=["redis://one/1", "redis://one/2"])})
    assert (found.id, found.level) == ("headrace.I002", INFO)
    assert "has database 1, 2 and no prefix" in found.msg
    assert check({"default": layer(REDIS, hosts=["redis://one/1"], prefix="staging")}) == []
    assert check({"default": layer(REDIS, hosts=["redis://one/0"])}) == []


@pytest.mark.parametrize(
    ("command_of", "told"), [("django.core", True), ("django.contrib.staticfiles", True), ("daphne", False)]
)
def test_a_runserver_without_websockets_is_told(monkeypatch: pytest.MonkeyPatch, command_of: str, told: bool) -> None:
    monkeypatch.setattr("headrace.django._checks.get_commands", lambda: {"runserver": command_of})
    with override_settings(DEBUG=True, ASGI_APPLICATION="mysite.asgi.application"):
        assert ids(check_runserver()) == (["I003"] if told else [])
    with override_settings(DEBUG=False, ASGI_APPLICATION="mysite.asgi.application"):
        assert check_runserver() == []
    with override_settings(DEBUG=True, ASGI_APPLICATION=None):
        assert check_runserver() == []
