"""``edgecnn study``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgecnn.commands.options import add_json, positive
from edgecnn.commands.tables import listed

HELP = "see what makes the networks work: each idea measured"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The studies."""
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    said = "standard, depthwise separable, bottleneck and inverted residual at equal input and output"
    blocks = studies.add_parser("blocks", help=said, description=said)
    blocks.add_argument("--channels", type=positive, default=64, metavar="N", help="of input and output (default 64)")
    blocks.add_argument("--side", type=positive, default=28, metavar="PIXELS", help="of the map (default 28)")
    blocks.add_argument("--kernel", type=positive, default=3, metavar="K", help="of the convolutions (default 3)")
    blocks.add_argument("--expand", type=positive, default=6, metavar="T", help="of the inverted residual (default 6)")
    blocks.add_argument("--device", metavar="NAME", help="count the instructions of each block's int8 form there")
    add_json(blocks)


def run(options: argparse.Namespace) -> int:
    """``edgecnn study blocks``."""
    from edgecnn.study.blocks import Setting, costs

    setting = Setting(channels=options.channels, side=options.side, kernel=options.kernel, expand=options.expand)
    rows = [asdict(cost) for cost in costs(setting, options.device)]
    if options.device is None:
        rows = [{k: v for k, v in row.items() if not k.startswith("instruction")} for row in rows]
    shown = [{k: _figure(v) for k, v in row.items()} for row in rows]
    right = ("parameters", "macs", "ratio", "theory", "instructions", "instruction_ratio")
    return listed(rows, shown, options, right=right)


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
