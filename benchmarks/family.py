"""The whole family in one table: size, int8 bytes per target, int8 beside fp32 on random weights, instructions.

    python benchmarks/family.py --out FOLDER [--models A,B] [--device cortex-a72]

Nothing is trained: agreement says how often int8 picks the class that fp32 picks among logits that mean nothing, and
the SQNR says more. It is of what tells images apart: of the logits less their mean over the images. The recipe is
`fast`, on few images of the demo data, and what quantizes is the command `edgecnn export`. The smallest models come
first; rows lie in the folder, and are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
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

    import edgecnn
    from edgecnn.data import open_images
    from edgecnn.evaluation.references import fed_as, float_reference
    from edgecnn.graph.batch import Batch
    from edgecnn.models import resolve
    from edgecnn.models.count import size_of
    from edgecnn_targets.devices import device
    from edgecnn_targets.evaluate import logits
    from edgecnn_targets.registry import open_session

    size, made = size_of(resolve(name)), folder / f"{name}.export"
    used = {split: int(max(fewest, min(most, budget / size.macs))) for split, (budget, fewest, most) in IMAGES.items()}
    row: dict[str, Any] = {"model": name, "images": used, "parameters": size.parameters, "macs": size.macs}
    row |= _exported(name, used["calibration"], made)
    (entry, *_) = json.loads((made / "report.json").read_text())["entries"]
    row["seconds"] = entry["seconds"]
    given = edgecnn.load(name, weights="random")
    fed = edgecnn.load(made / f"{name}.edgecnn").preprocess
    assert fed is not None
    reference = fed_as(float_reference(given.graph), fed, given.preprocess)
    session = open_session(device("host"), made / f"{name}.tflite")
    found = open_images("demo", demo_split="test", labelled=False, limit=used["test"], shuffle=0)
    (source,) = given.graph.inputs

    def exact(x):
        (values,) = reference(Batch({source: x})).values()
        return values.reshape(len(x), -1)

    pairs = [(exact(x), logits(session, x)) for x in (fed.normalise(p) for p, _ in found.batches(fed, 1))]
    want, got = (np.concatenate(side) for side in zip(*pairs, strict=True))
    noise, mean = float(np.square(want - got).mean()), want.mean(0)
    row["sqnr_db"] = round(10 * float(np.log10(np.square(want).mean() / noise)), 1)
    row["difference_db"] = round(10 * float(np.log10(np.square(want - mean).mean() / noise)), 1)
    row["classes"] = len(set(want.argmax(1).tolist()))
    row["agreement"] = round(100 * float((want.argmax(1) == got.argmax(1)).mean()), 1)
    (made / f"{name}.tflite").replace(folder / f"{name}.tflite")
    shutil.rmtree(made)
    return row


def _exported(name: str, count: int, made: Path) -> dict[str, Any]:
    """`edgecnn export` to all targets in a process of its own: bytes of each, CPU seconds, and its peak of memory."""
    command = [sys.executable, "-m", "edgecnn", "export", name, "--target", "all", "--quantize", "int8"]
    command += ["--weights", "random", "--calibration", "demo", "--calibration-images", str(count), "-o", str(made)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    entries = json.loads((made / "report.json").read_text())["entries"]
    row = {f"{e['target']}_bytes": e["size_bytes"] for e in entries}
    cpu_s = round(usage.ru_utime + usage.ru_stime, 1)
    return {**row, "export_cpu_s": cpu_s, "export_peak_mib": round(usage.ru_maxrss / 1024)}


def counted(artifact: Path, device_name: str) -> int:
    """Instructions of one inference."""
    from edgecnn_targets.devices import device
    from edgecnn_targets.kinds.qemu import instructions
    from edgecnn_targets.registry import runtime_of

    return instructions(device(device_name), runtime_of(artifact), artifact, within_s=WITHIN_S)


def table(places: dict[str, Path]) -> str:
    """Return the table of docs/results.md, of what there is so far."""
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
    from edgecnn.models import families, resolve
    from edgecnn.models.count import size_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="comma-separated; default: every family at its own size, plain networks apart")
    parser.add_argument("--device", help="count instructions there, a device of kind qemu")
    parser.add_argument("--out", type=Path, required=True, help="where rows and .tflite files are kept as they come")
    parser.add_argument("--table", action="store_true", help="measure nothing; print what the folder holds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.models.split(",") if options.models else [n for n in families() if not n.startswith("plain")]
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
