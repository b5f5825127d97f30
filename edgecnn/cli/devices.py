"""``edgecnn devices``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgecnn.cli.documents import DeviceRow, SetUp
from edgecnn.cli.options import add_json
from edgecnn.cli.printing import Row, details, listed
from edgecnn.errors import InputError
from edgecnn.progress import Terminal

HELP = "list the devices and what is ready, or set some up"
EXAMPLES = (
    "edgecnn devices",
    "edgecnn devices setup cortex-a72",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("action", nargs="?", choices=["show", "setup"], help="show all of devices, or install them")
    parser.add_argument("names", nargs="*", metavar="NAME|FILE.toml", help="devices to show or set up")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn devices`` and ``edgecnn devices setup NAME…``."""
    from edgecnn_targets.devices import devices, select
    from edgecnn_targets.registry import kind_of, missing

    rows: list[Row] = []
    if options.action is not None and not options.names:
        raise InputError(f"devices {options.action} needs the devices' names; see `edgecnn devices`")
    chosen = select(options.names) if options.names else devices()
    if options.action == "setup":
        for device in chosen:
            done = kind_of(device).setup(device, Terminal().say)
            rows.append(asdict(SetUp(name=device.name, done="set up" if done else "was ready")))
        return listed(rows, rows, options)
    shown: list[Row] = []
    for device in chosen:
        commands = {target: missing(device, target) for target in device.targets}
        ready = [target for target, command in commands.items() if command is None]
        needed = list(dict.fromkeys(command for command in commands.values() if command is not None))
        made = DeviceRow(
            name=device.name,
            kind=device.kind,
            description=device.description,
            targets=tuple(device.targets),
            figures=tuple(kind_of(device).figures),
            ready=tuple(ready),
            missing=tuple(needed),
        )
        rows.append(row := asdict(made))
        words = {key: ", ".join(row[key]) or "-" for key in ("targets", "figures", "ready", "missing")}
        shown.append({**row, **words})
    if options.action == "show":
        return details(rows, shown, options)
    order = ("name", "ready", "targets", "description", "figures", "missing", "kind")
    brief = [{key: row[key] for key in order} for row in shown]
    for row, full in zip(brief, rows, strict=True):
        row["description"] = str(row["description"]).partition(":")[0].partition(";")[0]
        if not full["missing"]:
            row["ready"] = "yes"
        elif not full["ready"]:
            row["ready"] = "set up"
    return listed(rows, brief, options, prose=("description",))
