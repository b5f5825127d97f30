"""Line charts and scatter charts as SVG text, with no plotting library. The same data give the same bytes.

matplotlib, tried beside it, draws these charts no better, in files of seven times the size, and installs 174 MB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgecnn.errors import InputError
from edgecnn.escaping import printable

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46  # margins of the plotting area
LETTER, ROW = 7, 16  # of a legend, which stands below a panel with more than one line: no line runs through it
NEAR_X, NEAR_Y = 14, 10  # labels closer than that are one
ACROSS = 3  # panels in a row
COLOURS = ("#0b62a4", "#d1541c", "#2f7d32", "#7b3fa0", "#a08a00", "#b3254c", "#1f8a8a", "#555555")  # on white

SHAPES = ("", "m-4.5-4.5h9v9h-9z", "m0-6l6 10h-12z", "m0-6l6 6l-6 6l-6-6z")  # marks of points that are not joined


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, or points of one kind.

    Attributes:
        name: in the legend.
        points: (x, y) in the order in which they are joined; finite.
        dashed: for a prediction, a limit, a fit.
        labels: a short text beside each point, which are then not joined; series differ by shape as by colour.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        x: what the horizontal axis is, with its unit.
        y: what the vertical axis is, with its unit.
        series: the lines.
        log_x: a logarithmic axis; every x above 0.
        log_y: the same for y.

    Raises:
        InputError: no points, one that is not finite, or one at or below 0 on a logarithmic axis.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False

    def __post_init__(self) -> None:
        values = [v for s in self.series for point in s.points for v in point]
        if not values or not all(map(math.isfinite, values)):
            raise InputError(f"chart {self.title!r} needs points, all of them finite")
        for axis, logarithmic in enumerate((self.log_x, self.log_y)):
            if logarithmic and min(p[axis] for s in self.series for p in s.points) <= 0:
                raise InputError(f"chart {self.title!r}: a logarithmic axis needs values above 0")


def line_chart(*panels: Panel) -> str:
    """Draw the panels side by side, in rows of three; returns an SVG document."""
    each = HEIGHT + ROW * max(map(_legend_rows, panels))
    width, height = WIDTH * min(ACROSS, len(panels)), each * -(-len(panels) // ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for k, panel in enumerate(panels):
        row, column = divmod(k, ACROSS)
        parts += [f'<g transform="translate({WIDTH * column} {each * row})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """Places values in pixels, and ticks among them."""

    def __init__(self, values: Sequence[float], start: float, end: float, logarithmic: bool) -> None:
        self.logarithmic, self.start, self.end = logarithmic, start, end
        self.whole = all(float(v).is_integer() for v in values) and max(values) > min(values)  # layers, epochs
        scaled = [self._scaled(v) for v in values]
        low, high = min(scaled), max(scaled)
        margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        self.low, self.high = low - margin, high + margin

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def __call__(self, value: float) -> float:
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        """Return round values, 1, 2 or 5 times a power of ten apart; on a logarithmic axis 1, 2 and 5 of a decade."""
        if self.logarithmic:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            inside = [
                m * 10.0**d for d in decades for m in (1, 2, 5) if self.low <= math.log10(m * 10.0**d) <= self.high
            ]
            whole = [v for v in inside if math.log10(v).is_integer()]
            return whole if len(whole) > 2 else inside or [10 ** ((self.low + self.high) / 2)]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 6)
        step = max(step, 1.0) if self.whole else step
        return [round(i * step, 10) for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _panel(panel: Panel) -> list[str]:
    points = [p for s in panel.series for p in s.points]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = _Axis([p[0] for p in points], LEFT, right, panel.log_x)
    y = _Axis([p[1] for p in points], bottom, TOP, panel.log_y)
    middle = (LEFT + right) / 2
    parts = [
        _text(middle, 20, panel.title, "middle", ' font-weight="bold"'),
        _text(middle, HEIGHT - 10, panel.x, "middle"),
        f'<g transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)">{_text(0, 0, panel.y, "middle")}</g>',
    ]
    for value in x.ticks():
        parts.append(f'<path d="M{x(value)} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(_text(x(value), bottom + 16, _number(value), "middle"))
    for value in y.ticks():
        parts.append(f'<path d="M{LEFT} {y(value)}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, _number(value), "end"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="black"/>')
    for k, series in enumerate(panel.series):
        parts += _series(series, k, x, y)
    return [*parts, *_labels(panel.series, x, y), *_legend(panel)]


def _series(series: Series, k: int, x: _Axis, y: _Axis) -> list[str]:
    colour, where = COLOURS[k % len(COLOURS)], [(x(a), y(b)) for a, b in series.points]
    if series.labels:
        return [_mark(k, a, b, colour) for a, b in where]
    path = " ".join(f"{a},{b}" for a, b in where)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{_dash(series)}/>'
    return [line, *(f'<circle cx="{a}" cy="{b}" r="2.5" fill="{colour}"/>' for a, b in where if not series.dashed)]


def _mark(k: int, a: float, b: float, colour: str) -> str:
    """Return a circle, square, triangle or diamond, by the number of the series."""
    if k % len(SHAPES) == 0:
        return f'<circle cx="{a}" cy="{b}" r="5" fill="{colour}"/>'
    return f'<path d="M{a} {b}{SHAPES[k % len(SHAPES)]}" fill="{colour}"/>'


def _labels(series: Sequence[Series], x: _Axis, y: _Axis) -> list[str]:
    """Return the labels beside points; those of points that nearly cover each other stand in one text."""
    placed: list[tuple[float, float, list[str]]] = []
    every = (row for one in series if one.labels for row in zip(one.points, one.labels, strict=True))
    for (a, b), label in ((point, label) for point, label in every if label):
        place = x(a), y(b)
        near = next((p for p in placed if abs(p[0] - place[0]) < NEAR_X and abs(p[1] - place[1]) < NEAR_Y), None)
        if near is None:
            placed.append((*place, [label]))
        else:
            near[2].append(label)
    texts = [(a, b, ", ".join(labels)) for a, b, labels in placed]
    ends = ["end" if a + 8 + LETTER * len(text) > WIDTH else "start" for a, _, text in texts]
    return [
        _text(a + 8 if end == "start" else a - 8, b - 5, text, end)
        for (a, b, text), end in zip(texts, ends, strict=True)
    ]


def _legend(panel: Panel) -> list[str]:
    parts, columns = [], _legend_columns(panel)
    for k, one in enumerate(panel.series if _legend_rows(panel) else ()):
        colour = COLOURS[k % len(COLOURS)]
        start, row = LEFT + k % columns * _name_width(panel), HEIGHT + 6 + ROW * (k // columns)
        line = f'<path d="M{start} {row - 4}h20" stroke="{colour}" stroke-width="2"{_dash(one)}/>'
        parts.append(_mark(k, start + 10, row - 4, colour) if one.labels else line)
        parts.append(_text(start + 26, row, one.name, "start"))
    return parts


def _name_width(panel: Panel) -> int:
    return 40 + LETTER * max(len(s.name) for s in panel.series)


def _legend_columns(panel: Panel) -> int:
    return max(1, (WIDTH - LEFT) // _name_width(panel))


def _legend_rows(panel: Panel) -> int:
    return -(-len(panel.series) // _legend_columns(panel)) if len(panel.series) > 1 else 0


def _dash(series: Series) -> str:
    return ' stroke-dasharray="6 4"' if series.dashed else ""


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{style}>{escape(printable(text))}</text>'


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, power = f"{value:.3e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.6g}"
