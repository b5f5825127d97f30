"""``edgecnn compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.cli.options import add_exact_kernels, add_json, add_report, positive, shows_evidence, taken
from edgecnn.cli.printing import print_json, shown, table
from edgecnn.progress import Terminal

if TYPE_CHECKING:
    from edgecnn.evaluation.compare import Comparison

HELP = "say whether two artifacts hold the same integers, and how far apart they compute"
EXAMPLES = (
    "edgecnn compare out/net.tflite out/net.onnx --data DIR",
    "edgecnn compare out/net.edgecnn out/net.tflite --data DIR --layers",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("a", type=Path, metavar="A", help="an artifact, or a .edgecnn file (int8: the integer oracle)")
    parser.add_argument("b", type=Path, metavar="B", help="what A is compared with")
    parser.add_argument("--data", required=True, metavar="DIR|demo", help="images; labels are not needed")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N images")
    parser.add_argument("--preprocess", metavar="KEY=VALUE,…", help="override what A says")
    parser.add_argument("--layers", action="store_true", help="also say at which layer they part (both int8)")
    add_exact_kernels(parser)
    parser.add_argument(
        "--arithmetic", default="litert", metavar="NAME",
        help="whose rounding the integer oracle has: litert (default), xnnpack, xnnpack_arm, onnxruntime, openvino",
    )  # fmt: skip
    parser.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out")
    add_report(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn compare``: status 1 when both hold integers and they are not the same."""
    from edgecnn.evaluation.compare import compare
    from edgecnn.evaluation.comparison_forms import forms

    given = taken(options, "data limit preprocess skip_bad_images exact_kernels arithmetic")
    evidence = shows_evidence(options)
    found = compare(options.a, options.b, by_layer=options.layers, evidence=evidence, progress=Terminal(), **given)
    for path in options.report:
        forms(found, options.invocation).save(path)
    figures = found.to_json()
    if options.json:
        print_json(options, figures)
    else:
        _print(found)
        for rows in (figures["outputs"] if len(found.outputs) > 1 else [], figures["layers"]):
            if rows:
                table([{key: shown(value) for key, value in row.items()} for row in rows], wide=options.wide)
    return 1 if found.same_integers is False else 0


def _print(found: Comparison) -> None:
    """Print a card: the verdict, the figures, and what to know about them."""
    from edgecnn.evaluation.comparison_forms import lines, verdict
    from edgecnn.report.grid import console, headed, line

    on, style = console(), {True: "green", False: "bold red", None: "bold"}[found.same_integers]
    line(on, verdict(found), style)
    for figure in headed(lines(found)):
        line(on, figure)
