"""The table, and when a form counts as worse than plain Channels."""

from collections import Counter

import pytest
from tests.peers.forms import FORMS
from tests.peers.projects import KNOWN, PROJECTS
from tests.peers.table import Row, render
from tests.pythons.suite import Outcome

pytestmark = pytest.mark.one_python

GOOD = Outcome(passed=3, failures=["t::was so before"])


def row(outcome: Outcome, baseline: Outcome = GOOD, **known: str) -> Row:
    return Row("project", "imports", outcome, baseline, known)


def test_what_fails_on_channels_too_is_not_worse() -> None:
    assert row(Outcome(passed=3, failures=["t::was so before"])).complaints() == []


def test_a_test_that_passes_now_is_not_worse() -> None:
    assert row(Outcome(passed=4)).complaints() == []


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Outcome(passed=2, failures=["t::new", "t::was so before"]), "failed: t::new"),
        (Outcome(passed=2, failures=["t::was so before"]), "3 tests were run, and 4 on channels"),
        (
            Outcome(passed=2, failures=["t::was so before"], skips=Counter({"no": 1})),
            "1 tests were skipped, and 0 on channels",
        ),
        (Outcome(complaint="no test was run"), "no test was run"),
    ],
)
def test_what_is_worse_is_named(outcome: Outcome, complaint: str) -> None:
    assert row(outcome).complaints() == [complaint]


def test_what_is_known_is_told_with_its_reason_and_is_not_worse() -> None:
    known = row(Outcome(passed=3, failures=["new"]), new="ours refuses it")
    assert known.complaints() == []
    assert "  known: new: ours refuses it" in render([known], []).splitlines()


def test_what_is_known_to_fail_and_passes_is_a_complaint() -> None:
    assert row(GOOD, new="ours refuses it").complaints() == ["passed, and is known to fail: new"]


def test_a_row_for_each_form_and_each_project_that_is_lacking() -> None:
    rows = [Row("one", "channels", GOOD, GOOD), Row("one", "layer", Outcome(passed=3, failures=["t::x"]), GOOD)]
    assert render(rows, [("two", "no network")]).splitlines() == [
        "project  form         passed  failed  skipped",
        "one      channels     3       1       0",
        "one      layer        3       1       0        worse",
        "two      not fetched  -       -       -",
        "",
        "one, layer:",
        "  failed: t::x",
        "",
        "two: no network",
    ]


def test_each_known_difference_is_of_a_project_and_a_form() -> None:
    pairs = {(project.name, form.name) for project in PROJECTS for form in FORMS}
    assert set(KNOWN) <= pairs
