"""The report as tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecnn.report.record import SQNR_CEILING_DB, ReportEntry

if TYPE_CHECKING:
    from rich.table import Table


def render(entries: Sequence[ReportEntry]) -> None:
    """Print the report to stderr for a person: one table, then the failed checks and the findings, a line each.

    What is found of all entries is said once.
    """
    from rich.console import Console

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160, highlight=False)
    console.print(_table(entries))
    resources = _resources(entries)
    if resources is not None:
        console.print(resources)
    shared = [f for f in entries[0].findings if all(f in e.findings for e in entries)] if len(entries) > 1 else []
    for entry in entries:
        place = f"{entry.artifact} on {entry.device}" if entry.device else entry.artifact
        for check in entry.checks:
            if not check.passed:
                console.print(f"FAILED  {place}: {check}", style="bold red", markup=False, soft_wrap=True)
        for finding in (f for f in entry.findings if f not in shared):
            console.print(f"note    {place}: {finding}", style="yellow", markup=False, soft_wrap=True)
    for finding in shared:
        console.print(f"note    {finding}", style="yellow", markup=False, soft_wrap=True)


def _table(entries: Sequence[ReportEntry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("model", "target", "device"):
        table.add_column(heading)
    for heading in ("MB", "images", "top-1 % (fp32)", "drop [95 %]", "agree %", "SQNR dB", "ms (p90)", "LSB", "checks"):
        table.add_column(Text(heading), justify="right")
    for entry in entries:
        table.add_row(*map(Text, _cells(entry)))
    return table


def _resources(entries: Sequence[ReportEntry]) -> Table | None:
    """What one inference takes of the devices that say it; a column per figure that one of them has."""
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
    accuracy, latency, failed = entry.accuracy, entry.latency, sum(not check.passed for check in entry.checks)
    drop, interval = _number(accuracy.drop, "+.2f"), accuracy.drop_ci95
    equal = accuracy.sqnr_db is not None and accuracy.sqnr_db >= SQNR_CEILING_DB
    return (
        entry.model,
        f"{entry.target} {entry.precision}",
        entry.device or "-",
        f"{entry.size_bytes / 1e6:.2f}",
        str(accuracy.n) if accuracy.n else "-",
        _pair(accuracy.top1, accuracy.fp32_top1),
        f"{drop} [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else drop,
        _number(accuracy.agreement, ".2f"),
        "equal" if equal else _number(accuracy.sqnr_db, ".1f"),
        _pair(latency.median_ms, latency.p90_ms),
        "-" if entry.parity.max_lsb is None else f"{entry.parity.max_lsb} ({entry.parity.arithmetic})",
        "-" if not entry.checks else f"{failed} failed" if failed else "passed",
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _pair(first: float | None, second: float | None) -> str:
    both = _number(first, ".2f")
    return both if second is None else f"{both} ({second:.2f})"
