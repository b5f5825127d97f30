"""The report as tables on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from edgecnn.report.record import SQNR_CEILING_DB, Report, ReportEntry

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 160  # of what is printed where there is no terminal
NARROW = 80  # of a report as text
BESIDE = 3  # entries that fit into that


def render(report: Report) -> None:
    """Print the report to stderr for a person: tables, then the failed checks and the findings, a line each."""
    from rich.console import Console

    console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH, highlight=False)
    for table in _tables(report.entries):
        console.print(table)
    _say(report, console, soft_wrap=True)


def as_text(report: Report) -> str:
    """Return what ``render`` prints, without colours and at most ``NARROW`` wide: a row per figure that is known."""
    from rich.console import Console
    from rich.table import Column, Table

    with io.StringIO() as text:
        console = Console(file=text, width=NARROW, highlight=False)
        for k in range(0, len(report.entries), BESIDE):
            for wide in _tables(report.entries[k : k + BESIDE]):
                table = Table(*(Column(overflow="fold") for _ in (None, *wide.rows)), show_header=False)
                for column in wide.columns:
                    if any(str(cell) != "-" for cell in column.cells):
                        table.add_row(column.header, *column.cells)
                console.print(table)
        _say(report, console, soft_wrap=False)
        return text.getvalue().rstrip()


def as_html(report: Report) -> str:
    """Return the tables, the failed checks and the findings as HTML, for a notebook."""
    parts = [
        html_table((c.header for c in table.columns), zip(*(c.cells for c in table.columns), strict=True))
        for table in _tables(report.entries)
    ]
    said = [f"<li><b>failed</b> {escape(line)}</li>" for line in report.failures]
    said += [f"<li>{escape(line)}</li>" for line in _notes(report.entries)]
    return "".join([*parts, *(["<ul>", *said, "</ul>"] if said else [])])


def html_table(headings: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return an HTML table of these cells, escaped."""
    head = "".join(f"<th>{escape(str(heading))}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _say(report: Report, console: Console, *, soft_wrap: bool) -> None:
    for line in report.failures:
        console.print(f"FAILED  {line}", style="bold red", markup=False, soft_wrap=soft_wrap)
    for line in _notes(report.entries):
        console.print(f"note    {line}", style="yellow", markup=False, soft_wrap=soft_wrap)


def _notes(entries: Sequence[ReportEntry]) -> Iterator[str]:
    """Each finding that is no error, with its place; those of all entries last, once, without a place."""
    notes = [[finding for finding in entry.findings if finding.severity != "error"] for entry in entries]
    shared = [f for f in notes[0] if all(f in others for others in notes)] if len(entries) > 1 else []
    for entry, own in zip(entries, notes, strict=True):
        yield from (f"{entry.place}: {finding}" for finding in own if finding not in shared)
    yield from map(str, shared)


def _tables(entries: Sequence[ReportEntry]) -> list[Table]:
    return [table for table in (_table(entries), _resources(entries)) if table is not None]


def _table(entries: Sequence[ReportEntry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("model", "target", "device"):
        table.add_column(heading)
    for heading in ("MB", "images", "top-1 % (fp32)", "drop [95 %]", "agree %", "SQNR dB", "ms (p90)", "LSB", "checks"):
        table.add_column(Text(heading), justify="right")
    for entry in entries:
        table.add_row(*map(Text, _cells(entry)), style="bold red" if entry.failures else None)
    return table


def _resources(entries: Sequence[ReportEntry]) -> Table | None:
    """Tabulate what one inference takes of the devices that say it; a column per figure that one of them has."""
    from rich.table import Column, Table

    figures: dict[str, list[float | None]] = {"instructions": [e.latency.instructions for e in entries]}
    figures |= {
        heading: [getattr(e.resources, name) for e in entries]
        for heading, name in (
            ("cycles", "cycles"),
            ("estimated ms", "estimated_ms"),
            ("SRAM KiB", "sram_kib"),
            ("flash KiB", "flash_kib"),
            ("arena bytes", "arena_bytes"),
            ("heap KiB", "heap_kib"),
            ("ops on NPU %", "npu_coverage"),
        )
    }
    known = {heading: values for heading, values in figures.items() if any(v is not None for v in values)}
    if not known:
        return None
    table = Table("target", "device", *(Column(heading, justify="right") for heading in known))
    for k, entry in enumerate(entries):
        values = (column[k] for column in known.values())
        if any(column[k] is not None for column in known.values()):
            forms = (_number(v, ",d" if isinstance(v, int) else ",.2f") for v in values)
            table.add_row(entry.target, entry.device or "-", *forms)
    return table


def _cells(entry: ReportEntry) -> tuple[str, ...]:
    accuracy, latency, failed = entry.accuracy, entry.latency, len(entry.failures)
    drop, interval = _number(accuracy.drop, "+.2f"), accuracy.drop_ci95
    equal = accuracy.sqnr_db is not None and accuracy.sqnr_db >= SQNR_CEILING_DB
    return (
        entry.model,
        f"{entry.target} {entry.precision}",
        entry.device or "-",
        f"{entry.size_bytes / 1e6:.2f}" if entry.artifact else "-",
        str(accuracy.n) if accuracy.n else "-",
        _pair(accuracy.top1, accuracy.fp32_top1),
        f"{drop} [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else drop,
        _number(accuracy.agreement, ".2f"),
        "equal" if equal else _number(accuracy.sqnr_db, ".1f"),
        _pair(latency.median_ms, latency.p90_ms),
        "-" if entry.parity.max_lsb is None else f"{entry.parity.max_lsb} ({entry.parity.arithmetic})",
        f"{failed} failed" if failed else "passed" if entry.checks else "-",
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _pair(first: float | None, second: float | None) -> str:
    both = _number(first, ".2f")
    return both if second is None else f"{both} ({second:.2f})"
