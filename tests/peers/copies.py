"""The sources of a project: fetched, unpacked, and with our own files laid beside them."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.peers.projects import NEEDS, Project
from tests.pythons.steps import Failed, Steps

__all__ = ["NotFetched", "Sources", "fetch"]

OURS = Path(__file__).parent / "ours"
SETTINGS = "headrace_settings"
PATIENCE = "headrace_patience"
# What a checkout has and no test needs.
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "docs", "node_modules")


class NotFetched(Exception):
    """The sources of a project, or what they need, could not be had; the message says why."""


@dataclass(frozen=True)
class Sources:
    """A project's sources, as they are.

    Attributes:
        project: The project.
        folder: Where copies are made.
        original: The folder of the sources.
        dependencies: A folder with what they need.
        settings: The module of Django's settings, if there is one.
    """

    project: Project
    folder: Path
    original: Path
    dependencies: Path
    settings: str | None

    def copy(self, name: str) -> Path:
        """Copy them into a new folder of that name, with our own files where they have none."""
        copy = self.folder / name
        shutil.copytree(self.original, copy, ignore=_NOT_COPIED)
        ours = OURS / self.project.ours
        _lay(OURS / "settings.py", copy / f"{SETTINGS}.py")
        _lay(OURS / "patience.py", copy / f"{PATIENCE}.py")
        for path in ours.rglob("*.py"):
            _lay(path, copy / path.relative_to(ours))
        return copy


def fetch(project: Project, folder: Path, steps: Steps, checkout: Path | None) -> Sources:
    """Fetch the source distribution of a project, or take a checkout, and install what it needs.

    Raises:
        NotFetched: a step failed.
    """
    steps.say(f"{project.name}: its sources, and what they need")
    dependencies = folder / "dependencies"
    try:
        original = checkout or _unpacked(project, folder, steps)
        _pip(steps, "install", "--target", dependencies, original, *NEEDS, *project.needs)
    except Failed as failed:
        raise NotFetched(str(failed)) from failed
    return Sources(project, folder, original, dependencies, project.settings if checkout else SETTINGS)


def _unpacked(project: Project, folder: Path, steps: Steps) -> Path:
    wanted = f"{project.name}=={project.version}"
    # Of this one alone: what builds it may be a wheel.
    _pip(steps, "download", "--no-deps", "--no-binary", project.name, "--dest", folder / "sdist", wanted)
    (archive,) = (folder / "sdist").glob("*.tar.gz")
    shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    (original,) = (folder / "unpacked").iterdir()
    return original


def _pip(steps: Steps, verb: str, *words: str | Path) -> None:
    steps.run([sys.executable, "-m", "pip", verb, "--quiet", *words])


def _lay(ours: Path, place: Path) -> None:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ours, place)
