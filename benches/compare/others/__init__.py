"""Other servers for the comparison over sockets, each a process of its own: a text to all who came by ``/all``.

Whoever connects to ``/control`` says ``broadcast``, or ``clock``, which is answered with the processor time of the
process in nanoseconds.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALL", "BROADCAST", "OTHERS", "Other"]

ALL, BROADCAST = "all", "broadcast"
NODE_PACKAGES = "/usr/share/nodejs"
"""Where Debian's package ``node-ws`` is."""


@dataclass(frozen=True)
class Other:
    """Another server.

    Attributes:
        command: What begins its command; the port, the processor, the loop and the bytes of the text follow.
        lacks: Returns what is missing for it here, or None.
        any_loop: It has event loops to choose from.
        deflate: It compresses for clients that ask for it, if ``--deflate`` follows.
        environment: What is added to the environment.
    """

    command: tuple[str, ...]
    lacks: Callable[[], str | None]
    any_loop: bool = True
    deflate: bool = False
    environment: Mapping[str, str] | None = None


def _python(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benches.compare.others.{name}")


def _package(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) else f"the package {name} is not installed"


def _socketify() -> str | None:
    try:
        importlib.import_module("socketify")
    except (ImportError, OSError) as error:
        # Its library may lack another one.
        return f"socketify cannot be imported: {str(error)[:80]}"
    return None


def _ws() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    folders = [*os.environ.get("NODE_PATH", "").split(os.pathsep), NODE_PACKAGES]
    if not any(Path(folder, "ws").is_dir() for folder in folders if folder):
        return "node's package ws is not installed"
    return None


OTHERS = {
    "picows": Other(_python("picows_server"), _package("picows")),
    "socketify": Other(_python("socketify_server"), _socketify, any_loop=False, deflate=True),
    "granian": Other(_python("granian_server"), _package("granian")),
    "Node's ws": Other(
        ("node", str(Path(__file__).parent / "ws_server.js")),
        _ws,
        any_loop=False,
        deflate=True,
        environment={"NODE_PATH": os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), NODE_PACKAGES]))},
    ),
}
