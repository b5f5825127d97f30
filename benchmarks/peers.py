"""Our int8 artifacts beside those of the runtimes' own quantizers, from the same weights and images.

ONNX Runtime's tool and NNCF start from our fp32 artifact, litert-torch from the weights. One thread. Latency is of the
kernels that an application gets, in turns; accuracy is of kernels whose sums are exact on every CPU, so that a machine
without VNNI says of accuracy what one with VNNI says. A peer that is not installed is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_tools import PEERS, missing
from timing import interleaved, ratio

import edgecnn
from edgecnn.data import open_images
from edgecnn.evaluation.references import float_logits
from edgecnn.preprocess import Preprocess
from edgecnn_targets.accuracy_meter import AccuracyMeter
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import logits
from edgecnn_targets.registry import open_session, runtime_of

LITERT = "litert-torch + ai-edge-quantizer"
TARGETS = ("tflite", "onnx", "openvino")
COMPARED = ("onnxruntime U8S8", "onnxruntime S8S8", "nncf mixed")  # of ``peer_tools``


def present() -> list[str]:
    """Return the peers whose packages are installed; say which are left out."""
    lacks = {peer: packages for peer, packages in missing().items() if peer in COMPARED}
    for peer, packages in lacks.items():
        print(
            f"{peer} was left out: {', '.join(packages)} not installed; pip install 'edgecnn[bench]'", file=sys.stderr
        )
    return [peer for peer in COMPARED if peer not in lacks]


def litert(python: str, options: argparse.Namespace, output: Path) -> None:
    """The peer's int8 .tflite, made by ``peer_litert.py`` in an environment of its own."""
    script = str(Path(__file__).with_name("peer_litert.py"))
    words = [python, script, options.weights, options.calibration, options.model, str(output)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")


def saved(network: edgecnn.Network, folder: Path) -> list[Path]:
    """Convert a network to every format of `--target all`; return the artifacts' paths."""
    made = [edgecnn.convert(network, target).save(folder) for target in TARGETS]
    return [artifact.path for artifact in made if artifact.path is not None]


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--peer", metavar="PYTHON", help=f"a python with {LITERT}")
    parser.add_argument("--recipes", default="fast", metavar="A,B", help="of ours; a set of artifacts of each")
    parser.add_argument("--no-latency", action="store_true", help="accuracy only")
    options = parser.parse_args()
    out, name = Path(tempfile.mkdtemp()), options.model
    result: dict[str, Any] = {"model": name, "ours_all_three_s": {}, "rows": {}}
    artifacts: dict[str, Path] = {}
    fed: dict[Path, Preprocess | None] = {}  # as our quantized networks are: their pixels may be integers already
    for recipe in options.recipes.split(","):
        start = time.perf_counter()
        network = edgecnn.load(name, weights=options.weights)
        int8 = edgecnn.quantize(network, options.calibration, recipe=recipe)
        for path in saved(int8, out / recipe):
            artifacts[f"edgecnn {recipe} {path.suffix[1:]}"] = path
            fed[path] = int8.preprocess
        result["ours_all_three_s"][recipe] = round(time.perf_counter() - start, 1)
    sources = {path.suffix[1:]: path for path in saved(network, out / "float")}
    preprocess, reference = network.preprocess, float_logits(network.graph)
    assert preprocess is not None

    def calibration() -> Iterator[NDArray[np.float32]]:
        images = open_images(options.calibration, demo_split="calibration", labelled=False, limit=300, shuffle=0)
        for pixels, _ in images.batches(preprocess, 1):
            yield preprocess.normalise(pixels)

    seconds: dict[str, float] = {}
    for peer in present():
        tool = PEERS[peer]
        artifacts[peer] = out / f"{peer.replace(' ', '_')}.{tool.suffix}"
        start = time.perf_counter()
        tool.quantize(sources[tool.source], artifacts[peer], calibration, tool.activations)
        seconds[peer] = round(time.perf_counter() - start, 1)
    if options.peer:
        artifacts[LITERT] = out / "peer.tflite"
        start = time.perf_counter()
        litert(options.peer, options, artifacts[LITERT])
        seconds[LITERT] = round(time.perf_counter() - start, 1)
    else:
        print(f"{LITERT} was left out: no --peer", file=sys.stderr)
    sessions = {key: open_session(device("host"), path) for key, path in artifacts.items()}
    turns = {} if options.no_latency else interleaved(sessions)
    for key, path in artifacts.items():
        images, own = open_images(options.data, demo_split="test", labelled=True), fed.get(path) or preprocess
        exact = open_session(device("host"), path, kernels=runtime_of(path).exact)
        meter = AccuracyMeter(network.graph.metadata.label_offset)
        for pixels, labels in images.batches(preprocess, 10):
            meter.update(logits(exact, own.normalise(pixels)), labels, reference(preprocess.normalise(pixels)))
        accuracy = meter.result()
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        result["rows"][key] = {
            "top1": round(accuracy.top1 or 0, 2),
            "fp32_top1": round(accuracy.fp32_top1 or 0, 2),
            "agreement": round(accuracy.agreement or 0, 2),
            "sqnr_db": round(accuracy.sqnr_db or 0, 1),
            "ms": round(float(np.median(turns[key])), 3) if turns else None,
            "findings": list(sessions[key].findings),
            "bytes": sum(file.stat().st_size for file in files),
            "quantize_s": seconds.get(key),
        }
    ours = f"edgecnn {options.recipes.split(',')[0]}"
    for suffix, peer in (("tflite", LITERT), ("onnx", "onnxruntime U8S8"), ("xml", "nncf mixed")):
        if peer in turns:
            result[f"{ours} {suffix} / {peer}"] = ratio(turns[f"{ours} {suffix}"], turns[peer])
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
