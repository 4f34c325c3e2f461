import gc
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from headrace import configure
from headrace._layers.registry import channel_layers
from headrace._sockets.backend import LIMIT, backend_of
from headrace.exceptions import InvalidChannelLayerError
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer, get_channel_layer
from headrace.sockets import BaseSocketServer, Broadcaster

# Nothing here connects: a layer does when it is first used.
HOST = {"address": "redis://localhost:1"}


def layer_of(hosts: Any = None, config: Any = None, layer: Any = None, allow_memory: bool | None = None) -> Any:
    return backend_of(hosts, config, layer, allow_memory).layer


@pytest.fixture
def _other_registry() -> Iterator[None]:
    """Leave the registry of the process as it was."""
    own, configured = channel_layers._own, channel_layers._configured
    yield
    channel_layers._own, channel_layers._configured = own, configured


def test_equal_settings_have_one_layer() -> None:
    one = layer_of([HOST], {"prefix": "one", "capacity": 7})
    assert isinstance(one, RedisChannelLayer)
    assert layer_of([dict(HOST)], {"capacity": 7, "prefix": "one"}) is one
    assert layer_of({"hosts": [dict(HOST)], "capacity": 7, "prefix": "one"}) is one
    assert Broadcaster(config={"hosts": [dict(HOST)], "capacity": 7, "prefix": "one"}).layer is one
    assert layer_of([HOST], {"prefix": "other", "capacity": 7}) is not one


