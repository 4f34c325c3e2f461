"""The interpreters that are wanted, and where each is: on this machine, or in the root of Debian sid."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# What a path is asked before it is taken for an interpreter: a shim of pyenv may lead nowhere, and Debian's python3
# has no venv without a package more.
_QUESTION = """
import json, platform, sys, sysconfig
import ensurepip, venv
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps([platform.python_implementation(), *sys.version_info[:2], free_threaded]))
"""
_SECONDS = 60


class NotHad(Exception):
    """An interpreter cannot be had here; the message says why."""


class Place(Protocol):
    """Where an interpreter runs: paths mean the same in each.

    Attributes:
        name: What the user calls it.
        target: Where cargo builds for it: build scripts of one place do not run in another.
    """

    name: str
    target: str

    def command(self, words: Iterable[str | Path], folder: Path) -> list[str]:
        """Give what to run here for these words to run there, in a folder."""


class Machine:
    """This machine itself."""

    name = "this machine"
    target = "target"

    def command(self, words: Iterable[str | Path], folder: Path) -> list[str]:
        """Change to the folder, where it is another, and no more."""
        # Not every system's env can.
        change = [] if folder == Path.cwd() else ["env", f"--chdir={folder}"]
        return [*change, *map(str, words)]


@dataclass(frozen=True, order=True)
class Version:
    """A version of CPython, such as ``3.14`` or, free-threaded, ``3.14t``."""

    minor: int
    free_threaded: bool = False

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Read ``3.14`` or ``3.14t``.

        Raises:
            ValueError: it is neither.
        """
        if (match := re.fullmatch(r"3\.(\d+)(t?)", text)) is None:
            raise ValueError(f"{text!r} is no version of Python; write 3.14, or 3.14t for the free-threaded build")
        return cls(int(match[1]), bool(match[2]))

    def __str__(self) -> str:
        return f"3.{self.minor}{'t' if self.free_threaded else ''}"


@dataclass(frozen=True)
class Interpreter:
    """An executable, and where it runs."""

    version: Version
    place: Place
    path: Path


def find(version: Version) -> Interpreter | None:
    """Look on the PATH and in pyenv."""
    machine = Machine()
    for path in _candidates(version):
        if answers(machine, path, version):
            return Interpreter(version, machine, path)
    return None


def answers(place: Place, path: Path, version: Version) -> bool:
    """Tell whether that is the interpreter of the version, and can make virtual environments."""
    try:
        asked = subprocess.run(
            place.command([path, "-c", _QUESTION], Path("/")),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(json.loads(asked.stdout) == ["CPython", 3, version.minor, version.free_threaded])


def _candidates(version: Version) -> Iterator[Path]:
    name = f"python{version}"
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    # The newest first.
    of_minor = re.compile(rf"3\.{version.minor}\.(\d+)t?")
    installed = [(int(match[1]), path) for path in pyenv.glob("*") if (match := of_minor.fullmatch(path.name))]
    for _, path in sorted(installed, reverse=True):
        yield path / "bin" / name
