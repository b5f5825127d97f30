"""``edgecnn devices``."""

from __future__ import annotations

import argparse

from edgecnn.commands.options import add_json
from edgecnn.commands.tables import listed

HELP = "list the devices and which are ready"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn devices``."""
    from edgecnn_targets.devices import devices as known
    from edgecnn_targets.registry import missing

    rows = []
    for device in known():
        ready = [t for t in device.targets if missing(device, t) is None]
        rows.append(
            {
                "name": device.name,
                "kind": device.kind,
                "description": device.description,
                "targets": list(device.targets),
                "ready": ready,
            }
        )
    shown = [{**row, "targets": ", ".join(row["targets"]), "ready": ", ".join(row["ready"]) or "no"} for row in rows]
    return listed(rows, shown, options)
