import datetime
import decimal
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace._sockets.payload import broadcast_message, data_of, encoded, frame_of
from headrace.exceptions import MessageTooLarge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_data_comes_back_as_it_was(data: Any) -> None:
    assert data_of(encoded(data, 10**6)) == data


@given(JSON)
def test_a_client_gets_what_json_dumps_makes_of_it(data: Any) -> None:
    assert frame_of(encoded(data, 10**6), json.dumps, False) == {"type": "websocket.send", "text": json.dumps(data)}


def test_receivers_have_containers_of_their_own() -> None:
    message = encoded({"a": [1]}, 100)
    data_of(message)["a"].append(2)
    assert data_of(message) == {"a": [1]}


def test_keys_become_text_as_json_has_them() -> None:
    assert data_of(encoded({1: 2}, 100)) == {"1": 2}


def test_bytes_travel_to_servers_with_an_encoder_for_them() -> None:
    message = encoded({"a": b"\xff", "b": [1]}, 100)
    assert data_of(message) == {"a": b"\xff", "b": [1]}
    assert frame_of(message, lambda data: data["a"], True) == {"type": "websocket.send", "bytes": b"\xff"}
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        frame_of(message, json.dumps, False)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({1, 2}, "data: set is not serialisable"),
        ({"a": [datetime.datetime(2026, 1, 1)]}, "data['a'][0]: datetime is not serialisable"),
        ([decimal.Decimal(1)], "data[0]: Decimal is not serialisable"),
        ({(1, 2): 3}, "data[(1, 2)]: a key is neither a str nor bytes; give what JSON can hold, or bytes in it"),
    ],
)
def test_what_cannot_be_carried_is_named_with_its_path(data: Any, where: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"data cannot be broadcast: {where}")):
        encoded(data, 100)


def test_data_that_holds_itself_or_is_too_deep_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        encoded(loop, 100)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deep"):
        encoded(deep, 10**6)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_that_json_has_not_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encoded({"reading": float(number)}, 100)


@pytest.mark.parametrize("data", ["x" * 99, b"x" * 99])
def test_the_limit_is_kept_and_told(data: Any) -> None:
    encoded(data, 110)
    with pytest.raises(MessageTooLarge, match="100"):
        encoded(data, 100)


def test_an_encoder_is_called_once_for_all_receivers_of_a_message() -> None:
    calls: list[Any] = []

    def encoder(data: Any) -> str:
        calls.append(data)
        return "x"

    first, second = encoded([1], 100), encoded([1], 100)
    frames = [frame_of(message, encoder, False) for message in (first, first, second, second)]
    assert frames == [{"type": "websocket.send", "text": "x"}] * 4
    assert len(calls) == (1 if first["text"] is second["text"] else 2)
    assert frame_of(second, str, False)["text"] == "[1]"


@pytest.mark.parametrize(
    ("content", "is_bytes", "frame"),
    [
        ("a", False, {"text": "a"}),
        (b"a", False, {"text": "a"}),
        ("a", True, {"bytes": b"a"}),
        (bytearray(b"a"), True, {"bytes": b"a"}),
    ],
)
def test_a_frame_is_text_or_bytes_as_the_server_says(content: Any, is_bytes: bool, frame: dict[str, Any]) -> None:
    message = encoded(["made by this test alone", content.__class__.__name__, is_bytes], 200)
    assert frame_of(message, lambda _data: content, is_bytes) == {"type": "websocket.send", **frame}


def test_an_encoder_that_returns_neither_is_told_so() -> None:
    with pytest.raises(TypeError, match="ws_encoder must return str or bytes, returned NoneType"):
        frame_of(encoded({}, 100), lambda _data: None, False)  # type: ignore[arg-type,return-value]


def test_a_message_is_typed_by_its_topic() -> None:
    one, other = (broadcast_message(topic, {"text": "1"}) for topic in ("a", "b"))
    assert one["type"] != other["type"]
    assert (one["topic"], one["text"]) == ("a", "1")
