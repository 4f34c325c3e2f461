"""What is shown while pip compiles: rust/py/install.py, with a program in the place of pip."""

import importlib.util
import io
import os
import re
import subprocess
import sys
import tty
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SAID = """Processing .
Collecting uvicorn>=0.40 (from headrace==0.1.0)
    Compiling libc v0.2.1
    Compiling pyo3 v0.29.0
    Compiling headrace-core v0.1.0 (/somewhere)
Installing collected packages: headrace
"""


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "rust/py/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pip(code: int = 0, said: str = SAID) -> list[str]:
    """Return a command that says what pip says, and ends with a code."""
    return [sys.executable, "-c", f"print({said!r}, end='', flush=True); raise SystemExit({code})"]


def on_terminal(install: ModuleType, command: list[str]) -> str:
    """Run it on a terminal; return what it wrote there."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    with open(theirs, "w") as terminal:
        assert install.install(command, terminal) == 0
    written = b""
    # The other end is closed: then reading fails on Linux.
    with open(ours, "rb", buffering=0) as reader:
        try:
            while part := reader.read(65536):
                written += part
        except OSError:
            pass
    return written.decode()


def test_a_log_gets_one_line_when_it_is_done(install: ModuleType) -> None:
    log = io.StringIO()
    assert install.install(pip(), log) == 0
    assert re.fullmatch(r"installed after \d+:\d\d\n", log.getvalue())


def test_a_terminal_shows_what_is_being_done(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = [re.sub(r"\d+:\d\d", "TIME", line) for line in on_terminal(install, pip()).split("\r\x1b[K")]
    # A line is shown again when nothing else comes.
    assert list(dict.fromkeys(shown)) == [
        "",
        "  TIME  collecting .",
        "  TIME  collecting uvicorn",
        "  TIME  compiling libc (crate 1)",
        "  TIME  compiling pyo3 (crate 2)",
        "  TIME  compiling headrace, which takes longest (crate 3)",
        "  TIME  installing",
        "installed after TIME\n",
    ]


def test_a_terminal_that_cannot_rewrite_a_line_gets_what_a_log_gets(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert re.fullmatch(r"installed after \d+:\d\d\n", on_terminal(install, pip()))


def test_the_time_goes_on_while_nothing_is_said(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            # Once the last line has been shown again and again, the program may end.
            if self.getvalue().count("collecting .") > 3:
                (tmp_path / "enough").touch()
            return super().write(text)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(install, "TICK", 0.01)
    file = str(tmp_path / "enough")
    waits = "import os, sys, time\nprint('Processing .', flush=True)\n"
    waits += "while not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    assert install.install([sys.executable, "-c", waits, file], Terminal()) == 0


def test_what_pip_said_is_printed_when_it_fails(install: ModuleType) -> None:
    log = io.StringIO()
    assert install.install(pip(3, "error: no Rust\n"), log) == 3
    assert log.getvalue().startswith("error: no Rust\nfailed after ")


def test_make_says_what_the_demo_does_before_anything_else() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "demo-about"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("make demo builds headrace")
    assert "http://127.0.0.1:8000" in shown.stdout
    assert "demo: demo-about $(VENV)/.demo" in (ROOT / "Makefile").read_text()
