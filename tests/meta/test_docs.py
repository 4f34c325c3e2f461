"""The pages of docs/: every example is Python and runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.pages import ELSEWHERE, RUN, Around

import headrace

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# What runs a page, and has its communicators wait longer, is of the tests.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def examples(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_example_is_python(page: Path) -> None:
    for example in examples(str(page.relative_to(DOCS))):
        compile(example, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_page_with_examples_is_run_by_a_test() -> None:
    pages = {str(page.relative_to(DOCS)) for page in PAGES}
    assert RUN.keys() | ELSEWHERE.keys() == {page for page in pages if examples(page)}
    for page, test in ELSEWHERE.items():
        assert page.rpartition("/")[2].removesuffix(".md") in (ROOT / test).read_text()


@pytest.mark.parametrize(("page", "around"), RUN.items(), ids=RUN)
def test_the_examples_of_a_page_run(page: str, around: Around, tmp_path: Path) -> None:
    files = {"before.py": around.before, "page.py": "\n".join(examples(page)), "after.py": around.after}
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    command = [sys.executable, "-W", "error", str(ROOT / "tests/support/run_page.py"), *files]
    run = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_tests_on_the_page_about_testing_pass(tmp_path: Path) -> None:
    """Its tests, run with its settings on the application of the page that it names."""
    application, *_ = examples("how-to/without-django.md")
    tests = examples("how-to/testing.md")
    (tmp_path / "chat.py").write_text(application)
    (tmp_path / "test_chat.py").write_text("\n".join(tests))
    settings = re.search(r"```ini\n(.*?)```", (DOCS / "how-to/testing.md").read_text(), re.DOTALL)
    assert settings is not None
    (tmp_path / "pytest.ini").write_text(f"{settings[1]}filterwarnings = error\n")
    (tmp_path / "conftest.py").write_text("from tests.support.patience import wait_patiently\n\nwait_patiently()\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, f"{len(tests)} passed" in run.stdout) == (0, True), run.stdout + run.stderr


def texts_of_the_sources() -> str:
    """Return what the sources may say: the constants of Python, and all of Rust's, in lines of their own."""
    constants: list[str] = []
    for path in sorted(Path(headrace.__file__).parent.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text()))
        constants += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    constants += [path.read_text() for path in sorted((ROOT / "rust").rglob("*.rs"))]
    return "\n".join(constants)


def test_every_error_on_the_page_about_troubleshooting_is_one_of_the_sources() -> None:
    sources = texts_of_the_sources()
    page = (DOCS / "how-to/troubleshooting.md").read_text()
    cells = re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE)
    errors = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    assert len(errors) > 50
    fragments = [fragment.strip() for text in errors for fragment in text.split("…")]
    assert [fragment for fragment in fragments if fragment not in sources] == []
