"""Schemes: from ranges to quantization parameters, by the numerics contract.

Source: LiteRT 8-bit quantization specification; Jacob et al. 2018, section 3; Krishnamoorthi 2018, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import BIAS_OF, WEIGHT_LIMIT, WEIGHTED
from edgecnn.graph.ir import Graph, Node, QParams, Tensor
from edgecnn.graph.ops import OPS

BIAS_LIMIT = {"int8": 2**30, "int16": 2**46}  # half of the 32 and 48 bits that sums of products have
ACCUMULATOR_REACH = 2.0**30  # output steps that a 48-bit sum may be away from zero: it is brought to int32 first
SMALLEST_MULTIPLIER = np.float32(2**-30)  # of a convolution: below 2**-32 XNNPACK refuses it
SMALLEST = np.float32(1e-8)  # scale of an activation: a finer grid is of no use, and kernels overflow


def activation_types(graph: Graph, first: str) -> dict[str, str]:
    """The integer type of every activation: the input's is ``first``, and only a requantize changes it."""
    types = dict.fromkeys(graph.inputs, first)
    for node in graph:
        types[node.output] = str(node.attrs.get("to")) if node.op == "requantize" else _read_type(node, types)
    return types


def _read_type(node: Node, types: dict[str, str]) -> str:
    return next(types[i] for i in node.inputs if i in types)


def scale_groups(graph: Graph) -> list[set[str]]:
    """Activations that must share their parameters: what ops of scale ``same`` read and make."""
    groups = {t.name: {t.name} for t in graph.activations()}
    for node in graph:
        if OPS[node.op].scale == "same":
            merged = set().union(*(groups[n] for n in (*node.inputs, node.output) if n in groups))
            groups.update(dict.fromkeys(merged, merged))
    return list({id(g): g for g in groups.values()}.values())


