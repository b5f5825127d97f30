"""Print results: tables for a person, JSON for a program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from edgecnn.cli.streams import write_result
from edgecnn.escaping import printable

Row = Mapping[str, Any]


def listed(
    rows: Sequence[Row],
    shown: Sequence[Row],
    options: argparse.Namespace,
    right: Sequence[str] = (),
    prose: Sequence[str] = (),
) -> int:
    """Print a list, as a table or as JSON; 0, the exit status."""
    if options.json:
        print_json(options, {"entries": list(rows)})
    else:
        table(shown, right=right, prose=prose, wide=options.wide)
    return 0


def table(rows: Sequence[Row], *, right: Sequence[str] = (), prose: Sequence[str] = (), wide: bool = False) -> None:
    """Print rows of equal keys to stdout; see ``edgecnn.report.grid.show``."""
    from edgecnn.report.grid import console, show

    headings = list(rows[0]) if rows else []
    plain = [heading.replace("_", " ") for heading in headings]
    said = [[key.replace("_", " ") for key in keys] for keys in (right, prose)]
    cells = [[str(row[heading]) for heading in headings] for row in rows]
    show(console(wide=wide), plain, cells, right=said[0], prose=said[1], wide=wide)


def details(rows: Sequence[Row], shown: Sequence[Row], options: argparse.Namespace) -> int:
    """Print everything of a few rows, as lines of label and text or as JSON; 0, the exit status."""
    if options.json:
        print_json(options, {"entries": list(rows)})
        return 0
    from edgecnn.report.grid import headed

    for row in shown:
        (_, name), *others = row.items()
        write_result(printable(str(name)))
        for line in headed((key.replace("_", " "), str(value)) for key, value in others):
            write_result(line)
    return 0


def shown(value: Any) -> str:
    """A figure in a table: ``-`` where there is none."""
    if isinstance(value, tuple):
        names = [str(each.get("name", each)) if isinstance(each, dict) else str(each) for each in value[:5]]
        return f"{len(value)}: {', '.join(names)}" if value else "none"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def print_json(options: argparse.Namespace, content: Row) -> None:
    """Print one JSON document on stdout: the content, and what ``edgecnn.report.document`` says about the command."""
    from edgecnn.report.document import document

    print_document(document(command(options), content))


def command(options: argparse.Namespace) -> str:
    """Return the words of the command: ``export``, ``devices setup``."""
    words = (options.command, getattr(options, "action", None), getattr(options, "study", None))
    dry = "--dry-run" if getattr(options, "dry_run", False) else None
    return " ".join(filter(None, (*words, dry)))


def print_document(made: Row) -> None:
    """Print one JSON document on stdout as it is."""
    sys.stdout.write(json.dumps(made, indent=2, allow_nan=False) + "\n")
