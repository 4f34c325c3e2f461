"""The soak itself: it finds what grows, and a round can be played."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.soak.__main__ import HEAD
from tests.soak.model import Held, faults
from tests.support.binaries import Binary

ROOT = Path(__file__).parents[2]
WARM = Held(memory=100 << 20, tasks=3, descriptors=17, channels=0, groups=0, messages=0, keys=1)


def test_nothing_grows() -> None:
    assert not faults([WARM, WARM, WARM])
    assert not faults([WARM, WARM, replace(WARM, memory=109 << 20, keys=0)])


def test_the_first_rounds_may_fill_caches() -> None:
    assert not faults([replace(WARM, tasks=1), WARM])
    assert not faults([replace(WARM, tasks=1), WARM, WARM])


@pytest.mark.parametrize("name", ["tasks", "descriptors", "channels", "groups", "messages", "keys"])
def test_one_more_than_before_is_a_fault(name: str) -> None:
    before = getattr(WARM, name)
    grown = replace(WARM, **{name: before + 1})
    assert faults([WARM, WARM, grown]) == [f"{name} grew from {before} to {before + 1}"]


def test_memory_that_grows_is_a_fault() -> None:
    assert faults([WARM, WARM, replace(WARM, memory=120 << 20)]) == ["memory grew from 100 to 120 MiB"]


def test_a_round_can_be_played(redis_binary: Binary) -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "0.1", "--seed", "1", "--server", redis_binary.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    head, line, row = done.stdout.splitlines()[-3:]
    assert head == HEAD
    assert row.startswith(f"| {redis_binary} | 1 | ")
    assert len({cells.count("|") for cells in (head, line, row)}) == 1
