"""CNNs of torchvision and timm through every step: captured, int8 in three formats, equal integers in three runtimes.

    python benchmarks/coverage.py --out FOLDER [--networks 'timm/*,torchvision/resnet18'] [--side 96] [--images 20]
    python benchmarks/coverage.py --out FOLDER --list hybrids --targets tflite --quick

The networks are those of ``coverage.txt``, or of ``hybrids.txt``. Weights are random, batch-norm statistics are those
of the calibration images. Each network is one job in a process and a file of its own, made again only when edgecnn's
sources have changed.
A network fails where the command would: an op that cannot be captured or written, an op computed in float, an output
further from its oracle than stated. An exception that is no error of edgecnn's is a state as well, a fault.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import TARGETS, Row, code_digest, kept, machine

import edgecnn
from edgecnn.data import demo
from edgecnn.quant import DEFAULT
from edgecnn.quant.recipe import recipe

CALIBRATION = 32  # images
LAYER_SCALE = 1e-3  # constant factors up to this are those with which training of residual branches begins
SIDES = (96, 128, 160, 192, 224, 240, 256, 299, 331)  # that networks of a fixed size, or in windows, take
UNMEASURED: Row = {"oracle": {}, "lsb": None, "agreement": None}
LISTS = ("coverage", "hybrids")
HEAVY = ("torch", "torchvision", "timm", "openvino", "onnxruntime", "ai_edge_litert.interpreter")


def main() -> None:
    """Measure and print the table; exit status 1 where a network fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="holds the results")
    parser.add_argument("--networks", default="*", metavar="A,B", help="only these; patterns of library/name")
    parser.add_argument("--list", default=LISTS[0], choices=LISTS, help="the file, .txt, that names the networks")
    parser.add_argument("--targets", default=",".join(TARGETS), metavar="A,B", help="the formats, all by default")
    parser.add_argument(
        "--side", type=int, default=96, help="of the square input, in pixels, where the network takes it"
    )
    parser.add_argument("--images", type=int, default=20, help="that outputs are compared on")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="without adaptive rounding and the guard, which serve accuracy alone: a third of the time",
    )
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that do the jobs
    targets = tuple(options.targets.split(","))
    if set(targets) - set(TARGETS):
        raise SystemExit(f"--targets {options.targets}: each must be one of {', '.join(TARGETS)}")
    names = Path(__file__).with_name(f"{options.list}.txt").read_text("utf-8").split()
    chosen = [name for name in names if any(fnmatch(name, p) for p in options.networks.split(","))]
    if not chosen:
        raise SystemExit(f"--networks {options.networks}: none of the {len(names)} has such a name")
    key = [code_digest(), options.side, options.images, options.quick, *(targets if targets != TARGETS else ())]
    rows: list[Row] = []
    for name in chosen:
        place = options.out / f"{name.replace('/', '-')}.json"
        row = kept(place, key, partial(job, name, options.side, options.images, options.quick, targets))
        print(f"{name}: {row['state']}", file=sys.stderr, flush=True)
        rows.append({"network": name, **row})
    print(f"{datetime.now(UTC):%Y-%m-%d}, edgecnn {edgecnn.__version__}, {machine()}\n\n{table(rows)}")
    if any(row["state"] != "passed" for row in rows):
        raise SystemExit(1)


def table(rows: list[Row]) -> str:
    """Return one line per network, and the counts."""
    lines = [
        "| network | state | largest LSB beside the oracle: tflite, onnx, openvino | beside the first: LSB, agreement |"
    ]
    lines.append("|---|---|---|---|")
    for row in rows:
        beside = ", ".join(str(row["oracle"].get(target, "-")) for target in TARGETS)
        between = f"{row['lsb']}, {row['agreement']:.0f} %" if row["lsb"] is not None else "-"
        lines.append(f"| {row['network']} | {row['state']} | {beside} | {between} |")
    states = Counter(row["state"].partition(":")[0] for row in rows)
    return "\n".join([*lines, "", *(f"{count} of {len(rows)}: {state}" for state, count in states.most_common())])


def job(name: str, side: int, images: int, quick: bool, targets: tuple[str, ...]) -> Row:
    """Return what ``measured`` does in a process of its own; what it raises, or that the process ended, is a state."""
    try:
        with ProcessPoolExecutor(1, mp_context=_server()) as pool:
            return pool.submit(measured, name, side, images, quick, targets).result()
    except Exception as error:  # noqa: BLE001  # of any kind: the table names it, and the next network is measured
        return {**UNMEASURED, "state": f"fault: {type(error).__name__}: {one_line(error)}"}


