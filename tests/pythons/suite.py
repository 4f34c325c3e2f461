"""The tests, run by an interpreter on the wheel that is built for it, away from the sources of the package."""

import json
import os
import shutil
import signal
import subprocess
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.pythons.interpreters import Interpreter
from tests.pythons.steps import Failed, Steps

ROOT = Path(__file__).parents[2]
# The tests see all of the repository but the package itself: they find the installed one, or none.
NOT_COPIED = {".git", ".pythons", ".venv", "build", "dist", "python", "target"}
# As the Makefile runs them, without what says the same on each interpreter.
OPTIONS = ("-n", "3", "--dist", "loadgroup", "-m", "not one_python")
# The shorter form.
SHORT = ("contract", "loops", "layers", "model", "consumer", "testing")
# What an interpreter is tested with where pip would take something newer: each supported peer is in one of the runs.
PINS = {"3.11": ["Django==5.2.*"], "3.12": ["Django==5.2.*", "redis==5.*"], "3.13": ["Django==6.0.*", "redis==6.*"]}
# What has no build for an interpreter, here for the lack of orjson: tests that import it are skipped.
WITHOUT = {"3.14t": ("django_sockets",)}
# The older Channels that headrace.django is tested with, beside the newer one.
OLDER_CHANNELS = "channels==4.2.*"
# What leads to another Python, or lets each process compile anew what it imports.
NOT_INHERITED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
# How long the stress test, which takes two, may take.
_STRESS_MINUTES = 10


