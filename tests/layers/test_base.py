"""Names, capacities and the methods of the base layer."""

import inspect
import re
from typing import Any

import pytest
from channels.layers import BaseChannelLayer as ChannelsBaseChannelLayer
from hypothesis import example, given
from hypothesis import strategies as st

from headrace._layers.base import BaseChannelLayer

RULES = (
    " name must be a valid unicode string with length < 100 containing only ASCII alphanumerics, "
    "hyphens, underscores, or periods."
)
CHANNEL_NAMES = ["a", "A-z_0.9", "specific.inmemory!aB3-_.", "a!", "-", "x" * 100, "x" * 99 + "!"]
GROUP_NAMES = ["a", "A-z_0.9", "-", ".", "x" * 100]
WRONG_NAMES: list[tuple[Any, str]] = [
    ("", "an empty name"),
    ("a b", "'a b': character ' ' at position 1 is not allowed"),
    ("a\n", r"'a\n': character '\n' at position 1 is not allowed"),
    ("a:b", "'a:b': character ':' at position 1 is not allowed"),
    ("who?", "'who?': character '?' at position 3 is not allowed"),
    ("café", "'café': character 'é' at position 3 is not allowed"),
    ("1\u0662", "'1\u0662': character '\u0662' at position 1 is not allowed"),
    ("!a", "'!a': character '!' at position 0 is not allowed"),
    ("a!b!c", "'a!b!c': character '!' at position 3 is not allowed"),
    ("a!é", "'a!é': character 'é' at position 2 is not allowed"),
    ("x" * 101, "101 characters, and at most 100 fit"),
    (b"a", "b'a', which is of type bytes"),
    (None, "None, which is of type NoneType"),
    (7, "7, which is of type int"),
]


@pytest.fixture
def layer() -> BaseChannelLayer:
    return BaseChannelLayer()


class TestNames:
    @pytest.mark.parametrize("name", CHANNEL_NAMES)
    def test_a_valid_channel_name_passes(self, layer: BaseChannelLayer, name: str) -> None:
        assert layer.require_valid_channel_name(name) is True

    @pytest.mark.parametrize("name", GROUP_NAMES)
    def test_a_valid_group_name_passes(self, layer: BaseChannelLayer, name: str) -> None:
        assert layer.require_valid_group_name(name) is True

    @pytest.mark.parametrize(("name", "fault"), WRONG_NAMES)
    def test_a_wrong_channel_name_raises_channels_text_and_the_fault(
        self, layer: BaseChannelLayer, name: Any, fault: str
    ) -> None:
        with pytest.raises(TypeError, match=re.escape(f"Channel{RULES} Got {fault}") + r"\Z"):
            layer.require_valid_channel_name(name)

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            *[(name, fault) for name, fault in WRONG_NAMES if "!" not in str(name)],
            ("a!b", "'a!b': character '!' at position 1 is not allowed"),
        ],
    )
    def test_a_wrong_group_name_raises_channels_text_and_the_fault(
        self, layer: BaseChannelLayer, name: Any, fault: str
    ) -> None:
        with pytest.raises(TypeError, match=re.escape(f"Group{RULES} Got {fault}") + r"\Z"):
            layer.require_valid_group_name(name)

    def test_the_error_text_is_that_of_channels(self) -> None:
        text = BaseChannelLayer.invalid_name_error
        assert text == ChannelsBaseChannelLayer.invalid_name_error
        assert text.format("Channel") == f"Channel{RULES}"

    def test_receive_takes_no_name_beyond_the_mark(self, layer: BaseChannelLayer) -> None:
        assert layer.require_valid_channel_name("a!", receive=True) is True
        assert layer.require_valid_channel_name("a", receive=True) is True
        text = "Specific channel names in receive() must end at the !. Got 'a!b'"
        with pytest.raises(TypeError, match=re.escape(text)):
            layer.require_valid_channel_name("a!b", receive=True)

    @given(st.text(max_size=99))
    @example("a\n")
    @example("a!b\n")
    @example("a!\u0662")
    @example("x" * 99)
    def test_of_what_channels_accepts_ascii_without_a_last_newline_passes(self, name: str) -> None:
        layer, channels = BaseChannelLayer(), ChannelsBaseChannelLayer()
        carried = name.isascii() and not name.endswith("\n")
        for rule in ("require_valid_channel_name", "require_valid_group_name"):
            expected = carried and passes(getattr(channels, rule), name)
            assert passes(getattr(layer, rule), name) == expected

    def test_names_of_a_list_are_checked_one_by_one(self, layer: BaseChannelLayer) -> None:
        assert layer.valid_channel_names(["a", "b!"], receive=True) is True
        with pytest.raises(TypeError, match="Got 'b c'"):
            layer.valid_channel_names(["a", "b c"])
        with pytest.raises(TypeError, match="must end at the !"):
            layer.valid_channel_names(["a", "b!c"], receive=True)

    @pytest.mark.parametrize("names", [[], None, "a", ("a",), {"a": 1}])
    def test_anything_but_a_list_of_names_raises_assertion_error(self, layer: BaseChannelLayer, names: Any) -> None:
        with pytest.raises(AssertionError, match="names must be a non-empty list, got"):
            layer.valid_channel_names(names)

    @pytest.mark.parametrize(("name", "expected"), [("a!b", "a!"), ("a!", "a!"), ("ab", "ab"), ("", "")])
    def test_the_non_local_name_ends_at_the_mark(self, layer: BaseChannelLayer, name: str, expected: str) -> None:
        assert layer.non_local_name(name) == expected

    def test_type_and_length_are_matched_alone(self, layer: BaseChannelLayer) -> None:
        assert layer.match_type_and_length("any thing!") is True
        assert layer.match_type_and_length("x" * 100) is True
        assert layer.match_type_and_length("x" * 101) is False
        assert layer.match_type_and_length(b"x") is False

    def test_a_subclass_may_have_other_rules(self) -> None:
        class Narrow(BaseChannelLayer):
            MAX_NAME_LENGTH = 5
            group_name_regex = re.compile(r"\A[a-z:]+\Z")

        assert Narrow().require_valid_group_name("a:b") is True
        with pytest.raises(TypeError, match="6 characters, and at most 5 fit"):
            Narrow().require_valid_group_name("abcdef")
        with pytest.raises(TypeError, match="character '1' at position 1"):
            Narrow().require_valid_group_name("a1")

    def test_a_subclass_that_refuses_a_name_for_reasons_of_its_own_still_raises(self) -> None:
        class Refusing(BaseChannelLayer):
            def match_type_and_length(self, name: object) -> bool:
                return name != "reserved"

        with pytest.raises(TypeError, match=r"Got 'reserved'\Z"):
            Refusing().require_valid_channel_name("reserved")


