"""Messages as msgpack: what is refused, and why, is what a strict layer says; the bytes are those of ``msgpack``."""

import collections
import datetime
import decimal
import enum
import math
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace._core import pack, unpack
from headrace.exceptions import InvalidMessage, MessageTooLarge
from headrace.layers import InMemoryChannelLayer

MAX = 1 << 20


class Text(str):
    """Text of a type of its own."""


class Raw(bytes):
    """Bytes of a type of their own."""


class Real(float):
    """A float of a type of its own."""


class Number(enum.IntEnum):
    """An int of a type of its own."""

    ONE = 1


class Point(NamedTuple):
    """A tuple of a type of its own."""

    x: int
    y: list[int]


class Items(list[Any]):
    """A list of a type of its own, which looks at it before it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        raise LookupError("nobody asks")


class Odd(dict[str, Any]):
    """A dict that shows other things than it holds."""

    def keys(self) -> Any:
        return ["shown"]

    def __getitem__(self, key: str) -> Any:
        return key.upper()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


class Failing(dict[str, Any]):
    """A dict that shows nothing."""

    def __iter__(self) -> Iterator[str]:
        raise LookupError("of the dict")

    keys = __iter__  # type: ignore[assignment]


def carried(message: Any) -> Any:
    """Send a message through a strict layer."""
    layer = InMemoryChannelLayer(strict=True)
    layer.send_sync("channel", message)
    return layer.receive_nowait("channel")


def outcome(action: Callable[[Any], Any], message: Any) -> tuple[Any, str]:
    """Tell what comes of a message: its value as text, or the error."""
    try:
        return None, repr(action(message))
    except Exception as error:
        return type(error), str(error)


def packed(message: Any) -> Any:
    """Encode a message and decode it."""
    return unpack(pack(message, MAX))


def same(message: Any) -> None:
    """Hold both ways against each other."""
    assert outcome(packed, message) == outcome(carried, message)


def nested(depth: int, wrap: Callable[[Any], Any] = lambda value: [value]) -> dict[str, Any]:
    """Make a message of so many containers in each other."""
    value: Any = wrap(1)
    for _ in range(depth - 2):
        value = wrap(value)
    return {"deep": value}


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.builds(
        lambda shift, less, sign: sign * ((1 << shift) - less),
        st.integers(0, 63),
        st.integers(0, 2),
        st.sampled_from([1, -1]),
    ),
    st.floats(),
    st.text(),
    st.binary(),
    st.builds(lambda length: "x" * length, st.sampled_from([31, 32, 255, 256])),
    st.builds(bytes, st.sampled_from([255, 256, 65_535, 65_536])),
    st.builds(Text, st.text()),
    st.builds(Raw, st.binary()),
    st.builds(bytearray, st.binary()),
    st.binary().map(memoryview),  # type: ignore[arg-type]  # which is generic
    st.builds(Real, st.floats()),
    st.just(Number.ONE),
)
keys = st.one_of(
    *(st.text(max_size=8), st.text("ab", max_size=40), st.builds(Text, st.text(max_size=3))),
    *(st.binary(max_size=8), st.builds(Raw, st.binary(max_size=3))),
)


def containers(values: st.SearchStrategy[Any], names: st.SearchStrategy[Any] = keys) -> st.SearchStrategy[Any]:
    """Put values in what may hold them."""
    return st.one_of(
        st.lists(values, max_size=5),
        st.lists(values, max_size=4).map(tuple),
        st.dictionaries(names, values, max_size=5),
        st.dictionaries(names, values, max_size=4).map(collections.OrderedDict),
        st.builds(Point, values, values),
    )


messages = st.dictionaries(keys, st.recursive(leaves, containers, max_leaves=8), max_size=5)
odd = st.one_of(
    leaves,
    st.integers(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from([{1}, range(2), 1j, datetime.UTC, decimal.Decimal(1), object, Items([1]), Odd(a=1), Failing()]),
    st.sampled_from([nested(62)["deep"], nested(64)["deep"], nested(70, lambda value: (value, {}))["deep"]]),
)
odd_keys = st.one_of(keys, st.text(st.characters(codec=None), max_size=3), st.integers(), st.just("__asgi_channel__"))
anything = st.dictionaries(
    odd_keys, st.recursive(odd, lambda values: containers(values, odd_keys), max_leaves=8), min_size=1, max_size=4
)


class TestBytes:
    """The bytes are what ``msgpack.packb`` makes of the message."""

    @given(messages)
    def test_they_are_those_of_msgpack(self, message: dict[str, Any]) -> None:
        assert pack(message, MAX) == msgpack.packb(message)

    @given(messages)
    def test_and_come_back_as_what_a_strict_layer_carries(self, message: dict[str, Any]) -> None:
        same(message)

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 255, 256, 65_535, 65_536])
    def test_at_every_boundary_of_a_length(self, length: int) -> None:
        dictionary: dict[str, Any] = {str(number): number for number in range(length)}
        for value in ("x" * length, "\u00e9" * length, bytes(length), [None] * length, (0,) * length, dictionary):
            message: dict[str, Any] = {"value": value}
            data = pack(message, MAX)
            assert data == msgpack.packb(message)
            assert unpack(data) == msgpack.unpackb(data)
        assert pack(dictionary, MAX) == msgpack.packb(dictionary)

    @pytest.mark.parametrize("shift", [0, 4, 5, 7, 8, 15, 16, 31, 32, 62, 63])
    def test_at_every_boundary_of_an_integer(self, shift: int) -> None:
        numbers = [sign * (1 << shift) + more for sign in (1, -1) for more in (-1, 0, 1)]
        numbers = [number for number in numbers if number >= -(2**63)] + [2**64 - 1, -(2**63)]
        assert pack({"numbers": numbers}, MAX) == msgpack.packb({"numbers": numbers})
        assert packed({"numbers": numbers}) == {"numbers": numbers}

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    @pytest.mark.parametrize("length", [0, 255, 256, 65_535, 65_536])
    def test_what_is_like_bytes_comes_back_as_bytes(self, kind: Any, length: int) -> None:
        data = pack({"a": kind(bytes(length))}, MAX)
        assert data == msgpack.packb({"a": kind(bytes(length))})
        assert unpack(data) == {"a": bytes(length)}

    def test_a_view_of_every_other_byte_is_what_it_shows(self) -> None:
        assert packed({"a": memoryview(b"abcd")[::2]}) == {"a": b"ac"}

    def test_a_released_view_is_an_error(self) -> None:
        view = memoryview(b"a")
        view.release()
        with pytest.raises(ValueError, match="released"):
            pack({"a": view}, MAX)
        same({"a": view})

    @pytest.mark.parametrize("length", [0, 31, 255, 256, 65_536])
    def test_keys_may_be_bytes(self, length: int) -> None:
        message: dict[Any, Any] = {b"k" * length: {b"type": 1}, "type": "x"}
        assert pack(message, MAX) == msgpack.packb(message)
        assert packed(message) == message

    def test_short_floats_are_read(self) -> None:
        assert unpack(b"\x82\xa1a\xca" + struct.pack(">f", 0.5) + b"\xa1b\xca" + struct.pack(">f", math.inf)) == {
            "a": 0.5,
            "b": math.inf,
        }

    def test_of_a_key_that_stands_there_twice_the_last_value_counts(self) -> None:
        assert unpack(b"\x82\xa1a\x01\xa1a\x02") == {"a": 2}

    def test_keys_of_all_lengths_are_told_apart(self) -> None:
        """More of them than are remembered, several times over."""
        for _ in range(3):
            for length in (1, 2, 8, 9, 31, 32, 33, 100):
                message = {f"{number:0{length}}"[-length:]: number for number in range(1_000)}
                assert packed(message) == message

    def test_two_values_share_nothing(self) -> None:
        data = pack({"a": [1], "b": {"c": []}}, MAX)
        one, two = unpack(data), unpack(data)
        one["a"].append(2)  # type: ignore[attr-defined]
        one["b"]["c"].append(3)  # type: ignore[index]
        assert two == {"a": [1], "b": {"c": []}}


class TestRefusals:
    """What a strict layer refuses is refused in the same words."""

    @given(anything)
    def test_are_those_of_a_strict_layer(self, message: Any) -> None:
        same(message)

    @pytest.mark.parametrize(
        ("message", "error", "text"),
        [
            ([1], InvalidMessage, "Message is not a dict: got list"),
            (None, InvalidMessage, "Message is not a dict: got NoneType"),
            ({"__asgi_channel__": 1}, InvalidMessage, "reserved"),
            ({"a": {1}}, TypeError, r"message\['a'\]: set is not serialisable"),
            ({"a": [0, {"b": (1, 1j)}]}, TypeError, r"message\['a'\]\[1\]\['b'\]\[1\]: complex is not serialisable"),
            ({"a": {1: 1}}, TypeError, r"message\['a'\]\[1\]: a key is neither a str nor bytes"),
            ({"a": [2**64]}, ValueError, r"message\['a'\]\[0\]: the integer is not between -2\*\*63 and 2\*\*64 - 1"),
            ({"a": -(2**63) - 1}, ValueError, r"message\['a'\]: the integer is not between"),
            ({"a": "\udc80"}, ValueError, r"message\['a'\]: the text has lone surrogates"),
            ({"\udc80": 1}, ValueError, "the text has lone surrogates"),
            (nested(65), ValueError, r"message\['deep'\]\[0\]\[0\]\[0\]\.\.\.: containers are nested deeper than 64"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_name_what_and_where(self, message: Any, error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            pack(message, MAX)
        same(message)

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}])
    def test_begin_at_a_depth_of_65(self, wrap: Callable[[Any], Any]) -> None:
        assert packed(nested(64, wrap)) == carried(nested(64, wrap))
        same(nested(65, wrap))
        same(nested(10_000, wrap))

    def test_a_container_that_holds_itself_is_named(self) -> None:
        message: dict[str, Any] = {"type": "hello", "list": []}
        message["list"].append({"up": [message]})
        with pytest.raises(ValueError, match=r"message\['list'\]\[0\]\['up'\]\[0\]: the container holds itself"):
            pack(message, MAX)
        same(message)

    @pytest.mark.usefixtures("uncollected")
    @pytest.mark.parametrize("empty", [[], pytest.param((), marks=pytest.mark.deep)], ids=repr)
    def test_the_containers_are_counted(self, empty: Any) -> None:
        """The message, eight lists and so many empty containers make one more than there may be."""
        inner = [empty] * (2**22 // 8 - 1)
        message: dict[str, Any] = {str(number): inner for number in range(8)}
        layer = InMemoryChannelLayer(strict=True)
        for action in (lambda: pack(message, 1 << 23), lambda: layer.send_sync("channel", message)):
            with pytest.raises(ValueError, match=r"message\['7'\]\[524286\]: more than 4194304 containers"):
                action()
        message["7"] = inner[:-1]
        assert len(pack(message, 1 << 23)) > 2**22
        layer.send_sync("channel", message)

    def test_what_a_dict_of_a_type_of_its_own_raises_is_raised(self) -> None:
        with pytest.raises(LookupError, match="of the dict"):
            pack({"a": Failing()}, MAX)
        same(Failing(a=1))
        same(Odd(a=1))

    def test_a_message_that_changes_under_the_walk_is_the_one_it_was(self) -> None:
        message: dict[str, Any] = {"a": None, "b": [None], "c": 1}

        class Changing(Odd):
            def keys(self) -> Any:
                message["b"].clear()
                message.clear()
                return []

        message["a"] = Changing()
        assert packed(message) == {"a": {}, "b": [], "c": 1}


class TestLimit:
    """A message longer than the limit is refused, and not built."""

    @given(messages)
    def test_is_exact(self, message: dict[str, Any]) -> None:
        length = len(msgpack.packb(message))
        assert len(pack(message, length)) == length
        with pytest.raises(MessageTooLarge, match=rf"at least \d+ bytes, and the limit is {length - 1}:"):
            pack(message, length - 1)

    def test_is_named_with_the_size_and_what_to_do(self) -> None:
        with pytest.raises(MessageTooLarge) as caught:
            pack({"type": "file", "data": bytes(5_000)}, 1_024)
        assert str(caught.value) == (
            "the message takes at least 5019 bytes, and the limit is 1024: store what is large and send its key "
            "or URL, or raise the limit of the layer"
        )

    @pytest.mark.parametrize(
        "value", [b"x" * 1_000_000, "x" * 1_000_000, [0] * 1_000_000], ids=["bytes", "str", "list"]
    )
    def test_is_noticed_before_much_is_built(self, value: Any) -> None:
        """All of it would be 200 GB."""
        with pytest.raises(MessageTooLarge):
            pack({"a": [value] * 200_000}, MAX)

    def test_may_be_larger_than_lengths_can_be(self) -> None:
        assert pack({"a": 1}, sys.maxsize) == msgpack.packb({"a": 1})

    @pytest.mark.parametrize("limit", [-1, "1", None, 1.5])
    def test_is_a_number(self, limit: Any) -> None:
        with pytest.raises((TypeError, OverflowError)):
            pack({}, limit)
