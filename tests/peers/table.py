"""The table: what each project's tests say of each form, beside what they say of plain Channels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.peers.projects import KNOWN
from tests.pythons.suite import Outcome
from tests.pythons.table import columns

__all__ = ["Row", "render"]

HEAD = ("project", "form", "passed", "failed", "skipped", "")


@dataclass
class Row:
    """A project, and what became of its tests in one form.

    Attributes:
        project: Its name.
        form: The form.
        outcome: What became of them.
        baseline: What became of them on plain Channels; of that itself, the same.
        known: The tests that are known to fail in this form, each with the reason.
    """

    project: str
    form: str
    outcome: Outcome
    baseline: Outcome
    known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, project: str, form: str, outcome: Outcome, baseline: Outcome) -> "Row":
        """Make one with the differences that are known."""
        return cls(project, form, outcome, baseline, KNOWN.get((project, form), {}))

    def complaints(self) -> list[str]:
        """Say what is worse than on plain Channels, and what is not worse although it is known to be."""
        failures, before = set(self.outcome.failures), set(self.baseline.failures)
        found = [] if self.outcome.complaint is None else [self.outcome.complaint]
        found += [f"failed: {name}" for name in sorted(failures - before - self.known.keys())]
        found += [f"passed, and is known to fail: {name}" for name in sorted(self.known.keys() - failures)]
        lost = _count(self.baseline) - _count(self.outcome)
        if lost and self.outcome.complaint is None:
            found.append(f"{_count(self.outcome)} tests were run, and {_count(self.baseline)} on channels")
        if self.outcome.skipped > self.baseline.skipped:
            found.append(f"{self.outcome.skipped} tests were skipped, and {self.baseline.skipped} on channels")
        return found

    def notes(self) -> list[str]:
        """Say what is worse and is known to be."""
        failures = set(self.outcome.failures)
        return [f"known: {name}: {reason}" for name, reason in self.known.items() if name in failures]


def render(rows: Sequence[Row], lacking: Sequence[tuple[str, str]]) -> str:
    """Lay out the table and its notes.

    Args:
        rows: The rows.
        lacking: The projects that could not be fetched, each with the reason.
    """
    lines = columns([HEAD, *map(_cells, rows), *((name, "not fetched", "-", "-", "-", "") for name, _ in lacking)])
    for row in rows:
        told = [*row.complaints(), *row.notes()]
        lines += ["", f"{row.project}, {row.form}:", *(f"  {line}" for line in told)] if told else []
    lines += [line for name, reason in lacking for line in ("", f"{name}: {reason}")]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.outcome.passed, row.outcome.failed, row.outcome.skipped)
    return row.project, row.form, *map(str, counts), "worse" if row.complaints() else ""


def _count(outcome: Outcome) -> int:
    return outcome.passed + outcome.failed + outcome.skipped
