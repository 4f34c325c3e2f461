"""What the figures were measured on and with."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "headrace",
    "channels",
    "channels_redis",
    "django_sockets",
    "redis",
    "Django",
    "asgiref",
    "uvloop",
    "uvicorn",
    "websockets",
)


def command_output(*command: str) -> str:
    """Return what a command prints, or nothing where it is missing or fails."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe() -> dict[str, object]:
    """Return the machine, the versions, the commit and the date."""
    commit = command_output("git", "rev-parse", "--short=12", "HEAD")
    changed = bool(command_output("git", "status", "--porcelain", "--untracked-files=no"))
    return {
        "machine": {
            "processor": processor(),
            "processors": os.cpu_count(),
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "python": platform.python_version(),
            "rustc": command_output("rustc", "--version").removeprefix("rustc "),
            **{name: version(name) for name in PACKAGES},
        },
        "commit": f"{commit} with changes" if changed else commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def words(value: object) -> str:
    """Write a part of the description in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
