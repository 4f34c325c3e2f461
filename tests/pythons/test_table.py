"""The table, and when a run counts as good."""

from collections import Counter

import pytest
from tests.pythons.suite import Outcome
from tests.pythons.table import Row, render

pytestmark = pytest.mark.one_python

FOUND = {"python": "3.14.10", "peers": {"Django": "6.1.3", "uvloop": None}, "servers": ["redis-8.0.6"]}


def row(**outcome: object) -> Row:
    return Row("3.14", "Debian sid", "full", Outcome(found=FOUND, **outcome))  # type: ignore[arg-type]


def test_a_row_for_each_interpreter_and_the_sums() -> None:
    rows = [row(passed=20, skips=Counter({"no uvloop": 2})), Row("3.14t", lacking="no source")]
    assert render(rows).splitlines() == [
        "interpreter  from        form     passed  failed  skipped",
        "3.14.10      Debian sid  full     20      0       2",
        "3.14t        -           not had  -       -       -",
        "",
        "3.14: Django 6.1.3, uvloop missing, redis-8.0.6",
        "  2 skipped: no uvloop",
        "3.14t: no source",
        "1 could not be had: 3.14t",
        "20 passed, 0 failed, 2 skipped",
    ]


def test_what_ended_badly_says_why() -> None:
    assert "  failed: did not end in 60 minutes" in render([row(complaint="did not end in 60 minutes")])


def test_failed_tests_are_named() -> None:
    assert "  failed: tests.test_x::fails" in render([row(failures=["tests.test_x::fails"])]).splitlines()


@pytest.mark.parametrize(
    ("given", "good"),
    [
        (row(passed=1), True),
        (row(passed=1, failures=["tests.test_x::fails"]), False),
        (row(passed=1, complaint="pytest ended with status 3"), False),
        (Row("3.14t", lacking="no source"), False),
        (Row("3.14t", lacking="no source", may_lack=True), True),
    ],
)
def test_a_row_is_good_if_all_passed_or_it_may_be_missing(given: Row, good: bool) -> None:
    assert given.good == good
