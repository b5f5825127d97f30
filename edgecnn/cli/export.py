"""``edgecnn export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecnn.cli.options import add_checking, add_convention, checking, loading, positive, reported
from edgecnn.progress import Terminal
from edgecnn.quant import DEFAULT

HELP = "quantize a model and write artifacts, checked when --data is given"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a name from `edgecnn models`, package.module:factory, or a .edgecnn file"
    )
    parser.add_argument("--target", required=True, metavar="TARGET", help="a name from `edgecnn targets`, or all")
    parser.add_argument("--quantize", default="int8", choices=["int8", "none", "fp16", "w8", "int16x8"])
    parser.add_argument("--weights", metavar="FILE|demo|random", help="safetensors or torch state dict")
    parser.add_argument(
        "--calibration",
        metavar="DIR|demo|none",
        help="images that set the ranges; no labels needed; none: synthesised ones, at some loss",
    )
    parser.add_argument("--calibration-images", type=positive, metavar="N", help="at most N (default 300; best: 500)")
    parser.add_argument(
        "--recipe",
        default=DEFAULT,
        metavar="NAME|FILE",
        help=f"a name from `edgecnn recipes` (default {DEFAULT}), or a .toml file",
    )
    parser.add_argument(
        "--reduce-range", action="store_true", help="7-bit weights: for x86 without VNNI, whose kernels can saturate"
    )
    parser.add_argument(
        "--per-tensor", action="store_true", help="one scale for all of a layer's weights, for hardware that needs it"
    )
    parser.add_argument(
        "--mixed", action="store_true", help="keep the fewest layers out of 8 bits such that --max-drop holds on --data"
    )
    parser.add_argument(
        "--io",
        choices=["int8", "uint8", "int16", "float32"],
        help="type of an int8 or int16x8 artifact's input and output",
    )
    parser.add_argument(
        "--padding",
        choices=["same", "symmetric"],
        help="TensorFlow SAME, or torchvision's; default: as the weights say",
    )
    add_convention(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="directory (default out)")
    add_checking(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn export``."""
    from edgecnn.pipeline import export

    report = export(
        options.model,
        target=options.target,
        quantize=options.quantize,
        output=options.output,
        calibration=options.calibration,
        calibration_images=options.calibration_images,
        recipe=options.recipe,
        reduce_range=options.reduce_range,
        per_tensor=options.per_tensor,
        mixed=options.mixed,
        io=options.io,
        progress=Terminal(),
        **loading(options),
        **checking(options),
    )
    return reported(report, options)
