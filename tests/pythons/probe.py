"""What a run has, printed as JSON: the interpreter, the installed package, its peers and the servers."""

import json
import platform
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.support.binaries import available

import headrace

# Those that headrace works with, by the names of their distributions.
PEERS = ("Django", "channels", "channels_redis", "redis", "uvicorn", "granian", "websockets", "uvloop")


def installed(name: str) -> str | None:
    """Give the version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Print it as JSON."""
    gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    found = {
        "python": platform.python_version(),
        "lock": gil_enabled(),
        "installed": Path(headrace.__file__).is_relative_to(sysconfig.get_path("platlib")),
        "file": headrace.__file__,
        "peers": {name: installed(name) for name in PEERS},
        "servers": [str(binary) for binary in available()],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
