"""Reports the tests in ``cases``, run in the project, as tests of this suite; once for each version of channels."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tests.django_app.conftest import Environment

CASES = Path(__file__).parent / "cases"
OPTIONS = [
    *("-q", "-p", "no:cacheprovider", "-p", "no:django", "--confcutdir", str(CASES), "--timeout", "120"),
    *("--import-mode", "importlib", "-W", "error"),
    *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
]


def cases() -> list[str]:
    """List the tests in the files, as ``file::function``, without importing them."""
    return [
        f"{path.stem}::{node.name}"
        for path in sorted(CASES.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


@pytest.fixture(scope="session")
def outcomes(
    environment: "Environment", channels_version: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Run all cases once; tell how each failed, if it did."""
    report = tmp_path_factory.mktemp("outcomes") / "report.xml"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "--junit-xml", str(report), str(CASES)],
        env=environment(BANK_CHANNELS=channels_version),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        pytest.fail(f"the inner pytest did not run:\n{result.stdout}")
    failures: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        # The class of a test comes behind its file.
        file = next(part for part in case.attrib["classname"].split(".") if part.startswith("test_"))
        failed = failures.setdefault(f"{file}::{case.attrib['name'].partition('[')[0]}", [])
        failed += [f"{case.attrib['name']}\n{problem.text}" for problem in case if problem.tag in ("failure", "error")]
        failed += [f"{case.attrib['name']} was skipped" for problem in case if problem.tag == "skipped"]
    return failures


@pytest.mark.parametrize("case", cases())
def test_case(outcomes: dict[str, list[str]], case: str) -> None:
    if case not in outcomes:
        pytest.fail(f"the inner pytest did not run {case}")
    if outcomes[case]:
        pytest.fail("\n\n".join(outcomes[case]), pytrace=False)
