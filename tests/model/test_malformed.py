"""Two thousand malformed calls: each is refused with an exception that Channels' users know, and changes nothing."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace._layers.base import BaseChannelLayer
from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer

CHANNEL, GROUP = "channel", "group"
MEMBERS = (CHANNEL, "member", "odd")
HELLO = {"type": "hello"}
Values = st.SearchStrategy[Any]
REFUSALS = (TypeError, ValueError, AssertionError)


class Unfriendly:
    """An object with methods that fail."""

    def _fail(self, *_: object) -> Any:
        raise LookupError("of the value")

    __deepcopy__ = __iter__ = __len__ = __index__ = __float__ = __contains__ = __getitem__ = _fail

    def __repr__(self) -> str:
        return "<unfriendly>"


def deep(depth: int) -> list[Any]:
    """Make lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def is_name(value: object, pattern: Any) -> bool:
    """Tell whether a value is a valid name, by the rules in Python."""
    return isinstance(value, str) and len(value) <= 100 and pattern.match(value) is not None


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=10),
    st.builds(object),
    st.just(InMemoryChannelLayer),
)
objects = st.one_of(scalars, st.builds(Unfriendly))
texts = st.one_of(
    st.text(max_size=12),
    st.text("abc!.-_ \n\u0661\u00e9", max_size=6),
    st.text("a", min_size=101, max_size=300),
    st.sampled_from(["", "!", "a!b!c", "!a", "a b", "a\n", "a!\u00e9", "\udc80"]),
)
containers = st.one_of(
    st.lists(scalars, max_size=3),
    st.tuples(scalars),
    st.sets(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), scalars, max_size=3),
)
no_channels = st.one_of(objects, texts, containers).filter(
    lambda value: not is_name(value, BaseChannelLayer.channel_name_regex)
)
no_groups = st.one_of(objects, texts, containers).filter(
    lambda value: not is_name(value, BaseChannelLayer.group_name_regex)
)
no_messages = st.one_of(
    objects,
    texts,
    containers.filter(lambda value: not isinstance(value, dict)),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(lambda value: {**value, "__asgi_channel__": 1}),
    st.builds(
        lambda key, value, wrap: {"type": "hello", key: wrap(value)},
        st.text(max_size=3).filter(lambda key: key != "type"),
        st.sampled_from([threading.Lock(), Unfriendly(), deep(64), deep(200), (n for n in "abc")]),
        st.sampled_from([lambda value: value, lambda value: [value], lambda value: ({"a": value},)]),
    ),
)
no_pairs = st.one_of(
    st.tuples(no_channels, st.just(HELLO)),
    st.tuples(st.just("a"), no_messages),
    st.tuples(st.just("a")),
    st.tuples(st.just("a"), st.just(HELLO), st.just(HELLO)),
    scalars,
)
no_numbers = st.one_of(
    st.integers(max_value=0), st.floats(), st.none(), st.text(max_size=3), st.builds(object), st.lists(st.integers())
)
no_excludes = st.one_of(
    st.integers(min_value=1),
    st.floats(min_value=1),
    st.builds(object),
    no_channels.filter(lambda value: isinstance(value, str) and value != ""),
    st.lists(no_channels, min_size=1, max_size=3),
)


@dataclass(frozen=True)
class Call:
    """One malformed call: what is called, with what."""

    method: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()


def calls(
    method: str, *arguments: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Call]:
    """Make calls of one method."""
    pairs = st.tuples(*(st.tuples(st.just(name), values) for name, values in options.items()))
    return st.builds(Call, st.just(method), st.tuples(*arguments), pairs)


channel, group, hello = st.just(CHANNEL), st.just(GROUP), st.just(HELLO)
malformed = st.one_of(
    *(calls(method, no_channels, hello) for method in ("send", "send_sync")),
    *(calls(method, channel, no_messages) for method in ("send", "send_sync")),
    *(calls(method, no_groups, hello) for method in ("group_send", "group_send_sync")),
    *(calls(method, group, no_messages) for method in ("group_send", "group_send_sync")),
    *(calls(method, group, hello, exclude=no_excludes) for method in ("group_send", "group_send_sync")),
    *(
        calls(method, *arguments)
        for method in ("group_add", "group_discard", "group_add_sync", "group_discard_sync")
        for arguments in ((no_groups, channel), (group, no_channels))
    ),
    *(
        calls(method, no_channels)
        for method in ("receive", "receive_nowait", "close_channel", "channel_groups", "channel_stats")
    ),
    *(calls(method, no_groups) for method in ("group_channels", "group_count", "group_stats")),
    calls("receive_many", no_channels, st.just(1)),
    calls("receive_many", channel, no_numbers),
    calls("receive_sync", no_channels),
    calls("receive_sync", channel, st.one_of(st.just(float("nan")), st.text(max_size=3), st.builds(object))),
    *(
        calls(method, st.one_of(st.lists(no_pairs, min_size=1, max_size=3), scalars.filter(lambda value: value != b"")))
        for method in ("send_many", "group_send_many")
    ),
    calls("new_channel", texts.filter(lambda text: not is_name(text + "x", BaseChannelLayer.group_name_regex))),
    *(calls(method) for method in ("send", "receive", "group_add", "receive_many", "close_channel")),
    *(calls(method, channel, hello, channel, hello) for method in ("send", "receive", "group_send", "group_add")),
)


