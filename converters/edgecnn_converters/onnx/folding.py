"""Evaluate nodes of a ``.onnx`` file whose inputs are all known, with ONNX's own reference implementation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.budget import budget
from edgecnn.errors import InputError
from edgecnn.graph.ops import need
from edgecnn_converters.onnx.model_file import Call
from edgecnn_converters.onnx.running import runtime_errors

CHANCE = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
FAULTS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
"""What the reference implementation raises for a node that cannot be computed."""


def evaluate(call: Call, known: Mapping[str, NDArray[Any]], opset: int) -> list[NDArray[Any]]:
    """Return the outputs of a node of ONNX's own ops from its inputs.

    Raises:
        InputError: it cannot be computed, is random, or is too large.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    if call.op == "Constant" and "value" in call.attrs:
        return [numpy_helper.to_array(call.attrs["value"])]
    need(call.op not in CHANCE, "a random number, which is another one each time")
    inputs = {name: np.asarray(known[name]) for name in call.inputs if name}
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in inputs.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in call.outputs if name]
    graph = helper.make_graph([call.proto], "folded", infos, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    _bound(model, inputs)
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, inputs)]
    except FAULTS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    made = _by_runtime(model, inputs)  # the reference lacks some versions of ops
    if made is None:
        raise InputError(f"its constant value cannot be computed ({reason})")
    return made


def _by_runtime(model: Any, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]] | None:
    """Return what ONNX Runtime computes, or ``None`` where it is not installed or cannot."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(array) for array in session.run(None, dict(inputs))]
    except runtime_errors():
        return None


def _bound(model: Any, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Check the size of what is to be made, by shape inference, before it is made."""
    import onnx
    from onnx import numpy_helper

    small = [numpy_helper.from_array(v, n) for n, v in inputs.items() if v.size <= 64]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.initializer.extend(small)
    try:
        found = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return  # the evaluation says what is wrong
    for info in found.graph.output:
        size = math.prod(float(d.dim_value or 1) for d in info.type.tensor_type.shape.dim)
        allowed = max(budget().elements // 4, sum(value.size for value in inputs.values()))
        need(size <= allowed, f"a constant of {size:.3g} elements; at most {allowed} are computed at import")
