"""Line charts as SVG: well formed, every point in its place, bad data named."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from edgecnn.errors import InputError
from edgecnn.report.plot import HEIGHT, LETTER, WIDTH, Panel, Series, line_chart

EACH = WIDTH + 34 + LETTER * len("limit")  # a panel with its legend
SVG = "{http://www.w3.org/2000/svg}"


def panel(*points, **fields):
    series = (Series(name="a < b", points=points), Series(name="limit", points=points[:2], dashed=True))
    return Panel(title="t & t", x="x", y="y", series=series, **fields)


@pytest.mark.parametrize("axes", [{}, {"log_x": True}, {"log_x": True, "log_y": True}])
def test_points_are_inside_and_in_order(axes):
    points = [(1.0, 2.0), (10.0, 30.0), (1000.0, 4.0)]
    root = ElementTree.fromstring(line_chart(panel(*points, **axes), panel(*points)))
    assert root.get("width") == str(2 * EACH)
    first = next(iter(root.iter(f"{SVG}polyline")))
    drawn = [tuple(map(float, p.split(","))) for p in first.get("points").split()]
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert drawn[1][1] < drawn[2][1] < drawn[0][1]  # up is up
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in drawn)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert {"t & t", "a < b", "limit"} <= set(texts)
    ratio = (drawn[1][0] - drawn[0][0]) / (drawn[2][0] - drawn[0][0])
    assert ratio == pytest.approx(1 / 3 if "log_x" in axes else 9 / 999, abs=1e-3)


def test_names_stand_beside_the_lines_and_panels_in_rows():
    many = [panel((1.0, 2.0), (2.0, 3.0))] * 4
    root = ElementTree.fromstring(line_chart(*many))
    assert (root.get("width"), root.get("height")) == (str(3 * EACH), str(2 * HEIGHT))
    drawn = [p.split(",") for line in root.iter(f"{SVG}polyline") for p in line.get("points").split()]
    names = [t for t in root.iter(f"{SVG}text") if t.text == "limit"]
    assert max(float(x) for x, _ in drawn) < min(float(t.get("x")) for t in names)
    assert len([p for p in root.iter(f"{SVG}path") if p.get("stroke-dasharray")]) == len(
        many
    )  # one dashed line in each
    ticks = [t.text for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "middle"]
    assert "1.5" not in ticks  # between two epochs there is nothing


def test_a_legend_has_room_and_a_single_line_needs_none():
    points = ((1.0, 2.0), (2.0, 3.0))
    name = "training (augmented), of 12 runs"
    two = Panel(title="t", x="x", y="y", series=(Series(name=name, points=points), Series(name="s", points=points)))
    one = Panel(title="t", x="x", y="y", series=two.series[:1])
    root = ElementTree.fromstring(line_chart(one, two))
    (label,) = [t for t in root.iter(f"{SVG}text") if t.text == name]
    assert 2 * WIDTH < WIDTH + float(label.get("x")) + 6.5 * len(name) < float(root.get("width"))
    assert ElementTree.fromstring(line_chart(one)).get("width") == str(WIDTH)


@pytest.mark.parametrize("points", [[(1.0, 5.0)], [(0.0, 0.0), (0.0, 0.0)], [(1.0, 3.0), (2.0, 3.0)], [(1e-9, 1e12)]])
def test_odd_ranges_have_axes(points):
    assert (
        line_chart(Panel(title="t", x="x", y="y", series=(Series(name="s", points=tuple(points)),))).count("<text") > 4
    )


@pytest.mark.parametrize(
    ("points", "fields", "message"),
    [([], {}, "needs points"), ([(1.0, math.nan)], {}, "finite"), ([(0.0, 1.0)], {"log_x": True}, "above 0")],
)
def test_what_cannot_be_drawn(points, fields, message):
    with pytest.raises(InputError, match=message):
        Panel(title="t", x="x", y="y", series=(Series(name="s", points=tuple(points)),), **fields)
