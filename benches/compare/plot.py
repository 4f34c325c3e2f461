"""The cost of a delivery against the size of the group, as an SVG that reads well on light and on dark pages.

Written by hand, because a plotting library would weigh more than everything else that the benches need. The picture
brings its own background: a page may be dark while the reader's system is light.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benches.compare import consumers
from benches.compare.fanout import CHANNELS, FUTURES, RECEIVE
from benches.compare.rows import Row
from benches.compare.table import quantity

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 262, 88, 62
GAP = 20
# Between the end of the axis and the labels, between two lines of a label, and between two labels.
MARGIN, LINE, APART = 26, 18, 12
LETTERS = 26
LOOP = "asyncio"
STYLE = Path(__file__).with_suffix(".css").read_text()

Points = dict[int, float]


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of the plot.

    Attributes:
        name: What it is called beside its end.
        kind: The class in the style sheet.
        points: Nanoseconds by size of group.
    """

    name: str
    kind: str
    points: Points

    @property
    def words(self) -> list[str]:
        """The lines of its label: its name, and where it ends."""
        size, time = list(self.points.items())[-1]
        return [*textwrap.wrap(self.name, LETTERS), f"{quantity(time, 'ns')} at {size:,}"]


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: What was measured.
        about: How, in small letters.
        sizes: What the horizontal axis counts.
        curves: The lines; at least one.
    """

    title: str
    about: str
    sizes: str
    curves: Sequence[Curve]


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
        return LEFT + (math.log10(size) - self.left) / max(1, self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, time: float) -> float:
        """Return where a time lies."""
        return HEIGHT - BOTTOM - (math.log10(time) - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def fan_out(rows: Sequence[Row]) -> Panel:
    """Show the rows of bare tasks around `receive`."""
    ours: Points = {}
    beside: dict[str, Points] = {CHANNELS: {}, FUTURES: {}}
    for row in rows:
        if row.loop == LOOP and row.variant == RECEIVE and row.members is not None and row.theirs is not None:
            beside[row.versus][row.members] = row.theirs
            # Ours stands beside both; beside futures it was measured in more rounds.
            if row.versus == FUTURES:
                ours[row.members] = row.ours.median
    return Panel(
        "Cost of one delivery in a group_send",
        f"Time until every task has its message and waits again, per task; {LOOP}, logarithmic scales",
        "tasks that wait in the group",
        curves(
            Curve("Channels' in-memory layer", "peer", beside[CHANNELS]),
            Curve("one bare asyncio.Future per task", "bare", beside[FUTURES]),
            Curve("headrace", "ours", ours),
        ),
    )


def to_consumers(rows: Sequence[Row]) -> Panel:
    """Show the rows of consumers: ours, Channels', and Channels' on our layer."""
    found: Mapping[str, Points] = {way: {} for way in (consumers.OURS, consumers.WITH_APP, consumers.CHANNELS)}
    for row in rows:
        way = row.variant.removeprefix(consumers.PREFIX)
        if row.loop == LOOP and way != row.variant and row.members is not None and row.versus == consumers.CHANNELS:
            if way in found:
                found[way][row.members] = row.ours.median
            if row.theirs is not None:
                found[consumers.CHANNELS][row.members] = row.theirs
    return Panel(
        "The same to the handlers of WebSocket consumers",
        f"Time until every handler was called, per consumer, without a server; {LOOP}, logarithmic scales",
        "consumers in the group",
        curves(
            Curve("Channels' consumers on its in-memory layer", "peer", found[consumers.CHANNELS]),
            Curve("Channels' consumers on headrace, with headrace.django", "bare", found[consumers.WITH_APP]),
            Curve("headrace", "ours", found[consumers.OURS]),
        ),
    )


def curves(*drawn: Curve) -> list[Curve]:
    """Leave out what was not measured."""
    return [Curve(curve.name, curve.kind, dict(sorted(curve.points.items()))) for curve in drawn if curve.points]


def axes(panel: Panel, scales: Scales) -> Iterator[str]:
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
    yield f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{panel.sizes}</text>'


def draw(curve: Curve, scales: Scales) -> Iterator[str]:
    """Draw one curve."""
    places = [(scales.x(size), scales.y(time)) for size, time in curve.points.items()]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="line {curve.kind}" points="{path}"/>'
    yield from (f'<circle class="{curve.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places)


def label(panel: Panel, scales: Scales) -> Iterator[str]:
    """Write beside the diagram what its curves are called, each as near to the curve's end as the others let it."""
    ends = {curve: (scales.x(size), scales.y(time)) for curve in panel.curves for size, time in [last(curve)]}
    drawn = sorted(panel.curves, key=lambda curve: ends[curve][1])
    heights = [LINE * len(curve.words) for curve in drawn]
    middles = spread([ends[curve][1] for curve in drawn], heights)
    left = WIDTH - RIGHT + MARGIN
    for curve, middle, height in zip(drawn, middles, heights, strict=True):
        x, y = ends[curve]
        lead = f"{x + 9:.1f},{y:.1f} {left - 16},{y:.1f} {left - 6},{middle:.1f}"
        yield f'<polyline class="lead {curve.kind}" points="{lead}"/>'
        *names, value = curve.words
        top = middle - height / 2
        for number, (words, kind) in enumerate([*((name, f"label {curve.kind}") for name in names), (value, "value")]):
            yield f'<text class="{kind}" x="{left}" y="{top + LINE * number + 13:.1f}">{escape(words)}</text>'


def last(curve: Curve) -> tuple[int, float]:
    """Return the last point of a curve."""
    return list(curve.points.items())[-1]


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move the middles of boxes, which are in order, as far apart as needed, and not below the diagram."""
    middles: list[float] = []
    free = float(TOP - LINE)
    for middle, height in zip(wanted, heights, strict=True):
        middles.append(max(middle, free + height / 2))
        free = middles[-1] + height / 2 + APART
    free = float(HEIGHT - BOTTOM)
    for number in reversed(range(len(middles))):
        middles[number] = min(middles[number], free - heights[number] / 2)
        free = middles[number] - heights[number] / 2 - APART
    return middles


def draw_panel(panel: Panel) -> str:
    """Draw one diagram with its words, on a card."""
    scales = Scales(panel.curves)
    lines = (line for curve in panel.curves for line in draw(curve, scales))
    drawn = "\n".join([*axes(panel, scales), *lines, *label(panel, scales)])
    return f"""<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>
<text class="title" x="24" y="36">{panel.title}</text>
<text x="24" y="58">{panel.about}</text>
{drawn}"""


def plot(rows: Sequence[Row]) -> str:
    """Return the picture."""
    panels = [panel for panel in (fan_out(rows), to_consumers(rows)) if panel.curves]
    drawn = "\n".join(
        f'<g transform="translate(0 {number * (HEIGHT + GAP)})">\n{draw_panel(panel)}\n</g>'
        for number, panel in enumerate(panels)
    )
    height = len(panels) * (HEIGHT + GAP) - GAP
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>Cost of one delivery in a group_send, by the size of the group</title>
<style>
{STYLE}</style>
{drawn}
</svg>
"""
