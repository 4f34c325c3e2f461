"""A Redis or Valkey server of the demo's own, which it may restart to show what becomes of that."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

PROGRAMS = ("redis-server", "valkey-server")
_SECONDS = 10.0


class CannotStart(RuntimeError):
    """The server does not run; the text says why and what to do."""


class OwnServer:
    """A server that runs while the context lasts, in a folder of its own, at a unix socket; it saves nothing."""

    def __init__(self, program: str) -> None:
        path = shutil.which(program)
        if path is None:
            raise CannotStart(f"there is no {program} on this machine; install it, or give the URL of a server")
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-demo-")
        self._socket = Path(self._folder.name, "socket")
        options = {"port": "0", "unixsocket": str(self._socket), "save": "", "dir": self._folder.name}
        self._command = [path, *(word for name, value in options.items() for word in (f"--{name}", value))]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Its address, as a layer takes it."""
        return f"unix://{self._socket}"

    def restart(self) -> None:
        """End it and start it again; what it held is gone.

        Raises:
            CannotStart: It did not come back.
        """
        self.stop()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections.

        Raises:
            CannotStart: It ended instead, or takes none.
        """
        # Signals of the terminal are for the demo, which then ends it.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + _SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(f"{self._command[0]} does not start; try it by itself, or give the URL of a server")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0
