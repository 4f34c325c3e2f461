"""No process of the tests outlives them, however they end.

Whatever is started has a folder here, with the file ``pid`` in it while it runs. A shell waits at the other end of a
pipe, and once this process is gone, also by SIGKILL, it kills those processes and removes the folders. (A "parent death
signal" would come too early: when the thread ends that started a server.)
"""

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from threading import Lock

_SHELL = """
read -r _
for file in "$1"/*/pid; do
    test -e "$file" && kill -9 "$(cat "$file")"
done
rm -rf "$1"
"""
_SECONDS = 60


class _Guard:
    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="headrace-"))
        # Of its own session: a Ctrl-C in the terminal is for the tests, which then end it.
        self.shell = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "sh", self.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def let_go(self) -> None:
        if self.shell.stdin is not None:
            self.shell.stdin.close()


_lock = Lock()
_guard: _Guard | None = None


def folder() -> Path:
    """Make a folder; what is started in it writes its process id to the file ``pid`` there."""
    global _guard  # noqa: PLW0603  # one shell for all that a process starts
    with _lock:
        if _guard is None:
            _guard = _Guard()
        return Path(tempfile.mkdtemp(dir=_guard.root))


def remove(folder: Path) -> None:
    """Remove a folder in which nothing runs any more."""
    shutil.rmtree(folder)


@atexit.register
def end() -> None:
    """End and remove all that is left."""
    if _guard is not None:
        _guard.let_go()
        _guard.shell.wait(_SECONDS)


def _forget_in_a_fork() -> None:
    global _guard, _lock
    if _guard is not None:
        _guard.let_go()
        # It cannot be waited for from here, and Popen would complain.
        _guard.shell.returncode = 0
    _guard, _lock = None, Lock()  # those were the parent's


os.register_at_fork(after_in_child=_forget_in_a_fork)
