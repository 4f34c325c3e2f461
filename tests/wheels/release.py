"""Building the files of a release, and checking them."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.pythons.interpreters import NotHad
from tests.pythons.steps import Failed, Steps
from tests.wheels.interfaces import VERSIONS, Interface
from tests.wheels.interpreters import Interpreters, local
from tests.wheels.names import Name
from tests.wheels.platforms import Platform
from tests.wheels.report import Entry

ROOT = Path(__file__).parents[2]


class Release:
    """Builds the files and checks them; what failed does not get into the folder.

    Args:
        out: The folder that gets them.
        temporary: An empty one.
        interpreters: What wheels are installed by.
        steps: Runs the commands.
    """

    def __init__(self, out: Path, temporary: Path, interpreters: Interpreters, steps: Steps) -> None:
        self._out = out
        self._temporary = temporary
        self._interpreters = interpreters
        self._steps = steps

    def sdist(self) -> Entry:
        """Pack the source, and build a wheel from what was packed."""
        self._steps.say("the source distribution")
        packed = self._made("maturin", "sdist", "--out")
        entry = Entry(packed.name)
        with reporting(entry):
            self._steps.say(f"a wheel from {packed.name}")
            # What cargo has compiled before looks newer than these files, which are all dated long ago.
            wheel = self._made("pip", "wheel", "--no-deps", packed, "--wheel-dir", anew=True)
            entry.good.append(f"{wheel.name} is built from it")
            self._install(wheel, entry)
            shutil.copy(packed, self._out)
        return entry

    def wheel(self, platform: Platform, interface: Interface) -> Entry:
        """Build a wheel, and look at it."""
        entry = Entry(f"{platform.tag} for the interface {interface.name}")
        with reporting(entry):
            self._steps.say(f"the wheel of {entry.name}")
            here = local(interface.version) if platform.is_here() else None
            # Of an interpreter that is not here maturin knows what it needs.
            interpreter = here.path if here else str(interface.version)
            options = [*platform.options(), *interface.options(), "--interpreter", interpreter, "--out"]
            wheel = self._made("maturin", "build", "--release", "--locked", *options)
            entry.name = wheel.name
            entry.good.append(f"built, {wheel.stat().st_size / 1e6:.1f} MB")
            self._audit(wheel, entry)
            if platform.is_here():
                self._install(wheel, entry)
            else:
                entry.lacking.append(f"the installation: this machine takes no {platform.tag}")
            shutil.copy(wheel, self._out)
        return entry

    def _made(self, program: str, *words: str | Path, anew: bool = False) -> Path:
        """Run a command whose last word is an option for a folder, and return what it made there."""
        folder = Path(tempfile.mkdtemp(dir=self._temporary))
        target = Path(tempfile.mkdtemp(dir=self._temporary)) if anew else ROOT / "target" / "wheels"
        # zig is beside the interpreter, and maturin looks on the PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {"PATH": path, "CARGO_TARGET_DIR": str(target)}
        quiet = {"MATURIN_NO_MISSING_BUILD_BACKEND_WARNING": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self._steps.run([sys.executable, "-m", program, *words, folder], {**os.environ, **environment, **quiet})
        (made,) = folder.iterdir()
        return made

    def _audit(self, wheel: Path, entry: Entry) -> None:
        """Ask whether the wheel keeps what its name promises."""
        name = Name.of(wheel)
        if any("linux" in platform for platform in name.platforms):
            shown = json.loads(self._steps.output([sys.executable, "-m", "auditwheel", "show", "--json", wheel]))
            if shown["overall_tag"] not in name.platforms:
                raise Failed(f"auditwheel finds {shown['overall_tag']}")
            entry.good.append(f"auditwheel finds {shown['overall_tag']}")
        if name.is_stable():
            # Its status is 1 where it finds a violation; the report says which, and one of them is none.
            report = self._steps.output([sys.executable, "-m", "abi3audit", "--report", wheel], statuses=(0, 1))
            shown = json.loads(report)
            entry.good.append(f"abi3audit finds the stable ABI of {stable_abi(shown)}")

    def _install(self, wheel: Path, entry: Entry) -> None:
        """Have each interpreter that the wheel fits install it and run the demo."""
        for version in filter(Name.of(wheel).fits, VERSIONS):
            try:
                interpreter = self._interpreters.get(version)
            except NotHad as reason:
                entry.lacking.append(f"the installation by CPython {version}: {reason}")
                continue
            self._steps.say(f"CPython {version} installs {wheel.name}")
            words: list[str | Path] = [interpreter.path, "-m", "tests.wheels.installed", wheel]
            said = self._steps.output(interpreter.place.command(words, ROOT))
            entry.good.append(f"CPython {version} installs it: {said.strip()}")


def stable_abi(report: dict[str, Any]) -> str:
    """Read from abi3audit's report which version of the stable ABI a wheel needs.

    Raises:
        Failed: It needs more than its name says.
    """
    (wheel,) = report["specs"].values()
    (found,) = (each["result"] for each in wheel["wheel"])
    # The function that an extension offers (PEP 793) in the place of PyInit; abi3audit takes it for one that it calls.
    outside = set(found["non_abi3_symbols"]) - {"PyModExport__core"}
    if outside or found["future_abi3_objects"] or not found["is_abi3_baseline_compatible"]:
        raise Failed(f"abi3audit finds more than the stable ABI of {found['baseline']}: {found}")
    return str(found["computed"])


@contextmanager
def reporting(entry: Entry) -> Iterator[None]:
    """Let the entry have what fails."""
    try:
        yield
    except Failed as failed:
        entry.failed.append(str(failed))
