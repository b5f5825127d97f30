"""Quantization parameters from ranges, and the integers of weights and biases, by the numerics contract.

Source: LiteRT 8-bit quantization specification; Jacob et al. 2018, section 3; Krishnamoorthi 2018, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import WEIGHT_LIMIT
from edgecnn.graph.ir import Constant, Graph, QParams, Quantized, QuantizedConstant

SMALLEST = np.float32(3e-8)  # scale of an activation: a finer grid is of no use, and kernels overflow


def scale_groups(graph: Graph) -> list[set[str]]:
    """Return the activations that must share their parameters: what ops of scale ``same`` read and make."""
    groups = {t.name: {t.name} for t in graph.activations()}
    for node in graph:
        if node.spec.scale == "same":
            merged = set().union(*(groups[n] for n in (*node.inputs, node.output) if n in groups))
            groups.update(dict.fromkeys(merged, merged))
    return list({id(g): g for g in groups.values()}.values())


def groups_inside(graph: Graph) -> list[set[str]]:
    """Return the ``scale_groups`` without those of the network's input and output, whose types stay what they are."""
    return [group for group in scale_groups(graph) if not group & {*graph.inputs, *graph.outputs}]


def parameters_of(graph: Graph) -> dict[str, QParams]:
    """Return the parameters of every activation; those that must share them are one object."""
    chosen: dict[str, QParams] = {}
    for group in scale_groups(graph):
        chosen.update(dict.fromkeys(group, graph.quant(min(group))))
    return chosen


def with_parameters(graph: Graph, chosen: Mapping[str, QParams]) -> Graph:
    """Return the graph with the parameters of its activations."""
    made = (Quantized(name=name, shape=graph.tensors[name].shape, quant=quant) for name, quant in chosen.items())
    return graph.with_tensors(*made)


def activation_qparams(low: float, high: float, dtype: str = "int8") -> QParams:
    """Return per-tensor parameters over [low, high] widened to hold 0: int8 affine, int16 symmetric.

    The scale is at least ``SMALLEST``, also where the tensor is always zero.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if dtype == "int16":
        scale = max(np.float32(max(-low, high) / 32767), SMALLEST)
        return QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype=dtype)
    scale = max(np.float32((high - low) / 255), SMALLEST)
    zero_point = int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))
    return QParams(scale=np.array([scale]), zero_point=np.array([zero_point]), dtype=dtype)


def rescaled(quant: QParams, scale: float) -> QParams:
    """Return parameters with the same lower end and another scale."""
    if quant.dtype == "int16":
        return QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype=quant.dtype)
    low = (-128 - int(quant.zero_point[0])) * float(quant.scale[0])
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return QParams(scale=np.array([scale]), zero_point=np.array([zero_point]), dtype=quant.dtype)


def rescale(chosen: dict[str, QParams], quant: QParams, scale: float) -> None:
    """Give all activations with some parameters another scale, in place; lower ends stay."""
    if np.float32(scale) != quant.scale[0]:
        chosen.update(dict.fromkeys([name for name in chosen if chosen[name] is quant], rescaled(quant, scale)))


def weight_scales(
    weight: NDArray[np.float32], method: str, limit: int = WEIGHT_LIMIT, *, per_tensor: bool = False
) -> NDArray[np.float32]:
    """Return one scale per output channel (axis 0), or one: of the largest magnitude, or of least squared error.

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
    """Return, of several scales for each channel, the one of least squared error; the first of equals.

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


def quantize_weight(tensor: Constant, scales: NDArray[np.float32], limit: int = WEIGHT_LIMIT) -> QuantizedConstant:
    """Return the tensor with int8 integers, nearest, symmetric, in [-limit, limit]; one scale per channel or one."""
    quant = QParams(scale=scales, zero_point=np.zeros(len(scales), np.int64), dtype="int8", axis=0)
    wide = tensor.value.astype(np.float64) / scales.astype(np.float64).reshape(-1, *[1] * (len(tensor.shape) - 1))
    return tensor.quantized(quant, np.clip(np.rint(wide), -limit, limit).astype(np.int8))


def bias_scales(input_scale: NDArray[np.float32], weight_scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``s_in * s_w``, rounded once to float32, as LiteRT checks it."""
    return (np.float64(input_scale[0]) * weight_scales.astype(np.float64)).astype(np.float32)


def quantize_bias(
    tensor: Constant, scales: NDArray[np.float32], corrected: NDArray[Any], dtype: str = "int32"
) -> QuantizedConstant:
    """Return the tensor with integers of the corrected bias; its float value stays what it was."""
    quant = QParams(scale=scales, zero_point=np.zeros(len(scales), np.int64), dtype=dtype, axis=0)
    integers = np.rint(corrected.astype(np.float64) / scales.astype(np.float64)).astype(np.int64)
    return tensor.quantized(quant, integers.astype(dtype))
