"""What the messages of the in-process layer may hold, with ``strict`` and without, and what they may not."""

import asyncio
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import threading
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from tests.support.ids import label

from headrace.exceptions import InvalidMessage
from headrace.layers import InMemoryChannelLayer

HELLO = {"type": "hello"}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


@pytest.fixture
def strict() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(strict=True)


def carried(layer: InMemoryChannelLayer, message: dict[str, Any]) -> Any:
    """Send a message and receive it."""
    layer.send_sync("channel", message)
    return layer.receive_nowait("channel")


class Color(enum.Enum):
    """Something that is copied as itself."""

    RED = 1


@dataclasses.dataclass
class Model:
    """Something like a row of a database."""

    name: str
    tags: list[str]


class Point(NamedTuple):
    """A tuple of a type of its own."""

    x: int
    y: list[int]


class Raw(bytes):
    """Bytes of a type of their own."""


class Text(str):
    """Text of a type of its own."""


class TestAnyValue:
    """Without ``strict`` a message may hold whatever ``copy.deepcopy`` can copy, and it arrives as it was."""

    @pytest.mark.parametrize(
        "value",
        [
            datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC),
            datetime.timedelta(seconds=1),
            decimal.Decimal("1.5"),
            uuid.UUID(int=5),
            Color.RED,
            Model("name", ["tag"]),
            Point(1, [2]),
            {1, 2},
            frozenset({1, 2}),
            bytearray(b"abc"),
            collections.OrderedDict(a=1, b=[2]),
            collections.defaultdict(list, a=[1]),
            collections.deque([1, [2]]),
            range(3),
            1 + 2j,
            2**70,
            print,
            Model,
        ],
        ids=label,
    )
    @pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: (v,), lambda v: {"a": [{"b": v}]}])
    def test_it_arrives_with_its_type(
        self, layer: InMemoryChannelLayer, value: Any, wrap: Callable[[Any], Any]
    ) -> None:
        received = carried(layer, {"type": "hello", "value": wrap(value)})
        assert received == {"type": "hello", "value": wrap(value)}
        inner = received["value"]
        while type(inner) in (list, dict) or type(inner) is tuple:
            inner = next(iter(inner.values() if isinstance(inner, dict) else inner))
            if type(inner) is type(value):
                break
        assert type(inner) is type(value)

    @pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: (v,)])
    def test_a_view_of_memory_arrives_as_the_bytes_that_it_showed(
        self, layer: InMemoryChannelLayer, wrap: Callable[[Any], Any]
    ) -> None:
        memory = bytearray(b"sent")
        layer.send_sync("channel", {"type": "hello", "value": wrap(memoryview(memory))})
        memory[:] = b"more"
        assert layer.receive_nowait("channel") == {"type": "hello", "value": wrap(b"sent")}

    @pytest.mark.parametrize(
        "message",
        [
            {"a": "\udc80"},
            {"a": Text("x\udc80")},
            {"a": [{"b": "\ud83d"}]},
            {"a": ("\ud83d",)},
            {"a": {"\ud83d": 1}},
            {"\ud83d": 1},
        ],
        ids=label,
    )
    def test_text_that_no_client_can_be_sent_is_an_error_of_its_sender(
        self, layer: InMemoryChannelLayer, message: dict[str, Any]
    ) -> None:
        layer.group_add_sync("group", "channel")
        for send in (layer.send_sync, layer.group_send_sync):
            with pytest.raises(ValueError, match=r"message\[.*\]: the text has lone surrogates"):
                send("channel" if send == layer.send_sync else "group", message)
        assert layer.stats().sent == 0

    def test_it_is_nobody_elses(self, layer: InMemoryChannelLayer) -> None:
        model = Model("name", ["tag"])
        for channel in ("a", "b"):
            layer.group_add_sync("group", channel)
        layer.group_send_sync("group", {"model": model})
        model.tags.append("of the sender")
        first, second = (layer.receive_nowait(channel)["model"] for channel in ("a", "b"))
        first.tags.append("of the receiver")
        assert second == Model("name", ["tag"])

    def test_a_message_may_be_of_a_subclass_of_dict(self, layer: InMemoryChannelLayer) -> None:
        message = collections.OrderedDict(type="hello", list=[1])
        received = carried(layer, message)
        assert type(received) is collections.OrderedDict
        assert received == message
        assert received["list"] is not message["list"]

    @pytest.mark.parametrize(
        ("message", "path"),
        [
            ({"type": "hello", "lock": threading.Lock()}, r"message\['lock'\]: lock"),
            ({"deep": [0, {"user": (1, threading.Lock())}]}, r"message\['deep'\]\[1\]\['user'\]\[1\]: lock"),
            ({"generator": (n for n in "abc")}, r"message\['generator'\]: generator"),
            ({5: threading.Lock()}, r"message\[5\]: lock"),
        ],
    )
    def test_what_cannot_be_copied_is_a_type_error_that_names_the_path(
        self, layer: InMemoryChannelLayer, message: dict[str, Any], path: str
    ) -> None:
        layer.group_add_sync("group", "channel")
        for send, name in ((layer.send_sync, "channel"), (layer.group_send_sync, "group")):
            with pytest.raises(TypeError, match=path) as caught:
                send(name, message)
            assert "cannot be copied" in str(caught.value)
            assert caught.value.__cause__ is not None
        assert layer.stats().sent == 0

    def test_an_error_in_a_copy_is_the_cause(self, layer: InMemoryChannelLayer) -> None:
        class Broken:
            def __deepcopy__(self, memo: object) -> Any:
                raise LookupError("of the value")

        with pytest.raises(TypeError, match=r"message\['a'\]: Broken cannot be copied: .*of the value") as caught:
            layer.send_sync("channel", {"a": Broken()})
        assert isinstance(caught.value.__cause__, LookupError)

    @pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
    def test_what_ends_the_program_is_no_fault_of_the_value(
        self, layer: InMemoryChannelLayer, ending: type[BaseException]
    ) -> None:
        class Interrupted:
            def __deepcopy__(self, memo: object) -> Any:
                raise ending

        with pytest.raises(ending):
            layer.send_sync("channel", {"a": [Interrupted()]})
        assert layer.stats().sent == 0

    def test_a_copy_may_use_the_layer(self, layer: InMemoryChannelLayer) -> None:
        class Sends:
            def __deepcopy__(self, memo: object) -> str:
                layer.send_sync("other", HELLO)
                return "copied"

        assert carried(layer, {"value": Sends()}) == {"value": "copied"}
        assert layer.receive_nowait("other") == HELLO

    def test_the_end_of_a_message_may_use_the_layer(self, layer: InMemoryChannelLayer) -> None:
        class Sends:
            def __deepcopy__(self, memo: object) -> "Sends":
                return Sends()

            def __del__(self) -> None:
                layer.send_sync("other", HELLO)

        layer.send_sync("channel", {"value": [Sends()]})
        layer.close_channel("channel")
        assert layer.channel_stats("other").depth >= 1

    def test_keys_may_be_anything_that_a_dict_takes(self, layer: InMemoryChannelLayer) -> None:
        message: dict[Any, Any] = {1: [1], None: 2, ("a", 1): {2.5: []}, Color.RED: 3, frozenset(): 4}
        assert carried(layer, message) == message


