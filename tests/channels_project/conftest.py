"""Runs a real Django project on channels, each time in an interpreter of its own.

Django's settings are configured once for a process, and every other test here wants none. So
``cases`` are tests for an inner pytest, which ``test_cases.py`` starts and reports one by one.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = {
    "headrace": "headrace.layers.InMemoryChannelLayer",
    "channels": "channels.layers.InMemoryChannelLayer",
}

collect_ignore = ["cases", "project"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on Channels' own layer, before it is chosen by marks: one interpreter is enough for that."""
    for item in items:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if given.get("package") == "channels" or "channels" in given.get("address", ()):
            item.add_marker("one_python")


@pytest.fixture(scope="session")
def project_environment() -> Callable[[str], dict[str, str]]:
    """Make the environment of an interpreter that runs the project on the layer of a package."""

    def environment(package: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE / "project"), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "chat.settings",
            "CHAT_BACKEND": BACKENDS[package],
        }

    return environment
