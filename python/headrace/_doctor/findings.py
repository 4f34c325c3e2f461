"""What was found, and how it is shown."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Finding", "Level", "Section", "as_mapping", "note", "ok", "problem", "shown", "warning"]

_WIDTH = 120


class Level(Enum):
    """How bad it is: a problem fails for certain, a warning when something else happens as well."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        text: What is so, and what follows.
        advice: What to do.
    """

    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Section:
    """What was found about one thing.

    Attributes:
        depth: How far it is indented: a server stands below its layer.
    """

    title: str
    findings: list[Finding] = field(default_factory=list)
    depth: int = 0

    @property
    def failed(self) -> bool:
        """Tell whether something would fail."""
        return any(finding.level is Level.PROBLEM for finding in self.findings)

    @property
    def warned(self) -> bool:
        """Tell whether something fails when something else happens as well."""
        return any(finding.level is Level.WARNING for finding in self.findings)


def ok(text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(Level.OK, text)


def note(text: str, advice: str = "") -> Finding:
    """Say what is good to know."""
    return Finding(Level.NOTE, text, advice)


def warning(text: str, advice: str) -> Finding:
    """Say what fails when something else happens as well."""
    return Finding(Level.WARNING, text, advice)


def problem(text: str, advice: str) -> Finding:
    """Say what fails."""
    return Finding(Level.PROBLEM, text, advice)


def as_mapping(section: Section) -> dict[str, object]:
    """Give a section as JSON has it."""
    return {
        "title": section.title,
        "depth": section.depth,
        "findings": [
            {"level": finding.level.name.lower(), "text": finding.text, "advice": finding.advice}
            for finding in section.findings
        ],
    }


def shown(section: Section) -> Iterator[str]:
    """Give the lines of a section, as a terminal shows them."""
    indent = "  " * section.depth
    yield f"{indent}{section.title}"
    for finding in section.findings:
        yield from _lines(f"{indent}  {finding.level.value:<8} ", finding.text)
        if finding.advice:
            yield from _lines(f"{indent}  {'':<8} -> ", finding.advice)


def _lines(first: str, text: str) -> Iterable[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)