class TestTrees:
    """A message is a tree: a container in itself is refused, and so is one too deep."""

    @pytest.mark.parametrize("in_strict_mode", [False, True])
    @pytest.mark.parametrize(
        ("build", "path"),
        [
            (lambda m: m.update(self=m), r"message\['self'\]: the container holds itself"),
            (lambda m: m["list"].append(m["list"]), r"message\['list'\]\[0\]: the container holds itself"),
            (lambda m: m["list"].append((m["list"],)), r"message\['list'\]\[0\]\[0\]: the container holds itself"),
            (
                lambda m: m["list"].append({"up": [m]}),
                r"message\['list'\]\[0\]\['up'\]\[0\]: the container holds itself",
            ),
        ],
    )
    def test_a_cycle_is_a_value_error_that_names_the_path(
        self, in_strict_mode: bool, build: Callable[[Any], None], path: str
    ) -> None:
        layer = InMemoryChannelLayer(strict=in_strict_mode)
        message: dict[str, Any] = {"type": "hello", "list": []}
        build(message)
        with pytest.raises(ValueError, match=path):
            layer.send_sync("channel", message)
        assert layer.stats().sent == 0

    @pytest.mark.parametrize("in_strict_mode", [False, True])
    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}])
    def test_the_depth_is_64_at_most(self, in_strict_mode: bool, wrap: Callable[[Any], Any]) -> None:
        layer = InMemoryChannelLayer(strict=in_strict_mode)
        value: Any = wrap(1)
        for _ in range(62):
            value = wrap(value)
        carried(layer, {"deep": value})
        with pytest.raises(ValueError, match=r"message\['deep'\].*nested deeper than 64"):
            layer.send_sync("channel", {"deep": wrap(value)})
        for _ in range(10_000):
            value = wrap(value)
        with pytest.raises(ValueError, match="nested deeper than 64"):
            layer.send_sync("channel", {"deep": value})
        assert layer.stats().sent == 1

    def test_a_list_in_many_places_is_no_cycle(self, layer: InMemoryChannelLayer) -> None:
        inner: list[Any] = [1]
        message = {"a": inner, "b": [inner, {"c": inner}]}
        assert carried(layer, message) == copy.deepcopy(message)


