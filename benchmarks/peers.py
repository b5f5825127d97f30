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
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import interleaved, ratio

from edgecnn.cli import main as edgecnn
from edgecnn.data import open_images
from edgecnn.evaluation.references import float_reference
from edgecnn.graph.serialize import load
from edgecnn.preprocess import Preprocess
from edgecnn_targets.accuracy_meter import AccuracyMeter
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import logits
from edgecnn_targets.registry import open_session, runtime_of

Images = Callable[[], Iterator[NDArray[np.float32]]]


def onnxruntime_static(source: Path, output: Path, images: Images, activations: str) -> None:
    """``quantize_static``: QDQ, per channel, min-max."""
    import onnx.version_converter
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ships no types
        def __init__(self) -> None:
            self.rest = images()

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"input": image.transpose(0, 3, 1, 2)}

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    model = onnx.load(prepared)
    if model.opset_import[0].version < PER_CHANNEL_OPSET:
        onnx.save(onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET), prepared)
    kind = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[activations]
    quantize_static(
        str(prepared), str(output), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=kind,
        weight_type=QuantType.QInt8,
    )  # fmt: skip


def nncf_mixed(source: Path, output: Path, images: Images, activations: str) -> None:
    """``nncf.quantize`` with the mixed preset."""
    import nncf
    import openvino

    model = openvino.Core().read_model(str(source))
    fed = [image.transpose(0, 3, 1, 2).copy() for image in images()]
    quantized = nncf.quantize(model, nncf.Dataset(fed), preset=nncf.QuantizationPreset.MIXED, subset_size=len(fed))
    openvino.save_model(quantized, str(output), compress_to_fp16=False)


LITERT = "litert-torch + ai-edge-quantizer"
PER_CHANNEL_OPSET = 13  # from which DequantizeLinear has an axis; our files are of the oldest opset that holds them
PEERS = {  # name: library, what it does, format, activations
    "onnxruntime U8S8": ("onnxruntime", onnxruntime_static, "onnx", "uint8"),
    "onnxruntime S8S8": ("onnxruntime", onnxruntime_static, "onnx", "int8"),
    "nncf mixed": ("nncf", nncf_mixed, "xml", ""),
}


def present() -> list[str]:
    """The peers whose library is installed; says which are left out."""
    missing = {peer: library for peer, (library, *_) in PEERS.items() if find_spec(library) is None}
    for peer, library in missing.items():
        print(f"{peer} was left out: {library} is not installed; pip install 'edgecnn[bench]'", file=sys.stderr)
    return [peer for peer in PEERS if peer not in missing]


def litert(python: str, options: argparse.Namespace, output: Path) -> None:
    """The peer's int8 .tflite, made by ``peer_litert.py`` in an environment of its own."""
    script = str(Path(__file__).with_name("peer_litert.py"))
    words = [python, script, options.weights, options.calibration, options.model, str(output)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")


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
    words = ["export", name, "--target", "all", "--weights", options.weights]
    result: dict[str, Any] = {"model": name, "ours_all_three_s": {}, "rows": {}}
    artifacts: dict[str, Path] = {}
    fed: dict[Path, Preprocess | None] = {}  # as our quantized networks are: their pixels may be integers already
    for recipe in options.recipes.split(","):
        start = time.perf_counter()
        edgecnn([*words, "--calibration", options.calibration, "--recipe", recipe, "-o", str(out / recipe)])
        result["ours_all_three_s"][recipe] = round(time.perf_counter() - start, 1)
        made = {f"edgecnn {recipe} {k}": out / recipe / f"{name}.{k}" for k in ("tflite", "onnx", "xml")}
        artifacts |= made
        fed |= dict.fromkeys(made.values(), load(out / recipe / f"{name}.edgecnn").metadata.preprocess)
    edgecnn([*words, "--quantize", "none", "-o", str(out / "float")])
    graph = load(out / "float" / f"{name}.edgecnn")
    preprocess, reference = graph.metadata.preprocess, float_reference(graph)
    assert preprocess is not None

    def calibration() -> Iterator[NDArray[np.float32]]:
        images = open_images(options.calibration, demo_split="calibration", labelled=False, limit=300, shuffle=0)
        for pixels, _ in images.batches(preprocess, 1):
            yield preprocess.normalise(pixels)

    seconds: dict[str, float] = {}
    for peer in present():
        _, quantize, suffix, activations = PEERS[peer]
        artifacts[peer] = out / f"{peer.replace(' ', '_')}.{suffix}"
        start = time.perf_counter()
        quantize(out / "float" / f"{name}.{suffix}", artifacts[peer], calibration, activations)
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
        meter = AccuracyMeter(graph.metadata.label_offset)
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
