"""Charts of a report: accuracy against latency and size, and the error of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edgecnn.report.blocks import Chart
from edgecnn.report.evidence import LayerError
from edgecnn.report.plot import Panel, Series, line_chart
from edgecnn.report.record import SQNR_CEILING_DB, ReportEntry

Figure = Callable[[ReportEntry], float | None]
Named = tuple[str, Figure]
Numbered = tuple[int, ReportEntry]  # with its number in the table of results

LABELLED = 16  # points; of more, those on the front have their numbers
QUALITIES: tuple[Named, ...] = (
    ("top-1, %", lambda e: e.accuracy.top1),
    ("agreement with fp32, %", lambda e: e.accuracy.agreement),
    ("SQNR, dB", lambda e: e.accuracy.sqnr_db if (e.accuracy.sqnr_db or 0) < SQNR_CEILING_DB else None),
)
COSTS: tuple[Named, ...] = (
    ("ms", lambda e: e.latency.median_ms),
    ("M instructions", lambda e: None if e.latency.instructions is None else e.latency.instructions / 1e6),
    ("M cycles", lambda e: None if e.resources.cycles is None else e.resources.cycles / 1e6),
)


def trade_offs(entries: Sequence[ReportEntry]) -> Iterator[Chart]:
    """Yield accuracy against the size of the artifacts, and against the latency on each device.

    Latencies of two devices are two charts: they are not measured by one clock. A chart of one point is left out.
    """
    numbered = [(k, entry) for k, entry in enumerate(entries, start=1) if entry.artifact]
    quality = next((row for row in QUALITIES if sum(row[1](e) is not None for _, e in numbered) > 1), None)
    if quality is None:
        return
    once: dict[str | None, Numbered] = {}
    for k, entry in numbered:
        if quality[1](entry) is not None:
            once.setdefault(entry.artifact, (k, entry))
    groups = tuple(dict.fromkeys(_group(entry) for _, entry in numbered))  # of one colour and shape in every chart
    if chart := _scatter(once.values(), groups, quality, ("MB", lambda e: e.size_bytes / 1e6), "Size"):
        yield chart
    for device in dict.fromkeys(entry.device for _, entry in numbered if entry.device is not None):
        here = [(k, entry) for k, entry in numbered if entry.device == device]
        for cost in COSTS:
            if chart := _scatter(here, groups, quality, cost, f"Latency on {device}"):
                yield chart
                break


def _group(entry: ReportEntry) -> str:
    return f"{entry.target} {entry.precision}"


def _scatter(
    numbered: Iterable[Numbered], groups: Sequence[str], quality: Named, cost: Named, title: str
) -> Chart | None:
    found: dict[str, list[tuple[int, float, float]]] = {group: [] for group in groups}
    for k, entry in numbered:
        x, y = cost[1](entry), quality[1](entry)
        if x is not None and y is not None:
            found[_group(entry)].append((k, x, y))
    points = [(x, y) for group in found.values() for _, x, y in group]
    if len(points) < 2:
        return None
    front = pareto_front(points)
    numbers = set(points if len(points) <= LABELLED else front)
    series = [
        Series(
            name=name,
            points=tuple((x, y) for _, x, y in group),
            labels=tuple(str(k) if (x, y) in numbers else "" for k, x, y in group),
        )
        for name, group in found.items()
    ]
    series += [Series(name="Pareto front", points=front, dashed=True)] if len(front) > 1 else []
    panel = Panel(title=title, x=f"{title.split()[0].lower()}, {cost[0]}", y=quality[0], series=tuple(series))
    best = "; ".join(f"{y:.4g} at {x:.3g} {cost[0]}" for x, y in front)
    alt = f"Scatter chart of {quality[0]} against {panel.x} of {len(points)} results. On the Pareto front: {best}."
    return Chart(svg=line_chart(panel), alt=alt, caption="Numbers are those of the table of results.")


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the points than which no other is both smaller in x and larger in y, by x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return tuple(front)


def layer_errors(errors: Sequence[LayerError], title: str) -> Chart | None:
    """Return the SQNR of each activation in the network's order; ``None`` where fewer than two have one."""
    points = tuple((float(k), e.sqnr_db) for k, e in enumerate(errors) if e.sqnr_db is not None and e.op != "input")
    if len(points) < 2:
        return None
    y = "SQNR, dB (higher is better)"
    panel = Panel(title=title, x="layer", y=y, series=(Series(name="SQNR", points=points),))
    worst = min((e for e in errors if e.sqnr_db is not None), key=lambda e: e.sqnr_db or 0.0)
    alt = f"Line chart of the SQNR of {len(points)} layers; the lowest is {worst.sqnr_db:.1f} dB, of {worst.name}."
    return Chart(svg=line_chart(panel), alt=alt)
