"""``edgecnn targets``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from edgecnn.cli.options import add_json
from edgecnn.cli.tables import listed

HELP = "list the targets and the precisions each takes"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn targets``."""
    from edgecnn.artifact import PRECISIONS
    from edgecnn_converters.registry import converters
    from edgecnn_targets.registry import runtimes

    rows: list[dict[str, Any]] = []
    for name, row in converters().items():
        runs = runtimes().get(name)
        rows.append(
            {
                "name": name,
                "description": runs.description if runs else "is written; no installed package runs it",
                "precisions": list(row.precisions),
                "refusals": dict(row.refusals),
                "missing": runs.missing() if runs else None,
            }
        )
    shown = [
        {
            "name": row["name"],
            "description": row["description"],
            **{precision: "yes" if precision in row["precisions"] else "-" for precision in PRECISIONS},
            "missing": row["missing"] or "-",
        }
        for row in rows
    ]
    status = listed(rows, shown, options)
    for found in rows if not options.json else ():
        for precision, reason in found["refusals"].items():
            sys.stdout.write(f"{found['name']} {precision}: {reason}\n")
    return status
