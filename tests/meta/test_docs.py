"""The pages of docs/: every example is Python, those that can run do, and every link leads somewhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def examples(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_is_python(page: Path) -> None:
    for example in examples(str(page.relative_to(DOCS))):
        compile(example, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_tests_on_the_page_about_testing_pass(tmp_path: Path) -> None:
    """Its tests, run on the application of the page before it."""
    application, *_ = examples("without-django.md")
    tests = examples("testing.md")
    (tmp_path / "test_page.py").write_text("\n".join([application, *tests]))
    settings = "asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function", "filterwarnings = error"
    (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", *settings]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, f"{len(tests)} passed" in run.stdout) == (0, True), run.stdout + run.stderr
