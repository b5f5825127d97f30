"""``--dry-run``: print what a command would do, what it lacks and about how long it takes; nothing is written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgecnn.cli.printing import print_json
from edgecnn.cli.streams import until_closed, write_result

if TYPE_CHECKING:
    from edgecnn.planning import Plan

OPTION = "--dry-run"


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``."""
    parser.add_argument(
        OPTION, action="store_true", help="say what would be done, what is missing and about how long it takes"
    )


def planned(plans: Sequence[Plan], options: argparse.Namespace) -> int:
    """Print the plans; return the exit status that the missing things mean."""
    with until_closed(sys.stdout):
        if options.json:
            print_json(options, {"entries": [plan.to_json() for plan in plans]})
        else:
            for plan in plans:
                for line in _lines(plan):
                    write_result(line)
            write_result("nothing was run or written")
    return max(plan.exit_status for plan in plans)


def _lines(plan: Plan) -> Iterator[str]:
    from edgecnn.escaping import printable
    from edgecnn.report.grid import headed

    yield printable(f"{plan.does} {plan.name}")
    rows = [(stage.name, f"{stage.does}{_about(stage.seconds)}") for stage in plan.stages]
    rows += [("left out", reason) for reason in plan.left_out]
    rows += [("files", file) for file in plan.files]
    rows += [("missing", missing.text) for missing in plan.missing]
    if plan.stages:
        total = "not known" if plan.seconds is None else _about(plan.seconds).strip(" ()") or "none"
        besides = f", and what {', '.join(plan.untimed)} takes" if plan.untimed else ""
        rows.append(("time", f"{total}{besides}"))
    yield from headed(iter(rows))


def _about(seconds: float | None) -> str:
    if not seconds:
        return ""
    if seconds < 90:
        return f" (about {max(1, round(seconds))} s)"
    return f" (about {round(seconds / 60)} min)"
