"""``edgecnn models``."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import asdict
from typing import Any

from edgecnn.cli.documents import ModelRow, OpRow
from edgecnn.cli.options import add_json
from edgecnn.cli.printing import details, listed, print_json
from edgecnn.errors import InputError, unknown

HELP = "list the models: parameters, MACs, resolution; or the ops that networks of your own may hold"
EXAMPLES = (
    "edgecnn models",
    "edgecnn models ops onnx",
)


TORCH = "torch"
WIDTH = 80


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    said = "show all of models, or list the ops of files of a format, or of torch modules"
    parser.add_argument("action", nargs="?", choices=["show", "ops"], help=said)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="models to show, or formats: onnx, tflite, keras, torch"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table of models, all of some, or the ops of formats."""
    if options.action is not None and not options.names and options.action == "show":
        raise InputError("models show needs the models' names; see `edgecnn models`")
    return _ops(options) if options.action == "ops" else _models(options)


def _ops(options: argparse.Namespace) -> int:
    from edgecnn.graph.importers import Importer
    from edgecnn.plugins import registry

    known = {name: row.ops for name, row in registry("importers", Importer).items() if list(row.ops())}
    known[TORCH] = _torch_ops
    if strange := [name for name in options.names if name not in known]:
        raise InputError(unknown("format", strange[0], known))
    rows = [asdict(OpRow(name=name, ops=tuple(sorted(known[name]())))) for name in options.names or known]
    if options.json:
        print_json(options, {"entries": rows})
        return 0
    for row in rows:
        listed_ops = textwrap.fill(", ".join(row["ops"]), WIDTH, initial_indent="  ", subsequent_indent="  ")
        sys.stdout.write(f"{row['name']}: {len(row['ops'])} ops\n{listed_ops}\n")
    return 0


def _torch_ops() -> list[str]:
    from edgecnn.graph.aten import supported

    return supported()


def _models(options: argparse.Namespace) -> int:
    from edgecnn.models import families, resolve
    from edgecnn.models.count import size_of
    from edgecnn.models.shipped import shipped_names

    shipped = shipped_names()
    rows: list[dict[str, Any]] = []
    every = dict.fromkeys(name for family in families().values() for name in (family.name, *family.listed))
    for name in options.names or every:
        spec = resolve(name)
        size = size_of(spec)
        row = ModelRow(
            name=name,
            parameters=size.parameters,
            macs=size.macs,
            resolution=spec.resolution,
            demo_weights=spec.name in shipped,
        )
        rows.append(asdict(row))
    shown = [
        {
            **row, "parameters": f"{row['parameters'] / 1e6:.2f} M", "macs": f"{row['macs'] / 1e6:.1f} M",
            "demo_weights": "yes" if row["demo_weights"] else "",
        }
        for row in rows
    ]  # fmt: skip
    if options.action == "show":
        return details(rows, [{k: v or "no" for k, v in row.items()} for row in shown], options)
    return listed(rows, shown, options, right=("parameters", "macs", "resolution"))
