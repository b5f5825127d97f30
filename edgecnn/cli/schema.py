"""``edgecnn schema``."""

from __future__ import annotations

import argparse

from edgecnn.cli.printing import print_document

HELP = "print the JSON Schema of what --json prints and report.json holds"
EXAMPLES = (
    "edgecnn schema",
    "edgecnn schema > edgecnn.schema.json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the schema is of all commands."""


def run(options: argparse.Namespace) -> int:
    """Print the schema; ``edgecnn/report/schema.json`` is the same."""
    from edgecnn.cli.documents import schema

    print_document(schema())
    return 0
