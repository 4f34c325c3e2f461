"""Run the tests of real projects on Channels, as they are and with the steps of the migration to headrace taken.

``python -m tests.peers`` fetches the source distributions of the projects and what they need into ``target/peers``, and
runs their tests: on plain Channels, with the layer of headrace in the settings (layer), with the app headrace.django
(app), with the root of the imports changed in package and tests (imports), and with all three (all). At the end it
prints a table; its status is 1 if a form fails what passes on plain Channels, or if a project could not be fetched.
"""

import argparse
import shutil
import sys
from pathlib import Path

from tests.peers.copies import NotFetched, fetch
from tests.peers.forms import BASELINE, FORMS
from tests.peers.projects import PROJECTS, Project
from tests.peers.run import run
from tests.peers.table import Row, render
from tests.pythons.steps import Steps
from tests.pythons.suite import ROOT

_NAMES = tuple(project.name for project in PROJECTS)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=about, epilog=more)
    parser.add_argument("projects", nargs="*", metavar="PROJECT", help=f"which; by default {', '.join(_NAMES)}")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="PROJECT=FOLDER",
        help="a checkout to take in the place of the source distribution, which may lack tests",
    )
    given = parser.parse_args()
    given.checkouts = dict(text.partition("=")[::2] for text in given.source)
    for name in (*given.projects, *given.checkouts):
        if name not in _NAMES:
            parser.error(f"{name!r} is no project of these: {', '.join(_NAMES)}")
    for name, folder in given.checkouts.items():
        if not Path(folder, "pyproject.toml").exists() and not Path(folder, "setup.py").exists():
            parser.error(f"{folder!r} holds no sources of {name}: neither pyproject.toml nor setup.py")
    return given


def main() -> int:
    """Run each, print the table, and give the status."""
    given = arguments()
    folder = ROOT / "target" / "peers"
    # What is left of the last run was kept to be looked at.
    shutil.rmtree(folder, ignore_errors=True)
    steps = Steps(folder / "steps.log")
    rows: list[Row] = []
    lacking: list[tuple[str, str]] = []
    for project in PROJECTS:
        if given.projects and project.name not in given.projects:
            continue
        checkout = given.checkouts.get(project.name)
        try:
            rows += one(project, folder / project.name, steps, Path(checkout).resolve() if checkout else None)
        except NotFetched as reason:
            steps.say(f"{project.name}: {reason}")
            lacking.append((project.name, str(reason)))
    print(render(rows, lacking))
    return int(bool(lacking) or any(row.complaints() for row in rows))


def one(project: Project, folder: Path, steps: Steps, checkout: Path | None) -> list[Row]:
    """Run the tests of one project in each form."""
    folder.mkdir()
    sources = fetch(project, folder, steps, checkout)
    if checkout is None:
        steps.say(f"{project.name}: its source distribution has {project.lacks}")
    rows = []
    baseline = None
    for form in (BASELINE, *FORMS):
        steps.say(f"{project.name}: {form.name}")
        outcome = run(sources, form)
        baseline = baseline or outcome
        rows.append(Row.of(project.name, form.name, outcome, baseline))
    return rows


if __name__ == "__main__":
    sys.exit(main())
