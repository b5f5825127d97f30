"""``edgecnn train``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgecnn.commands.options import add_json, positive
from edgecnn.commands.tables import print_json

HELP = "train a model on an image folder or on the demo data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options; what is not given is as ``TrainConfig`` says."""
    parser.add_argument("model", metavar="MODEL", help="a name from `edgecnn models`")
    parser.add_argument(
        "--data", required=True, metavar="DIR|demo", help="class subfolders, or images/ with labels.csv"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="weights to write, .safetensors"
    )
    for name, kind, text in (
        ("epochs", positive, "passes over the training images (default 30)"),
        ("batch", positive, "images per step (default 64)"),
        ("lr", float, "peak learning rate (default 0.003)"),
        ("weight-decay", float, "of AdamW (default 0.05)"),
        ("warmup", float, "share of the steps in which the learning rate rises (default 0.05)"),
        ("label-smoothing", float, "default 0.1"),
        ("ema", float, "decay of the averaged weights, which are what is kept (default 0.998)"),
        ("shift", float, "largest random shift, as a share of the side (default 0.08)"),
        ("images", positive, "training images of the demo data (default 16000)"),
        ("val-images", positive, "held-out images of the demo data (default 1000)"),
        ("seed", int, "of every random choice (default 0)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N" if kind is not float else "X", help=text)
    parser.add_argument("--flip", action="store_true", help="mirror images at random; not for signs or letters")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn train``."""
    from dataclasses import fields

    from edgecnn.train import TrainConfig, train

    given = {
        f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name, None) is not None
    }
    result = train(TrainConfig(**given))
    if options.json:
        print_json({"weights": str(result.weights), "val_top1": result.val_top1, "seconds": round(result.seconds, 1)})
    else:
        sys.stderr.write(f"{result.weights}: {result.val_top1:.2f} % on held-out images, {result.seconds:.0f} s\n")
        sys.stderr.write(f"next: edgecnn export {options.model} --target tflite --weights {result.weights} ")
        sys.stderr.write(f"--calibration {options.data} --data {options.data}\n")
    return 0
