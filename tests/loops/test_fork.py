"""After a fork the child has a working, empty layer and no descriptor of the parent's; the parent goes on as before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# A process with threads that forks is what is tested. From Python 3.15 on, the warning of it can be raised as an error.
QUIET = ("-W", "ignore:This process:DeprecationWarning")
SCRIPT = Path(__file__).with_name("fork_cases.py")
CASES = next(
    [element.id for element in node.value.elts if isinstance(element, ast.Name)]
    for node in ast.parse(SCRIPT.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("wake", ["direct", "future"])
def test_fork(case: str, loop: str, wake: str) -> None:
    """Each case is in fork_cases.py, and runs in an interpreter of its own."""
    command = [sys.executable, "-W", "error", *QUIET, str(SCRIPT), case, loop, wake]
    process = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert (process.stderr, process.stdout, process.returncode) == ("", "done\n", 0)
