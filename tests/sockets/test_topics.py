import enum
import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace._sockets.topics import _group_of, group_of, topic_of, topics_of
from headrace.layers import BaseChannelLayer

TOPICS = st.text(max_size=300)
UUID_TEXT = "12345678-1234-5678-1234-567812345678"


@given(TOPICS)
@example("")
@example("room 1 / ärger\n\0")
@example("x" * 81)
@example("x" * 100_000)
def test_any_text_becomes_a_legal_group(topic: str) -> None:
    assert BaseChannelLayer().require_valid_group_name(group_of(topic_of(topic)))


@given(TOPICS, TOPICS)
def test_two_topics_have_two_groups(one: str, other: str) -> None:
    assert (group_of(one) == group_of(other)) == (one == other)


@given(TOPICS)
def test_a_topic_cannot_be_chosen_so_that_it_is_the_group_of_another(topic: str) -> None:
    group = group_of(topic)
    assert group_of(group) != group
    assert group_of(group.removeprefix("socket.t.").removeprefix("socket.d.")) == group or group.startswith("socket.d.")


def test_a_short_and_plain_topic_is_readable_in_the_name_of_its_group() -> None:
    assert group_of("room-1.b_c") == "socket.t.room-1.b_c"


class Room(str, enum.Enum):  # noqa: UP042  # whose str() is not its value
    LOBBY = "lobby"


class Level(enum.IntEnum):
    TOP = 3


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("a", "a"),
        (7, "7"),
        (-(10**30), f"-1{'0' * 30}"),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Room.LOBBY, "lobby"),
        (Level.TOP, "3"),
    ],
)
def test_a_topic_is_text_an_integer_or_a_uuid(topic: object, text: str) -> None:
    assert topic_of(topic) == text
    assert type(topic_of(topic)) is str


@pytest.mark.parametrize("topic", [None, b"a", 1.5, True, ["a"], object()])
def test_nothing_else_is_a_topic(topic: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"must be a str, an int or a UUID, got {topic!r}"[:40])):
        topic_of(topic)


def test_half_of_a_surrogate_pair_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match="surrogate pair at position 1"):
        topic_of("a\ud800")


@pytest.mark.parametrize("topics", [["a", 1], ("a", 1)])
def test_several_topics_are_a_list_a_tuple_or_a_set(topics: object) -> None:
    assert topics_of(topics) == ["a", "1"]
    assert sorted(topics_of({"a", 1})) == ["1", "a"]
    assert topics_of("ab") == ["ab"]


def test_what_is_remembered_of_topics_does_not_grow_with_their_length() -> None:
    _group_of.cache_clear()
    assert group_of("long" * 1000) == group_of("long" * 1000)
    assert _group_of.cache_info().currsize == 0
