"""The summary of a run names and counts what is missing and what failed."""

import pytest
from tests.wheels.report import Entry, render

pytestmark = pytest.mark.one_python


def test_summary() -> None:
    entries = [
        Entry("one.whl", good=["built"], lacking=["the installation by CPython 3.15t: it is not on this machine"]),
        Entry("musllinux", lacking=["no target"]),
        Entry("two.whl", good=["built"], failed=["auditwheel finds linux_x86_64"]),
    ]
    assert render(entries).splitlines() == [
        "one.whl",
        "  built",
        "  not done: the installation by CPython 3.15t: it is not on this machine",
        "musllinux",
        "  not done: no target",
        "two.whl",
        "  built",
        "  FAILED: auditwheel finds linux_x86_64",
        "1 built and checked, 1 failed, 1 not built",
    ]
