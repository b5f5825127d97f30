"""``edgecnn recipes``."""

from __future__ import annotations

import argparse

from edgecnn.commands.options import add_json
from edgecnn.commands.tables import listed

HELP = "list the quantization recipes"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn recipes``."""
    from edgecnn.recipe import RECIPES

    rows = [r.to_json() for r in RECIPES.values()]
    return listed(rows, [{k: str(v) for k, v in row.items()} for row in rows], options)