class Number(enum.IntEnum):
    """An int of a type of its own."""

    ONE = 1


class TestStrict:
    """With ``strict`` a message holds what every engine can carry, and is told so where it does not."""

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            False,
            0,
            2**63 - 1,
            2**64 - 1,
            -(2**63),
            0.5,
            float("inf"),
            "",
            "text \u00e9\U0001f600",
            b"",
            b"\xff",
        ],
    )
    def test_the_types_of_the_specification_pass(self, strict: InMemoryChannelLayer, value: Any) -> None:
        message = {"type": "hello", "value": value, "list": [value, [value]], "dict": {"a": {"b": value}}}
        received = carried(strict, message)
        assert received == message
        assert type(received["value"]) is type(value)

    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            ((), []),
            ((1, (2, [3])), [1, [2, [3]]]),
            (Point(1, [2]), [1, [2]]),
            (Text("text"), "text"),
            (Number.ONE, 1),
            (bytearray(b"x"), b"x"),
            (memoryview(b"x"), b"x"),
            (collections.OrderedDict(a=(1,)), {"a": [1]}),
            (collections.defaultdict(Text, a=Text("b")), {"a": "b"}),
        ],
        ids=label,
    )
    def test_what_can_be_made_plain_is_made_plain(self, strict: InMemoryChannelLayer, value: Any, plain: Any) -> None:
        received = carried(strict, {"value": value, "list": [value]})
        assert received == {"value": plain, "list": [plain]}
        assert type(received["value"]) is type(plain)
        assert type(received["list"][0]) is type(plain)

    def test_a_message_of_a_subclass_of_dict_becomes_a_dict(self, strict: InMemoryChannelLayer) -> None:
        received = carried(strict, collections.OrderedDict(type="hello", tuple=(1,)))
        assert type(received) is dict
        assert received == {"type": "hello", "tuple": [1]}

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (datetime.datetime(2026, 11, 1), "datetime"),
            (decimal.Decimal(1), "Decimal"),
            (uuid.UUID(int=1), "UUID"),
            ({1}, "set"),
            (frozenset(), "frozenset"),
            (1j, "complex"),
            (object(), "object"),
            (Color.RED, "Color"),
            (Model("name", []), "Model"),
            (range(3), "range"),
            (collections.deque(), "deque"),
            (print, "builtin_function_or_method"),
            (int, "type"),
        ],
        ids=label,
    )
    @pytest.mark.parametrize(
        ("wrap", "path"),
        [
            (lambda v: v, r"message\['value'\]"),
            (lambda v: [1, v], r"message\['value'\]\[1\]"),
            (lambda v: (v,), r"message\['value'\]\[0\]"),
            (lambda v: {"user": [0, 0, 0, v]}, r"message\['value'\]\['user'\]\[3\]"),
        ],
    )
    def test_any_other_type_is_a_type_error_that_names_the_path(
        self, strict: InMemoryChannelLayer, value: Any, kind: str, wrap: Callable[[Any], Any], path: str
    ) -> None:
        with pytest.raises(TypeError, match=f"{path}: {kind} is not serialisable"):
            strict.send_sync("channel", {"type": "hello", "value": wrap(value)})
        assert strict.stats().sent == 0

    @pytest.mark.parametrize("key", [1, None, ("a",), 1.5, True])
    def test_a_key_that_is_no_text_is_a_type_error(self, strict: InMemoryChannelLayer, key: Any) -> None:
        for message in ({key: 1}, {"a": [{key: 1}]}):
            with pytest.raises(TypeError, match="a key is neither a str nor bytes"):
                strict.send_sync("channel", message)

    @pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
    def test_an_integer_of_more_than_64_bits_is_a_value_error(self, strict: InMemoryChannelLayer, number: int) -> None:
        with pytest.raises(ValueError, match=r"message\['a'\]\[0\]: the integer is not between"):
            strict.send_sync("channel", {"a": [number]})

    @pytest.mark.parametrize("message", [{"a": "\udc80"}, {"a": Text("\udc80")}, {"a": [{"b": "x\ud800"}]}])
    def test_text_that_is_no_unicode_is_a_value_error(
        self, strict: InMemoryChannelLayer, message: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match=r"message\['a'\].*surrogates"):
            strict.send_sync("channel", message)

    @pytest.mark.parametrize("message", [{"\udc80": 1}, {"a": {"\udc80": 1}}])
    def test_a_key_that_is_no_unicode_is_a_value_error(
        self, strict: InMemoryChannelLayer, message: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match="surrogates"):
            strict.send_sync("channel", message)

    def test_a_key_of_a_type_of_its_own_becomes_plain_text(self, strict: InMemoryChannelLayer) -> None:
        received = carried(strict, {"dict": {Text("key"): 1, Raw(b"key"): 2, b"other": 3}})
        assert [type(key) for key in received["dict"]] == [str, bytes, bytes]

    def test_it_holds_for_every_kind_of_send(self, strict: InMemoryChannelLayer) -> None:
        strict.group_add_sync("group", "channel")
        bad = {"set": {1}}
        calls: list[Callable[[], Any]] = [
            lambda: strict.send_sync("channel", bad),
            lambda: strict.group_send_sync("group", bad),
            lambda: asyncio.run(strict.send_many([("channel", bad)])),
            lambda: asyncio.run(strict.group_send_many([("group", bad)])),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=r"message\['set'\]: set is not serialisable"):
                call()


