"""Whether this process is one of several that a server has started, which a layer in memory does not connect."""

import logging
import os
from pathlib import Path

__all__ = ["count_siblings", "warn_of_siblings"]

_logger = logging.getLogger("headrace.layers")

SERVERS = ("gunicorn", "uvicorn", "granian", "hypercorn")
"""Servers that start worker processes."""

_PROC = Path("/proc")
# What Python itself starts beside them.
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


def count_siblings(process: int, proc: Path = _PROC) -> tuple[str, int]:
    """Name the server that has started a process, and count the workers that it has, this one with them.

    Returns:
        ``("", 0)`` if none of the servers that are known has, or if that cannot be told: only Linux tells.
    """
    try:
        stat = (proc / str(process) / "stat").read_text()
        # Behind the name, which may have any characters: the state and the parent.
        parent = stat.rpartition(")")[2].split()[1]
        server = _server(_words(proc / parent))
        if server is None:
            return "", 0
        children = [child for path in (proc / parent / "task").glob("*/children") for child in path.read_text().split()]
        return server, sum(_is_worker(proc / child) for child in children)
    except (OSError, IndexError):
        return "", 0


def warn_of_siblings(name: str) -> None:
    """Tell the log that a layer in memory reaches one of several workers."""
    server, workers = count_siblings(os.getpid())
    if workers > 1:
        _logger.warning(
            "this is one of %d workers of %s, and what is sent by %s stays in the one that sends it: use "
            "RedisChannelLayer, or one worker; this is said once",
            workers,
            server,
            name,
        )


def _words(process: Path) -> list[bytes]:
    return (process / "cmdline").read_bytes().split(b"\0")


def _server(words: list[bytes]) -> str | None:
    """Name the server that a command runs: its program, the script of its interpreter, or the module behind -m."""
    # A process that names itself has a colon behind that.
    names = {os.path.basename(word).partition(b":")[0].decode(errors="replace") for word in words[:3]}
    return next((server for server in SERVERS if server in names), None)


def _is_worker(process: Path) -> bool:
    try:
        words = _words(process)
    except OSError:
        return False  # it has ended meanwhile
    return not any(helper in word for word in words for helper in _HELPERS)
