"""What a client says of where it was: anything at all, which is never an error and never another group's."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from headrace._websocket.resume import MOST_CHARACTERS, Progress, part_of, position_of_client, without_position
from headrace.layers import InMemoryChannelLayer

LAYER = InMemoryChannelLayer(history={"*": {"size": 10, "ttl": 300}})
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


def positions(*groups: str) -> list[str]:
    found = [LAYER.group_position_sync(group) for group in groups]
    return [position for position in found if position is not None]


@given(st.binary(max_size=200), st.lists(st.text(max_size=50), max_size=5))
@example(b"resume=", ["resume.", "resume"])
@example(b"resume=\xff", ["resume.\ud800"])
def test_whatever_a_client_offers_is_a_text_or_nothing(query: bytes, subprotocols: list[str]) -> None:
    scope = {"type": "websocket", "query_string": query, "subprotocols": subprotocols}
    said = position_of_client(scope)
    assert said is None or said
    assert not any(each.startswith("resume.") for each in without_position(scope)["subprotocols"])
    assert scope["subprotocols"] == subprotocols
    Progress(said, lambda: 0)


@given(st.text(max_size=100) | st.text(ALPHABET, max_size=1000))
@example("\ud800")
@example("." * 10_000)
@example("A" * 28)
def test_whatever_is_no_position_of_a_group_is_not_looked_up(token: str) -> None:
    part = part_of(token, "room.a")
    assert part == "" or part in token.split(".")
    LAYER.group_add_sync("room.a", "somebody", since=part)
    LAYER.flush_sync()


@given(st.lists(st.sampled_from(["room.a", "room.b", "room.c"]), max_size=20), st.integers(0, 30))
def test_a_token_has_the_latest_position_of_each_group(groups: list[str], cut: int) -> None:
    parts = positions(*groups)
    token = ".".join(parts)
    for group in ("room.a", "room.b", "room.c"):
        expected = LAYER.group_position_sync(group) if group in groups[:16] else ""
        assert part_of(token, group) == (expected if len(token) <= MOST_CHARACTERS else "")
    # What is cut off is not there.
    cut_off = token[: max(0, len(token) - cut)]
    assert part_of(cut_off, "room.a") in ("", LAYER.group_position_sync("room.a"))


def test_a_progress_says_nothing_of_groups_that_were_not_joined() -> None:
    progress = Progress(".".join(positions("room.a", "room.b")), lambda: 0)
    assert progress.text() is None
    (mine,) = positions("room.a")
    progress.joining("room.a", mine)
    progress.joined("room.a", mine, mine, True)
    assert progress.text() == mine
    other: Any = positions("room.b")[0]
    assert progress.arrived(other) is False
    assert progress.arrived("nonsense") is False
    assert progress.text() == mine


def test_a_group_that_is_being_joined_is_not_forgotten_by_another_join() -> None:
    progress = Progress(None, lambda: 0)
    first, second = positions("room.a", "room.b")
    progress.joining("room.a", first)
    # The layer has not said yet that the channel is in it.
    progress.keep([])
    progress.joining("room.b", second)
    progress.joined("room.a", first, first, True)
    progress.joined("room.b", second, second, True)
    assert progress.text() == f"{first}.{second}"
    progress.keep(["room.b"])
    assert progress.text() == second


def test_the_position_stays_before_what_may_have_been_missed() -> None:
    lost = 0
    progress = Progress(None, lambda: lost)
    here, elsewhere = (InMemoryChannelLayer(history={"*": {"size": 10, "ttl": 300}}) for _ in range(2))
    said = {"type": "said"}
    first, second, third, _, fifth = (str(here.group_send_sync("room.a", said).position) for _ in range(5))
    anew = str(elsewhere.group_send_sync("room.a", said).position)
    progress.joining("room.a", first)
    progress.joined("room.a", first, first, True)

    def receive(position: str) -> str | None:
        assert progress.arrived(position)
        progress.advance(position)
        progress.handled()
        return progress.text()

    assert [receive(each) for each in (second, third)] == [second, third]
    # Another stream and a missing number are no loss by themselves: one has ended, and one was sent with exclude.
    assert receive(anew) == anew
    assert receive(third) == third
    assert receive(fifth) == fifth
    lost = 1
    assert receive(anew) == fifth
    assert receive(second) == fifth
