"""Names of groups from any text."""

import enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import group_name
from headrace.layers import BaseChannelLayer

PARTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=3)


class Kind(enum.StrEnum):
    USER = "user"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("user", "ada@example.org"), "user.ada_40example_2Eorg"),
        (("room", 7), "room.7"),
        (("room", "7"), "room.7"),
        (("a.b",), "a_2Eb"),
        (("a", "b"), "a.b"),
        (("a_b",), "a_5Fb"),
        (("a", ""), "a._"),
        (("",), "_"),
        (("é",), "_C3_A9"),
        ((Kind.USER, UUID(int=1)), "user.00000000-0000-0000-0000-000000000001"),
        (("x" * 100,), "x" * 100),
    ],
)
def test_a_name_can_be_read(parts: tuple[Any, ...], name: str) -> None:
    assert group_name(*parts) == name


def test_a_name_that_is_too_long_is_a_digest() -> None:
    first, second = group_name("x" * 101), group_name("x" * 102)
    assert first.startswith("__")
    assert len(first) == 66
    assert first != second


@given(PARTS)
def test_every_layer_takes_the_name(parts: list[str]) -> None:
    assert BaseChannelLayer().require_valid_group_name(group_name(*parts))


@given(PARTS, PARTS)
def test_other_parts_have_another_name(first: list[str], second: list[str]) -> None:
    assert (group_name(*first) == group_name(*second)) == (first == second)


@pytest.mark.parametrize(
    ("parts", "error", "text"),
    [
        ((), TypeError, r'needs at least one part, such as group_name\("user", email\)'),
        ((None,), TypeError, "must be a str, an int or a UUID, got a NoneType"),
        ((True,), TypeError, "must be a str, an int or a UUID, got a bool"),
        (("a", 1.5), TypeError, "must be a str, an int or a UUID, got a float"),
        (("ok", "a\ud800"), ValueError, "half of a surrogate pair at position 1"),
    ],
)
def test_what_is_no_text_is_refused(parts: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        group_name(*parts)
