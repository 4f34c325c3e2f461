"""The rows of the result: what was measured, what it was compared with, what was aimed at, and whether it was met."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Unit = Literal["ns", "bytes", "commands", "connections"]


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise some values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Make the spread of something measured once."""
        return cls(value, value, value)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: What was done.
        loop: On which event loop; empty where there is none.
        ours: What it costs with headrace, in `unit`.
        versus: What it is compared with; empty if with nothing.
        theirs: What that costs.
        ratio: Ours over theirs, within rounds where there are rounds.
        limit: What the row aims at, at most: of `ratio` if there is one and `absolute` is not set, else of `ours`.
        absolute: The limit is in `unit`.
        variant: Which way of ours was taken, for the plot.
        members: The size of the group, for the plot.
        note: What a reader should know besides.
    """

    case: str
    loop: str
    ours: Spread
    unit: Unit = "ns"
    versus: str = ""
    theirs: float | None = None
    ratio: Spread | None = None
    limit: float | None = None
    absolute: bool = False
    variant: str = ""
    members: int | None = None
    note: str = ""

    @property
    def aimed(self) -> float:
        """What the limit speaks of."""
        return self.ours.median if self.absolute or self.ratio is None else self.ratio.median

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None if there is none."""
        return None if self.limit is None else self.aimed <= self.limit

    @property
    def verdict(self) -> str:
        """Say whether the limit is kept, and by how much it is missed if not."""
        if self.limit is None:
            return ""
        if self.met:
            return "met"
        return f"missed by {self.aimed / self.limit:.2f}x" if self.limit else "missed by any"

    def to_json(self) -> dict[str, Any]:
        """Return the row with its verdict, as plain values."""
        return {**asdict(self), "met": self.met, "verdict": self.verdict}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        fields = {name: value for name, value in values.items() if name not in ("met", "verdict")}
        ratio = fields.pop("ratio")
        ours = Spread(**fields.pop("ours"))
        return cls(ours=ours, ratio=None if ratio is None else Spread(**ratio), **fields)
