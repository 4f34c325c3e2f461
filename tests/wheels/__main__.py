"""Build the files of a release, and check each as a user would meet it.

``python -m tests.wheels`` builds what this machine can: the source distribution, a wheel from it, and a wheel for each
platform and each binary interface. auditwheel and abi3audit look at each wheel, and each interpreter here that it fits
installs it into an empty environment, where the demo checks itself. What could not be built or installed is listed with
the reason. A kind or an interface that is named must be there. The status is 1 if anything failed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.pythons.steps import Steps
from tests.wheels.interfaces import INTERFACES, Interface
from tests.wheels.interpreters import Interpreters
from tests.wheels.platforms import PLATFORMS
from tests.wheels.release import Release
from tests.wheels.report import Entry, render

ROOT = Path(__file__).parents[2]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.wheels", description=about, epilog=more)
    kinds = ["sdist", *(platform.tag for platform in PLATFORMS)]
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"by default all: {' '.join(kinds)}")
    names = [interface.name for interface in INTERFACES]
    parser.add_argument("--for", nargs="+", dest="names", default=[], metavar="3.12", help=f"({' '.join(names)})")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder that gets them (dist)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".pythons", help="has a root of Debian sid (.pythons)")
    given = parser.parse_args()
    if unknown := {*given.kinds, *given.names} - {*kinds, *names}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    return given


def interfaces(given: argparse.Namespace) -> list[Interface]:
    """Those that are named, or all."""
    return [interface for interface in INTERFACES if not given.names or interface.name in given.names]


def entries(given: argparse.Namespace, release: Release) -> Iterator[Entry]:
    """Make one after the other."""
    if not given.kinds or "sdist" in given.kinds:
        yield release.sdist()
    for platform in PLATFORMS:
        if given.kinds and platform.tag not in given.kinds:
            continue
        if (reason := platform.lacking()) is None:
            yield from (release.wheel(platform, interface) for interface in interfaces(given))
        elif given.kinds:
            yield Entry(platform.tag, failed=[reason])
        else:
            yield Entry(platform.tag, lacking=[reason])


def main() -> int:
    """Make them all, and tell what became of each."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    steps = Steps(ROOT / "target" / "wheels.log")
    with tempfile.TemporaryDirectory(prefix="headrace-wheels-") as folder:
        temporary = Path(folder)
        needed = [interface.version for interface in interfaces(given) if given.names]
        interpreters = Interpreters(given.cache.resolve(), temporary, steps, needed)
        made = list(entries(given, Release(given.out, temporary, interpreters, steps)))
    print(render(made))
    return int(any(entry.failed for entry in made))


if __name__ == "__main__":
    sys.exit(main())
