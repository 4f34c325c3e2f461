"""What pip calls to build headrace from source: maturin, once it is clear that the build can succeed.

An interpreter that headrace does not run on, a missing Rust or one that is too old would otherwise show late, in the
words of a compiler; and where cargo is missing, maturin would download a compiler without asking.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build the wheel."""
    return str(_maturin().build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build the wheel of ``pip install --editable``."""
    return str(_maturin().build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Pack the source."""
    return str(_maturin().build_sdist(sdist_directory, config_settings))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Write the metadata alone."""
    return str(_maturin().prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return no more than ``pyproject.toml`` lists; this is the first that pip asks, so what is missing shows here."""
    return list(_maturin().get_requires_for_build_wheel(config_settings))


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel
get_requires_for_build_editable = get_requires_for_build_sdist = get_requires_for_build_wheel


def _maturin() -> Any:
    """Return maturin's own hooks, or end with what stands in their way."""
    _look_at_python()
    for tool, program in ("cargo", "cargo"), ("rustc", os.environ.get("RUSTC", "rustc")):
        _look_at_rust(tool, program)
    import maturin  # noqa: PLC0415  # may be missing or unable to run where the checks fail

    return maturin


def _look_at_python() -> None:
    needed = _least("pyproject.toml", "requires-python")
    name, version = sys.implementation.name, sys.version_info[:3]
    if name != "cpython" or version < needed:
        _refuse(f"headrace runs on CPython {_dotted(needed)} or newer, and this is {name} {_dotted(version)}.")


def _look_at_rust(tool: str, program: str) -> None:
    needed = _least("Cargo.toml", "rust-version")
    need = f"headrace is built from source here, which needs Rust {_dotted(needed)} or newer"
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        _refuse(f"{need}, and {tool} is not on the PATH. Install Rust from https://rustup.rs, and try again.")
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", asked.stdout)
    if asked.returncode or found is None:
        _refuse(f"{need}, and `{program} --version` failed: {(asked.stderr or asked.stdout).strip()}")
    version = tuple(map(int, found.groups()))
    if version < needed:
        _refuse(f"{need}, and {tool} is {_dotted(version)}. Update it with `rustup update stable`, and try again.")


def _least(manifest: str, key: str) -> tuple[int, ...]:
    """Read a least version from a manifest, without tomllib: Python may be too old for it."""
    found = re.search(rf'^{key} = "[>=]*([\d.]+)"', (ROOT / manifest).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        _refuse(f"{manifest} has no {key}")
    return tuple(map(int, found[1].split(".")))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _refuse(reason: str) -> NoReturn:
    """End the process that pip has started: pip shows what it said, without a traceback."""
    raise SystemExit(reason)
