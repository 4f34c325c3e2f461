"""The table as a terminal shows it."""

from collections.abc import Iterable, Sequence

from benches.compare.rows import Row, Spread

HEADINGS = ("case", "headrace", "beside", "", "ratio (quartiles)", "at most", "")


def quantity(value: float, unit: str) -> str:
    """Write a time, a size or a number with three digits."""
    if unit == "bytes":
        return f"{value:,.0f} B"
    if unit == "commands":
        return f"{value:.3g}"
    if unit == "connections":
        return f"{value:,.0f}"
    for factor, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= factor:
            return f"{value / factor:.3g} {name}" if value < 999.5 * factor else f"{value / factor:,.0f} {name}"
    return f"{value:.0f} ns"


def ratio(value: float) -> str:
    """Write a ratio; a small one as a fraction, which is read as so many times."""
    if value >= 0.2:
        return f"{value:.2f}"
    return f"1/{1 / value:.3g}" if value > 0.01 else f"1/{1 / value:,.0f}"


def interval(spread: Spread) -> str:
    """Write a ratio with its quartiles."""
    ends = sorted((spread.low, spread.high))
    return (
        f"{ratio(spread.median)} ({ratio(ends[0])} to {ratio(ends[1])})"
        if spread.low < spread.high
        else ratio(spread.median)
    )


def aim(row: Row) -> str:
    """Write what the row aims at."""
    if row.limit is None:
        return ""
    return quantity(row.limit, row.unit) if row.absolute or row.ratio is None else ratio(row.limit)


def cells(row: Row) -> tuple[str, ...]:
    """Write one row."""
    return (
        row.case,
        quantity(row.ours.median, row.unit),
        row.versus,
        "" if row.theirs is None else quantity(row.theirs, row.unit),
        "" if row.ratio is None else interval(row.ratio),
        aim(row),
        row.verdict,
    )


def section(title: str, rows: Sequence[Row]) -> Iterable[str]:
    """Write the rows of one loop, with their notes below."""
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    yield f"\n{title}\n"
    for number, line in enumerate(lines):
        padded = (
            cell.rjust(width) if column in (1, 3, 5) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
    notes = [f"  {row.case}: {row.note}" for row in rows if row.note]
    yield from ["", *notes] if notes else []


def table(rows: Sequence[Row]) -> str:
    """Write all rows, by loop, and how many aims were met."""
    loops = dict.fromkeys(row.loop for row in rows)
    lines = [
        line for loop in loops for line in section(loop or "on any loop", [row for row in rows if row.loop == loop])
    ]
    aimed = [row for row in rows if row.met is not None]
    lines.append(f"\n{sum(bool(row.met) for row in aimed)} of {len(aimed)} aims met")
    return "\n".join(lines)
