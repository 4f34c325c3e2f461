"""What pip says when it builds headrace from source where that cannot succeed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = "headrace is built from source here, which needs Rust 1.88 or newer"
NO_TOOLCHAIN = "error: rustup could not choose a version of cargo to run, because no default is configured."


def tool(folder: Path, name: str, answer: str, status: int = 0) -> None:
    """Put a program there that answers any question the same."""
    (folder / name).write_text(f"#!/bin/sh\necho '{answer}' >&{2 if status else 1}\nexit {status}\n")
    (folder / name).chmod(0o755)


def pip_install(tmp_path: Path, rust: Path, **environment: str) -> list[str]:
    """Install the checkout with the tools of a folder alone, which fails; return the lines of what the build said."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
    without = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "RUST"))}
    done = subprocess.run(
        [*command, "--target", str(tmp_path / "installed"), str(ROOT)],
        env={**without, "PATH": str(rust), "PIP_CONFIG_FILE": os.devnull, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert not (tmp_path / "installed").exists()
    _, _, said = done.stderr.partition("lines of output]\n")
    said, _, _ = said.partition("[end of output]")
    return [line.strip() for line in said.splitlines() if line.strip()]


@pytest.fixture
def rust(tmp_path: Path) -> Path:
    """An empty folder for the tools of Rust."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def test_no_rust(tmp_path: Path, rust: Path) -> None:
    hint = "Install Rust from https://rustup.rs, and try again."
    assert pip_install(tmp_path, rust) == [f"{NEEDED}, and cargo is not on the PATH. {hint}"]


def test_no_compiler_beside_cargo(tmp_path: Path, rust: Path) -> None:
    tool(rust, "cargo", "cargo 1.95.0 (f2d3ce0bd 2026-03-21)")
    hint = "Install Rust from https://rustup.rs, and try again."
    assert pip_install(tmp_path, rust) == [f"{NEEDED}, and rustc is not on the PATH. {hint}"]


@pytest.mark.parametrize("old", ["cargo", "rustc"])
def test_rust_that_is_too_old(tmp_path: Path, rust: Path, old: str) -> None:
    for name in "cargo", "rustc":
        tool(rust, name, f"{name} {'1.87.0' if name == old else '1.88.0'} (17067e9ac 2025-05-09)")
    hint = "Update it with `rustup update stable`, and try again."
    assert pip_install(tmp_path, rust) == [f"{NEEDED}, and {old} is 1.87.0. {hint}"]


def test_compiler_that_the_environment_names(tmp_path: Path, rust: Path) -> None:
    """Cargo takes it, so it is the one whose version counts."""
    tool(rust, "cargo", "cargo 1.88.0 (873a06493 2025-05-10)")
    tool(rust, "another", "rustc 1.70.0 (90c541806 2023-05-31)")
    (said,) = pip_install(tmp_path, rust, RUSTC="another")
    assert said.startswith(f"{NEEDED}, and rustc is 1.70.0.")


def test_rustup_without_a_toolchain(tmp_path: Path, rust: Path) -> None:
    tool(rust, "cargo", NO_TOOLCHAIN, status=1)
    assert pip_install(tmp_path, rust) == [f"{NEEDED}, and `cargo --version` failed: {NO_TOOLCHAIN}"]


def test_pypy(tmp_path: Path, rust: Path) -> None:
    """An interpreter that calls itself PyPy; the sentence comes before what is said about Rust."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.implementation.name = 'pypy'\n")
    version = ".".join(map(str, sys.version_info[:3]))
    expected = f"headrace runs on CPython 3.11 or newer, and this is pypy {version}."
    assert pip_install(tmp_path, rust, PYTHONPATH=str(tmp_path)) == [expected]


def test_python_that_is_too_old(rust: Path) -> None:
    """The hook itself: pip would fail on an interpreter that lies about its version."""
    ask = "import sys; sys.version_info = (3, 10, 13, 'final', 0); import build_backend as backend; "
    done = subprocess.run(
        [sys.executable, "-c", f"{ask}backend.get_requires_for_build_wheel()"],
        env={**os.environ, "PATH": str(rust), "PYTHONPATH": str(ROOT / "rust/py")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "headrace runs on CPython 3.11 or newer, and this is cpython 3.10.13.\n"
