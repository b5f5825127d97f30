"""The whole family in one table: size, int8 bytes per target, int8 beside fp32 on random weights, instructions.

    python benchmarks/family.py [--models A,B] [--images N] [--device cortex-a72] [--json FILE]

Weights are random: nothing is trained, so agreement says how often int8 picks the class that fp32 picks among logits
that mean nothing, and the SQNR of the logits says more. Images are of the demo data. A model at a time, in a process of
its own, whose peak of memory the JSON holds too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CALIBRATION = 32
TARGETS = ("tflite", "onnx", "openvino")


def measured(name: str, images: int, device_name: str | None) -> dict[str, Any]:
    """One model's row."""
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
    from edgecnn.quant.ptq import images_needed, quantize
    from edgecnn.recipe import DEFAULT, RECIPES
    from edgecnn_converters.registry import CONVERTERS
    from edgecnn_targets.devices import device
    from edgecnn_targets.evaluate import logits
    from edgecnn_targets.registry import measure, open_session

    spec, recipe = resolve(name), RECIPES[DEFAULT]
    start = time.process_time()
    module, source = random_weights(spec)
    graph = capture(module, (3, spec.resolution, spec.resolution), Metadata(model=name, preprocess=source.preprocess))
    row: dict[str, Any] = {"model": name, "resolution": spec.resolution, "cpu_s": round(time.process_time() - start, 1)}
    size = size_of(spec)
    row |= {"parameters": size.parameters, "macs": size.macs}
    del module

    def some(split: str, count: int) -> list[Any]:
        found = open_images("demo", demo_split=split, labelled=False, limit=count)
        return [source.preprocess.normalise(pixels) for pixels, _ in found.batches(source.preprocess, 4)]

    int8 = quantize(graph, calibrate(graph, some("calibration", CALIBRATION), keep=images_needed(recipe)), recipe)
    batches = some("test", images)
    run = TorchGraph(graph)
    want = np.concatenate([run(torch.from_numpy(batch)).numpy() for batch in batches])
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            converter = CONVERTERS[target]
            fp32 = converter.convert(graph, precision="fp32")
            row[f"{target}_fp32_bytes"] = sum(map(len, fp32.files.values()))
            del fp32
            emission = converter.convert(int8, precision="int8")
            row[f"{target}_bytes"] = sum(map(len, emission.files.values()))
            if target == "tflite":
                path = write_artifact(Path(folder), name, emission, int8.metadata, {})
        session = open_session(device("host"), path)
        got = np.concatenate([logits(session, batch) for batch in batches])
        if device_name:
            row["instructions"] = measure(
                device(device_name), open_session(device(device_name), path)
            ).latency.instructions
    noise = float(np.square(want - got).mean())
    row["sqnr_db"] = round(10 * float(np.log10(np.square(want).mean() / noise)), 1) if noise else None
    row["agreement"] = round(100 * float((want.argmax(1) == got.argmax(1)).mean()), 1)
    row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The README's table."""
    lines = [
        "| model | side | parameters | MACs | int8 .tflite / .onnx / OpenVINO, MB | agreement | SQNR | instructions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        sizes = " / ".join(f"{r[f'{t}_bytes'] / 1e6:.2f}" for t in TARGETS)
        counted = f"{r['instructions'] / 1e6:.1f} M" if r.get("instructions") else ""
        lines.append(
            f"| {r['model']} | {r['resolution']} | {r['parameters'] / 1e6:.2f} M | {r['macs'] / 1e6:,.0f} M | "
            f"{sizes} | "
            f"{r['agreement']:.0f} % | {r['sqnr_db']} dB | {counted} |"
        )
    return "\n".join(lines)


def main() -> None:
    """One process per model."""
    from edgecnn.models import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="comma-separated; default: every family at its own size")
    parser.add_argument("--images", type=int, default=16, help="of the demo data, default 16")
    parser.add_argument("--device", help="count instructions there, a device from `edgecnn devices`")
    parser.add_argument("--json", type=Path, help="where the rows are kept as they come")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(options.row, options.images, options.device)))
        return
    rows = []
    for name in options.models.split(",") if options.models else FAMILIES:
        words = [sys.executable, __file__, "--row", name, "--images", str(options.images)]
        words += ["--device", options.device] if options.device else []
        made = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(made.stdout))
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