class TestMessages:
    """What is no message is refused with the exception that Channels' layers raise, which ``-O`` keeps."""

    def test_invalid_message_is_an_assertion_error(self, layer: InMemoryChannelLayer) -> None:
        assert issubclass(InvalidMessage, AssertionError)
        with pytest.raises(InvalidMessage, match=r"Message is not a dict: got list \[1\]"):
            layer.send_sync("channel", [1])  # type: ignore[arg-type]
        with pytest.raises(InvalidMessage, match=r"message\['__asgi_channel__'\]"):
            layer.send_sync("channel", {"__asgi_channel__": 1})

    def test_the_reserved_key_may_stand_further_in(self, layer: InMemoryChannelLayer) -> None:
        message = {"inner": {"__asgi_channel__": 1}}
        assert carried(layer, message) == message

    def test_a_long_value_is_shown_in_short(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(InvalidMessage) as caught:
            layer.send_sync("channel", "x" * 1_000_000)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 1_000

    def test_a_value_that_cannot_be_shown_is_refused_all_the_same(self, layer: InMemoryChannelLayer) -> None:
        class Unshowable:
            def __repr__(self) -> str:
                raise LookupError("of the value")

        with pytest.raises(AssertionError, match="is not a dict"):
            layer.send_sync("channel", Unshowable())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Channel name must be"):
            layer.send_sync(Unshowable(), HELLO)  # type: ignore[arg-type]


class TestSize:
    """What a message counts in a mailbox that is bounded in bytes: its texts and bytes, and 32 for each value."""

    @pytest.mark.parametrize(
        ("message", "values", "content"),
        [
            ({}, 1, 0),
            ({"type": "hello"}, 3, 9),
            ({"t": "\u00e9\u20ac"}, 3, 6),
            ({"b": b"12345"}, 3, 6),
            ({"n": 7, "x": 1.5, "y": None, "z": True}, 9, 4),
            ({"l": ["ab", "cd", b"e"]}, 6, 6),
            ({"l": ("ab", ["cd"])}, 6, 5),
            ({"d": {"k": {"k": 1}}}, 7, 3),
        ],
        ids=label,
    )
    @pytest.mark.parametrize("strict", [False, True])
    def test_it_is_that_of_its_values(self, message: dict[str, Any], values: int, content: int, strict: bool) -> None:
        layer = InMemoryChannelLayer(strict=strict)
        layer.send_sync("channel", message)
        assert layer.stats().bytes == 32 * values + content
        layer.receive_nowait("channel")
        assert layer.stats().bytes == 0

    @pytest.mark.parametrize(
        "value", [1 << 80_000, bytearray(10_000), memoryview(bytes(10_000))], ids=["int", "bytearray", "memoryview"]
    )
    def test_what_is_large_by_itself_counts(self, layer: InMemoryChannelLayer, value: Any) -> None:
        layer.send_sync("channel", {"value": value})
        assert 10_000 < layer.stats().bytes < 11_000

    @pytest.mark.parametrize("value", [bytearray(10_000), memoryview(bytes(10_000))], ids=["bytearray", "memoryview"])
    def test_what_is_made_bytes_counts_as_bytes(self, strict: InMemoryChannelLayer, value: Any) -> None:
        strict.send_sync("channel", {"value": value})
        assert strict.stats().bytes == 32 * 3 + 5 + 10_000

    def test_an_object_that_does_not_tell_its_size_counts_as_one_value(self, layer: InMemoryChannelLayer) -> None:
        class Silent:
            def __sizeof__(self) -> int:
                raise ValueError

        layer.send_sync("channel", {"value": Silent()})
        assert layer.stats().bytes == 32 * 3 + 5
