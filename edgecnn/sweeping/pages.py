"""The report of a sweep as text: Markdown for a file, rows for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgecnn.sweeping.report import SweepReport
from edgecnn.sweeping.spec import direction

DIGITS = 4


def markdown(report: SweepReport) -> str:
    """Return the report as Markdown: counts, Pareto fronts by device, main effects, all rows, commands."""
    counts = ", ".join(f"{count} {status}" for status, count in report.counts.items())
    lines = [f"# Sweep {report.folder.name}", "", f"{len(report.rows)} combinations: {counts}.", ""]
    if report.left_out:
        lines += ["Left out of the plan:", ""]
        lines += [f"- {reason}: {count}" for reason, count in report.left_out.items()] + [""]
    for place, numbers in report.fronts.items():
        ways = ", ".join(f"{n} {'up' if more else 'down'}" for n, more in map(direction, report.objective))
        chosen = [row for row in shown(report) if row["row"] in [str(number) for number in numbers]]
        lines += [f"## Pareto front on {place} ({ways})", "", *_grid(chosen), ""]
    effects = [{k: _text(v) for k, v in vars(effect).items()} for effect in report.effects]
    if effects:
        lines += ["## Main effects", "", *_grid(effects), ""]
    lines += ["## All rows", "", *_grid(shown(report)), ""]
    commands = [f"| {row.row} | `{row.command}` |" for row in report.rows]
    lines += ["## Commands", "", "| row | command |", "|---|---|", *commands, ""]
    return "\n".join(lines)


def shown(report: SweepReport) -> list[dict[str, str]]:
    """Return rows for a person: the axes that vary, status, figures of the objective and of accuracy, the reason."""
    table = report.table()
    names = list(report.rows[0].point) if report.rows else []
    vary = [name for name in names if len({str(row[name]) for row in table}) > 1] or names[:1]
    wanted = dict.fromkeys([*(direction(each)[0] for each in report.objective), "top1", "drop", "sqnr_db"])
    figures = [name for name in wanted if name in report.columns()]
    reasons = ["text"] if any(row["text"] for row in table) else []
    columns = ["row", *vary, "status", "pareto", *figures, *reasons]
    return [{name: _text(row[name]) for name in columns} for row in table]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return "-" if value is None else str(value)


def _grid(rows: Sequence[Mapping[str, str]]) -> Iterable[str]:
    if not rows:
        return ["None."]
    heads = list(rows[0])
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row.values())} |" for row in rows),
    ]
