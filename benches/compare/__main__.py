"""The whole comparison: run every family of cases on every loop, print the table, write it with the plot."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.binaries import find

from benches.compare.loops import LOOPS
from benches.compare.plot import plot
from benches.compare.rows import Row
from benches.compare.table import table
from benches.compare.worker import FAMILIES, SETS
from benches.machine import describe, words

RESULTS = Path(__file__).parent.parent / "results"
# A receiver that nobody wakes would hold the run for ever.
TIMEOUT = 1200


def run(family: str, loop: str, *, quick: bool) -> list[Row]:
    """Measure one family of cases on one loop, in a process of its own.

    Raises:
        subprocess.CalledProcessError: It failed; its own words went to the terminal.
        subprocess.TimeoutExpired: It did not end.
    """
    command = [sys.executable, "-m", "benches.compare.worker", family, loop, *(["--quick"] if quick else [])]
    start = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT)
    print(f"{family} on {loop}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    return [Row.from_json(json.loads(line)) for line in done.stdout.splitlines()]


def about(command: str) -> dict[str, object]:
    """Return what was measured, on what and with what."""
    return {**describe(), "server": str(find()), "command": command}


def write_table(rows: Sequence[Row], file: Path, heading: dict[str, object]) -> None:
    """Write the rows as the table, below what they were measured on."""
    lines = "\n".join(f"{name}: {words(value)}" for name, value in heading.items())
    file.write_text(f"{lines}\n{table(rows)}\n")


def write(rows: Sequence[Row], out: Path, command: str) -> None:
    """Write the rows as JSON and as the table, and the cost of a delivery as a plot."""
    out.mkdir(parents=True, exist_ok=True)
    heading = about(command)
    document = {**heading, "rows": [row.to_json() for row in rows]}
    (out / "compare.json").write_text(json.dumps(document, indent=1) + "\n")
    write_table(rows, out / "compare.txt", heading)
    (out / "fanout.svg").write_text(plot(rows))


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benches.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds of everything, to see that it runs")
    parser.add_argument("--out", type=Path, help="where the results go; benches/results for those of both loops")
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES, *SETS], help="these cases; write only --table")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, help="these loops; write only --table and --out")
    parser.add_argument("--table", type=Path, help="a file for the table of what was measured")
    arguments = parser.parse_args()
    families = [family for name in arguments.only or FAMILIES for family in SETS.get(name, [name])]
    rows = [
        row
        for loop in arguments.loops or LOOPS
        for family in families
        for row in run(family, loop, quick=arguments.quick)
    ]
    print(table(rows))
    if arguments.table:
        write_table(rows, arguments.table, about(shlex.join(["python", "-m", "benches.compare", *sys.argv[1:]])))
    if not arguments.only and (arguments.out or not arguments.loops):
        options = [*(["--quick"] * arguments.quick), *(["--loops", *arguments.loops] if arguments.loops else [])]
        write(rows, arguments.out or RESULTS, shlex.join(["python", "-m", "benches.compare", *options]))


if __name__ == "__main__":
    main()
