"""What another build costs: ``python -m benches.builds PYTHON PYTHON...``, each with a headrace of its own installed.

The hot paths of ``benches.instructions`` are taken by one interpreter after the other, in rounds that go to and fro.
What counts is processor time, the best of a few slices, and the median of its ratio to the first interpreter's in the
same round.
"""

import argparse
import asyncio
import gc
import json
import shlex
import statistics
import subprocess
import sys
import time

from benches.instructions.paths import PATHS

TIMES, SLICES = 20_000, 5


async def nanoseconds(path: str) -> float:
    """Take a path in slices; return what one time costs in the best of them."""
    await PATHS[path](TIMES // 20)
    costs = []
    for _ in range(SLICES):
        begin = time.process_time_ns()
        await PATHS[path](TIMES)
        costs.append((time.process_time_ns() - begin) / TIMES)
    return min(costs)


def measure() -> None:
    """Take all paths in this process; print what each costs."""
    gc.disable()
    print(json.dumps({path: asyncio.run(nanoseconds(path)) for path in PATHS}))


def asked(python: str) -> dict[str, float]:
    """Have an interpreter take all paths."""
    command = [*shlex.split(python), "-m", "benches.builds"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def main() -> int:
    """Compare the interpreters of the command line, or with none measure this one."""
    parser = argparse.ArgumentParser(prog="python -m benches.builds", description=__doc__)
    parser.add_argument(
        "pythons", nargs="*", metavar="PYTHON", help="a command for it; what the others are compared with first"
    )
    parser.add_argument("--rounds", type=int, default=10, help="how often each is asked (10)")
    given = parser.parse_args()
    if not given.pythons:
        measure()
        return 0
    costs: dict[str, list[dict[str, float]]] = {python: [] for python in given.pythons}
    for number in range(given.rounds):
        for python in given.pythons[:: 1 if number % 2 else -1]:
            costs[python].append(asked(python))
    first = costs[given.pythons[0]]
    for path in PATHS:
        print(path)
        for python, own in costs.items():
            median = statistics.median(round[path] for round in own)
            ratio = statistics.median(round[path] / base[path] for round, base in zip(own, first, strict=True))
            print(f"  {median:7,.0f} ns  {ratio:.3f}  {python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
