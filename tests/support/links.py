"""The links that lead nowhere: of pages in Markdown, and of a site that was built. Without a network.

``python -m tests.support.links target/site`` looks at a site, and ends with 1 if it has such a link.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["anchors", "broken_in_markdown", "broken_in_site"]

_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def broken_in_markdown(pages: Iterable[Path]) -> list[str]:
    """Name the links to a file or a heading that is not there, each with its page."""
    return [f"{page}: {target}" for page in pages for target in _targets(page) if not _leads_somewhere(page, target)]


def _targets(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]+`", "", _FENCE.sub("", page.read_text()))
    for found in _LINK.finditer(text):
        target = found[1] or found[2]
        if not urlsplit(target).scheme:
            yield target


def _leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = unquote(target).partition("#")
    path = page.parent / name if name else page
    if not path.exists():
        return False
    return not anchor or path.suffix != ".md" or anchor in anchors(path)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of the headings of a page in Markdown, as GitHub and MyST make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        # The second of a name has a number.
        names = (slug, *(f"{slug}-{number}" for number in range(1, 100)))
        found.add(next(name for name in names if name not in found))
    return frozenset(found)


class _Page(HTMLParser):
    """The links of a page of HTML, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name in ("id", "name"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


def broken_in_site(folder: Path) -> list[str]:
    """Name the links to a file or an anchor that a site of HTML does not have, each with its page."""
    pages = {path.resolve(): _Page(path) for path in sorted(folder.rglob("*.html"))}
    return [
        f"{path.relative_to(folder.resolve())}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not _is_in_site(pages, path, link)
    ]


def _is_in_site(pages: dict[Path, _Page], path: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors


if __name__ == "__main__":
    broken = broken_in_site(Path(sys.argv[1]))
    print(*broken, sep="\n", end="\n" if broken else "")
    sys.exit(bool(broken))
