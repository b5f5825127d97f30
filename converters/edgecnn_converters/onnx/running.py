"""Run an imported ``.onnx`` file in ONNX Runtime, with what its nodes make, to compare a graph with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.importers import Values
from edgecnn.graph.ir import Graph, Quantized
from edgecnn_converters.layout import UINT8_OFFSET

Origin = Mapping[str, tuple[str, tuple[int, ...]]]  # graph tensor to (tensor of the file, its dimension for each of it)
MOST = 2**28  # elements of what nodes make; where there are more, only the outputs are fetched


def run(model: Any, graph: Graph, origin: Origin, values: Values) -> dict[str, NDArray[Any]]:
    """Return the values of graph tensors that the file makes of inputs, in the graph's order of dimensions.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        InputError: it does not run the file; says why.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("running ONNX needs onnxruntime: pip install 'edgecnn[onnx]'") from None
    from onnx import ModelProto, TensorProto, helper

    inside = {name for node in model.graph.node for name in node.output}
    size = sum(int(np.prod(graph.tensors[name].shape)) for name in origin)
    ends = [origin[name][0] for name in graph.outputs]
    everything = size <= MOST and graph.precision == "fp32"  # integer kernels make nothing between their ends
    wanted = [name for name, _ in origin.values() if name in inside] if everything else ends
    shown = ModelProto()
    shown.CopyFrom(model)
    there = {o.name for o in model.graph.output}
    extra = dict.fromkeys(n for n in wanted if n not in there)
    shown.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in extra)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    fed, takes = {}, {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    for name in graph.inputs:
        tensor, axes = origin[name]
        fed[tensor] = _fed(graph, name, np.ascontiguousarray(values[name].transpose(np.argsort(axes))), takes[tensor])
    try:
        session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        made = dict(zip(names, session.run(names, fed), strict=True))
    except runtime_errors() as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"ONNX Runtime does not run the file ({reason})") from None
    found = {name: values[name] for name in graph.inputs}
    for name, (tensor, axes) in origin.items():
        if tensor in made:
            found[name] = _placed(made[tensor], axes)
    return found


def _fed(graph: Graph, name: str, value: NDArray[Any], kind: int) -> NDArray[Any]:
    """Return a value of an input as the file takes it; of a quantized graph it is integers."""
    from onnx import TensorProto

    tensor = graph.tensors[name]
    if kind == TensorProto.UINT8:
        return (value.astype(np.int16) + UINT8_OFFSET).astype(np.uint8)
    if kind == TensorProto.FLOAT and isinstance(tensor, Quantized):
        return tensor.quant.dequantize(value)
    return value


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises, which has no base class of its own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (getattr(state, name) for name in dir(state))
    return (RuntimeError, ValueError, *(e for e in found if isinstance(e, type) and issubclass(e, Exception)))


def _placed(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return an array of the file in the order of the graph, which has a batch in front where the file has none."""
    if axes[0] == -1:
        return array.transpose(axes[1:])[None]
    return array.transpose(axes)
