"""What is read from the report of pytest, and what is copied beside the tests."""

from pathlib import Path

import pytest
from tests.pythons.suite import PINS, ROOT, WITHOUT, judge, not_copied, requirements

pytestmark = pytest.mark.one_python

PASSED = '<testcase name="passes"/>'
FAILED = '<testcase classname="tests.test_x" name="fails"><failure message="no">...</failure></testcase>'
BROKEN = '<testcase classname="tests.test_x" name="breaks"><error message="no fixture">...</error></testcase>'
SKIPPED = '<testcase name="is skipped"><skipped type="pytest.skip" message="no server">...</skipped></testcase>'


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.xml"


def write(report: Path, *cases: str) -> Path:
    report.write_text(f'<testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>')
    return report


def test_every_test_is_counted(report: Path) -> None:
    outcome = judge(write(report, PASSED, PASSED, FAILED, BROKEN, SKIPPED, SKIPPED, SKIPPED), 1)
    assert (outcome.passed, outcome.failed, outcome.skipped) == (2, 2, 3)
    assert outcome.failures == ["tests.test_x::fails", "tests.test_x::breaks"]
    assert outcome.skips == {"no server": 3}
    assert outcome.complaint is None


def test_a_run_without_a_report_is_complained_of(report: Path) -> None:
    assert judge(report, 4).complaint == "pytest ended with status 4 and no report"


def test_a_run_of_no_test_is_complained_of(report: Path) -> None:
    assert judge(write(report, SKIPPED), 0).complaint == "no test was run"


def test_a_status_that_no_failed_test_explains_is_complained_of(report: Path) -> None:
    assert judge(write(report, PASSED), 3).complaint == "pytest ended with status 3"


def test_what_has_no_build_for_an_interpreter_is_left_out_there_alone() -> None:
    wheel = Path("/wheels/headrace-1.whl")
    for version in ("3.11", "3.14", "3.14t"):
        asked = requirements(wheel, version)
        assert asked[:2] == [str(wheel), f"{wheel}[completion,demo,django,doctor,drf,gunicorn,uvicorn]"]
        assert [text for text in asked if text.startswith("django_sockets")] == (
            [] if "django_sockets" in WITHOUT.get(version, ()) else ["django_sockets==3.1.*"]
        )


def test_an_older_peer_is_asked_for_by_name() -> None:
    for version, pins in PINS.items():
        assert set(pins) <= set(requirements(Path("headrace-1.whl"), version))


def test_the_sources_of_the_package_are_not_copied() -> None:
    assert not_copied(str(ROOT), ["python", "tests", "target", "README.md"]) == {"python", "target"}
    assert not_copied(str(ROOT / "benches"), ["python", "__pycache__", "README.md"]) == {"__pycache__"}
