"""``edgecnn benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecnn.cli.options import add_checking, checking, save, taken
from edgecnn.cli.printing import print_document, shown, table
from edgecnn.progress import Terminal

HELP = "measure models in every format, precision and device: one table"
EXAMPLES = (
    "edgecnn benchmark mobilenet_v2 resnet18 --weights random --data DIR",
    "edgecnn benchmark mobilenet_v2_0.35_96 --weights demo --calibration demo --data demo",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="as for export")
    add("--targets", default="all", metavar="A,B", help="default: all that the devices take")
    add("--precisions", default="fp32,int8", metavar="A,B", help="default fp32,int8")
    add("--weights", action="append", default=[], metavar="[MODEL=]FILE|demo|random", help="for one model, or for all")
    add("--calibration", metavar="DIR|demo|none", help="images that set int8's ranges")
    add("-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="directory (default out)")
    add_checking(parser, data_required=True)


def run(options: argparse.Namespace) -> int:
    """``edgecnn benchmark``: status 1 when a cell failed."""
    from dataclasses import asdict

    from edgecnn.benchmarking import benchmark

    found = benchmark(
        options.models,
        targets=() if options.targets == "all" else options.targets.split(","),
        precisions=options.precisions.split(","),
        weights=dict(item.split("=", 1) if "=" in item else ("", item) for item in options.weights),
        progress=Terminal(),
        **taken(options, "output calibration preprocess label_offset class_names"),
        **checking(options),
    )
    save(found.report, options)
    if options.json:
        print_document(found.to_dict())
    else:
        rows = [{key: shown(value) for key, value in asdict(cell).items()} for cell in found]
        figures = ("size_mb", "top1", "fp32_top1", "agreement", "median_ms", "images_per_s", "instructions", "cycles")
        table(rows, right=figures, wide=options.wide)
    return int(any(cell.status != "ok" for cell in found))
