"""``edgecnn devices``."""

from __future__ import annotations

import argparse

from edgecnn.cli.options import add_json
from edgecnn.cli.tables import Row, listed
from edgecnn.errors import InputError
from edgecnn.progress import Terminal

HELP = "list the devices and what is ready, or set some up"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("action", nargs="?", choices=["setup"], help="install what the devices named need")
    parser.add_argument("names", nargs="*", metavar="NAME|FILE.toml", help="devices to set up")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn devices`` and ``edgecnn devices setup NAME…``."""
    from edgecnn_targets.devices import devices, select
    from edgecnn_targets.registry import kind_of, missing

    rows: list[Row] = []
    if options.action == "setup":
        if not options.names:
            raise InputError("devices setup needs the devices' names; see `edgecnn devices`")
        for device in select(options.names):
            done = kind_of(device).setup(device, Terminal().say)
            rows.append({"name": device.name, "done": "set up" if done else "was ready"})
        return listed(rows, rows, options)
    shown: list[Row] = []
    for device in devices():
        commands = {target: missing(device, target) for target in device.targets}
        ready = [target for target, command in commands.items() if command is None]
        needed = list(dict.fromkeys(command for command in commands.values() if command is not None))
        rows.append(
            {
                "name": device.name,
                "kind": device.kind,
                "description": device.description,
                "targets": list(device.targets),
                "figures": list(kind_of(device).figures),
                "ready": ready,
                "missing": needed,
            }
        )
        words = {"targets": ", ".join(device.targets), "figures": ", ".join(kind_of(device).figures)}
        state = {"ready": ", ".join(ready) or "no", "missing": "; ".join(needed)}
        shown.append({**rows[-1], **words, **state})
    return listed(rows, shown, options)
