"""The methods have Channels' names, arguments and kinds, so that Channels' own code can call them."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from tests.support.waiting import SECONDS, eventually

from headrace._core import Ledger

pytestmark = [pytest.mark.one_loop, pytest.mark.one_server]

HELLO = {"type": "hello"}
MakeLayer = Callable[..., Any]

COROUTINES = [
    *("send", "receive", "new_channel", "group_add", "group_close", "group_discard", "group_send", "flush", "close"),
    *("send_many", "group_send_many", "receive_many", "group_position", "group_history"),
    *("presence", "presence_add", "presence_update", "presence_discard", "presence_count", "group_count_everywhere"),
]
# Of layers that have a server.
CONNECTED = ["close_pools", "connect"]


@pytest.mark.parametrize("name", COROUTINES)
async def test_asynchronous_methods_are_coroutine_functions(layer: Any, name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(layer, name))


async def test_no_other_public_method_is_one(layer: Any) -> None:
    # Some names of Channels' layers only say what to use in their place.
    public = [name for name in dir(type(layer)) if not name.startswith("_") and hasattr(layer, name)]
    found = {name for name in public if inspect.iscoroutinefunction(getattr(layer, name))}
    assert found == {*COROUTINES, *(name for name in CONNECTED if name in public)}


async def test_the_methods_take_channels_names_of_arguments(layer: Any) -> None:
    await layer.group_add(group="group", channel="channel")
    await layer.group_send(group="group", message=HELLO)
    await layer.send(channel="channel", message=HELLO)
    assert await layer.receive(channel="channel") == HELLO
    await layer.group_discard(group="group", channel="channel")
    await layer.group_add("group", channel="channel")


async def test_the_signatures_are_channels(layer: Any) -> None:
    for name, arguments in {
        "send": ["channel", "message"],
        "receive": ["channel"],
        "new_channel": ["prefix"],
        # Channels gives the first two; by name alone the third would cost each call without it instructions.
        "group_add": ["group", "channel", "since"],
        "group_discard": ["group", "channel"],
        "group_send": ["group", "message"],
        "flush": [],
        "close": [],
    }.items():
        parameters = inspect.signature(getattr(layer, name)).parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        assert positional == arguments, name


async def test_groups_and_flush_are_its_extensions(layer: Any) -> None:
    assert sorted(layer.extensions) == ["flush", "groups"]


async def test_the_settings_can_be_read(make_layer: MakeLayer) -> None:
    layer = make_layer()
    assert (layer.expiry, layer.group_expiry, layer.capacity, list(layer.channel_capacity)) == (60, 86400, 100, [])
    layer = make_layer(expiry=1.5, group_expiry=2, capacity=3, channel_capacity={"a*": 4})
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (1.5, 2, 3)
    assert [capacity for _, capacity in layer.channel_capacity] == [4]


async def test_the_settings_may_be_positional(make_layer: MakeLayer, engine: Any) -> None:
    parameters = list(inspect.signature(type(make_layer())).parameters)
    assert tuple(parameters[: len(engine.positional)]) == engine.positional


async def test_a_method_that_gets_too_much_or_too_little_is_a_type_error(layer: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: layer.send("channel"),
        lambda: layer.send("channel", HELLO, "more"),
        layer.receive,
        lambda: layer.group_send("group"),
        lambda: layer.group_send("group", HELLO, "exclude is given by name"),
        lambda: layer.group_add("group"),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(
    "settings",
    [
        *({"capacity": value} for value in (-1, 1.5, True, "many", None, float("nan"))),
        *({"expiry": value} for value in (0, -1, float("nan"), float("inf"), True, "soon", None)),
        *({"group_expiry": value} for value in (-0.5, float("nan"), float("-inf"), False, "soon", None)),
        *({"channel_capacity": {"a*": value}} for value in (-1, 1.5, True, "many", None)),
        *({"channel_capacity": {key: 1}} for key in (5, None, b"a*", ("a", "b"))),
        *({"channel_capacity": value} for value in (5, "a*", ["a*"], [("a*", 1, 2)])),
    ],
    ids=repr,
)
def test_a_setting_out_of_range_is_a_value_error_that_names_it(engine: Any, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        engine.make(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({"capacity": value} for value in (0, "100")),
        {"expiry": "60"},
        *({"group_expiry": value} for value in (0, "60")),
        *({"channel_capacity": {"a*": value}} for value in (0, "100")),
    ],
    ids=repr,
)
def test_text_and_0_are_numbers_only_where_they_are_for_channels_redis(engine: Any, settings: dict[str, Any]) -> None:
    if engine.server is not None:
        assert engine.make(**settings)
        return
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        engine.make(**settings)


def test_an_unknown_setting_is_a_type_error_that_names_it(engine: Any) -> None:
    with pytest.raises(TypeError, match="capacities"):
        engine.make(capacities=5)


@pytest.mark.usefixtures("sync")
class TestWithoutALoop:
    """The methods that end in ``_sync`` do the same from code that has no loop."""

    def test_a_message_goes_from_one_side_to_the_other(self, layer: Any) -> None:
        layer.send_sync("channel", HELLO)
        assert layer.receive_sync("channel") == HELLO
        async_to_sync(layer.send)("channel", HELLO)
        assert layer.receive_sync("channel", 30) == HELLO
        layer.send_sync(channel="channel", message=HELLO)
        assert async_to_sync(layer.receive)("channel") == HELLO

    def test_groups_work(self, layer: Any) -> None:
        layer.group_add_sync("group", "a")
        layer.group_add_sync(group="group", channel="b")
        assert layer.group_send_sync("group", HELLO).delivered_here == 2
        assert layer.group_send_sync("group", HELLO, exclude="a").delivered_here == 1
        layer.group_discard_sync("group", "b")
        assert layer.group_channels("group") == ["a"]

    def test_a_channel_is_made(self, layer: Any) -> None:
        channel = layer.new_channel_sync()
        assert layer.require_valid_channel_name(channel)
        assert channel.startswith("specific.")
        assert layer.new_channel_sync() != channel
        assert layer.new_channel_sync(prefix="other").startswith("other.")
        layer.group_add_sync("group", channel)
        layer.group_send_sync("group", HELLO)
        assert layer.receive_sync(channel, SECONDS) == HELLO
        assert inspect.signature(layer.new_channel_sync) == inspect.signature(layer.new_channel)

    @pytest.mark.parametrize("prefix", ["two words", "a!b", "x" * 100])
    def test_a_channel_with_a_wrong_prefix_is_refused(self, layer: Any, prefix: str) -> None:
        with pytest.raises(TypeError, match="Channel name must be"):
            layer.new_channel_sync(prefix)

    def test_a_membership_lasts_while_its_channel_has_an_inbox(self, make_layer: MakeLayer) -> None:
        layer = make_layer(group_expiry=0.1)
        held, added = layer.new_channel_sync(), layer.new_channel_sync()
        inbox = layer._core.inbox(held)
        for channel in (held, added):
            layer.group_add_sync("group", channel)
        eventually(lambda: added not in layer.group_channels("group"), "the other one has expired")
        assert layer.group_channels("group") == [held]
        layer.group_send_sync("group", HELLO)
        assert layer.receive_sync(held, SECONDS) == HELLO
        inbox.release()
        eventually(lambda: layer.group_channels("group") == [], "nobody holds it any more")

    def test_a_group_is_sent_to_without_waiting(self, layer: Any) -> None:
        channel, ledger = layer.new_channel_sync(), Ledger()
        layer.group_add_sync("group", channel)
        layer._group_send_unattended("group", HELLO, ledger)
        assert ledger.settle(SECONDS)
        assert (ledger.pending, ledger.failed, ledger.fault()) == (0, 0, None)
        assert layer.receive_sync(channel, SECONDS) == HELLO

    def test_waiting_ends_when_the_time_is_over(self, layer: Any) -> None:
        for timeout in (0, 0.001, -1):
            with pytest.raises(TimeoutError, match="channel"):
                layer.receive_sync("channel", timeout=timeout)
        assert layer.stats().waiters == 0

    def test_what_is_there_is_taken_without_waiting(self, layer: Any) -> None:
        layer.send_sync("channel", HELLO)
        assert layer.receive_sync("channel", 0) == HELLO

    @pytest.mark.parametrize("timeout", ["1", [], float("nan")])
    def test_a_timeout_that_is_no_number_is_refused(self, layer: Any, timeout: Any) -> None:
        layer.send_sync("channel", HELLO)
        with pytest.raises((TypeError, ValueError)):
            layer.receive_sync("channel", timeout)
        assert layer.receive_sync("channel", 0) == HELLO

    def test_a_closed_layer_refuses(self, layer: Any) -> None:
        async_to_sync(layer.close)()
        calls: list[Callable[[], Any]] = [
            lambda: layer.send_sync("channel", HELLO),
            lambda: layer.receive_sync("channel"),
            lambda: layer.group_add_sync("group", "channel"),
            lambda: layer.group_discard_sync("group", "channel"),
            lambda: layer.group_send_sync("group", HELLO),
            lambda: layer._group_send_unattended("group", HELLO, Ledger()),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="closed"):
                call()
