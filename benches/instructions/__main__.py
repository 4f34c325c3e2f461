"""Count the instructions of the hot paths, compare with the last count, and write the new one.

A path is taken a few times and many times, each in a process of its own under callgrind, with hashing fixed and the
garbage collector off; the difference, divided by how many times more, is one. Interpreter and imports cancel out. Two
counts differ by less than 1 in 1,000 whatever else the machine does, so that a change shows which no clock would show.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benches.instructions.paths import PATHS
from benches.machine import describe

RESULTS = Path(__file__).parent.parent / "results" / "instructions.json"
FEW, MANY = 1000, 5000
COLLECTED = re.compile(r"Collected : (\d+)")


def collected(path: str, times: int) -> int:
    """Return all instructions of a process that takes a path.

    Raises:
        RuntimeError: It failed; the error holds its words.
    """
    program = [sys.executable, "-m", "benches.instructions.paths", path, str(times)]
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *program]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = COLLECTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"callgrind of {path!r} failed:\n{done.stderr}")
    return int(found[1])


def count(path: str) -> float:
    """Return the instructions of taking a path once more."""
    return (collected(path, MANY) - collected(path, FEW)) / (MANY - FEW)


def compare(before: dict[str, float]) -> dict[str, float]:
    """Count all paths, and print each beside the last count."""
    print(f"{'path':28}  {'instructions':>12}  {'before':>12}  change")
    after = {}
    for path in PATHS:
        after[path] = count(path)
        change = f"{after[path] / before[path] - 1:+.1%}" if path in before else ""
        print(f"{path:28}  {after[path]:12,.0f}  {before.get(path, 0):12,.0f}  {change}", flush=True)
    return after


def main() -> int:
    """Do what the command line asks for; return 1 if `--check` finds too much."""
    parser = argparse.ArgumentParser(prog="python -m benches.instructions", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to compare with and to write")
    parser.add_argument("--check", type=float, metavar="PERCENT", help="write nothing; fail if a path grew by more")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed", file=sys.stderr)
        return 2
    before = json.loads(arguments.out.read_text())["instructions"] if arguments.out.exists() else {}
    after = compare(before)
    if arguments.check is not None:
        most = 1 + arguments.check / 100
        return int(any(after[path] > before.get(path, after[path]) * most for path in after))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    document = {**describe(), "command": "python -m benches.instructions", "instructions": after}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
