"""Charts as inline SVG in the page's colours. Lines also differ in dash, so that they can be told apart without colour.

A chart has WIDTH x HEIGHT units. The style sheet of the page sets colours and fonts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 28, 38  # margins, for the ticks' numbers and the legend
LABEL = 14  # height of a label
TICKS = 5
POINTS = 500  # maximum per line


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Marker:
    """A vertical line at x, with a label."""

    x: float
    label: str


class _Axes:
    """The axes of a chart: coordinates of values, and ticks."""

    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None:
        self.x_ticks, self.y_ticks = ticks(min(x), max(x)), ticks(min(y), max(y))
        self.left, self.right = min(x), max(x)
        self.low, self.high = self.y_ticks[0], self.y_ticks[-1]

    def px(self, x: float) -> float:
        share = (x - self.left) / ((self.right - self.left) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        share = (y - self.low) / ((self.high - self.low) or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def points(self, line: Line) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(line.x, line.y, strict=True))

    def svg(self, x_name: str) -> str:
        bottom, parts = HEIGHT - BOTTOM, []
        for y in self.y_ticks:
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.py(y):.1f}" y2="{self.py(y):.1f}"/>'
            )
            parts.append(
                f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{self.py(y) + 4:.1f}">{number(y)}</text>'
            )
        for x in self.x_ticks:
            if self.left <= x <= self.right:
                parts.append(
                    f'<text class="tick" text-anchor="middle" x="{self.px(x):.1f}" y="{bottom + 15}">{number(x)}</text>'
                )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="axis" text-anchor="middle" x="{middle}" y="{HEIGHT - 5}">{escape(x_name)}</text>')
        return "".join(parts)


def line_chart(lines: Sequence[Line], x_name: str, *, from_zero: bool = False) -> Markup:
    """Curves over a common x axis. `from_zero`: the y axis begins at 0."""
    lines = [_thinned(line) for line in lines]
    y = [value for line in lines for value in line.y] + ([0.0] if from_zero else [])
    axes = _Axes([value for line in lines for value in line.x], y)
    drawn = []
    for index, line in enumerate(lines):
        if len(line.x) == 1:
            drawn.append(
                f'<circle class="dot s{index}" cx="{axes.px(line.x[0]):.1f}" cy="{axes.py(line.y[0]):.1f}" r="3"/>'
            )
        drawn.append(f'<polyline class="line s{index}" points="{axes.points(line)}"/>')
    words = "; ".join(f"{line.name} from {number(line.y[0])} to {number(line.y[-1])}" for line in lines)
    return _chart(f"over {x_name}: {words}", axes.svg(x_name) + "".join(drawn) + _legend([line.name for line in lines]))


def area_chart(areas: Sequence[Line], marks: Sequence[Marker], x_name: str) -> Markup:
    """Filled curves above 0, and labelled vertical lines."""
    plot, words = HEIGHT - TOP - BOTTOM, LABEL * (len(marks) + 1)  # the labels are above the curves
    top = max(y for area in areas for y in area.y) * plot / (plot - words)
    axes = _Axes([*(x for area in areas for x in area.x), *(mark.x for mark in marks)], [0.0, top])
    bottom, drawn = HEIGHT - BOTTOM, []
    for index, area in enumerate(areas):
        start, end = axes.px(area.x[0]), axes.px(area.x[-1])
        drawn.append(
            f'<polygon class="area s{index}" points="{start:.1f},{bottom} {axes.points(area)} {end:.1f},{bottom}"/>'
        )
        drawn.append(f'<polyline class="line s{index}" points="{axes.points(area)}"/>')
    for mark in marks:
        x = axes.px(mark.x)
        drawn.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
    for row, mark in enumerate(marks):
        x, y = axes.px(mark.x), TOP + LABEL * (row + 1)
        anchor, shift = ("start", 4) if x < WIDTH * 0.6 else ("end", -4)
        drawn.append(
            f'<text class="word" text-anchor="{anchor}" x="{x + shift:.1f}" y="{y}">{escape(mark.label)}</text>'
        )
    named = "; ".join([*(area.name for area in areas), *(mark.label for mark in marks)])
    return _chart(f"over {x_name}: {named}", axes.svg(x_name) + "".join(drawn) + _legend([area.name for area in areas]))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose low and high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number of at most four digits: 0, 0.35, 1,500, 2e-05."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}".replace(".0e", "e")
    return f"{round(value):,}" if abs(value) >= 1000 else f"{value:.4g}"


def _thinned(line: Line) -> Line:
    """At most POINTS points: means of groups of neighbours."""
    step = -(-len(line.x) // POINTS)
    if step == 1:
        return line
    spans = [slice(start, start + step) for start in range(0, len(line.x), step)]
    means = [[sum(values[span]) / len(values[span]) for span in spans] for values in (line.x, line.y)]
    return Line(line.name, *means)


def _legend(names: Sequence[str]) -> str:
    x, parts = LEFT, []
    for index, name in enumerate(names):
        parts.append(f'<line class="line s{index}" x1="{x}" x2="{x + 22}" y1="13" y2="13"/>')
        parts.append(f'<text class="word" x="{x + 27}" y="17">{escape(name)}</text>')
        x += 27 + 7 * len(name) + 16
    return "".join(parts)


def _chart(words: str, inner: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">{inner}</svg>')