class TestDeprecatedNames:
    def test_valid_channel_name_warns_and_checks(self, layer: BaseChannelLayer) -> None:
        text = "valid_channel_name is deprecated, use require_valid_channel_name instead."
        with pytest.warns(DeprecationWarning, match=re.escape(text)) as warned:
            assert layer.valid_channel_name("a!b", receive=True) is True
        assert warned[0].filename == __file__
        with pytest.warns(DeprecationWarning), pytest.raises(TypeError):
            layer.valid_channel_name("a b")

    def test_valid_group_name_warns_and_checks(self, layer: BaseChannelLayer) -> None:
        text = "valid_group_name is deprecated, use require_valid_group_name instead."
        with pytest.warns(DeprecationWarning, match=re.escape(text)) as warned:
            assert layer.valid_group_name("a") is True
        assert warned[0].filename == __file__
        with pytest.warns(DeprecationWarning), pytest.raises(TypeError):
            layer.valid_group_name("a!b")


class TestConfiguration:
    def test_the_defaults_are_those_of_channels(self, layer: BaseChannelLayer) -> None:
        assert (layer.expiry, layer.capacity, layer.channel_capacity) == (60, 100, [])
        assert inspect.signature(BaseChannelLayer.__init__).parameters.keys() == (
            inspect.signature(ChannelsBaseChannelLayer.__init__).parameters.keys()
        )

    @pytest.mark.parametrize("expiry", [0, -1, -0.5, float("nan"), float("inf"), "60", None, True])
    def test_expiry_must_be_a_positive_number(self, expiry: Any) -> None:
        text = f"expiry must be a positive number of seconds, got {expiry!r}"
        with pytest.raises(ValueError, match=re.escape(text)):
            BaseChannelLayer(expiry=expiry)

    def test_expiry_may_be_a_fraction(self) -> None:
        assert BaseChannelLayer(expiry=0.1).expiry == 0.1

    @pytest.mark.parametrize("capacity", [0, -1, 1.0, "100", None, True])
    def test_capacity_must_be_a_positive_integer(self, capacity: Any) -> None:
        text = f"capacity must be a positive integer, got {capacity!r}"
        with pytest.raises(ValueError, match=re.escape(text)):
            BaseChannelLayer(capacity=capacity)

    @pytest.mark.parametrize("capacity", [0, -1, 1.5, "2", None, False])
    def test_a_channel_capacity_must_be_a_positive_integer(self, capacity: Any) -> None:
        text = f"channel_capacity['http.*'] must be a positive integer, got {capacity!r}"
        with pytest.raises(ValueError, match=re.escape(text)):
            BaseChannelLayer(channel_capacity={"ok": 1, "http.*": capacity})

    @pytest.mark.parametrize("pattern", [5, None, b"http.*", re.compile(b"http"), ("a",)])
    def test_a_channel_capacity_pattern_must_be_a_glob_or_compiled(self, pattern: Any) -> None:
        text = f"globs (str) or compiled patterns of str, got {pattern!r}"
        with pytest.raises(ValueError, match=re.escape(text)):
            BaseChannelLayer(channel_capacity={pattern: 5})

    @pytest.mark.parametrize("capacities", ["http.*", 5, [5], [("a", 1, 2)], ("a", 1), False])
    def test_channel_capacity_must_be_a_mapping(self, capacities: Any) -> None:
        with pytest.raises(ValueError, match="channel_capacity must be a mapping"):
            BaseChannelLayer(channel_capacity=capacities)

    def test_an_unknown_argument_raises_type_error(self) -> None:
        with pytest.raises(TypeError, match="colour"):
            BaseChannelLayer(colour="red")  # type: ignore[call-arg]  # that is the point

    def test_the_first_pattern_that_matches_gives_the_capacity(self) -> None:
        layer = BaseChannelLayer(
            capacity=7,
            channel_capacity={
                "http.request": 200,
                "http.response!*": 10,
                "http.[rs]*": 20,
                re.compile(r"^websocket.send\!.+"): 30,
                "only.?": 40,
            },
        )
        expected = {
            "http.request": 200,
            "http.response!abc": 10,
            "http.response": 20,
            "http.send": 20,
            "http.other": 7,
            "websocket.send!abc": 30,
            "websocket.send": 7,
            "only.1": 40,
            "only.12": 7,
            "not.http.request": 7,
            "HTTP.request": 7,
        }
        assert {name: layer.get_capacity(name) for name in expected} == expected

    def test_anything_with_a_match_method_is_a_compiled_pattern(self) -> None:
        class Even:
            def match(self, string: str, /) -> bool:
                return len(string) % 2 == 0

        layer = BaseChannelLayer(capacity=5, channel_capacity={Even(): 6})
        assert (layer.get_capacity("ab"), layer.get_capacity("abc")) == (6, 5)

    def test_compiled_capacities_are_compiled_once_and_can_be_compiled_again(self) -> None:
        """A layer written for Channels compiles its capacities itself, after the base did."""
        layer = BaseChannelLayer(channel_capacity={"a*": 1, "b": 2})
        compiled = layer.channel_capacity
        assert layer.compile_capacities(compiled) == compiled
        assert layer.compile_capacities({"a*": 1, "b": 2}) == compiled
        theirs = ChannelsBaseChannelLayer().compile_capacities({"a*": 1, "b": 2})
        assert compiled == theirs


class TestMethods:
    @pytest.mark.parametrize(
        ("method", "arguments", "text"),
        [
            ("send", {"channel": "a", "message": {}}, "send() should be implemented"),
            ("receive", {"channel": "a"}, "receive() should be implemented"),
            ("new_channel", {}, "new_channel() should be implemented"),
            ("flush", {}, "flush() not implemented (flush extension)"),
            ("group_add", {"group": "a", "channel": "b"}, "(groups extension)"),
            ("group_discard", {"group": "a", "channel": "b"}, "(groups extension)"),
            ("group_send", {"group": "a", "message": {}}, "(groups extension)"),
        ],
    )
    async def test_a_method_that_a_layer_lacks_raises_not_implemented_error(
        self, layer: BaseChannelLayer, method: str, arguments: dict[str, Any], text: str
    ) -> None:
        function = getattr(layer, method)
        assert inspect.iscoroutinefunction(function)
        with pytest.raises(NotImplementedError, match=re.escape(text)):
            await function(**arguments)


def passes(validator: Any, name: str) -> bool:
    """Tell whether a validator accepts a name."""
    try:
        return bool(validator(name))
    except TypeError:
        return False
