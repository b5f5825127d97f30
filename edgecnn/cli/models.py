"""``edgecnn models``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from edgecnn.cli.documents import ModelRow
from edgecnn.cli.options import add_json
from edgecnn.cli.tables import listed

HELP = "list the models: parameters, MACs, resolution"
EXAMPLES = (
    "edgecnn models",
    "edgecnn models --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table of models."""
    from edgecnn.models import families, resolve
    from edgecnn.models.count import size_of
    from edgecnn.models.shipped import shipped_names

    shipped = shipped_names()
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for family in families().values() for name in (family.name, *family.listed)):
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
    return listed(rows, shown, options, right=("parameters", "macs", "resolution"))
