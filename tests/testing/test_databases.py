"""Tests of a Django project that use a database which closes: a file, and PostgreSQL; one in memory cannot close."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import HOST
from tests.support.postgres import USER, Postgres, missing

PROJECT = Path(__file__).parent / "django_project"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if reason := missing():
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Give Django's settings of a database."""
    if request.param == "sqlite":
        file = str(tmp_path / "tests.sqlite3")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "unused"), "TEST": {"NAME": file}}
    server: Postgres = request.getfixturevalue("postgres")
    return {
        **{"ENGINE": "django.db.backends.postgresql", "NAME": "project", "USER": USER},
        **{"HOST": HOST, "PORT": server.port},
    }


@pytest.mark.parametrize("app", ["", "headrace.django"])
def test_the_tests_of_a_project_pass_on_a_database_that_closes(database: dict[str, Any], app: str) -> None:
    labels = ["in_a_transaction", "without_transaction"]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", "--noinput", *labels],
        cwd=PROJECT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "on_database",
            "DATABASE": json.dumps(database),
            "HAS_APP": app,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "\nOK\n" in run.stdout
