"""A PostgreSQL server of the tests: on a free port, in a folder of its own, always ended, nothing kept."""

import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

from tests.support import guard
from tests.support.lifetime import Lifetime
from tests.support.ports import HOST, Port
from tests.support.waiting import eventually

USER = "headrace"
# Where Debian has what is not on the PATH, one folder for each version.
_DEBIAN = Path("/usr/lib/postgresql")
# PostgreSQL refuses to run as root; its package makes this user.
_IN_PLACE_OF_ROOT = "postgres"
# Nothing has to survive.
_OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "unix_socket_directories=")
_SECONDS = 60


class PostgresFailed(Exception):
    """A server ended by itself; the message has its last words."""


@cache
def programs() -> Path | None:
    """Return the folder with ``initdb`` and ``postgres``, the newest there is; or None."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    there = [folder for folder in _DEBIAN.glob("*/bin") if Path(folder, "initdb").exists()]
    return max(there, key=lambda folder: float(folder.parent.name), default=None)


def missing() -> str | None:
    """Say why there can be no server: the reason of a skip; None if there can."""
    if programs() is None:
        return f"no PostgreSQL: initdb is neither on the PATH nor below {_DEBIAN}"
    try:
        import psycopg  # noqa: F401  # what Django would use
    except ImportError as error:
        return f"no client for PostgreSQL: {error}"
    return None


class Postgres(Lifetime):
    """A server that runs while the context lasts; everybody on this machine may connect as ``USER``.

    Attributes:
        port: Its TCP port.
    """

    def __init__(self) -> None:
        self._port = Port()
        self._folder = guard.folder()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _IN_PLACE_OF_ROOT if os.getuid() == 0 else None

    @property
    def port(self) -> int:
        return self._port.number

    def _begin(self) -> None:
        self._make()
        self._start()

    def close(self) -> None:
        """End it, and leave nothing of it."""
        if self._process is not None:
            # At once; a SIGKILL would leave its processes to find out.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_SECONDS)
        self._port.release()
        guard.remove(self._folder)

    def _make(self) -> None:
        if self._user is not None:
            shutil.chown(self._folder, self._user)
            os.chmod(self._folder.parent, 0o711)  # it has to get to its folder
        words = ["--auth=trust", f"--username={USER}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            [self._program("initdb"), *words, "-D", self._folder / "data"],
            cwd=self._folder,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )

    def _start(self) -> None:
        options = [word for option in _OPTIONS for word in ("-c", option)]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._program("postgres"), "-D", self._folder / "data", "-h", HOST, "-p", str(self.port), *options],
                cwd=self._folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self._folder / "pid").write_text(str(self._process.pid))
        eventually(self._answers, "an answer of PostgreSQL")

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise PostgresFailed(f"PostgreSQL ended:\n{(self._folder / 'log').read_text()}")
        asked: list[str | Path] = [self._program("pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(asked, timeout=_SECONDS, check=False).returncode == 0

    @staticmethod
    def _program(name: str) -> Path:
        folder = programs()
        if folder is None:
            raise PostgresFailed(str(missing()))
        return folder / name
