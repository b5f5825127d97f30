"""`edgecnn export` beside litert-torch + ai-edge-quantizer: wall time, memory, size, accuracy, latency, as ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import interleaved, ratio

import edgecnn
from edgecnn.data import open_images
from edgecnn.evaluation.references import float_logits
from edgecnn_targets.accuracy_meter import AccuracyMeter
from edgecnn_targets.evaluate import logits
from edgecnn_targets.runtimes.litert import LiteRtSession


def cold(words: Sequence[str], repeats: int) -> dict[str, Any]:
    """Wall seconds (median, all) and peak memory of a command, each time a new process."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds.append(round(time.perf_counter() - start, 2))
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # of the largest child so far
    return {"median_s": float(np.median(seconds)), "all_s": seconds, "peak_gb": round(peak, 2)}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--peer", help="a python with litert-torch and ai-edge-quantizer")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    out = Path(tempfile.mkdtemp())
    ours = [sys.executable, "-m", "edgecnn", "export", options.model, "--target", "tflite", "--quantize", "int8"]
    ours += ["--weights", options.weights, "--calibration", options.calibration, "-o", str(out)]
    help_ = cold([sys.executable, "-m", "edgecnn", "--help"], 5)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "model": options.model,
        "help_s": help_["median_s"],
        "export": cold(ours, options.repeats),
    }
    artifacts = {"ours": out / f"{options.model}.tflite"}
    if options.peer:
        theirs = out / "peer.tflite"
        script = str(Path(__file__).with_name("peer_litert.py"))
        words = [options.peer, script, options.weights, options.calibration, options.model, str(theirs)]
        result["peer_export"] = cold(words, options.repeats)
        result["export_ratio"] = round(result["export"]["median_s"] / result["peer_export"]["median_s"], 3)
        artifacts["peer"] = theirs
        turns = interleaved({name: LiteRtSession(path) for name, path in artifacts.items()})
        result["latency_ms"] = {name: round(float(np.median(ms)), 3) for name, ms in turns.items()}
        result["latency_ratio"] = ratio(turns["ours"], turns["peer"])
    else:
        print("the peer was left out: no --peer", file=sys.stderr)
    result["size_bytes"] = {name: path.stat().st_size for name, path in artifacts.items()}
    network = edgecnn.load(out / f"{options.model}.edgecnn")
    preprocess, reference = network.preprocess, float_logits(network.graph)
    assert preprocess is not None
    for name, path in artifacts.items():
        images = open_images(options.data, demo_split="test", labelled=True)
        session, meter = LiteRtSession(path), AccuracyMeter(network.graph.metadata.label_offset)
        for pixels, labels in images.batches(preprocess, 10):
            fed = preprocess.normalise(pixels)
            meter.update(logits(session, fed), labels, reference(fed))
        result[name] = vars(meter.result())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
