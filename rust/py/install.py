"""Install headrace from this tree by pip, and tell how far that is: ``python rust/py/install.py '.[demo]'``.

pip says nothing while the extension is compiled, which takes minutes. On a terminal this shows one line that changes;
elsewhere, as in the log of a CI, it prints when it begins and when it is done. What pip and the compiler said is
printed if they fail.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

# Measured in a fresh clone: 2:51, of 3:37 of processor time.
USUAL = "about 3 minutes on two cores, the first time"
# Seconds after which the time is shown again.
TICK = 1.0


class Stage:
    """What pip is doing, by what it prints."""

    def __init__(self) -> None:
        self.name = "preparing"
        self._crates = 0

    def read(self, line: str) -> None:
        """Take a line of pip's, or of cargo's, which pip passes on."""
        if crate := re.match(r"\s*Compiling (\S+) v", line):
            self._crates += 1
            name = "headrace, which takes longest" if crate[1].startswith("headrace") else crate[1]
            self.name = f"compiling {name} (crate {self._crates})"
        elif re.match(r"\s*Download(ing|ed) crates", line):
            self.name = "fetching crates"
        elif package := re.match(r"(?:Collecting|Processing) ([\w.-]+)", line):
            self.name = f"collecting {package[1]}"
        elif line.startswith("Installing collected packages"):
            self.name = "installing"


def install(command: Sequence[str], out: TextIO) -> int:
    """Run pip, and show its progress.

    Args:
        command: What to run; it has to print what it does.
        out: Where to tell it.

    Returns:
        The exit code of the command.
    """
    changing = out.isatty() and os.environ.get("TERM") != "dumb"
    began = time.monotonic()
    # To stdin nothing is asked, so that pip fails where it would wait for a password.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        said: list[str] = []
        stage = Stage()
        for line in _lines(process):
            if line is not None:
                said.append(line)
                stage.read(line)
            if changing:
                _show(out, f"  {_clock(time.monotonic() - began)}  {stage.name}")
    if changing:
        _show(out, "")
    if process.returncode:
        out.writelines(said)
        print(f"failed after {_clock(time.monotonic() - began)}; what pip said stands above", file=out)
    else:
        print(f"installed after {_clock(time.monotonic() - began)}", file=out, flush=True)
    return process.returncode


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yield what a process prints, and None when it prints nothing for a while."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    pipe = process.stdout
    assert pipe is not None

    def read() -> None:
        for line in pipe:
            lines.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while reader.is_alive() or not lines.empty():
        try:
            yield lines.get(timeout=TICK)
        except queue.Empty:
            yield None


def _show(out: TextIO, text: str) -> None:
    """Write a line over the last one."""
    out.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
    out.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def main(what: Sequence[str]) -> int:
    """Install what the command line names."""
    print(f"Installing {' '.join(what)} into {sys.prefix}. The part in Rust is compiled: {USUAL}.", flush=True)
    return install([sys.executable, "-m", "pip", "install", "--verbose", *what], sys.stdout)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
