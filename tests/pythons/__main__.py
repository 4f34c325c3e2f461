"""Run the tests on every CPython that headrace supports, each on the wheel that is built for it.

``python -m tests.pythons 3.12 3.14t`` looks for each interpreter on the PATH and in pyenv. Those that are not there are
installed into a root of Debian sid, which it makes in a folder (as root, on a Debian machine), and a free-threaded one
is built there from Debian's source package; that one runs the stress test too. At the end it prints a table; its status
is 1 if a test failed, or if an interpreter could not be had.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.pythons.interpreters import NotHad, Version, find
from tests.pythons.root import Root
from tests.pythons.steps import Steps
from tests.pythons.suite import ROOT, SHORT, NotRun, Outcome, Suite
from tests.pythons.table import Row, render

SUPPORTED = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.pythons", description=about, epilog=more)
    parser.add_argument("versions", nargs="*", metavar="3.14", help=f"which; by default {' '.join(SUPPORTED)}")
    parser.add_argument("--short", action="store_true", help=f"the shorter form: {', '.join(SHORT)}")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FOLDER", help="folders of tests/ in place of all")
    parser.add_argument("--may-lack", nargs="+", default=[], metavar="3.14t", help="which of them may be missing")
    parser.add_argument("--minutes", type=float, default=60, help="how long the tests of one may take (60)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".pythons", help="keeps the root of Debian sid (.pythons)")
    parser.add_argument("--args", default="", help="more arguments for pytest")
    return parser.parse_args()


def main() -> int:
    """Run each, print the table, and give the status."""
    given = arguments()
    cache = given.cache.resolve()
    rows = []
    with tempfile.TemporaryDirectory(prefix="headrace-pythons-") as temporary:
        folder = Path(temporary)
        steps = Steps(cache / "steps.log")
        root = Root(cache, steps, shared=[ROOT, folder])
        for version in map(Version.parse, given.versions or SUPPORTED):
            rows.append(one(version, root, folder, steps, given))
    print(render(rows))
    return int(not all(row.good for row in rows))


def one(version: Version, root: Root, folder: Path, steps: Steps, given: argparse.Namespace) -> Row:
    """Run the tests on one interpreter."""
    name = str(version)
    try:
        interpreter = find(version) or root.interpreter(version)
    except NotHad as lacking:
        steps.say(f"{name}: not had: {lacking}")
        return Row(name, lacking=str(lacking), may_lack=name in given.may_lack)
    tests = given.tests or (SHORT if given.short else ())
    row = Row(name, interpreter.place.name, form=" ".join(given.tests) or ("short" if given.short else "full"))
    own = folder / name
    own.mkdir()
    suite = Suite(interpreter, own, steps)
    try:
        found = suite.prepare(folder / "wheels")
        row.outcome = suite.run(tests, given.args.split(), given.minutes)
        row.outcome.found = found
        if version.free_threaded and not tests:
            row.outcome.complaint = row.outcome.complaint or suite.stress()
    except NotRun as reason:
        steps.say(f"{name}: not run: {reason}")
        row.outcome = Outcome(complaint=str(reason))
    return row


if __name__ == "__main__":
    sys.exit(main())
