"""Programs of a few lines in a process of their own, for what may freeze or end one."""

import subprocess
import sys
from dataclasses import dataclass

# A program that hangs is frozen, whatever else the machine does.
_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a program came to its end.

    Attributes:
        code: Its exit code; minus the signal that ended it.
        lines: What it printed.
        errors: What it wrote to its standard error.
    """

    code: int
    lines: list[str]
    errors: str


def run(program: str, *arguments: str, seconds: float = _SECONDS) -> Ended:
    """Run a program until it ends.

    Raises:
        TimeoutError: It had not ended after so many seconds, and was killed.
    """
    command = [sys.executable, "-c", program, *arguments]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as expired:
        raise TimeoutError(f"the program hangs; it printed {expired.stdout!r} and {expired.stderr!r}") from None
    return Ended(process.returncode, process.stdout.splitlines(), process.stderr)
