"""Whether a wheel works once installed: ``python -m tests.wheels.installed WHEEL``.

The interpreter that runs this installs the wheel into an empty virtual environment, with what the demo needs, and has
the demo check itself there. It needs nothing but itself, so that it runs in a container or a root too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Return 1, with a sentence, if a command failed or what was installed is not the wheel."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheels.installed", description=__doc__)
    parser.add_argument("wheel", type=Path)
    try:
        print(check(parser.parse_args().wheel.resolve()))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check(wheel: Path) -> str:
    """Install the wheel and run the demo; return the demo's verdict.

    Raises:
        subprocess.SubprocessError: A command failed, or did not end.
        ValueError: Another version was installed.
    """
    name, version, *_ = wheel.stem.split("-")
    with tempfile.TemporaryDirectory() as folder:
        programs = Path(folder, "Scripts" if os.name == "nt" else "bin")
        ask(sys.executable, "-m", "venv", folder)
        ask(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[demo]")
        if (said := ask(programs / "headrace", "--version")) != f"{name} {version}":
            raise ValueError(f"{wheel.name} was installed, and says that it is {said}")
        return ask(programs / "headrace", "demo", "--once", "--port", "0").splitlines()[-1]


def ask(*words: str | Path) -> str:
    """Run a command away from the checkout; what it complains about is shown."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(words, cwd=elsewhere, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
