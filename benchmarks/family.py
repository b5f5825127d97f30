"""The whole family in one table: size, int8 bytes per target, int8 beside fp32 on random weights, instructions.

    python benchmarks/family.py --out FOLDER [--models A,B] [--device cortex-a72]

Nothing is trained: agreement says how often int8 picks the class that fp32 picks among logits that mean nothing, and
the SQNR says more. It is of what tells images apart: of the logits less their mean over the images. The recipe is
`fast`, on few images of the demo data. The smallest models come first; rows lie in the folder, and are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

IMAGES = {"calibration": (150e9, 8, 32), "test": (40e9, 8, 32)}
"""As many as go into so many MACs, but for the fewest and the most. Fewer than 32 to calibrate on cost accuracy,
MobileNetV3 large 3 dB with 16: the largest networks are worse off here than they would be."""
WITHIN_S = 1200.0  # of one inference in an emulator
TARGETS = ("tflite", "onnx", "openvino")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """One model's row, but for its instructions; leaves the .tflite file."""
    import numpy as np
    import torch

    from edgecnn.artifact import write_artifact
    from edgecnn.data import open_images
    from edgecnn.graph.capture import capture
    from edgecnn.graph.interpreter import TorchGraph
    from edgecnn.graph.ir import Metadata
    from edgecnn.models import resolve
    from edgecnn.models.checkpoint import random_weights
    from edgecnn.models.count import size_of
    from edgecnn.quant.calibrate import calibrate
    from edgecnn.quant.ptq import prepare, quantize
    from edgecnn.recipe import DEFAULT, RECIPES
    from edgecnn_converters.registry import CONVERTERS
    from edgecnn_targets.devices import device
    from edgecnn_targets.evaluate import logits
    from edgecnn_targets.registry import open_session

    spec, size = resolve(name), size_of(resolve(name))
    used = {split: int(max(fewest, min(most, budget / size.macs))) for split, (budget, fewest, most) in IMAGES.items()}
    recipe = replace(RECIPES[DEFAULT], statistics_images=used["calibration"], correction_images=used["calibration"])
    row: dict[str, Any] = {"model": name, "resolution": spec.resolution, "images": used}
    row |= {"parameters": size.parameters, "macs": size.macs}
    start = time.process_time()
    module, source = random_weights(spec)

    def some(split: str) -> list[Any]:
        found = open_images("demo", demo_split=split, labelled=False, limit=used[split], shuffle=0)
        return [source.preprocess.normalise(pixels) for pixels, _ in found.batches(source.preprocess, 1)]

    seen, batches = some("calibration"), some("test")
    graph = capture(module, (3, spec.resolution, spec.resolution), Metadata(model=name, preprocess=source.preprocess))
    row["capture_cpu_s"] = round(time.process_time() - start, 1)
    del module
    run = TorchGraph(graph)
    want = np.concatenate([run(torch.from_numpy(batch)).numpy() for batch in batches])
    for target in TARGETS:
        fp32 = CONVERTERS[target].convert(graph, precision="fp32")
        row[f"{target}_fp32_bytes"] = sum(map(len, fp32.files.values()))
        del fp32
    graph = prepare(graph, np.concatenate(seen), recipe)
    graph = quantize(graph, calibrate(graph, seen, keep=len(seen)), recipe)
    for target in TARGETS:
        emission = CONVERTERS[target].convert(graph, precision="int8")
        row[f"{target}_bytes"] = sum(map(len, emission.files.values()))
        if target == "tflite":
            path = write_artifact(folder, name, emission, graph.metadata, {})
    session = open_session(device("host"), path)
    got = np.concatenate([logits(session, batch) for batch in batches])
    noise, mean = float(np.square(want - got).mean()), want.mean(0)
    row["sqnr_db"] = round(10 * float(np.log10(np.square(want).mean() / noise)), 1)
    row["difference_db"] = round(10 * float(np.log10(np.square(want - mean).mean() / noise)), 1)
    row["classes"] = len(set(want.argmax(1).tolist()))
    row["agreement"] = round(100 * float((want.argmax(1) == got.argmax(1)).mean()), 1)
    return row


def counted(artifact: Path, device_name: str) -> int:
    """Instructions of one inference."""
    from edgecnn_targets.devices import device
    from edgecnn_targets.qemu import instructions
    from edgecnn_targets.registry import runtime_of

    return instructions(device(device_name), runtime_of(artifact), artifact, within_s=WITHIN_S)


def table(places: dict[str, Path]) -> str:
    """The README's table, of what there is so far."""
    from edgecnn.models import resolve
    from edgecnn.models.count import size_of

    lines = [
        "| | parameters, M | MACs, M | `.tflite` / `.onnx` / OpenVINO, MB | agreement | SQNR, dB | instructions, M |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, place in places.items():
        size, cells = size_of(resolve(name)), ["", "", "", ""]
        if place.exists():
            row = json.loads(place.read_text())
            count = row["images"]["test"]
            cells[0] = " / ".join(f"{row[f'{target}_bytes'] / 1e6:.2f}" for target in TARGETS)
            cells[1] = f"{round(row['agreement'] * count / 100)} of {count}"
            cells[2] = f"{row['difference_db']:.1f}"
            cells[3] = f"{row['instructions'] / 1e6:,.1f}" if "instructions" in row else ""
        lines.append(f"| {name} | {size.parameters / 1e6:.2f} | {size.macs / 1e6:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Rows, then counts, as far as they are not there yet, the smallest models first."""
    from edgecnn.files import write_json
    from edgecnn.models import FAMILIES, resolve
    from edgecnn.models.count import size_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="comma-separated; default: every family at its own size, plain networks apart")
    parser.add_argument("--device", help="count instructions there, a device of kind qemu")
    parser.add_argument("--out", type=Path, required=True, help="where rows and .tflite files are kept as they come")
    parser.add_argument("--table", action="store_true", help="measure nothing; print what the folder holds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.models.split(",") if options.models else [n for n in FAMILIES if not n.startswith("plain")]
    places = {name: options.out / f"{name}.json" for name in names}
    if not options.table:
        smallest_first = sorted(places, key=lambda name: size_of(resolve(name)).macs)
        for name in smallest_first:
            if not places[name].exists():
                write_json(places[name], measured(name, options.out))
                print(places[name].read_text(), file=sys.stderr, flush=True)
        for name in smallest_first if options.device else ():
            row = json.loads(places[name].read_text())
            if "instructions" not in row:
                row["instructions"] = counted(options.out / f"{name}.tflite", options.device)
                write_json(places[name], row)
                print(name, row["instructions"], file=sys.stderr, flush=True)
                (options.out / f"{name}.tflite").unlink()
    print(table(places))


if __name__ == "__main__":
    main()
