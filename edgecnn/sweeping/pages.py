"""The report of a sweep in every form: sections for HTML and Markdown, rows for CSV, a record for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgecnn.report.blocks import Block, Cell, Chart, Code, Document, Facts, Section, Table
from edgecnn.report.charts import pareto_front
from edgecnn.report.document import now, readable, this_machine
from edgecnn.report.forms import Case, Forms, Suite
from edgecnn.report.plot import Panel, Series, line_chart
from edgecnn.sweeping.report import TIMES, SweepReport, SweepRow
from edgecnn.sweeping.spec import direction

DIGITS = 4


def forms(report: SweepReport) -> Forms:
    """Return the report in every form."""
    cases = tuple(Suite(name=f"row {row.row}: {row.model}", cases=(_case(row),)) for row in report.rows)
    return Forms(document=document(report), suites=cases, rows=report.table(), record=report.to_dict())


def document(report: SweepReport) -> Document:
    """Return what a page shows, in the order in which it is read."""
    counts = ", ".join(f"{count} {status}" for status, count in report.counts.items())
    best, name = report.best, direction(report.objective[0])[0]
    if best is not None:
        counts += f"; best {name} {best.figures[name]:.{DIGITS}g} is row {best.row}, {best.model}"
    sections = (
        Section(title="Pareto fronts", blocks=tuple(_fronts(report))),
        Section(title="Main effects", blocks=tuple(_effects(report))),
        Section(title="All combinations", blocks=(_table(shown(report), "one row per combination"),)),
        Section(title="Left out of the plan", blocks=tuple(_left_out(report))),
        Section(title="Make it again", blocks=tuple(_commands(report))),
    )
    return Document(
        title=report.folder.name,
        kicker="edgecnn sweep",
        state="passed" if report.passed else "failed",
        verdict=f"{len(report.rows)} combinations: {counts}.",
        facts=(readable(now()), str(this_machine()["cpu"])),
        sections=sections,
    )


def shown(report: SweepReport) -> list[dict[str, str]]:
    """Return rows for a person: the axes that vary, status, figures of the objective and of accuracy, the reason."""
    table = report.table()
    names = list(report.rows[0].point) if report.rows else []
    vary = [name for name in names if len({str(row[name]) for row in table}) > 1] or names[:1]
    wanted = dict.fromkeys([*(direction(each)[0] for each in report.objective), *TIMES, "top1", "drop", "sqnr_db"])
    figures = [name for name in wanted if name in report.columns()]
    reasons = ["text"] if any(row["text"] for row in table) else []
    columns = ["row", *vary, "status", "pareto", *figures, *reasons]
    return [{name: _text(row[name]) for name in columns} for row in table]


def _fronts(report: SweepReport) -> Iterator[Block]:
    rows = {row["row"]: row for row in shown(report)}
    for place, numbers in report.fronts.items():
        objective = report.objective_on([row for row in report.measured if row.row in numbers])
        ways = ", ".join(f"{name} {'up' if more else 'down'}" for name, more in map(direction, objective))
        yield _table([rows[str(number)] for number in numbers], f"on {place}: {ways}")
        yield from _charts(report, place)


def _charts(report: SweepReport, place: str) -> Iterator[Chart]:
    """Yield the first objective against each other one, where rows on a device have both and one of them differs."""
    here = [row for row in report.measured if place == str(row.point.get("device", "host"))]
    quality, more = direction(report.objective[0])
    for cost, _ in map(direction, report.objective_on(here)):
        if cost == quality:
            continue
        rows = [row for row in here if quality in row.figures and cost in row.figures]
        points = [(row.figures[cost], row.figures[quality]) for row in rows]
        if len(set(points)) < 2 or not more:
            continue
        groups: dict[str, list[SweepRow]] = {}
        for row in rows:
            groups.setdefault(row.model, []).append(row)
        series = [
            Series(
                name=model,
                points=tuple((row.figures[cost], row.figures[quality]) for row in group),
                labels=tuple(str(row.row) for row in group),
            )
            for model, group in groups.items()
        ]
        series.append(Series(name="Pareto front", points=pareto_front(points), dashed=True))
        panel = Panel(title=f"{quality} against {cost} on {place}", x=cost, y=quality, series=tuple(series))
        said = f"Scatter chart of {quality} against {cost} on {place}, {len(points)} combinations."
        yield Chart(svg=line_chart(panel), alt=said, caption="Numbers are rows.")


def _effects(report: SweepReport) -> Iterator[Block]:
    rows = [{k: _text(v) for k, v in vars(effect).items()} for effect in report.effects]
    if rows:
        yield _table(rows, "the mean over all measured rows of one value of an axis, beside the mean over all")


def _left_out(report: SweepReport) -> Iterator[Block]:
    if report.left_out:
        yield Facts(rows=tuple((str(count), reason) for reason, count in report.left_out.items()))


def _commands(report: SweepReport) -> Iterator[Block]:
    if report.rows:
        yield Code(text="\n".join(f"{row.command}  # row {row.row}" for row in report.rows))


def _case(row: SweepRow) -> Case:
    good = row.status in ("ok", "pruned")
    return Case(name=row.status, said=row.text or row.status, failed=not good and row.status != "left")


def _table(rows: Sequence[Mapping[str, str]], caption: str) -> Table:
    heads = tuple(rows[0]) if rows else ("row",)
    cells = tuple(tuple(_cell(name, row[name]) for name in heads) for row in rows)
    right = tuple(name for name in heads if all(map(_figure, (row[name] for row in rows))))
    return Table(headings=heads, rows=cells, right=right, caption=caption)


def _cell(name: str, text: str) -> Cell | str:
    state = {"ok": "passed", "left": "", "pruned": "", "older": "warning"}.get(text, "failed")
    return Cell(text=text, state=state) if name == "status" else text


def _figure(text: str) -> bool:
    return text == "-" or text.lstrip("-").replace(".", "", 1).replace("e+", "").isdigit()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return "-" if value is None else str(value)
