"""Print results: tables for a person, JSON for a program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def listed(rows: Sequence[Row], shown: Sequence[Row], options: argparse.Namespace, right: Sequence[str] = ()) -> int:
    """Print a list, as a table or as JSON; 0, the exit status."""
    if options.json:
        print_json(rows)
    else:
        table(shown, right=right, to=sys.stdout)
    return 0


def table(rows: Sequence[Row], *, right: Sequence[str] = (), to: Any = None) -> None:
    """Print rows of equal keys."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "), justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console(file=to, width=None if to.isatty() else 240, highlight=False).print(table)


def shown(value: Any) -> str:
    """A figure in a table: ``-`` where there is none."""
    if isinstance(value, tuple):
        return f"{len(value)}: {', '.join(value[:5])}" if value else "none"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
