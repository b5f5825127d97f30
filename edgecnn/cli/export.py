"""``edgecnn export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecnn.cli.options import (
    add_checking,
    add_convention,
    add_input_shape,
    checking,
    input_shapes,
    positive,
    reported,
    taken,
)
from edgecnn.progress import Terminal
from edgecnn.quant import DEFAULT

HELP = "quantize a model and write artifacts, checked when --data is given"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="a name from `edgecnn models`, package.module:factory, or a file: .edgecnn, .onnx …",
    )
    add("--target", required=True, metavar="TARGET", help="a name from `edgecnn targets`, or all")
    precisions = ["int8", "none", "fp16", "w8", "int16x8"]
    add("--quantize", default="int8", choices=precisions, help="default int8; none: fp32; w8: weights only")
    add("--weights", metavar="FILE|demo|random", help="safetensors or torch state dict")
    add(
        "--calibration",
        metavar="DIR|demo|none",
        help="images that set the ranges; no labels needed; none: synthesised ones, at some loss",
    )
    add("--calibration-images", type=positive, metavar="N", help="at most N (default 300; best: 400)")
    add(
        "--recipe",
        default=DEFAULT,
        metavar="NAME|FILE",
        help=f"a name from `edgecnn recipes` (default {DEFAULT}), or a .toml file",
    )
    add(
        "--no-guard", dest="guard", action="store_false",
        help="keep every step of the recipe, also one that does harm to this network; for experiments",
    )  # fmt: skip
    add("--reduce-range", action="store_true", help="7-bit weights: for x86 without VNNI, whose kernels can saturate")
    add("--per-tensor", action="store_true", help="one scale for all of a layer's weights, for hardware that needs it")
    add(
        "--mixed", action="store_true", help="keep the fewest layers out of 8 bits such that --max-drop holds on --data"
    )
    add(
        "--io",
        choices=["int8", "uint8", "int16", "float32"],
        help="type of an int8 or int16x8 artifact's input and output",
    )
    add(
        "--padding",
        choices=["same", "symmetric"],
        help="TensorFlow SAME, or torchvision's; default: as the weights say",
    )
    add_convention(parser)
    add_input_shape(parser)
    add("-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="directory (default out)")
    add_checking(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn export``."""
    from edgecnn.exporting import export

    names = "target quantize output calibration calibration_images recipe guard reduce_range per_tensor mixed io"
    given = input_shapes(options) | taken(options, f"{names} weights padding convention preprocess label_offset")
    return reported(export(options.model, progress=Terminal(), **given, **checking(options)), options)
