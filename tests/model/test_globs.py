"""The globs of capacities against Python's ``fnmatch``, which Channels compiles them with."""

import fnmatch
import string

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.layers import InMemoryChannelLayer

IN_NAMES = string.ascii_letters + string.digits + "-_."
names = st.builds(
    lambda local, specific: (local + specific)[:100],
    st.text(st.sampled_from("abcAB01-_."), min_size=1, max_size=8),
    st.one_of(st.just(""), st.text(st.sampled_from("abcAB01-_."), max_size=6).map(lambda text: "!" + text)),
)
sets = st.builds(
    lambda opening, members: f"[{opening}{members}]",
    st.sampled_from(["", "!", "^", "]", "!]", "-", "!-"]),
    st.text(st.sampled_from("abcAB01-_.!^[&|~\\"), max_size=6),
)
patterns = st.one_of(
    st.text(st.sampled_from("ab.-_!?*[]^\\"), max_size=10),
    st.lists(st.one_of(sets, st.sampled_from(["*", "?", "a", "b", ".", "!", "-"])), max_size=5).map("".join),
    st.text(max_size=5),
)


def fits(pattern: str, name: str) -> bool:
    """Tell what the layer thinks."""
    layer = InMemoryChannelLayer(capacity=1, channel_capacity={pattern: 2})
    return layer.channel_stats(name).capacity == 2


@given(pattern=patterns, name=names)
@example(pattern="[c-a]", name="b")
@example(pattern="[!c-a]", name="b")
@example(pattern="[]-a]", name="_")
@example(pattern="[a-c-e]", name="d")
@example(pattern="[--.]", name=".")
@example(pattern="[[a]", name="a")
@example(pattern="[a", name="a")
@example(pattern="a" * 30 + "*" * 30 + "b", name="a" * 100)
def test_a_glob_fits_where_fnmatch_says_so(pattern: str, name: str) -> None:
    """Case counts, and the whole name has to fit."""
    assert fits(pattern, name) == fnmatch.fnmatchcase(name, pattern)


@given(capacities=st.dictionaries(patterns, st.integers(1, 9), max_size=5), name=names)
def test_the_first_glob_that_fits_decides(capacities: dict[str, int], name: str) -> None:
    """And the layer's own ``get_capacity``, in Python, agrees."""
    layer = InMemoryChannelLayer(capacity=10, channel_capacity=capacities)
    expected = next((n for glob, n in capacities.items() if fnmatch.fnmatchcase(name, glob)), 10)
    assert layer.channel_stats(name).capacity == layer.get_capacity(name) == expected
