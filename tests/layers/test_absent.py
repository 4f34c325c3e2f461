"""What projects read of Channels' layers: given where it is harmless, and else named with what to use instead."""

import time
from typing import Any

import pytest

from headrace._layers.absent import ABSENT, ABSENT_OVER_REDIS
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


class TestGroups:
    """The dicts of Channels' layer in memory, which projects change too."""

    def test_a_channel_is_added_as_to_a_dict(self, layer: InMemoryChannelLayer) -> None:
        layer.groups.setdefault("room", {})["one"] = time.time()
        layer.groups["room"]["two"] = 0.0
        layer.groups.setdefault("room", {})["three"] = time.time()
        assert layer.group_channels("room") == ["one", "two", "three"]
        layer.group_send_sync("room", {"type": "x"})
        assert layer.receive_nowait("two") == {"type": "x"}

    def test_a_group_is_set_and_popped(self, layer: InMemoryChannelLayer) -> None:
        layer.groups["room"] = {"one": 0.0, "two": 0.0}
        layer.groups["room"] = {"two": 0.0, "three": 0.0}
        assert set(layer.group_channels("room")) == {"two", "three"}
        popped = layer.groups.pop("room")
        assert set(popped) == {"two", "three"}
        assert all(abs(joined - time.time()) < 60 for joined in popped.values())
        assert layer.groups.pop("room", None) is None
        with pytest.raises(KeyError):
            layer.groups.pop("room")
        assert dict(layer.groups) == {}

    def test_a_default_with_members_joins_them(self, layer: InMemoryChannelLayer) -> None:
        assert set(layer.groups.setdefault("room", {"one": 0.0})) == {"one"}
        assert set(layer.groups.setdefault("room", {"two": 0.0})) == {"one"}

    def test_a_channel_is_popped(self, layer: InMemoryChannelLayer) -> None:
        layer.groups["room"] = {"one": 0.0, "two": 0.0}
        assert layer.groups["room"].pop("one") > 0
        assert layer.groups["room"].pop("nobody", None) is None
        assert layer.group_channels("room") == ["two"]

    def test_a_wrong_name_is_refused_as_by_group_add(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(TypeError):
            layer.groups.setdefault("a room", {})["one"] = 0.0
        with pytest.raises(TypeError):
            layer.groups["room"] = {"a channel": 0.0}


class TestRedis:
    """What layers of channels_redis tell of their settings."""

    @pytest.mark.parametrize(
        ("hosts", "told"),
        [
            (None, [{"address": "redis://localhost:6379"}]),
            (["redis://:secret@one:1/2"], [{"address": "redis://:secret@one:1/2"}]),
            ([("one", 1), ["two", 2]], [{"host": "one", "port": 1}, {"host": "two", "port": 2}]),
            ([{"host": "one", "port": 1, "db": 3}], [{"host": "one", "port": 1, "db": 3}]),
            (iter(["redis://one:1"]), [{"address": "redis://one:1"}]),
        ],
    )
    def test_the_hosts_are_told_as_mappings(self, hosts: Any, told: list[Any]) -> None:
        layer = RedisChannelLayer(hosts=hosts)
        assert layer.hosts == told
        assert layer.ring_size == len(told)
        layer.hosts[0]["address"] = "changed"
        assert layer.hosts == told

    def test_the_prefix_is_told(self) -> None:
        assert (RedisChannelLayer().prefix, RedisChannelLayer(prefix="mine").prefix) == ("asgi", "mine")

    def test_no_secret_is_shown(self) -> None:
        assert "secret" not in repr(RedisChannelLayer(hosts=["redis://:secret@one:1/2"]))


@pytest.mark.parametrize(
    ("layer", "absent"),
    [(InMemoryChannelLayer(), ABSENT), (RedisChannelLayer(), ABSENT_OVER_REDIS)],
    ids=["memory", "redis"],
)
class TestAbsent:
    """What is not there says what is."""

    def test_the_error_names_what_to_use(self, layer: Any, absent: dict[str, str]) -> None:
        for name, instead in absent.items():
            with pytest.raises(AttributeError) as caught:
                getattr(layer, name)
            kind = type(layer).__name__
            assert str(caught.value) == f"'{kind}' object has no attribute '{name}'; {instead}"

    def test_any_other_is_as_of_any_object(self, layer: Any, absent: dict[str, str]) -> None:
        with pytest.raises(AttributeError, match=r"^'\w+' object has no attribute 'no_such'$") as caught:
            layer.no_such  # noqa: B018  # the look is the test
        assert (caught.value.name, caught.value.obj) == ("no_such", layer)
        assert not hasattr(layer, "no_such")