def activation_qparams(low: float, high: float, dtype: str = "int8") -> QParams:
    """Per tensor over [low, high] widened to hold 0, which is exactly an integer: int8 affine, int16 symmetric.

    The scale is at least ``SMALLEST``, also where the tensor is always zero.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if dtype == "int16":
        scale = max(np.float32(max(-low, high) / 32767), SMALLEST)
        return QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype=dtype)
    scale = max(np.float32((high - low) / 255), SMALLEST)
    zero_point = int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))
    return QParams(scale=np.array([scale]), zero_point=np.array([zero_point]), dtype=dtype)


def kernel_scales(op: str, inputs: Sequence[float], output: float, weight: float) -> tuple[list[float], float]:
    """Scales of an op's inputs and output, raised where its integer kernels could not work with them.

    They can with those of any lively layer; a dead one (always zero) has a scale so small that fixed-point multipliers
    overflow: LiteRT's add stops the process, XNNPACK refuses the file.

    Args:
        op: of scale ``own``.
        inputs: of its activations.
        output: of its output.
        weight: largest scale of its weight, or the scale of its constant operand; 0 where it has none.

    Source: the limits in XNNPACK's ``subgraph`` definitions: convolutions and linear layers ``s_in s_w / s_out`` in
    [2**-32, 2**8), products [2**-16, 2**8), sums ``s_in / s_out`` in [2**-10, 2**8), others [2**-8, 2**7].
    """
    raised = list(inputs)
    if op in WEIGHTED:
        return raised, max(output, raised[0] * weight / 200)
    if op == "mul":
        first, second = (*raised, weight)[:2]
        output = max(output, first * second / 200)
        least = output * 2**-15 / max(first, second)
        return [max(s, least) for s in raised], output
    high, low = (200.0, 1000.0) if op == "add" else (100.0, 200.0)
    output = max(output, max(*raised, weight) / high)
    return [max(s, output / low) for s in raised], output


def constant_scale(op: str, value: NDArray[np.float32], dtype: str = "int8") -> float:
    """The largest scale that a weight, or a constant operand, will get."""
    if op in WEIGHTED:
        return float(np.abs(value).max()) / WEIGHT_LIMIT
    return float(activation_qparams(float(value.min()), float(value.max()), dtype).scale[0])


def accumulator_scale(input_scale: float, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> float:
    """The smallest output scale at which no 48-bit sum of a 16-bit layer leaves int32 on its way to the output."""
    products = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1) * 2**15 * input_scale
    return float((products + np.abs(bias)).max() / ACCUMULATOR_REACH)


def rescaled(quant: QParams, scale: float) -> QParams:
    """The same lower end on a coarser grid."""
    if quant.dtype == "int16":
        return QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype=quant.dtype)
    low = (-128 - int(quant.zero_point[0])) * float(quant.scale[0])
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return QParams(scale=np.array([scale]), zero_point=np.array([zero_point]), dtype=quant.dtype)


def weight_scales(
    weight: NDArray[np.float32], method: str, limit: int = WEIGHT_LIMIT, *, per_tensor: bool = False
) -> NDArray[np.float32]:
    """One scale per output channel (axis 0), or one: largest magnitude over ``limit``, or that of least squared error.

    ``mse`` tries clipping at 60 to 100 % of the largest magnitude. A channel of zeros gets the others' largest scale.
    """
    flat = weight.reshape(1 if per_tensor else weight.shape[0], -1)
    peak = np.abs(flat).max(axis=1)
    scale = peak / limit
    scale = np.where(scale > 0, scale, scale.max() if scale.max() > 0 else SMALLEST).astype(np.float32)
    if method == "minmax":
        return scale
    return least_error(flat, np.multiply.outer(np.linspace(1.0, 0.6, 41, dtype=np.float32), scale), limit)


def least_error(
    weight: NDArray[np.float32], trials: NDArray[np.float32], limit: int = WEIGHT_LIMIT
) -> NDArray[np.float32]:
    """Of several scales for each channel the one that leaves the least squared error; the first of equals.

    Args:
        weight: (channels, ...).
        trials: (trials, channels), or (trials, 1) for one scale per tensor.
        limit: the largest integer.
    """
    flat = weight.reshape(trials.shape[1], -1)
    best: NDArray[np.float32] = trials[0].copy()
    best_error, apart = np.full(len(flat), np.inf), np.empty_like(flat)
    for trial in trials:
        np.divide(flat, trial[:, None], out=apart)
        np.rint(apart, out=apart)
        np.clip(apart, -limit, limit, out=apart)
        apart *= trial[:, None]
        apart -= flat
        error = np.square(apart, out=apart).sum(axis=1)
        better = error < best_error
        best[better], best_error[better] = trial[better], error[better]
    return best


def quantize_weight(tensor: Tensor, scales: NDArray[np.float32], limit: int = WEIGHT_LIMIT) -> Tensor:
    """The tensor with int8 integers, nearest, symmetric, in [-limit, limit], at one scale per output channel or one."""
    assert tensor.value is not None
    quant = QParams(scale=scales, zero_point=np.zeros(len(scales), np.int64), dtype="int8", axis=0)
    wide = tensor.value.astype(np.float64) / scales.astype(np.float64).reshape(-1, *[1] * (tensor.value.ndim - 1))
    integers = np.clip(np.rint(wide), -limit, limit).astype(np.int8)
    return Tensor(name=tensor.name, shape=tensor.shape, value=tensor.value, quant=quant, integers=integers)


def bias_scales(input_scale: NDArray[np.float32], weight_scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """``s_in * s_w``, rounded once to float32, as LiteRT checks it."""
    product: NDArray[np.float32] = (np.float64(input_scale[0]) * weight_scales.astype(np.float64)).astype(np.float32)
    return product


def quantize_bias(tensor: Tensor, scales: NDArray[np.float32], corrected: NDArray[Any], dtype: str = "int32") -> Tensor:
    """The tensor with integers of the corrected bias; its float value stays what it was."""
    quant = QParams(scale=scales, zero_point=np.zeros(len(scales), np.int64), dtype=dtype, axis=0)
    integers = np.rint(corrected.astype(np.float64) / scales.astype(np.float64)).astype(np.int64)
    return Tensor(
        name=tensor.name, shape=tensor.shape, value=tensor.value, quant=quant, integers=integers.astype(dtype)
    )


def bias_type(source: QParams) -> str:
    """The integer type of the bias of a layer that reads ``source``."""
    return BIAS_OF[source.dtype]


def bearable(scales: NDArray[np.float32], source: QParams, made: QParams, bias: NDArray[Any]) -> NDArray[np.float32]:
    """Weight scales, made larger where integer kernels or the bias's type could not bear them."""
    return widened_for_bias(np.maximum(scales, made.scale / source.scale * SMALLEST_MULTIPLIER), source, bias)


def widened_for_bias(scales: NDArray[np.float32], source: QParams, bias: NDArray[Any]) -> NDArray[np.float32]:
    """Weight scales, made larger where the bias would not fit in half of the sum's bits at ``s_in * s_w``."""
    needed = np.abs(bias.astype(np.float64)) / (BIAS_LIMIT[source.dtype] * float(source.scale[0]))
    needed = needed if scales.size == bias.size else needed.max()
    widened: NDArray[np.float32] = np.maximum(scales, needed).astype(np.float32)
    return widened
