"""Every link between pages leads to a file, and to a heading of it. ``make site`` looks at the site in the same way."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.links import anchors, broken_in_markdown, broken_in_site

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *ROOT.glob("benches/**/*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_in_markdown([page]) == []


def test_the_pages_that_are_looked_at_are_there() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "deploy.md", "security.md"} <= names


def test_a_broken_link_of_a_page_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# Other\n\n## `stats()`, and more\n\n## Twice\n\n## Twice\n\n```sh\n# no heading\n```\n")
    good = "[a](other.md) [b](other.md#stats-and-more) [c](other.md#twice-1) [d](#page) [e](https://example.org/#x)"
    page.write_text(f"# Page\n\n{good} `[f](nowhere.md)`\n\n```python\n[g](nowhere.md)\n```\n")
    assert broken_in_markdown([page]) == []
    page.write_text('# Page\n\n[a](nowhere.md) [b](other.md#no-heading) [c](#other) <img src="no.png">\n')
    assert [line.partition(": ")[2] for line in broken_in_markdown([page])] == [
        *("nowhere.md", "other.md#no-heading", "#other", "no.png")
    ]
    assert anchors(other) == {"other", "stats-and-more", "twice", "twice-1"}


def test_a_broken_link_of_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.html").write_text('<h1 id="here">x</h1><a href="../index.html">up</a>')
    index = tmp_path / "index.html"
    index.write_text('<a href="sub/other.html#here">a</a><a href="https://example.org/no">b</a><a href="#">c</a>')
    assert broken_in_site(tmp_path) == []
    index.write_text('<a href="sub/other.html#there">a</a><a href="no.html">b</a><a href="#no">c</a><img src="no.png">')
    expected = ["index.html: sub/other.html#there", "index.html: no.html", "index.html: #no", "index.html: no.png"]
    assert broken_in_site(tmp_path) == expected
    command = [sys.executable, "-m", "tests.support.links", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.splitlines()) == (1, expected)