class Provider:
    """Tells a password, and remembers that it did."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def get_credentials(self) -> tuple[str, str]:
        self.asked = True
        return "user", self.secret

    def password(self) -> str:
        return self.secret


class Slotted:
    """Has no state that could be looked at."""

    __slots__ = ()

    def __call__(self) -> str:
        return "pw"


def closing_over(value: Any) -> Callable[[], Any]:
    return lambda: value


def told(secret: str, user: str = "user") -> tuple[str, str]:
    return user, secret


@pytest.mark.parametrize(
    "password",
    [
        lambda: lambda: "pw",
        lambda: closing_over("pw"),
        lambda: closing_over(["a", {"b": 1}]),
        lambda: closing_over(lambda: closing_over("pw")),
        lambda: partial(told, "pw", user="me"),
        lambda: Provider("pw").password,
    ],
)
def test_settings_with_functions_that_are_made_each_time_have_one_layer(password: Callable[[], Any]) -> None:
    one = Broadcaster(hosts=[{**HOST, "password": password()}])
    assert Broadcaster(hosts=[{"password": password(), **HOST}]).layer is one.layer


def test_a_provider_of_passwords_is_itself_and_one_that_begins_alike() -> None:
    provider = Provider("pw")
    one = Broadcaster(hosts=[{**HOST, "credential_provider": provider}])
    provider.get_credentials()
    assert Broadcaster(hosts=[{**HOST, "credential_provider": provider}]).layer is one.layer
    assert Broadcaster(hosts=[{**HOST, "credential_provider": Provider("pw")}]).layer is one.layer
    assert Broadcaster(hosts=[{**HOST, "credential_provider": Provider("other")}]).layer is not one.layer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closing_over("pw"), closing_over("other")),
        (lambda: "pw", lambda: "other"),
        (partial(told, "pw"), partial(told, "other")),
        (Provider("pw").password, Provider("other").password),
        (Slotted(), Slotted()),
    ],
)
def test_functions_that_differ_have_a_layer_each(one: Any, other: Any) -> None:
    first = Broadcaster(hosts=[{**HOST, "password": one}])
    assert Broadcaster(hosts=[{**HOST, "password": other}]).layer is not first.layer
    assert Broadcaster(hosts=[{**HOST, "password": one}]).layer is first.layer


def test_a_setting_that_holds_itself_is_equal_to_itself() -> None:
    provider: Any = Provider("pw")
    provider.itself = provider
    one = Broadcaster(hosts=[{**HOST, "credential_provider": provider}])
    assert Broadcaster(hosts=[{**HOST, "credential_provider": provider}]).layer is one.layer


def test_layers_that_nobody_uses_are_let_go() -> None:
    used = Broadcaster(hosts=[HOST], config={"prefix": "used"})
    layers = [weakref.ref(layer_of([{**HOST, "password": Slotted()}])) for _ in range(20)]
    assert Broadcaster(hosts=[HOST], config={"prefix": "used"}).layer is used.layer
    gc.collect()
    assert [layer for layer in layers if layer() is not None] == layers[-4:]


def test_a_layer_that_is_asked_for_again_is_kept() -> None:
    wanted = weakref.ref(layer_of([HOST], {"prefix": "wanted"}))
    for _ in range(20):
        layer_of([{**HOST, "password": Slotted()}])
        layer_of([HOST], {"prefix": "wanted"})
    gc.collect()
    assert layer_of([HOST], {"prefix": "wanted"}) is wanted()


def test_a_mark_of_a_cluster_is_not_overruled_in_silence() -> None:
    with pytest.raises(ValueError, match="'cluster': True, and topology='single' is given"):
        layer_of([{**HOST, "cluster": True}], {"topology": "single"})


def test_all_servers_of_a_class_share_a_layer() -> None:
    class Own(BaseSocketServer):
        def configure(self) -> None:
            self.hosts = [dict(HOST)]

    async def nothing(*_: Any) -> Any: ...

    layers = {id(Own({}, nothing, nothing).layer) for _ in range(3)}
    assert layers == {id(Broadcaster(hosts=[HOST]).layer)}


async def test_a_layer_that_was_closed_is_made_anew() -> None:
    one = layer_of([HOST], {"prefix": "closed"})
    await one.close()
    assert layer_of([HOST], {"prefix": "closed"}) is not one


def test_without_hosts_it_is_the_default_layer() -> None:
    assert layer_of() is get_channel_layer()
    assert layer_of(config={}) is get_channel_layer()


def test_settings_without_hosts_make_a_layer_in_this_process() -> None:
    layer = layer_of(config={"capacity": 7, "expiry": 3})
    assert isinstance(layer, InMemoryChannelLayer)
    assert (layer.capacity, layer.expiry) == (7, 3)
    assert layer_of(config={"expiry": 3, "capacity": 7}) is layer


@pytest.mark.usefixtures("_other_registry")
def test_the_default_layer_is_the_one_that_is_configured() -> None:
    mine = InMemoryChannelLayer()
    configure(layers={"default": mine, "other": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}})
    assert layer_of() is mine
    assert layer_of(layer="other") is get_channel_layer("other")
    assert layer_of(layer=mine) is mine


@pytest.mark.usefixtures("_other_registry")
def test_a_default_layer_that_spans_processes_needs_no_hosts_beside_it() -> None:
    configure(layers={"default": RedisChannelLayer([HOST["address"]]), "local": InMemoryChannelLayer()})
    assert layer_of(allow_memory=False) is get_channel_layer()
    with pytest.raises(ValueError, match="allow_memory is False, so there is nowhere to broadcast to"):
        layer_of(layer="local", allow_memory=False)


@pytest.mark.usefixtures("_other_registry")
def test_a_layer_of_somebody_else_is_refused_and_named() -> None:
    class Other:
        send = receive = print

    configure(layers={"default": Other()})  # type: ignore[dict-item]
    with pytest.raises(InvalidChannelLayerError, match=r"'default' is .*Other, and a socket server needs a layer of"):
        layer_of()
    with pytest.raises(InvalidChannelLayerError, match=r"layer=.* is .*Other"):
        layer_of(layer=Other())


@pytest.mark.parametrize("mark", ["cluster", "is_cluster"])
def test_a_host_may_say_that_it_is_of_a_cluster(mark: str) -> None:
    layer = layer_of([{**HOST, mark: True}])
    assert "cluster" in repr(layer)
    assert "cluster" not in repr(layer_of([{**HOST, mark: False}]))


def test_large_data_fits_unless_it_is_configured_otherwise() -> None:
    assert backend_of([HOST], {"prefix": "large"}, None, None).limit == LIMIT == 16 * 1024 * 1024
    assert backend_of([HOST], {"max_message_bytes": 2048}, None, None).limit == 2048
    assert backend_of(None, {"max_message_bytes": 2048}, None, None).limit == 2048


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"allow_memory": False}, "hosts are not given and allow_memory is False"),
    ({"config": {"allow_memory": False}}, "hosts are not given and allow_memory is False"),
    ({"hosts": []}, "hosts must be a list of servers, such as .*, got an empty one"),
    ({"hosts": "redis://localhost"}, "hosts must be a list of servers, .* got one of type str"),
    ({"hosts": 7}, "hosts must be a list of servers, .* got one of type int"),
    ({"hosts": {"address": "redis://localhost"}}, "hosts must be a list of servers, .* got one of type dict"),
    ({"config": {"hosts": None}}, "config has hosts that are None: is an environment variable not set"),
    ({"hosts": [{**HOST, "cluster": "no"}]}, r"'cluster' of hosts\[0\] must be True or False, got 'no'"),
    ({"allow_memory": "no"}, "allow_memory must be True or False, got 'no'"),
    ({"hosts": [7]}, r"hosts\[0\]: expected a URL"),
    ({"hosts": [{"adress": "redis://localhost"}]}, "adress"),
    ({"hosts": [{"address": "http://localhost"}]}, r"hosts\[0\]"),
    ({"hosts": [{"address": "redis://localhost:port"}]}, r"hosts\[0\]"),
    ({"hosts": [HOST, {"master_name": "m"}]}, r"hosts\[1\] has the master_name 'm' and no sentinels: add 'sentinels'"),
    ({"config": []}, "config must be a mapping such as .*, got list"),
    ({"config": {"hosts": {}}}, "hosts must be a list of servers"),
    ({"hosts": [HOST], "config": {"hosts": [HOST]}}, "hosts are given, and config has hosts as well"),
    ({"hosts": [HOST], "config": {"capcity": 3}}, "unknown setting 'capcity'; did you mean 'capacity'"),
    ({"config": {"prefix": "x"}}, "config has 'prefix', which only servers have, and no hosts"),
    ({"config": {"max_message_bytes": 0}}, "max_message_bytes must be a positive integer, got 0"),
    ({"config": {"capacity": 0}}, "capacity must be a positive integer"),
    ({"hosts": [HOST], "layer": "default"}, "layer is given beside hosts or config"),
    ({"layer": "nobody's"}, "no channel layer is configured under this alias"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG, ids=[text[:30] for _, text in WRONG])
def test_what_is_wrong_is_said_when_it_is_made(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Broadcaster(**arguments)


def test_no_error_shows_a_password() -> None:
    with pytest.raises(ValueError, match=r"hosts\[0\]") as caught:
        Broadcaster(hosts=[{"address": "redis://:secret@localhost:port"}])
    assert "secret" not in str(caught.value)


DJANGO = """
import sys
from django.conf import settings
settings.configure(**eval(sys.argv[1]))
from headrace.sockets import Broadcaster
layer = Broadcaster().layer
from headrace import get_channel_layer
print(type(layer).__name__, layer is get_channel_layer(), layer.capacity)
"""


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ("{}", "InMemoryChannelLayer False 100"),
        ("{'DJANGO_SOCKETS_CONFIG': {'capacity': 5}}", "InMemoryChannelLayer False 5"),
        ("{'DJANGO_SOCKETS_CONFIG': {'hosts': [{'address': 'redis://h'}]}}", "RedisChannelLayer False 100"),
        (
            "{'CHANNEL_LAYERS': {'default': {'BACKEND': 'headrace.layers.InMemoryChannelLayer'}}}",
            "InMemoryChannelLayer True 100",
        ),
    ],
)
def test_djangos_settings_count_where_nothing_is_given(settings: str, printed: str) -> None:
    command = [sys.executable, "-W", "error", "-c", DJANGO, settings]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (process.stdout.strip(), process.stderr) == (printed, "")


def test_djangos_setting_is_named_when_it_is_wrong() -> None:
    command = [sys.executable, "-c", DJANGO, "{'DJANGO_SOCKETS_CONFIG': {'host': []}}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert re.search("DJANGO_SOCKETS_CONFIG has the unknown setting 'host'; did you mean 'hosts'", process.stderr)


def test_the_order_of_patterns_makes_a_layer_another() -> None:
    one = Broadcaster(config={"channel_capacity": {"a*": 5, "ab": 7}, "capacity": 3})
    other = Broadcaster(config={"capacity": 3, "channel_capacity": {"ab": 7, "a*": 5}})
    assert (one.layer.get_capacity("ab"), other.layer.get_capacity("ab")) == (5, 7)
    assert Broadcaster(config={"capacity": 3, "channel_capacity": {"a*": 5, "ab": 7}}).layer is one.layer
