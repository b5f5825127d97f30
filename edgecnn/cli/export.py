"""``edgecnn export``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.dry_run import add_dry_run, planned
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
from edgecnn.errors import InputError
from edgecnn.progress import Terminal
from edgecnn.quant import DEFAULT

if TYPE_CHECKING:
    from edgecnn.report.record import Report

HELP = "quantize a model and write artifacts, checked when --data is given"
EXAMPLES = (
    "edgecnn export mobilenet_v2 --weights FILE --calibration DIR --data DIR --max-drop 1",
    "edgecnn export mynet.onnx --calibration DIR -o out/mynet.tflite",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a name from `edgecnn models`, package.module:factory, or a file: .edgecnn, .onnx …",
    )
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, which are those of ``edgecnn run`` too."""
    add = parser.add_argument
    add(
        "--target",
        metavar="TARGET[,TARGET]",
        help="names from `edgecnn targets`, or all (default: by -o; else tflite)",
    )
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
        "--batch", type=positive, default=1, metavar="N", help="samples that one inference takes (default 1; c has one)"
    )
    add(
        "--padding",
        choices=["same", "symmetric"],
        help="TensorFlow SAME, or torchvision's; default: as the weights say",
    )
    add_convention(parser)
    add_input_shape(parser)
    add(
        "-o", "--output", type=Path, default=Path("out"), metavar="OUT",
        help="directory (default out), or the file to write: its ending is the target, its stem the name",
    )  # fmt: skip
    add(
        "--no-wait", dest="wait", action="store_false",
        help="end at once with status 2 when another export writes the directory, instead of waiting for it",
    )  # fmt: skip
    add(
        "--model-card", action="store_true",
        help="write README.md beside the artifacts: a model card with metadata, as the Hugging Face Hub reads it",
    )  # fmt: skip
    add("--license", default="unknown", metavar="ID", help="of the weights, for the card, as the Hub names it")
    add("--push-to-hub", metavar="USER/NAME", help="push artifacts and card to the Hub when all checks passed")
    add_checking(parser)
    add_dry_run(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn export``."""
    if options.dry_run:
        from edgecnn.planning import plan_export

        return planned([plan_export(options.model, **given(options))], options)
    return reported(exported(options), options)


def exported(options: argparse.Namespace) -> Report:
    """Export what the options say."""
    from edgecnn.exporting import export

    arguments = given(options)
    wanted = options.model_card or options.push_to_hub is not None
    if wanted:
        from edgecnn import publishing
        from edgecnn.loading import name_of

        publishing.require_place(Path(arguments["output"]), arguments.get("name") or name_of(options.model))
    if options.push_to_hub is not None:
        publishing.require_hub(options.push_to_hub)
    report = export(options.model, progress=Terminal(), **arguments)
    return _published(report, options) if wanted else report


def _published(report: Report, options: argparse.Namespace) -> Report:
    """Write the model card, and push to the Hub what passed."""
    from edgecnn import publishing

    data = None if options.data is None else Path(str(options.data)).name
    made = replace(report, invocation=getattr(options, "invocation", None))
    Terminal().say(f"card       {publishing.write_card(made, license=options.license, data=data)}")
    if options.push_to_hub is not None:
        where = options.push_to_hub
        done = (
            f"pushed to {publishing.push(report, where)}" if report.passed else f"not pushed to {where}: a check failed"
        )
        Terminal().say(done)
    return report


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as arguments of ``edgecnn.export``."""
    names = "quantize calibration calibration_images recipe guard reduce_range per_tensor mixed io batch wait"
    own = taken(options, f"{names} weights padding convention preprocess label_offset class_names")
    return input_shapes(options) | own | named(options.output, options.target) | checking(options)


def named(output: Path, target: str | None) -> dict[str, Any]:
    """Return target, folder and name that ``--target`` and ``-o`` say.

    Raises:
        InputError: they contradict each other.
    """
    from edgecnn_converters.registry import converters

    by_suffix = {row.suffixes[0]: name for name, row in converters().items() if row.suffixes[0].startswith(".")}
    meant = by_suffix.get(output.suffix)
    if meant is None:
        return {"target": target or "tflite", "output": output}
    if target not in (None, meant):
        raise InputError(f"-o {output} is a file of {meant}, but --target is {target}; give a directory")
    return {"target": meant, "output": output.parent, "name": output.stem}
