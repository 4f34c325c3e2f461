"""Which interpreters are wanted, and how they are looked for."""

import sys
from pathlib import Path

import pytest
from tests.pythons.interpreters import Machine, Version, answers, find

HERE = Version(sys.version_info.minor, not getattr(sys, "_is_gil_enabled", lambda: True)())


def executable(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have no interpreter, neither on the PATH nor in pyenv."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


@pytest.mark.parametrize("text", ["3.11", "3.14", "3.14t"])
def test_a_version_is_written_as_it_was_read(text: str) -> None:
    assert str(Version.parse(text)) == text


@pytest.mark.parametrize("text", ["", "3", "3.14.1", "2.7", "3.14tt", "t3.14", "python3.14"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no version of Python"):
        Version.parse(text)


def test_an_interpreter_is_asked_what_it_is() -> None:
    path = Path(sys.executable)
    assert answers(Machine(), path, HERE)
    assert not answers(Machine(), path, Version(HERE.minor, not HERE.free_threaded))
    assert not answers(Machine(), path, Version(HERE.minor + 1, HERE.free_threaded))


@pytest.mark.parametrize("line", ["exit 127", "echo '[\"PyPy\", 3, 99, false]'"], ids=["broken shim", "PyPy"])
def test_what_does_not_answer_as_cpython_is_not_taken(tmp_path: Path, line: str) -> None:
    assert not answers(Machine(), executable(tmp_path / "python3.99", line), Version(99))


def test_what_is_not_installed_is_not_found(nothing_installed: Path) -> None:
    assert find(Version(99)) is None


def test_a_shim_that_leads_nowhere_does_not_hide_what_pyenv_has(nothing_installed: Path) -> None:
    says = "echo '[\"CPython\", 3, 99, false]'"
    executable(nothing_installed / "bin/python3.99", "exit 127")
    for micro in (2, 10, 9):
        executable(nothing_installed / f"pyenv/versions/3.99.{micro}/bin/python3.99", says)
    found = find(Version(99))
    assert found is not None
    assert found.path == nothing_installed / "pyenv/versions/3.99.10/bin/python3.99"


def test_the_path_goes_before_pyenv(nothing_installed: Path) -> None:
    says = "echo '[\"CPython\", 3, 99, true]'"
    on_path = executable(nothing_installed / "bin/python3.99t", says)
    executable(nothing_installed / "pyenv/versions/3.99.1t/bin/python3.99t", says)
    found = find(Version(99, free_threaded=True))
    assert found is not None
    assert found.path == on_path
