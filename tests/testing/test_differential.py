"""The communicators do what those of Channels do: the same scripts, played on both, give the same."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).parent / "scenarios.py"
NAMES = re.findall(r"@scenario\nasync def (\w+)", SCENARIOS.read_text(encoding="utf-8"))

Outcomes = list[list[str]]


@cache
def outcomes(package: str) -> dict[str, Outcomes]:
    """Play all scenarios in an interpreter of their own, because Channels' need Django's settings."""
    command = [sys.executable, str(SCENARIOS), package]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    played: dict[str, Outcomes] = json.loads(run.stdout)
    return played


@pytest.mark.parametrize("name", NAMES)
def test_a_script_gives_what_it_gives_with_channels(name: str) -> None:
    ours, theirs = outcomes("headrace")[name], outcomes("channels")[name]
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
    for (kind, text), (_, their_text) in zip(ours, theirs, strict=True):
        # Where Channels' exceptions say nothing, ours may.
        assert text == their_text or (their_text == "" and kind.endswith("Error"))


def test_every_script_was_played() -> None:
    assert set(outcomes("headrace")) == set(outcomes("channels")) == set(NAMES)
