"""The command line: what each command takes. What it does is in ``commands.py``, imported when a command runs."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from edgecnn import __version__
from edgecnn.errors import EdgecnnError, InputError, unknown

DESCRIPTION = "Quantize a CNN once, emit the same integers for every runtime, and check them on each device."
EPILOG = """\
examples:
  edgecnn export mobilenet_v2_0.35_96 --target tflite --quantize int8 --weights demo --calibration demo --data demo
  edgecnn export mobilenet_v2 --target tflite --quantize int8 --weights FILE --calibration DIR --data DIR --max-drop 1
  edgecnn validate out/mobilenet_v2.tflite --data DIR --max-drop 1

exit status: 0 all checks passed; 1 a check failed; 2 the input is wrong; 3 an optional library or tool is missing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. A user never sees a traceback of an expected error."""
    gc.set_threshold(100_000, 50, 50)  # importing torch makes millions of objects that live on: 0.6 s less of 8
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    try:
        if words and not words[0].startswith("-") and words[0] not in commands:
            raise InputError(unknown("command", words[0], commands))
        options = parser.parse_args(words)
        status = getattr(import_module("edgecnn.commands"), options.command)(options)
        assert isinstance(status, int)
        return status
    except EdgecnnError as error:
        sys.stderr.write(f"edgecnn: error: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("edgecnn: interrupted; no half-written artifact was left\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("edgecnn", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"edgecnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    export = add("export", "quantize a model and write artifacts, checked when --data is given")
    export.add_argument(
        "model", metavar="MODEL", help="a name from `edgecnn models`, package.module:factory, or a .edgecnn file"
    )
    export.add_argument("--target", required=True, metavar="TARGET", help="a name from `edgecnn targets`, or all")
    export.add_argument("--quantize", default="int8", choices=["int8", "none", "fp16", "w8", "int16x8"])
    export.add_argument("--weights", metavar="FILE|demo|random", help="safetensors or torch state dict")
    export.add_argument("--calibration", metavar="DIR|demo", help="images that set the ranges; no labels needed")
    export.add_argument(
        "--calibration-images", type=_positive, default=300, metavar="N", help="at most N (default 300)"
    )
    export.add_argument(
        "--recipe", default="default", metavar="NAME|FILE", help="a name from `edgecnn recipes`, or a .toml file"
    )
    export.add_argument(
        "--reduce-range", action="store_true", help="7-bit weights: for x86 without VNNI, whose kernels can saturate"
    )
    export.add_argument(
        "--io", choices=["int8", "uint8", "float32"], help="type of an int8 artifact's input and output"
    )
    export.add_argument(
        "--padding",
        choices=["same", "symmetric"],
        help="TensorFlow SAME, or torchvision's; default: as the weights say",
    )
    export.add_argument("-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="directory (default out)")
    _add_checking(export)

    validate = add("validate", "run an artifact over labelled images and check it against limits")
    validate.add_argument("artifact", type=Path, metavar="ARTIFACT")
    validate.add_argument(
        "--reference", metavar="ARTIFACT|none", help="fp32 reference; default: NAME.edgecnn beside the artifact"
    )
    validate.add_argument("--report", type=Path, metavar="FILE", help="also write the report there")
    _add_checking(validate, data_required=True)

    compare = add("compare", "say whether two artifacts hold the same integers, and how far apart they compute")
    compare.add_argument("a", type=Path, metavar="A", help="an artifact, or a .edgecnn file (int8: the integer oracle)")
    compare.add_argument("b", type=Path, metavar="B")
    compare.add_argument("--data", required=True, metavar="DIR|demo", help="images; labels are not needed")
    compare.add_argument("--limit", type=_positive, metavar="N", help="at most N images")
    compare.add_argument("--preprocess", metavar="KEY=VALUE,…", help="override what A says")
    compare.add_argument("--layers", action="store_true", help="also say at which layer they part (both int8)")
    compare.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out")
    compare.add_argument("--json", action="store_true", help="one JSON document on stdout")

    benchmark = add("benchmark", "measure models in every format, precision and device: one table")
    benchmark.add_argument("models", nargs="+", metavar="MODEL", help="as for export")
    benchmark.add_argument("--targets", default="all", metavar="A,B", help="default all")
    benchmark.add_argument("--precisions", default="fp32,int8", metavar="A,B", help="default fp32,int8")
    benchmark.add_argument(
        "--weights", action="append", default=[], metavar="[MODEL=]FILE|demo|random", help="for one model, or for all"
    )
    benchmark.add_argument("--calibration", metavar="DIR|demo", help="images that set int8's ranges")
    benchmark.add_argument(
        "-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="directory (default out)"
    )
    _add_checking(benchmark, data_required=True)

    inspect = add("inspect", "print a graph or an artifact, layer by layer")
    inspect.add_argument(
        "model", metavar="MODEL|ARTIFACT", help="a model name, package.module:factory, .edgecnn or .tflite"
    )
    inspect.add_argument("--weights", metavar="FILE|demo|random", help="default random: shapes only")
    inspect.add_argument("--preprocess", metavar="KEY=VALUE,…", help="for package.module:factory: gives the input size")
    inspect.add_argument("--json", action="store_true", help="one JSON document on stdout")

    train = add("train", "train a model on an image folder or on the demo data")
    train.add_argument("model", metavar="MODEL", help="a name from `edgecnn models`")
    train.add_argument("--data", required=True, metavar="DIR|demo", help="class subfolders, or images/ with labels.csv")
    _add_training(train)

    for name, text in (
        ("models", "list the models: parameters, MACs, resolution"),
        ("targets", "list the targets and the precisions each takes"),
        ("devices", "list the devices and which are ready"),
        ("recipes", "list the quantization recipes"),
        ("doctor", "say what is installed and what is missing"),
    ):
        add(name, text).add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser, list(commands.choices)


def _add_checking(parser: argparse.ArgumentParser, *, data_required: bool = False) -> None:
    data = parser.add_argument_group("checking")
    data.add_argument("--data", required=data_required, metavar="DIR|demo", help="labelled images to check on")
    data.add_argument("--limit", type=_positive, metavar="N", help="at most N images of --data")
    data.add_argument(
        "--label-offset", type=int, metavar="K", help="class k is logit k + K (1: background class in front)"
    )
    data.add_argument(
        "--preprocess", metavar="KEY=VALUE,…", help="override: resize=HxW,crop=HxW|none,interpolation=…,mean=…,std=…"
    )
    data.add_argument("--skip-bad-images", action="store_true", help="leave unreadable images out, and count them")
    data.add_argument(
        "--device", default="host", metavar="NAME[,NAME]", help="names from `edgecnn devices` (default host)"
    )
    data.add_argument("--threads", type=_positive, default=1, metavar="N", help="runtime threads (default 1)")
    limits = parser.add_argument_group("limits (exit status 1 when one is missed)")
    limits.add_argument("--max-drop", type=float, metavar="POINTS", help="fp32 top-1 minus artifact top-1")
    limits.add_argument(
        "--min-agreement", type=float, metavar="PERCENT", help="images on which artifact and fp32 agree"
    )
    limits.add_argument("--max-latency-ms", type=float, metavar="MS", help="median of one inference")
    limits.add_argument(
        "--allow-float", action="store_true", help="accept ops in an int8 artifact that the runtime computes in float"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default 0)")
    parser.add_argument("--json", action="store_true", help="the report as one JSON document on stdout")


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Options of ``edgecnn train``; what is not given is as ``TrainConfig`` says."""
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="weights to write, .safetensors"
    )
    for name, kind, text in (
        ("epochs", _positive, "passes over the training images (default 30)"),
        ("batch", _positive, "images per step (default 64)"),
        ("lr", float, "peak learning rate (default 0.003)"),
        ("weight-decay", float, "of AdamW (default 0.05)"),
        ("warmup", float, "share of the steps in which the learning rate rises (default 0.05)"),
        ("label-smoothing", float, "default 0.1"),
        ("ema", float, "decay of the averaged weights, which are what is kept (default 0.998)"),
        ("shift", float, "largest random shift, as a share of the side (default 0.08)"),
        ("images", _positive, "training images of the demo data (default 16000)"),
        ("val-images", _positive, "held-out images of the demo data (default 1000)"),
        ("seed", int, "of every random choice (default 0)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N" if kind is not float else "X", help=text)
    parser.add_argument("--flip", action="store_true", help="mirror images at random; not for signs or letters")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value
