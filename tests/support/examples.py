"""The projects of examples/, set up and started as their READMEs say, and browsers' cookies for them."""

import http.cookiejar
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.client import connect

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 60

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
# The commands of this interpreter's environment come first.
_ENVIRONMENT["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@dataclass
class Example:
    """An example that is being served, and a browser's cookies for it."""

    name: str
    address: str
    cookies: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)

    def request(self, path: str, body: bytes | None = None, kind: str = "text/plain") -> str:
        """GET, or POST a body; return what the answer holds."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        request = urllib.request.Request(f"http://{self.address}{path}", body, {"Content-Type": kind})
        with opener.open(request, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text

    def submit(self, path: str, **fields: str) -> str:
        """POST one of the forms of a Django project's page."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.request("/"))
        assert token is not None
        body = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token[1]})
        return self.request(path, body.encode(), "application/x-www-form-urlencoded")

    def socket(self, path: str, origin: str | None = None) -> connect:
        """Connect to a path, as a page of the example would, or one from elsewhere."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        return connect(
            f"ws://{self.address}{path}",
            origin=origin or f"http://{self.address}",  # type: ignore[arg-type]  # a NewType of str
            additional_headers={"Cookie": cookies} if cookies else None,
            open_timeout=SECONDS,
        )


def copy(name: str, folder: Path) -> Path:
    """Copy an example, without what running it has left there."""
    return Path(shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3*")))


def commands(folder: Path, where: str = "In this folder") -> list[list[str]]:
    """Return the commands that the README of an example says to enter there: to start it, or as preparation."""
    blocks = re.findall(
        rf"^{where}:\n\n```console\n((?:\$ .*\n)+)```$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert len(blocks) == 1
    return [shlex.split(line.removeprefix("$ ")) for line in blocks[0].splitlines()]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of an example."""
    return subprocess.run(
        command, cwd=folder, env=_ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def set_up(folder: Path) -> None:
    """Do once what the README says to do once."""
    for command in commands(folder, "Once, in this folder"):
        result = run(folder, *command)
        assert result.returncode == 0, result.stderr


@contextmanager
def serve(folder: Path, log: Path, port: int = 0, expected: str | None = None) -> Iterator[str]:
    """Serve an example while the context lasts; give the host and the port, and check that it ends cleanly.

    The server inherits a socket that listens already: its port cannot be taken by another process,
    and a client that comes before the server is ready waits instead of being refused. Of lines of its log that are no
    failure, whatever they hold, ``expected`` is a part.
    """
    (command,) = commands(folder)
    with socket.create_server(("127.0.0.1", port)) as listening, log.open("w") as output:
        host, port = listening.getsockname()
        process = subprocess.Popen(
            [*command, "--fd", str(listening.fileno())],
            cwd=folder,
            env=_ENVIRONMENT,
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"{host}:{port}"
    finally:
        process.terminate()
        code = process.wait(SECONDS)
    said = "\n".join(line for line in log.read_text().splitlines() if expected is None or expected not in line)
    assert code in (0, -signal.SIGTERM), said
    assert "Finished server process" in said
    assert not re.search("error|exception|traceback|warning", said, re.IGNORECASE), said