def _server() -> BaseContext:
    """Return where processes come from: forks of one that has imported what takes seconds."""
    server = get_context("forkserver")
    server.set_forkserver_preload(["edgecnn.evaluation.compare", *HEAVY])
    return server


# ---- a job, in a process of its own


def measured(name: str, side: int, images: int, quick: bool, targets: tuple[str, ...] = TARGETS) -> Row:
    """Return how far a network comes: ``state``, LSB beside the oracle per format, and between the formats."""
    import torch

    torch.set_num_threads(1)
    row: Row = {**UNMEASURED, "state": "passed", "oracle": {}}
    module, side = built(name, side)
    seen = pixels(CALIBRATION + images, side)
    settle(module, seen[:CALIBRATION])
    silent = edgecnn.Progress()
    fed = edgecnn.Preprocess(mean=(127.5,) * 3, std=(127.5,) * 3)
    try:
        network = edgecnn.load(module, name=name.rpartition("/")[2], preprocess=fed, input_shape=(3, side, side))
    except edgecnn.EdgecnnError as error:
        return {**row, "state": f"not captured: {one_line(error)}"}
    steps = recipe(DEFAULT).without(*(("adaptive_rounding",) if quick else ()))
    with tempfile.TemporaryDirectory() as folder:
        try:
            int8 = edgecnn.quantize(network, seen[:CALIBRATION], recipe=steps, guard=not quick, progress=silent)
            made = {t: edgecnn.convert(int8, t).save(folder) for t in targets}
        except edgecnn.EdgecnnError as error:
            return {**row, "state": f"not written: {one_line(error)}"}
        for target, artifact in made.items():
            report = edgecnn.validate(artifact, seen[CALIBRATION:], allow_loss=True, progress=silent)
            (entry,) = report.entries
            row["oracle"][target] = entry.parity.max_lsb
            if failed := [f"{c.name} {c.value:g}" for c in entry.checks if not c.passed] + list(entry.float_ops):
                row["state"] = f"{target}: {one_line(', '.join(failed))}"
        first, *others = made.values()
        pairs = [edgecnn.compare(first, other, seen[CALIBRATION:], progress=silent) for other in others]
    if not pairs:
        return row
    if differing := [name for pair in pairs for name in pair.differing]:
        row["state"] = f"other integers: {one_line(', '.join(differing))}"
    lsb, agreement = max(p.max_lsb or 0 for p in pairs), min(p.agreement for p in pairs)
    return {**row, "lsb": lsb, "agreement": agreement}


def built(name: str, side: int) -> tuple[Any, int]:
    """Return the module in evaluation mode, and pixels that it can take."""
    import torch

    torch.manual_seed(0)
    library, _, model = name.partition("/")
    if library == "timm":
        import timm

        made = timm.create_model(model, num_classes=100, exportable=True).eval()
        return made, fitting(made, side)
    import torchvision

    extra = {"aux_logits": False} if model in ("googlenet", "inception_v3") else {}
    made = torchvision.models.get_model(model, weights=None, num_classes=100, **extra).eval()
    return made, fitting(made, side)


def fitting(module: Any, side: int) -> int:
    """Return the first side, in pixels, from the given one on, on which a module runs."""
    import torch

    for pixels_a_side in (side, *(s for s in SIDES if s > side)):
        try:
            with torch.no_grad():
                module(torch.zeros(1, 3, pixels_a_side, pixels_a_side))
        except (RuntimeError, AssertionError, ValueError):
            continue
        return pixels_a_side
    raise SystemExit(f"{type(module).__name__} runs on none of {side}, {', '.join(map(str, SIDES))} pixels a side")


def pixels(count: int, side: int) -> NDArray[np.uint8]:
    """Return demo images, enlarged."""
    shown, _ = demo.images("calibration", range(count))
    where = np.arange(side) * shown.shape[1] // side
    return np.ascontiguousarray(shown[:, where][:, :, where])


def settle(module: Any, images: NDArray[np.uint8]) -> None:
    """Give every batch norm and layer scale factors of a trained one's size, and the former the images' statistics."""
    import torch
    from torch import nn

    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(0)
    for factor in module.parameters():
        if 0 < float(factor.data.abs().max()) <= LAYER_SCALE and bool((factor.data == factor.data.flatten()[0]).all()):
            factor.data.uniform_(0.1, 1, generator=generator)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
        if norm.affine:
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.3, generator=generator)
    with torch.no_grad():
        module(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1))
    for norm in norms:
        norm.training = False


def one_line(error: object) -> str:
    """Return the beginning of a message."""
    return " ".join(str(error).split())[:160]


if __name__ == "__main__":
    main()
