"""Reports the tests in ``cases``, run in the project, as tests of this suite.

On Channels' own layer too: what is claimed of a swapped layer has to be so of the one it replaces.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
# The file of what only headrace does.
BEYOND = "test_beyond_channels.py"

Failures = dict[str, list[str]]


def cases(package: str) -> list[str]:
    """List the tests in the files, as ``file::function``, without importing them."""
    return [
        f"{path.name}::{node.name}"
        for path in sorted(CASES.glob("test_*.py"))
        if package == "headrace" or path.name != BEYOND
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


@pytest.fixture(scope="session")
def run_cases(
    project_environment: Callable[[str], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Failures]:
    """Run all cases on the layer of a package, once; tell how each failed, if it did."""
    runs: dict[str, Failures] = {}

    def run(package: str) -> Failures:
        if package not in runs:
            outcomes = tmp_path_factory.mktemp(package) / "outcomes"
            output = run_pytest(package, project_environment(package), outcomes)
            runs[package] = read(outcomes, output)
        return runs[package]

    return run


def run_pytest(package: str, environment: dict[str, str], outcomes: Path) -> str:
    """Run the inner pytest; return what it prints."""
    files = sorted({case.partition("::")[0] for case in cases(package)})
    options = [
        *("-q", "-p", "no:cacheprovider", "--confcutdir", str(CASES), "--timeout", "120"),
        *("--import-mode", "importlib", "-W", "error"),
        *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(CASES / file) for file in files)],
        env={**environment, "CHAT_OUTCOMES": str(outcomes)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return result.stdout


def read(outcomes: Path, output: str) -> Failures:
    """Gather the reports of each case: one for a plain test, several for a parametrised one."""
    if not outcomes.exists():
        pytest.fail(f"the inner pytest ran no test:\n{output}")
    failures: Failures = {}
    for line in outcomes.read_text(encoding="utf-8").splitlines():
        outcome = json.loads(line)
        case = Path(outcome["nodeid"].partition("[")[0]).name
        failed = failures.setdefault(case, [])
        if not outcome["passed"]:
            failed.append(f"{outcome['nodeid']}\n{outcome['text']}")
    return failures


@pytest.mark.parametrize(
    ("package", "case"),
    [
        pytest.param(package, case, marks=pytest.mark.xdist_group(f"cases-{package}"))
        for package in ("headrace", "channels")
        for case in cases(package)
    ],
)
def test_case(run_cases: Callable[[str], Failures], package: str, case: str) -> None:
    failures = run_cases(package)
    if case not in failures:
        pytest.fail(f"the inner pytest did not run {case}")
    if failures[case]:
        pytest.fail("\n\n".join(failures[case]), pytrace=False)
