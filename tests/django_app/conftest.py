"""A Django project with the app, run in interpreters of their own on the versions of channels that are supported."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.groups import one_process_each

HERE = Path(__file__).parent

collect_ignore = ["cases", "project"]

Environment = Callable[..., dict[str, str]]


def older_channels() -> Path:
    """Say where channels 4.2 is, if it is anywhere."""
    return Path(os.environ.get("HEADRACE_CHANNELS_42", Path(sys.prefix, "channels42")))


@pytest.fixture(scope="session", params=one_process_each("app", ["4.3", "4.2"]))
def channels_version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    if version == "4.2" and not Path(older_channels(), "channels").is_dir():
        pytest.skip(f"no channels 4.2 in {older_channels()}; HEADRACE_CHANNELS_42 may name another folder")
    return version


@pytest.fixture(scope="session")
def environment(channels_version: str, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make the environment of an interpreter that runs the project, with variables of one's own."""
    older = [str(older_channels())] if channels_version == "4.2" else []
    database = tmp_path_factory.mktemp("bank") / "bank.sqlite3"

    def make(**variables: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*older, str(HERE / "project"), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "bank_settings",
            "BANK_DATABASE": str(database),
            **variables,
        }

    return make
