"""Have mypy and pyright read what users copy, and measure how much of the package is typed.

``python -m tests.typing``, with headrace installed. mypy reads the files of the repository when it is called by itself;
here it gets the blocks of the pages.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from tests.typing.blocks import ROOT, write_blocks

COMPLETE = 0.99
"""The part of the public names whose types are to be known."""

# A page shows a method, and not how to annotate it. What its code does with ours is checked all the same.
_UNANNOTATED = ("--check-untyped-defs", "--disable-error-code=var-annotated", "--ignore-missing-imports")

# basedpyright finds packages by the Python that is first on the path.
_ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a checker."""
    return subprocess.run(command, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, check=False)


def check(name: str, *command: str) -> bool:
    """Run a checker, show what it says if it has found something, and tell whether it has not."""
    result = run(*command)
    if result.returncode:
        print(f"{name}:\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def settings(folder: Path) -> Path:
    """Write the settings that the repository has for pyright into a folder of other files."""
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    own = {**own, "include": ["."], "executionEnvironments": []}
    file = folder / "pyrightconfig.json"
    file.write_text(json.dumps(own))
    return file


def completeness() -> bool:
    """Tell whether the types of the public names are known, and show those that are not."""
    result = run("basedpyright", "--verifytypes", "headrace", "--ignoreexternal", "--outputjson")
    report: dict[str, Any] = json.loads(result.stdout)["typeCompleteness"]
    if report["completenessScore"] >= COMPLETE:
        return True
    print(
        f"{report['completenessScore']:.1%} of the public names have types that are known, {COMPLETE:.0%} are wanted:"
    )
    for symbol in report["symbols"]:
        for found in symbol["diagnostics"]:
            print(f"  {symbol['name']}: {found['message']}")
    return False


def main() -> bool:
    """Run all; tell whether nothing was found."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        blocks = [str(file) for file in write_blocks(folder)]
        first = [file for file in blocks if not Path(file).name.startswith("docs_")]
        mypy = [sys.executable, "-m", "mypy", "--python-version=3.11", "--config-file=", "--no-error-summary"]
        mypy.append(f"--cache-dir={ROOT / '.mypy_cache/blocks'}")
        checks = [
            check("mypy on the README", *mypy, "--strict", *first),
            check("mypy on the pages", *mypy, *_UNANNOTATED, *blocks),
            check("pyright on the pages", "basedpyright", "--project", str(settings(folder))),
            check("pyright on the examples", "basedpyright"),
            completeness(),
        ]
    return all(checks)


if __name__ == "__main__":
    sys.exit(not main())