class NotRun(Exception):
    """The tests could not be run; the message says why."""


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        found: What ``tests.pythons.probe`` prints.
        failures: The tests that failed, by name.
        skips: The reason of each test that was skipped, and how many tests have it.
        complaint: Why the run counts as failed although no test did.
    """

    found: dict[str, Any] = field(default_factory=dict)
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: Counter[str] = field(default_factory=Counter)
    complaint: str | None = None

    @property
    def failed(self) -> int:
        """Count the failed tests."""
        return len(self.failures)

    @property
    def skipped(self) -> int:
        """Count the skipped tests."""
        return self.skips.total()


class Suite:
    """Runs the tests by one interpreter.

    Args:
        interpreter: By which.
        folder: An empty one, for the virtual environment and the copy of the tests.
        steps: Runs what prepares it.
    """

    def __init__(self, interpreter: Interpreter, folder: Path, steps: Steps) -> None:
        self._interpreter = interpreter
        self._place = interpreter.place
        self._version = str(interpreter.version)
        self._venv = folder / "venv"
        self._copy = folder / "headrace"
        self._report = folder / "report.xml"
        self._python = self._venv / "bin" / "python"
        self._steps = steps

    def prepare(self, wheels: Path) -> dict[str, Any]:
        """Install a wheel and what the tests need, and tell what was installed.

        Args:
            wheels: The folder of the wheels that were built in this run; if none fits, another is built into it.

        Raises:
            NotRun: the package that the tests would import is not the installed one, or a step failed.
        """
        try:
            self._steps.say(f"{self._version}: its environment")
            self._do([self._interpreter.path, "-m", "venv", self._venv])
            self._pip("install", *requirements(self._wheel(wheels), self._version))
            self._pip("install", "--no-deps", "--target", self._venv / "channels42", OLDER_CHANNELS)
            shutil.copytree(ROOT, self._copy, ignore=not_copied)
            command = self._command([self._python, "-m", "tests.pythons.probe"])
            found: dict[str, Any] = json.loads(self._steps.output(command, self._environment()))
        except Failed as failed:
            raise NotRun(str(failed)) from failed
        if not found["installed"]:
            raise NotRun(f"the tests would import {found['file']}, which is not the installed package")
        if self._interpreter.version.free_threaded and found["lock"]:
            raise NotRun("the interpreter runs with its lock, although it is the free-threaded build")
        return found

    def run(self, tests: Sequence[str], arguments: Sequence[str], minutes: float) -> Outcome:
        """Run these tests: their folders under ``tests``, or all if none is named."""
        self._steps.say(f"{self._version}: the tests")
        chosen = [f"tests/{name}" for name in tests] or ["--ignore=tests/browser"]
        words: list[str | Path] = [self._python, "-m", "pytest", "-q", *OPTIONS, f"--junit-xml={self._report}"]
        status = self._watched([*words, *chosen, *arguments], minutes)
        if status is None:
            return Outcome(complaint=f"did not end in {minutes:g} minutes")
        return judge(self._report, status)

    def stress(self) -> str | None:
        """Use one layer from many threads for two minutes, as ``make stress`` does, and say what failed."""
        self._steps.say(f"{self._version}: the stress test")
        status = self._watched([self._python, "-m", "tests.stress"], _STRESS_MINUTES)
        if status is None:
            return f"the stress test did not end in {_STRESS_MINUTES} minutes"
        return f"the stress test ended with status {status}" if status else None

    def _watched(self, words: Sequence[str | Path], minutes: float) -> int | None:
        """Run a command of the tests and give its status, or None if it had to be ended."""
        process = subprocess.Popen(
            self._command(words), stdin=subprocess.DEVNULL, env=self._environment(), start_new_session=True
        )
        try:
            return process.wait(minutes * 60)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)

    def _wheel(self, wheels: Path) -> Path:
        """Give the wheel that this interpreter installs; one for several interpreters is built once."""
        wheels.mkdir(parents=True, exist_ok=True)
        fitting = wheels / self._version
        try:
            self._pip("download", "--no-index", "--no-deps", "--find-links", wheels, "--dest", fitting, "headrace")
        except Failed:
            self._steps.say(f"{self._version}: its wheel")
            self._pip("wheel", "--no-deps", "--wheel-dir", wheels, ROOT)
            self._pip("download", "--no-index", "--no-deps", "--find-links", wheels, "--dest", fitting, "headrace")
        (wheel,) = fitting.glob("*.whl")
        return wheel

    def _pip(self, verb: str, *words: str | Path) -> None:
        self._do([self._python, "-m", "pip", verb, "--quiet", *words])

    def _do(self, words: Sequence[str | Path]) -> None:
        self._steps.run(self._place.command(words, self._venv.parent), self._environment())

    def _command(self, words: Sequence[str | Path]) -> list[str]:
        return self._place.command(words, self._copy)

    def _environment(self) -> dict[str, str]:
        given = {
            "CARGO_TARGET_DIR": str(ROOT / self._place.target),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        if self._interpreter.version.free_threaded:
            # A dependency that does not know of the free-threaded build would turn the lock on.
            given["PYTHON_GIL"] = "0"
        return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED} | given


def requirements(wheel: Path, version: str) -> list[str]:
    """Name what pip installs for a version: the wheel, and its extra ``test`` but for what cannot be had."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    others = [text for text in extra if not text.startswith(("headrace[", *WITHOUT.get(version, ())))]
    own = [text.replace("headrace", str(wheel), 1) for text in extra if text.startswith("headrace[")]
    return [str(wheel), *own, *others, *PINS.get(version, ())]


def judge(report: Path, status: int) -> Outcome:
    """Read the report of pytest, which ended with this status."""
    if not report.exists():
        return Outcome(complaint=f"pytest ended with status {status} and no report")
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failures.append(f"{case.get('classname', '')}::{case.get('name', '')}")
        elif (skipped := case.find("skipped")) is not None:
            outcome.skips[skipped.get("message", "")] += 1
        else:
            outcome.passed += 1
    if status != 0 and not outcome.failures:
        outcome.complaint = f"pytest ended with status {status}"
    elif not outcome.passed and not outcome.failures:
        outcome.complaint = "no test was run"
    return outcome


def not_copied(folder: str, names: list[str]) -> set[str]:
    """Say what of a folder the tests are run without, as shutil.copytree asks for it."""
    made = {name for name in names if name == "__pycache__" or name.endswith("_cache")}
    return made | NOT_COPIED.intersection(names) if Path(folder) == ROOT else made


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
