"""The cost of a delivery against the size of the group, as an SVG that reads well on light and on dark pages.

Written by hand, because a plotting library would weigh more than everything else that the benches need. The picture
brings its own background: a page may be dark while the reader's system is light.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benches.compare.fanout import CHANNELS, FUTURES, RECEIVE
from benches.compare.rows import Row
from benches.compare.table import quantity

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 32, 84, 58
LOOP = "asyncio"
STYLE = Path(__file__).with_suffix(".css").read_text()

Points = dict[int, float]


@dataclass(frozen=True)
class Curve:
    """One line of the plot with the words beside it.

    Attributes:
        name: The words.
        kind: The class in the style sheet.
        points: Nanoseconds by size of group.
        above: Whether the words stand above the line.
    """

    name: str
    kind: str
    points: Points
    above: bool


class Scales:
    """Where a size and a time lie on the picture; both scales are logarithmic."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        sizes = [math.log10(size) for curve in curves for size in curve.points]
        times = [math.log10(time) for curve in curves for time in curve.points.values()]
        self.left, self.right = math.floor(min(sizes)), math.ceil(max(sizes))
        # Half decades, so that no tenth of the picture is empty.
        self.low, self.high = math.floor(2 * min(times) - 0.2) / 2, math.ceil(2 * max(times) + 0.2) / 2

    def x(self, size: float) -> float:
        """Return where a size lies."""
        return LEFT + (math.log10(size) - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, time: float) -> float:
        """Return where a time lies."""
        return HEIGHT - BOTTOM - (math.log10(time) - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def points(rows: Sequence[Row], way: str) -> Points:
    """Collect the times of our `receive`, or of what it is compared with."""
    found: dict[int, float] = {}
    for row in rows:
        if row.loop == LOOP and row.variant == RECEIVE and row.members is not None:
            # Ours stands beside both; beside futures it was measured in more rounds.
            if way == RECEIVE and row.versus == FUTURES:
                found[row.members] = row.ours.median
            elif way == row.versus and row.theirs is not None:
                found[row.members] = row.theirs
    return dict(sorted(found.items()))


def axes(scales: Scales) -> Iterator[str]:
    """Draw the grid and write on it."""
    for decade in range(scales.left, scales.right + 1):
        x = scales.x(10**decade)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{10**decade:,}</text>'
    for decade in range(math.ceil(scales.low), math.floor(scales.high) + 1):
        y = scales.y(10**decade)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{quantity(10**decade, "ns")}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">tasks that wait in the group</text>'


def draw(curve: Curve, scales: Scales) -> Iterator[str]:
    """Draw one curve, and write its name and its last time where it ends."""
    places = [(scales.x(size), scales.y(time)) for size, time in curve.points.items()]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="line {curve.kind}" points="{path}"/>'
    yield from (f'<circle class="{curve.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places)
    (x, y), last = places[-1], list(curve.points.values())[-1]
    # The words of a rising line stand beside its end, so that it does not run through them.
    rising = places[0][1] - y > 40
    anchor, y = (x - 16, y + 2) if rising else (x, y + (-14 if curve.above else 26))
    words = escape(f"{curve.name}: {quantity(last, 'ns')}")
    yield f'<text class="label {curve.kind}" x="{anchor:.1f}" y="{y:.1f}" text-anchor="end">{words}</text>'


def plot(rows: Sequence[Row]) -> str:
    """Return the picture."""
    curves = [
        Curve("Channels' in-memory layer", "peer", points(rows, CHANNELS), above=True),
        Curve("one bare asyncio.Future per task", "bare", points(rows, FUTURES), above=True),
        Curve("headrace", "ours", points(rows, RECEIVE), above=False),
    ]
    curves = [curve for curve in curves if curve.points]
    scales = Scales(curves)
    drawn = "\n".join([*axes(scales), *(line for curve in curves for line in draw(curve, scales))])
    title = "Cost of one delivery in a group_send"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{title}, by the size of the group</title>
<style>
{STYLE}</style>
<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>
<text class="title" x="24" y="36">{title}</text>
<text x="24" y="58">Time until every task has its message and waits again, per task; {LOOP}, logarithmic scales</text>
{drawn}
</svg>
"""
