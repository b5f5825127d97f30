"""``edgecnn recipes``."""

from __future__ import annotations

import argparse
import sys

from edgecnn.cli.options import add_json
from edgecnn.cli.printing import listed, print_json
from edgecnn.errors import InputError

HELP = "list the quantization recipes, or print one to edit and keep"
EXAMPLES = (
    "edgecnn recipes",
    "edgecnn recipes show fast > mine.toml",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("action", nargs="?", choices=["show"], help="print one recipe as a file")
    parser.add_argument("recipe", nargs="?", metavar="NAME|FILE", help="the recipe to show")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run ``edgecnn recipes`` or ``edgecnn recipes show NAME``."""
    from edgecnn.quant.recipe import recipe, recipes

    if options.action is None:
        made = recipes().values()
        rows = [{"recipe": r.name, "about": r.about, "steps": ", ".join(s.name for s in r.steps)} for r in made]
        return listed([r.to_json() for r in made], rows, options, prose=("about", "steps"))
    if options.recipe is None:
        raise InputError(f"recipes show needs a name ({', '.join(recipes())}) or a .toml file")
    found = recipe(options.recipe)
    if options.json:
        print_json(options, found.to_json())
    else:
        sys.stdout.write(found.to_toml())
    return 0
