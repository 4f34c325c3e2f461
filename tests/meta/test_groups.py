"""Tests that share what takes long to make are run by one process; in a pytest of their own."""

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python

pytest_plugins = ["pytester"]

TESTS = """
import os
from pathlib import Path

import pytest
from tests.support.groups import one_process_each


def note(name):
    with open(name, "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + chr(10))


@pytest.fixture(params=one_process_each("made", ["one", "two"]))
def made(request):
    return request.param


@pytest.fixture
def redis_cluster():
    return "cluster"


@pytest.mark.parametrize("number", range(6))
def test_of_a_fixture(made, number):
    note(made)


@pytest.mark.xdist_group("marked")
@pytest.mark.parametrize("number", range(6))
def test_of_a_mark(number):
    note("marked")


@pytest.mark.parametrize("number", range(6))
def test_of_several_servers(redis_cluster, number):
    note(redis_cluster)


@pytest.mark.parametrize("number", range(6))
def test_of_nothing(number):
    note("none")
"""


def test_those_of_a_group_are_run_by_one_process(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    pytester.makeconftest('pytest_plugins = ["tests.support.groups"]')
    pytester.makepyfile(TESTS)
    outcome = pytester.runpytest_subprocess("-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=30)
    ran = {name: (pytester.path / name).read_text().split() for name in ("one", "two", "marked", "cluster", "none")}
    assert {name: len(set(ran[name])) for name in ("one", "two", "marked", "cluster")} == dict.fromkeys(
        ("one", "two", "marked", "cluster"), 1
    )
    assert [len(workers) for workers in ran.values()] == [6] * 5
