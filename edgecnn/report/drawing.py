"""Draw a directed graph as SVG, in layers from top to bottom. The same graph gives the same bytes.

Layers are longest paths; an edge over several layers gets a place in each of them; within a layer, nodes stand in the
order of the mean position of what they read (Sugiyama, Tagawa and Toda 1981, "Methods for Visual Understanding of
Hierarchical System Structures").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from edgecnn.escaping import printable

WIDTH, HEIGHT = 230, 46  # of a box
GAP_X, GAP_Y = 18, 24
LANE = 14  # width of an edge that passes a layer
MARGIN = 12
LETTERS = 34  # of a line in a box
SHADES = ("#eef2f6", "#d6e6f4", "#f6e7c1", "#f5cfa0", "#f0b0a0")
"""Fills from harmless to harmful; black text is readable on each of them."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """One node.

    Attributes:
        name: unique.
        inputs: names of the nodes that it reads; others are ignored.
        lines: two short texts.
        title: everything about it, for a pointer that rests on it.
        shade: index of ``SHADES``.
        link: where it leads in the page, or empty.
    """

    name: str
    inputs: tuple[str, ...]
    lines: tuple[str, str]
    title: str
    shade: int = 0
    link: str = ""


Place = tuple[str, int]  # a box and 0, or the end of an edge and the layer that it passes
Point = tuple[float, float]


def drawing(boxes: Sequence[Box]) -> str:
    """Return an SVG document of the boxes, which stand in an order in which each reads earlier ones."""
    named = {box.name: box for box in boxes}
    layer: dict[str, int] = {}
    for box in boxes:
        layer[box.name] = 1 + max((layer[i] for i in box.inputs if i in layer), default=-1)
    edges = [(i, box.name) for box in boxes for i in dict.fromkeys(box.inputs) if i in layer]
    where = _placed(named, layer, edges)
    low = min(x - _width(place) / 2 for place, x in where.items())
    width = max(x + _width(place) / 2 for place, x in where.items()) - low + 2 * MARGIN
    height = (max(layer.values()) + 1) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN

    def at(place: Place, row: int) -> Point:
        return round(where[place] - low + MARGIN, 1), row * (HEIGHT + GAP_Y) + MARGIN

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" '
        f'viewBox="0 0 {width:g} {height}" font-family="sans-serif" font-size="12">'
    ]
    for start, end in edges:
        between = [at((f"{start}>{end}", row), row) for row in range(layer[start] + 1, layer[end])]
        parts.append(_edge(at((start, 0), layer[start]), between, at((end, 0), layer[end])))
    parts += [_box(box, *at((box.name, 0), layer[box.name])) for box in boxes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _placed(boxes: Mapping[str, Box], layer: Mapping[str, int], edges: Sequence[tuple[str, str]]) -> dict[Place, float]:
    """Return the horizontal centre of each box, and of each edge in the layers that it passes."""
    rows: list[list[Place]] = [[] for _ in range(max(layer.values()) + 1)]
    above: dict[Place, list[Place]] = {}
    for name in boxes:
        rows[layer[name]].append((name, 0))
    for start, end in edges:
        before: Place = (start, 0)
        for row in range(layer[start] + 1, layer[end]):
            passing = (f"{start}>{end}", row)
            rows[row].append(passing)
            above[passing] = [before]
            before = passing
        above.setdefault((end, 0), []).append(before)
    where: dict[Place, float] = {}
    for row_places in rows:
        wanted = {p: sum(where[q] for q in above[p]) / len(above[p]) if p in above else 0.0 for p in row_places}
        ordered = sorted(row_places, key=lambda p: wanted[p])
        right = float("-inf")
        for place in ordered:
            where[place] = max(wanted[place], right + _width(place) / 2)
            right = where[place] + _width(place) / 2 + GAP_X
        own = [p for p in ordered if p[1] == 0] or ordered
        shift = sum(wanted[p] - where[p] for p in own) / len(own)
        for place in ordered:
            where[place] += shift
    return where


def _width(place: Place) -> float:
    return WIDTH if place[1] == 0 else LANE


def _edge(start: Point, between: Sequence[Point], end: Point) -> str:
    points = [(start[0], start[1] + HEIGHT), *((x, y + dy) for x, y in between for dy in (0, HEIGHT)), end]
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        path += f"L{x1:g} {y1:g}" if x0 == x1 else f"C{x0:g} {middle:g} {x1:g} {middle:g} {x1:g} {y1:g}"
    return f'<path class="edge" d="{path}" fill="none" stroke="#8a949e"/>'


def _box(box: Box, x: float, y: float) -> str:
    title = f"<title>{escape(printable(box.title))}</title>"
    shape = (
        f'<rect x="{x - WIDTH / 2:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="4" '
        f'fill="{SHADES[box.shade]}" stroke="#8a949e"/>'
    )
    texts = "".join(
        f'<text x="{x:g}" y="{y + dy:g}" text-anchor="middle"{style}>{escape(_short(line))}</text>'
        for line, dy, style in zip(box.lines, (19, 36), (' font-weight="bold"', ' font-size="11"'), strict=True)
    )
    inside = f"<g>{title}{shape}{texts}</g>"
    return f'<a href="{escape(box.link)}">{inside}</a>' if box.link else inside


def _short(text: str) -> str:
    plain = printable(text)
    return plain if len(plain) <= LETTERS else f"…{plain[1 - LETTERS :]}"
