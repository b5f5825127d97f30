"""``edgecnn train``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from edgecnn.cli.documents import Trained
from edgecnn.cli.options import add_json, add_numbers, positive
from edgecnn.cli.printing import print_json
from edgecnn.cli.streams import write_result

HELP = "train a model on an image folder or on the demo data, in float or (--qat) with its quantization"
EXAMPLES = (
    "edgecnn train mobilenet_v1_0.25_64 --data demo -o weights.safetensors",
    "edgecnn train out/net.edgecnn --qat --data DIR -o out/net-qat.edgecnn",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; what is not given is as ``TrainConfig`` or ``QatConfig`` says."""
    parser.add_argument("model", metavar="MODEL", help="a name from `edgecnn models`; with --qat, whatever exports")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR|FILE.npz[:SPLIT]|demo",
        help="class subfolders, or images/ with labels.csv, or arrays; train/ and val/ inside, or x_train and x_val, "
        "are the two parts, otherwise a tenth is held out",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="to write: .safetensors; .edgecnn with --qat"
    )
    parser.add_argument(
        "--weights", metavar="FILE|demo", help="start from these; without, from a seeded initialisation"
    )
    add_numbers(
        parser.add_argument_group("how it learns"),
        ("epochs", positive, "passes over the training images (default 30; 4 with --qat)"),
        ("batch", positive, "images per step, over all processes (default 64)"),
        ("lr", float, "peak learning rate (default 0.003; 0.0001 with --qat)"),
        ("warmup", float, "share of the steps in which the learning rate rises (default 0.05)"),
        ("weight-decay", float, "not on biases and norms (default 0.05; 0 with --qat)"),
        ("label-smoothing", float, "(default 0.1; 0 with --qat)"),
        ("drop-connect", float, "residual branches dropped, at most; default: what the family says"),
        ("ema", float, "decay of the averaged weights, which are what is kept (default 0.998; 0.99 with --qat)"),
        ("seed", int, "of every random choice (default 0)"),
    )
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], help="sgd has Nesterov momentum 0.9 (default adamw)")
    parser.add_argument(
        "--schedule", choices=["cosine", "step"], help="step: a tenth after 1/2 and again after 3/4 (default cosine)"
    )
    images = parser.add_argument_group("what it sees")
    add_numbers(
        images,
        ("shift", float, "largest random shift, as a share of the side (default 0.08)"),
        ("mixup", float, "alpha of mixup's beta distribution; 0 mixes nothing (default 0)"),
        ("rand-augment", int, "random operations per image (default 0)"),
        ("magnitude", int, "of these, 0 to 10 (default 9)"),
        ("images", positive, "training images of the demo data (default 16000)"),
        ("val-images", positive, "held-out images of the demo data (default 1000)"),
    )
    images.add_argument("--flip", action="store_true", help="mirror images at random; not for signs or letters")
    images.add_argument("--preprocess", metavar="KEY=VALUE,…", help="override how images are fed, as of `export`")
    images.add_argument("--label-offset", type=int, metavar="K", help="class k is logit k + K")
    machine = parser.add_argument_group(
        "where it runs (several processes: torchrun --nproc-per-node N -m edgecnn train …)"
    )
    machine.add_argument("--accelerator", choices=["cpu", "cuda"], help="default: CUDA where there is one")
    machine.add_argument(
        "--precision", choices=["fp32", "bf16", "fp16"], help="of matrix products; fp16 needs CUDA (default fp32)"
    )
    add_numbers(machine, ("checkpoint-steps", int, "steps between checkpoints; 0: one after each epoch (default 0)"))
    qat = parser.add_argument_group("quantization-aware training")
    qat.add_argument("--qat", action="store_true", help="quantize as export does, then learn on with the rounding")
    qat.add_argument("--recipe", metavar="NAME|FILE", help="what it starts from, as of `export`")
    add_numbers(
        qat,
        ("calibration-images", positive, "training images that set the ranges (default 300)"),
        ("distill", float, "share of the loss that asks for the float network's answers (default 0)"),
    )
    qat.add_argument("--learn-steps", action="store_true", help="the scales learn too (LSQ)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Train, and say what to do next."""
    from dataclasses import asdict, fields

    from edgecnn.data.training import training_parts
    from edgecnn.errors import InputError
    from edgecnn.train import QatConfig, TrainConfig, train

    config = QatConfig if options.qat else TrainConfig
    given = {k: v for k, v in vars(options).items() if v not in (None, False) and k in QatConfig.__dataclass_fields__}
    strange = sorted(set(given) - {f.name for f in fields(config)})
    if strange:
        raise InputError(f"--{strange[0].replace('_', '-')} is for quantization-aware training; add --qat")
    result = train(config(**given))
    if not result.leader:
        return 0
    if options.json:
        made = Trained(weights=str(result.weights), val_top1=result.val_top1, seconds=round(result.seconds, 1))
        print_json(options, asdict(made))
        return 0
    write_result(f"{result.weights}: {result.val_top1:.2f} % on held-out images, {result.seconds:.0f} s")
    training, held_out = training_parts(options.data)
    words = ["edgecnn", "export"]
    if options.qat:
        words += [str(result.weights), "--target", "all"]
    else:
        words += [options.model, "--target", "tflite", "--weights", str(result.weights), "--calibration", training]
    write_result(f"next: {shlex.join([*words, '--data', held_out])}", command=True)
    return 0
