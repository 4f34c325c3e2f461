"""The table at the end of a run: a line for each interpreter, what each was tested with, and why tests were skipped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.pythons.suite import Outcome

HEAD = ("interpreter", "from", "form", "passed", "failed", "skipped")


@dataclass
class Row:
    """An interpreter, and what became of it.

    Attributes:
        name: Its version as it was asked for.
        place: Where it came from.
        form: Which tests were run.
        outcome: What became of them, if it could be had.
        lacking: Why it could not be had.
        may_lack: Whether it was said that it may be missing.
    """

    name: str
    place: str = "-"
    form: str = "-"
    outcome: Outcome | None = None
    lacking: str | None = None
    may_lack: bool = False

    @property
    def good(self) -> bool:
        """Tell whether all its tests passed, or it was allowed to be missing."""
        if self.outcome is None:
            return self.may_lack
        return not self.outcome.failed and self.outcome.complaint is None


def render(rows: Sequence[Row]) -> str:
    """Lay out the table and its notes; the last line sums up the tests."""
    lines = [*columns([HEAD, *map(_cells, rows)]), ""]
    for row in rows:
        lines += _notes(row)
    lacking = [row.name for row in rows if row.lacking is not None]
    if lacking:
        lines.append(f"{len(lacking)} could not be had: {', '.join(lacking)}")
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    sums = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("passed", "failed", "skipped"))
    lines.append("{} passed, {} failed, {} skipped".format(*sums))
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    if row.outcome is None:
        return row.name, row.place, "not had", "-", "-", "-"
    counts = (row.outcome.passed, row.outcome.failed, row.outcome.skipped)
    return row.outcome.found.get("python", row.name), row.place, row.form, *map(str, counts)


def _notes(row: Row) -> list[str]:
    if row.outcome is None:
        return [f"{row.name}: {row.lacking}"]
    found = row.outcome.found
    peers = [f"{name} {version or 'missing'}" for name, version in found.get("peers", {}).items()]
    lines = [f"{row.name}: {', '.join([*peers, *found.get('servers', [])])}"]
    if row.outcome.complaint is not None:
        lines.append(f"  failed: {row.outcome.complaint}")
    lines += [f"  failed: {name}" for name in row.outcome.failures]
    lines += [f"  {count} skipped: {reason}" for reason, count in row.outcome.skips.most_common()]
    return lines


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    laid = list(rows)
    widths = [max(map(len, column)) for column in zip(*laid, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in laid]
