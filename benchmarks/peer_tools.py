"""The runtimes' own quantizers, and the runtimes: imports neither edgecnn nor torch, so that any Python can run it.

    python benchmarks/peer_tools.py                          # JSON: the peers installed here, with their versions
    python benchmarks/peer_tools.py PEER FOLDER OUTPUT.npy   # quantizes FOLDER's network; logits of its judging images

FOLDER is as `zoo.py` prepares it: `float.onnx`, `float.tflite`, `images.npz` (uint8 NHWC) and `network.json` with mean
and std. Each peer calibrates on the first 300 images. All run in one thread.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Images = Callable[[], Iterator[Floats]]  # network inputs, (1, H, W, C)
CALIBRATION_IMAGES = 300
PER_CHANNEL_OPSET = 13  # from which DequantizeLinear has an axis; our files are of the oldest opset that holds them


def onnxruntime_static(
    source: Path, output: Path, images: Images, activations: str, *, per_channel: bool = True
) -> None:
    """Quantize by ``quantize_static``: QDQ, min-max."""
    import onnx.version_converter
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ships no types
        def __init__(self) -> None:
            self.rest = images()

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {name: image.transpose(0, 3, 1, 2)}

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    model = onnx.load(prepared)
    name = model.graph.input[0].name
    if model.opset_import[0].version < PER_CHANNEL_OPSET:
        onnx.save(onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET), prepared)
    kind = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[activations]
    quantize_static(
        str(prepared), str(output), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=kind, weight_type=QuantType.QInt8,
    )  # fmt: skip


def nncf_mixed(source: Path, output: Path, images: Images, activations: str) -> None:
    """Quantize by ``nncf.quantize`` with the mixed preset."""
    import nncf
    import openvino

    model = openvino.Core().read_model(str(source))
    fed = [image.transpose(0, 3, 1, 2).copy() for image in images()]
    quantized = nncf.quantize(model, nncf.Dataset(fed), preset=nncf.QuantizationPreset.MIXED, subset_size=len(fed))
    openvino.save_model(quantized, str(output), compress_to_fp16=False)


def ai_edge_static(source: Path, output: Path, images: Images, activations: str) -> None:
    """Quantize by ai-edge-quantizer's recipe of static int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(str(source))
    worker.load_quantization_recipe(recipe.static_wi8_ai8())
    name = _interpreter(source).get_signature_list()["serving_default"]["inputs"][0]
    result = worker.calibrate({"serving_default": [{name: image} for image in images()]})
    worker.quantize(result).export_model(str(output), overwrite=True)


def run_onnxruntime(path: Path, images: Images) -> Floats:
    """Return the logits in ONNX Runtime, (N, classes)."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), settings)
    name = session.get_inputs()[0].name
    return _stacked(session.run(None, {name: image.transpose(0, 3, 1, 2)})[0] for image in images())


def run_openvino(path: Path, images: Images) -> Floats:
    """Return the logits in OpenVINO, (N, classes)."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    fed = (np.ascontiguousarray(image.transpose(0, 3, 1, 2)) for image in images())
    return _stacked(next(iter(request.infer({0: image}).values())).copy() for image in fed)


def run_litert(path: Path, images: Images) -> Floats:
    """Return the logits in LiteRT, (N, classes)."""
    model = _interpreter(path)
    model.allocate_tensors()
    (taken,), (given,) = model.get_input_details(), model.get_output_details()

    def run(image: Floats) -> Floats:
        fed: NDArray[Any] = image
        if taken["dtype"] != np.float32:
            (scale, zero), limits = taken["quantization"], np.iinfo(taken["dtype"])
            fed = np.clip(np.rint(image / np.float32(scale)) + zero, limits.min, limits.max).astype(taken["dtype"])
        model.set_tensor(taken["index"], fed)
        model.invoke()
        raw = model.get_tensor(given["index"]).copy()
        if raw.dtype == np.float32:
            return raw
        scale, zero = given["quantization"]
        return (raw.astype(np.float32) - np.float32(zero)) * np.float32(scale)

    return _stacked(run(image) for image in images())


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path), num_threads=1)


def _stacked(outputs: Iterator[Floats]) -> Floats:
    return np.concatenate([output.reshape(1, -1) for output in outputs])


def normalised(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Images:
    """Return network inputs of levels (N, H, W, C), one at a time."""
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return lambda: ((pixels[k : k + 1].astype(np.float32) - shift) / scale for k in range(len(pixels)))


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A quantizer with the runtime of what it makes.

    Attributes:
        packages: from PyPI.
        quantize: takes source, output, calibration images and the type of activations.
        run: takes the artifact and images; returns logits, (N, classes).
        source: suffix of the float artifact that it starts from.
        suffix: of what it makes.
        activations: the type, where the quantizer asks.
    """

    packages: tuple[str, ...]
    quantize: Callable[[Path, Path, Images, str], None]
    run: Callable[[Path, Images], Floats]
    source: str
    suffix: str
    activations: str = ""


_ORT = Peer(packages=("onnxruntime",), quantize=onnxruntime_static, run=run_onnxruntime, source="onnx", suffix="onnx")
PEERS = {
    "onnxruntime U8S8": replace(_ORT, activations="uint8"),
    "onnxruntime S8S8": replace(_ORT, activations="int8"),
    "onnxruntime defaults": replace(
        _ORT, activations="int8", quantize=partial(onnxruntime_static, per_channel=False)
    ),
    "nncf mixed": Peer(
        packages=("nncf", "openvino"), quantize=nncf_mixed, run=run_openvino, source="onnx", suffix="xml"
    ),
    "ai-edge-quantizer": Peer(
        packages=("ai-edge-quantizer", "ai-edge-litert"), quantize=ai_edge_static, run=run_litert, source="tflite",
        suffix="tflite",
    ),
}  # fmt: skip


def installed() -> dict[str, dict[str, str]]:
    """Return the peers whose packages are here, with the packages' versions."""
    return {name: versions for name, peer in PEERS.items() if None not in (versions := _versions(peer)).values()}


def missing() -> dict[str, list[str]]:
    """Return the peers of which packages are missing, with these packages."""
    lacks = {name: [package for package, found in _versions(peer).items() if not found] for name, peer in PEERS.items()}
    return {name: packages for name, packages in lacks.items() if packages}


def _versions(peer: Peer) -> dict[str, str | None]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: of(package) for package in peer.packages}


def main() -> None:
    """Say what is installed, or quantize and run one network."""
    if len(sys.argv) == 1:
        print(json.dumps(installed()))
        return
    peer, folder, output = PEERS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    fed, images = json.loads((folder / "network.json").read_text()), np.load(folder / "images.npz")
    calibration = normalised(images["x_cal"][:CALIBRATION_IMAGES], fed["mean"], fed["std"])
    with tempfile.TemporaryDirectory() as made:
        artifact = Path(made) / f"peer.{peer.suffix}"
        peer.quantize(folder / f"float.{peer.source}", artifact, calibration, peer.activations)
        np.save(output, peer.run(artifact, normalised(images["x_val"], fed["mean"], fed["std"])))


if __name__ == "__main__":
    main()
