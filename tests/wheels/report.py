"""What was built, what was found good of it, and what there is not."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Entry:
    """A file of the release.

    Attributes:
        name: Its name, or what it would have been.
        good: What was found good.
        lacking: What was not done, and why.
        failed: What went wrong.
    """

    name: str
    good: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def render(entries: Sequence[Entry]) -> str:
    """Lay out the entries; the last line counts them."""
    lines = []
    for entry in entries:
        lines.append(entry.name)
        lines += [f"  {what}" for what in entry.good]
        lines += [f"  not done: {what}" for what in entry.lacking]
        lines += [f"  FAILED: {what}" for what in entry.failed]
    failed = [entry for entry in entries if entry.failed]
    good = [entry for entry in entries if entry.good and not entry.failed]
    missing = len(entries) - len(failed) - len(good)
    lines.append(f"{len(good)} built and checked, {len(failed)} failed, {missing} not built")
    return "\n".join(lines)
