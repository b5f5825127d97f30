"""What a runtime computes inside: the activations of an int8 artifact of ours, by graph tensor name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown

Grids = Mapping[str, tuple[float, int]]
Reals = dict[str, NDArray[np.float32]]


def activations(
    target: str,
    path: Path,
    image: NDArray[np.float32],
    grids: Grids,
    *,
    kernels: str | None = None,
) -> Reals:
    """Real values, NHWC or NC, of the activations in ``grids``.

    Asking for them keeps a runtime from fusing across them, so a fused pair of ops is seen one by one here.

    Args:
        target: the format.
        path: its main file, int8 with the type of input and output that the format has unless chosen.
        image: one preprocessed image, (1, H, W, C) float32.
        grids: scale and int8 zero point of each activation wanted.
        kernels: as for ``registry.open_session``.

    Raises:
        InputError: the format is not known, or the file has none of them.
    """
    if target not in READERS:
        raise InputError(unknown("target", target, READERS))
    found: Reals = READERS[target](path, image, grids, kernels)
    if not found:
        raise InputError(
            f"{path} holds none of the other's tensors by name; only artifacts of one export have layers in common"
        )
    return found


def _tflite(path: Path, image: NDArray[np.float32], grids: Grids, kernels: str | None) -> Reals:
    from edgecnn_targets.litert import interpreter, open_session

    port = open_session(path, kernels=kernels).input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it costs memory
        opened = interpreter(path, 1, kernels or "xnnpack", keep=True)
    feed = opened.get_input_details()[0]["index"]
    opened.set_tensor(feed, port.encode(image))
    opened.invoke()
    places = {detail["name"]: detail["index"] for detail in opened.get_tensor_details()}
    made = {name: opened.get_tensor(places[name]) for name in grids if name in places}
    return {name: _real(values, grids[name]) for name, values in made.items()}


def _onnx(path: Path, image: NDArray[np.float32], grids: Grids, kernels: str | None) -> Reals:
    import onnx

    from edgecnn_targets.onnxruntime import open_session, session_options
    from edgecnn_targets.runner import OnnxRuntime

    port = open_session(path, kernels=kernels).input
    model = onnx.load(str(path))
    kept = {o.name for o in model.graph.output}
    made = {n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    zeros = {i.name: i.data_type for i in model.graph.initializer}
    wanted = {name: f"{name}/q" for name in grids if f"{name}/q" in made}
    for inner in wanted.values():
        if inner not in kept:
            node = next(n for n in model.graph.node if n.output[0] == inner)
            model.graph.output.append(onnx.helper.make_tensor_value_info(inner, zeros[node.input[2]], None))
    options = session_options(1, kernels or "fast")
    library = OnnxRuntime.library()
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = session.run(list(wanted.values()), {port.name: port.encode(image)})
    shift = [128 if v.dtype == np.uint8 else 0 for v in values]
    signed = [v.astype(np.int16) - s for v, s in zip(values, shift, strict=True)]
    return {name: _nhwc(_real(v, grids[name])) for name, v in zip(wanted, signed, strict=True)}


def _openvino(path: Path, image: NDArray[np.float32], grids: Grids, kernels: str | None) -> Reals:
    import openvino

    from edgecnn_targets.openvino import settings

    model = openvino.Core().read_model(str(path))
    ops = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    wanted = {name: ops[f"{name}/quantized"] for name in grids if f"{name}/quantized" in ops}
    (result,) = model.get_results()
    last = result.input_value(0).get_node().get_friendly_name()
    wanted = {name: op for name, op in wanted.items() if op.get_friendly_name() != last}
    count = len(model.outputs)
    model.add_outputs([op.output(0) for op in wanted.values()])
    compiled = openvino.Core().compile_model(model, "CPU", settings(1, kernels or "fast"))
    results = compiled([np.ascontiguousarray(image.transpose(0, 3, 1, 2))])
    return {name: _nhwc(results[count + k]) for k, name in enumerate(wanted)}


def _real(integers: NDArray[Any], grid: tuple[float, int]) -> NDArray[np.float32]:
    real: NDArray[np.float32] = ((integers.astype(np.float32) - grid[1]) * np.float32(grid[0])).astype(np.float32)
    return real


def _nhwc(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


READERS = {"tflite": _tflite, "onnx": _onnx, "openvino": _openvino}
