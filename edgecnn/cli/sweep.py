"""``edgecnn sweep``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.dry_run import add_dry_run, planned
from edgecnn.cli.options import add_json, positive
from edgecnn.cli.printing import print_json, table
from edgecnn.cli.streams import write_result
from edgecnn.errors import InputError

if TYPE_CHECKING:
    from edgecnn.sweeping.report import SweepReport

HELP = "try networks by recipes by devices, here or on a cluster; results are files, and a killed sweep goes on"
EXAMPLES = (
    "edgecnn sweep sweep.toml --workers 4 -o sweep",
    "edgecnn sweep report sweep",
)
REPORT = "report"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("file", nargs="+", metavar="FILE.toml | report DIR", help="a sweep to run, or the folder of one to report on")
    add("-o", "--output", type=Path, metavar="DIR", help="results and report (default: the file's name)")
    add("--workers", type=positive, metavar="N", help="jobs at once (default: one a core, as memory allows)")
    add("--scheduler", metavar="ADDRESS", help="of Dask, tcp://HOST:8786, or a scheduler file FILE.json")
    add("--jobs", type=positive, metavar="N", help="combinations at most")
    add("--minutes", type=float, metavar="X", help="after which no job is started")
    add_dry_run(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run or report; status 1 when a combination failed or is left."""
    if options.file[0] == REPORT:
        if len(options.file) != 2:
            raise InputError("give the folder of a sweep: edgecnn sweep report DIR")
        from edgecnn.sweeping.report import read_report

        report = read_report(Path(options.file[1]))
        report.write()
        return _reported(report, options)
    if len(options.file) != 1:
        raise InputError(f"give one FILE.toml, or {REPORT} DIR; got {' '.join(options.file)}")
    file = Path(options.file[0])
    given: dict[str, Any] = {name: getattr(options, name) for name in ("workers", "scheduler", "jobs", "minutes")}
    given["output"] = options.output or file.stem
    if options.dry_run:
        from edgecnn.sweeping.estimate import plan_sweep

        return planned([plan_sweep(file, **given)], options)
    from edgecnn.sweeping.api import sweep
    from edgecnn.sweeping.live import table as live

    with live() as (seen, progress):
        report = sweep(file, **given, progress=progress, seen=seen)
    return _reported(report, options)


def _reported(report: SweepReport, options: argparse.Namespace) -> int:
    from edgecnn.sweeping.pages import shown

    if options.json:
        print_json(options, report.content())
    else:
        rows = shown(report)
        table(rows, right=[name for name in rows[0] if name not in ("status", "pareto", "text")], wide=options.wide)
        counts = ", ".join(f"{count} {status}" for status, count in report.counts.items())
        write_result(f"{len(report.rows)} combinations: {counts}")
        write_result(f"{report.folder}/report.html, report.md, report.csv, report.json")
    return int(not report.passed)