def in_use() -> InMemoryChannelLayer:
    """Make a layer with full and empty channels and with groups."""
    layer = InMemoryChannelLayer(capacity=2, channel_capacity={"odd*": 1})
    for name in MEMBERS:
        layer.group_add_sync(GROUP, name)
    for _ in range(2):
        layer.send_sync("full", HELLO)
    with pytest.raises(ChannelFull):
        layer.send_sync("full", HELLO)
    layer.send_sync(CHANNEL, HELLO)
    return layer


def perform(layer: InMemoryChannelLayer, call: Call) -> None:
    """Make the call; a coroutine is run until it waits, at most."""
    method: Callable[..., Any] = getattr(layer, call.method)
    result = method(*call.arguments, **dict(call.options))
    if isinstance(result, Coroutine):
        with closing(result), suppress(StopIteration):
            result.send(None)


async def wait_on(layer: InMemoryChannelLayer) -> asyncio.Future[Any]:
    """Start a receiver, and let it wait."""
    waiting = asyncio.ensure_future(layer.receive("waiting"))
    await asyncio.sleep(0)
    return waiting


async def end(layer: InMemoryChannelLayer, waiting: asyncio.Future[Any]) -> Any:
    """Give the receiver its message."""
    await layer.send("waiting", HELLO)
    return await waiting


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Give an event loop for all calls."""
    with asyncio.Runner() as runner:
        yield runner


@given(call=malformed)
def test_a_malformed_call_is_refused_and_changes_nothing(runner: asyncio.Runner, call: Call) -> None:
    """Afterwards the layer works, and the receiver that waited there waits."""
    layer = in_use()
    waiting = runner.run(wait_on(layer))
    before, channels, groups = layer.stats(), list(layer.channels), list(layer.groups)
    try:
        with pytest.raises(REFUSALS) as caught:
            perform(layer, call)
        assert str(caught.value) != ""
        assert layer.stats() == before
        assert (list(layer.channels), list(layer.groups)) == (channels, groups)
        assert layer.receive_nowait(CHANNEL) == HELLO
        assert layer.group_send_sync(GROUP, HELLO).delivered == len(MEMBERS)
        assert [layer.receive_nowait(name) for name in MEMBERS] == [HELLO] * len(MEMBERS)
    finally:
        received = runner.run(end(layer, waiting))
    assert received == HELLO


no_settings = st.one_of(
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["expiry", "group_expiry", "capacity"]),
        st.one_of(
            st.integers(max_value=0),
            st.floats(max_value=0),
            st.sampled_from([float("nan"), float("inf"), True, "5", None, [], {}, 2**80, 10**400, 1e300]),
            st.builds(object),
        ),
    ),
    st.builds(lambda value: {"capacity": value}, st.floats()),
    st.builds(
        lambda key, value: {"channel_capacity": {key: value}},
        st.text(max_size=3),
        st.one_of(st.integers(max_value=0), st.floats(), st.none(), st.text(max_size=3), st.booleans(), st.just(2**80)),
    ),
    st.builds(
        lambda key: {"channel_capacity": {key: 1}}, st.one_of(st.none(), st.integers(), st.binary(), st.tuples())
    ),
    st.builds(
        lambda value: {"channel_capacity": value},
        st.one_of(
            st.integers(min_value=1), st.text(min_size=1), st.lists(st.integers(), min_size=1), st.builds(object)
        ),
    ),
    st.builds(lambda value: {"wake": value}, scalars),
    st.builds(lambda value: {"clock": value}, scalars.filter(lambda value: value is not None)),
)


@given(setting=no_settings)
def test_a_malformed_setting_is_refused(setting: dict[str, Any]) -> None:
    """ValueError, or TypeError for a clock that is none."""
    with pytest.raises(TypeError if "clock" in setting else ValueError) as caught:
        InMemoryChannelLayer(**setting)
    assert next(iter(setting)) in str(caught.value).lower().replace("manualclock", "clock")
