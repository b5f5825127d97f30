"""The report for a person: a card of one entry, a table of several; on a terminal, as text, as HTML."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from edgecnn.report import card
from edgecnn.report.grid import console, headed, line, show
from edgecnn.report.record import SQNR_CEILING_DB, Report, ReportEntry

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 80  # of a report as text
BAD, NOTED, GOOD = "bold red", "yellow", "green"
FIGURES = ("MB", "images", "top-1 %", "fp32 %", "drop", "95 %", "agree %", "SQNR dB", "ms", "p90 ms", "LSB")
COUNTS = ("M instructions", "M cycles", "ms estimated", "SRAM KiB", "flash KiB", "arena KiB", "heap KiB", "NPU %")


def render(report: Report, *, wide: bool = False, verbose: bool = False) -> None:
    """Print the report to stdout: a card or a table, then failed checks and findings, a line each.

    Args:
        wide: show every column of a table.
        verbose: show every result as a card with all that is known of it.
    """
    on = console(wide=wide)
    if not verbose:
        _print(report, on, wide=wide)
        return
    for entry in report.entries:
        _card(entry, on, report.command, more=tuple(card.more(entry)))
    for figure in headed((name, str(value)) for name, value in (*report.host.items(), *report.versions.items())):
        line(on, figure)


def as_text(report: Report) -> str:
    """Return what ``render`` prints, without colours and at most ``NARROW`` wide."""
    with io.StringIO() as text:
        _print(report, console(width=NARROW, file=text), wide=False)
        return text.getvalue().rstrip()


def as_html(report: Report) -> str:
    """Return the table, the failed checks and the findings as HTML, for a notebook."""
    rows = [cells(entry) for entry in report.entries]
    known = [k for k, _ in enumerate(HEADINGS) if any(row[k] != "-" for row in rows)]
    table = html_table((HEADINGS[k] for k in known), ([row[k] for k in known] for row in rows))
    said = [f"<li><b>failed</b> {escape(line)}</li>" for line in report.failures]
    said += [f"<li>{escape(line)}</li>" for line in _notes(report.entries)]
    return "".join([table, *(["<ul>", *said, "</ul>"] if said else [])])


def html_table(headings: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return an HTML table of these cells, escaped."""
    head = "".join(f"<th>{escape(str(heading))}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _print(report: Report, on: Console, *, wide: bool) -> None:
    entries = report.entries
    if len(entries) == 1 and not wide:
        _card(entries[0], on, report.command)
        return
    styles = [BAD if entry.failures else None for entry in entries]
    right = (*FIGURES, *COUNTS)
    show(on, HEADINGS, [cells(e) for e in entries], right=right, keep=("result",), styles=styles, wide=wide)
    for said in report.failures:
        line(on, f"FAILED  {said}", BAD)
    for said in _notes(entries):
        line(on, f"note    {said}", NOTED)


LABEL = 8  # characters of a label in a card


def _card(entry: ReportEntry, on: Console, command: str, more: tuple[tuple[str, str], ...] = ()) -> None:
    state = card.verdict(entry)
    line(on, f"{card.title(entry)}  {state}", BAD if entry.failures else GOOD if entry.checks else "bold")
    for figure in headed(iter((*card.lines(entry), *more)), least=LABEL):
        line(on, figure)
    rows = list(card.checks(entry))
    sizes = [max(len(row[k]) for row in rows) for k in range(3)] if rows else []
    for k, (name, figure, limit, passed) in enumerate(rows):
        text = f"{name:{sizes[0]}}  {figure:>{sizes[1]}}  {limit:{sizes[2]}}  {passed}"
        line(on, f"  {'checks' if k == 0 else '':{LABEL}}  {text}", BAD if passed == "FAILED" else "")
    for severity, style in (("error", BAD), ("warning", NOTED), ("info", "")):
        for finding in (f for f in entry.findings if f.severity == severity):
            line(on, f"  {severity:{LABEL}}  {finding}", style)
    if following := card.following(entry, command):
        line(on, f"  {'next':{LABEL}}  {following}", command=True)


def _notes(entries: Sequence[ReportEntry]) -> Iterator[str]:
    """Each finding that is no error, with its place; those of all entries last, once, without a place."""
    notes = [[finding for finding in entry.findings if finding.severity != "error"] for entry in entries]
    shared = [f for f in notes[0] if all(f in others for others in notes)] if len(entries) > 1 else []
    for entry, own in zip(entries, notes, strict=True):
        yield from (f"{entry.place}: {finding}" for finding in own if finding not in shared)
    yield from map(str, shared)


HEADINGS = (
    "model", "target", "device", "result", "drop", "agree %", "SQNR dB", "ms", "LSB", "M instructions", "M cycles",
    "top-1 %", "fp32 %", "95 %", "MB", "SRAM KiB", "flash KiB", "NPU %", "p90 ms", "ms estimated", "arena KiB",
    "heap KiB", "images",
)  # fmt: skip
"""Columns, the most telling first: where there is no room, the last ones are left out."""


def cells(entry: ReportEntry) -> tuple[str, ...]:
    """Return the figures of one entry under ``HEADINGS``; ``-`` where there is none."""
    a, time, taken = entry.accuracy, entry.latency, entry.resources
    equal = a.sqnr_db is not None and a.sqnr_db >= SQNR_CEILING_DB
    found = {
        "model": entry.model,
        "target": f"{entry.target} {entry.precision}",
        "device": entry.device or "-",
        "result": card.verdict(entry) if entry.artifact or entry.failures else "not written",
        "drop": _number(a.drop, "+.2f"),
        "agree %": _number(a.agreement, ".2f"),
        "SQNR dB": "equal" if equal else _number(a.sqnr_db, ".1f"),
        "ms": _number(time.median_ms, ".2f"),
        "LSB": "-" if entry.parity.max_lsb is None else str(entry.parity.max_lsb),
        "M instructions": _number(_millions(time.instructions), ",.1f"),
        "M cycles": _number(_millions(taken.cycles), ",.2f"),
        "top-1 %": _number(a.top1, ".2f"),
        "fp32 %": _number(a.fp32_top1, ".2f"),
        "95 %": f"{a.drop_ci95[0]:+.2f} to {a.drop_ci95[1]:+.2f}" if a.drop_ci95 else "-",
        "MB": f"{entry.size_bytes / 1e6:.2f}" if entry.artifact else "-",
        "SRAM KiB": _number(taken.sram_kib, ",.1f"),
        "flash KiB": _number(taken.flash_kib, ",.1f"),
        "NPU %": _number(taken.npu_coverage, ".1f"),
        "p90 ms": _number(time.p90_ms, ".2f"),
        "ms estimated": _number(taken.estimated_ms, ".2f"),
        "arena KiB": _number(None if taken.arena_bytes is None else taken.arena_bytes / 1024, ",.1f"),
        "heap KiB": _number(taken.heap_kib, ",.0f"),
        "images": f"{a.n:,}" if a.n else "-",
    }
    return tuple(found[heading] for heading in HEADINGS)


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
