"""``edgecnn targets``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edgecnn.cli.documents import TargetRow
from edgecnn.cli.options import add_json
from edgecnn.cli.printing import details, listed
from edgecnn.errors import InputError, unknown

HELP = "list the targets and the precisions each takes"
EXAMPLES = (
    "edgecnn targets",
    "edgecnn targets show onnx",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("action", nargs="?", choices=["show"], help="show all of some targets")
    parser.add_argument("names", nargs="*", metavar="NAME", help="targets to show")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn targets``."""
    from edgecnn_converters.registry import converters
    from edgecnn_targets.registry import runtimes

    rows: list[dict[str, Any]] = []
    for name, row in converters().items():
        runs = runtimes().get(name)
        made = TargetRow(
            name=name,
            description=runs.description if runs else "is written; no installed package runs it",
            precisions=row.precisions,
            refusals=dict(row.refusals),
            missing=runs.missing() if runs else None,
        )
        rows.append(asdict(made))
    if options.action == "show":
        if strange := set(options.names) - {row["name"] for row in rows}:
            raise InputError(unknown("target", min(strange), [row["name"] for row in rows]))
        rows = [row for row in rows if row["name"] in options.names] or rows
        shown = [
            {
                "name": row["name"],
                "description": row["description"],
                "precisions": ", ".join(row["precisions"]),
                **{f"no {precision}": reason for precision, reason in row["refusals"].items()},
                "missing": row["missing"] or "nothing",
            }
            for row in rows
        ]
        return details(rows, shown, options)
    brief = [
        {
            "name": row["name"],
            "precisions": ", ".join(row["precisions"]),
            "description": row["description"],
            "missing": row["missing"] or "-",
        }
        for row in rows
    ]
    return listed(rows, brief, options, prose=("description", "missing"))
