"""Line charts as SVG: well formed, every point in its place, bad data named."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from edgecnn.errors import InputError
from edgecnn.report.plot import HEIGHT, ROW, WIDTH, Panel, Series, _Axis, _legend_columns, _legend_rows, line_chart

EACH = HEIGHT + ROW  # a panel with a legend of one row
SVG = "{http://www.w3.org/2000/svg}"


def panel(*points, **fields):
    series = (Series(name="a < b", points=points), Series(name="limit", points=points[:2], dashed=True))
    return Panel(title="t & t", x="x", y="y", series=series, **fields)


@pytest.mark.parametrize("axes", [{}, {"log_x": True}, {"log_x": True, "log_y": True}])
def test_points_are_inside_and_in_order(axes):
    points = [(1.0, 2.0), (10.0, 30.0), (1000.0, 4.0)]
    root = ElementTree.fromstring(line_chart(panel(*points, **axes), panel(*points)))
    assert root.get("width") == str(2 * WIDTH)
    first = next(iter(root.iter(f"{SVG}polyline")))
    drawn = [tuple(map(float, p.split(","))) for p in first.get("points").split()]
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert drawn[1][1] < drawn[2][1] < drawn[0][1]  # up is up
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in drawn)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert {"t & t", "a < b", "limit"} <= set(texts)
    ratio = (drawn[1][0] - drawn[0][0]) / (drawn[2][0] - drawn[0][0])
    assert ratio == pytest.approx(1 / 3 if "log_x" in axes else 9 / 999, abs=1e-3)


def test_names_stand_below_the_lines_and_panels_in_rows():
    many = [panel((1.0, 2.0), (2.0, 3.0))] * 4
    root = ElementTree.fromstring(line_chart(*many))
    assert (root.get("width"), root.get("height")) == (str(3 * WIDTH), str(2 * EACH))
    drawn = [p.split(",") for line in root.iter(f"{SVG}polyline") for p in line.get("points").split()]
    names = [t for t in root.iter(f"{SVG}text") if t.text == "limit"]
    assert max(float(y) for _, y in drawn) < HEIGHT < min(float(t.get("y")) for t in names)
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
    assert float(label.get("x")) + 6.5 * len(name) < WIDTH
    assert HEIGHT < float(label.get("y")) < float(root.get("height")) == HEIGHT + 2 * ROW
    assert ElementTree.fromstring(line_chart(one)).get("height") == str(HEIGHT)


def test_labels_of_points_in_one_place_are_one_text():
    marked = [Series(name=str(k), points=((1.0, 1.0), (k, 9.0)), labels=(f"{k}a", f"{k}b")) for k in (2, 3)]
    drawn = line_chart(Panel(title="t", x="x", y="y", series=tuple(marked)))
    assert [text for text in ("2a, 3a", "2b", "3b") if f">{text}<" not in drawn] == []


def drawn(points, labels=()):
    """Draw one series."""
    series = Series(name="s", points=tuple(points), labels=labels)
    return line_chart(Panel(title="t", x="x", y="y", series=(series,)))


def test_a_label_at_the_right_edge_stands_before_its_point():
    chart = drawn([(0.0, 0.0), (9.0, 0.0)], ("left", "11, 12, 13"))
    assert 'text-anchor="start">left<' in chart
    assert 'text-anchor="end">11, 12, 13<' in chart


def test_ticks_of_large_numbers_differ():
    assert re.findall(r">([0-9.]+e6)<", drawn([(1e6, 0.0), (3e6, 1.0)])) == ["1e6", "1.5e6", "2e6", "2.5e6", "3e6"]


@pytest.mark.parametrize("points", [[(1.0, 5.0)], [(0.0, 0.0), (0.0, 0.0)], [(1.0, 3.0), (2.0, 3.0)], [(1e-9, 1e12)]])
def test_odd_ranges_have_axes(points):
    assert (
        line_chart(Panel(title="t", x="x", y="y", series=(Series(name="s", points=tuple(points)),))).count("<text") > 4
    )


@pytest.mark.parametrize(
    ("points", "fields", "message"),
    [
        ([], {}, "needs points"),
        ([(1.0, math.nan)], {}, "finite"),
        ([(0.0, 1.0)], {"log_x": True}, "a logarithmic axis needs values above 0"),
        ([(1.0, -1.0)], {"log_y": True}, "a logarithmic axis needs values above 0"),
    ],
)
def test_what_cannot_be_drawn(points, fields, message):
    with pytest.raises(InputError, match=message):
        Panel(title="t", x="x", y="y", series=(Series(name="s", points=tuple(points)),), **fields)


@pytest.mark.parametrize("reach", [0.7, 1.0, 2.3, 9.0, 17.0, 26.0, 43.0, 240.0, 9000.0])
def test_ticks_are_one_two_or_five_times_a_power_of_ten_apart(reach):
    ticks = _Axis([0.5, 0.5 + reach], 0, 100, False).ticks()
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert 3 <= len(ticks) <= 7
    assert all(0 <= _Axis([0.5, 0.5 + reach], 0, 100, False)(tick) <= 100 for tick in ticks)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_a_legend_has_rows_for_all_its_names(count):
    series = tuple(Series(name=f"a long name of series {k}", points=((0.0, 1.0), (1.0, 2.0))) for k in range(count))
    many = Panel(title="t", x="x", y="y", series=series)
    rows, columns = _legend_rows(many), _legend_columns(many)
    assert rows * columns >= count > (rows - 1) * columns
