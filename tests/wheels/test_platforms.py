"""What a machine says of the platforms that it cannot build for, and that the workflow builds for all of them."""

import platform
import re
from pathlib import Path

import pytest
from tests.wheels.interfaces import INTERFACES
from tests.wheels.platforms import PLATFORMS, Platform

pytestmark = pytest.mark.one_python

WORKFLOW = (Path(__file__).parents[2] / ".github/workflows/release.yml").read_text()


def test_workflow_builds_for_every_platform() -> None:
    built = re.findall(r"\{ tag: (\S+), target: (\S+), runner: \S+ \}", WORKFLOW)
    assert built == [(each.tag, each.target) for each in PLATFORMS]


def test_workflow_builds_for_every_interface() -> None:
    (listed,) = re.findall(r"interface: \[(.+)\]", WORKFLOW)
    assert re.findall(r'"(\S+?)"', listed) == [interface.name for interface in INTERFACES]


def test_another_system_is_named() -> None:
    elsewhere = Platform("any", "any", "Plan 9", "any")
    assert elsewhere.lacking() == f"it is built on Plan 9, and this is {platform.system()}"


def test_a_missing_target_is_named() -> None:
    unknown = Platform("any", "no-such-target", platform.system(), "any")
    expected = "the Rust of this machine has no target no-such-target (`rustup target add no-such-target`)"
    assert unknown.lacking() == expected


def test_a_wheel_for_another_processor_or_library_is_not_installed_here() -> None:
    here = [each.tag for each in PLATFORMS if each.is_here()]
    assert len(here) <= 1
