"""Compute the fixed-point multipliers of each op: what LiteRT computes once, in ``Prepare``, from the scales.

The oracle's kernels and the C converter take them from here. Where LiteRT computes a multiplier in float32, so does
this: the last bit of it decides roundings. Names in docstrings are LiteRT's functions, or files under ``kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node, Quantized, QuantizedConstant
from edgecnn.graph.oracle import fixed_point as fp

LOW, HIGH = -128, 127
ADD_SHIFT, ADD_SHIFT_INT16 = 20, 15  # bits that add.cc gives its inputs below the point
Multiplier = tuple[fp.Integers, fp.Integers]
"""(multiplier, shift), as ``fixed_point.quantize_multiplier`` returns them."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One node to run: attributes, the tensors' descriptions, and the integers of its inputs."""

    attrs: Mapping[str, Any]
    inputs: list[Quantized]
    output: Quantized
    values: list[NDArray[Any]]

    def _tensor(self, k: int) -> Quantized:
        return self.output if k < 0 else self.inputs[k]

    def scale(self, k: int) -> np.float32:
        """Return the scale of input ``k``; of the output for -1."""
        return np.float32(self._tensor(k).quant.scale[0])

    def zero(self, k: int) -> int:
        """Return the zero point of input ``k``; of the output for -1."""
        return int(self._tensor(k).quant.zero_point[0])

    @property
    def dtype(self) -> str:
        """Return the type of the output."""
        return self.output.quant.dtype

    @property
    def wide(self) -> bool:
        """Whether the output is int16."""
        return self.dtype == "int16"

    @property
    def add_shift(self) -> int:
        """Return the bits that add.cc gives the inputs below the point."""
        return ADD_SHIFT_INT16 if self.wide else ADD_SHIFT

    def every(self, k: int) -> fp.Integers:
        """Return each integer that input ``k`` can hold, in order."""
        low, high = self.inputs[k].quant.limits
        return np.arange(low, high + 1, dtype=np.int64)

    def looked_up(self, table: NDArray[Any], k: int) -> NDArray[Any]:
        """Return the entries of a table, made for ``every(k)``, that the integers of input ``k`` point at."""
        return table[self.values[k].astype(np.int32) - self.inputs[k].quant.limits[0]]

    def limits(self, activation: str) -> tuple[int, int]:
        """Return the output integers that a fused activation lets through (``CalculateActivationRangeQuantized``)."""
        low, high = self.output.quant.limits
        if activation in ("relu", "relu6"):
            low = max(low, self.zero(-1))
        if activation == "relu6":
            high = min(high, self.zero(-1) + int(fp.round_away(np.float32(6) / self.scale(-1))))
        return low, high


def called(graph: Graph, node: Node) -> Call:
    """Return the node as the oracle's functions take it; constants have their integers."""
    inputs = [Quantized.of(graph.tensors[name]) for name in node.inputs]
    integers = [t.integers if isinstance(t, QuantizedConstant) else np.empty(0, np.int8) for t in inputs]
    return Call(attrs=node.attrs, inputs=inputs, output=Quantized.of(graph.tensors[node.output]), values=integers)


def weighted(c: Call) -> Multiplier:
    """Return those of conv2d and fully_connected, one per output channel (``PopulateConvolutionQuantizationParams``).

    A fully_connected whose weight has one scale goes LiteRT's per-tensor way, in float32
    (``GetQuantizedConvolutionMultipler``).
    """
    weight = c.inputs[1]
    if weight.quant.axis is None and len(weight.shape) == 2:
        weight_scale = np.broadcast_to(weight.quant.scale, weight.shape[:1])
        scale = (c.scale(0) * weight_scale).astype(np.float64)
        return fp.quantize_multiplier(scale / np.float64(c.scale(-1)))
    return fp.quantize_multiplier(real_weighted(c))


def real_weighted(c: Call) -> NDArray[np.float64]:
    """Return those of conv2d and fully_connected as real numbers, one per output channel."""
    weight = c.inputs[1]
    weight_scale = np.broadcast_to(weight.quant.scale, weight.shape[:1])
    product: NDArray[np.float64] = np.float64(c.scale(0)) * weight_scale.astype(np.float64)
    return product / np.float64(c.scale(-1))


def add(c: Call) -> tuple[Multiplier, Multiplier, Multiplier]:
    """Return those of the inputs, shifted left by ``add_shift``, to twice the larger scale; of the sum (add.cc)."""
    twice = 2 * np.float64(max(c.scale(0), c.scale(1)))
    first, second = (fp.quantize_multiplier(np.float64(c.scale(k)) / twice) for k in (0, 1))
    return first, second, fp.quantize_multiplier(twice / (2.0**c.add_shift * np.float64(c.scale(-1))))


def mul(c: Call) -> Multiplier:
    """Return that of the product of the centred integers (mul.cc)."""
    return fp.quantize_multiplier(np.float64(c.scale(0) * c.scale(1) / c.scale(-1)))


def batch_matmul(c: Call) -> Multiplier:
    """Return that of sums of products (batch_matmul.cc, ``GetQuantizedConvolutionMultipler``)."""
    return fp.quantize_multiplier(np.float64(c.scale(0) * c.scale(1)) / np.float64(c.scale(-1)))


def prelu(c: Call) -> tuple[Multiplier, Multiplier]:
    """Return that of the centred integers, and that of their products with a slope (activations.cc)."""
    products = c.scale(0) * c.scale(1) / c.scale(-1)
    return rescaling(c), fp.quantize_multiplier(np.float64(products))


def rescaling(c: Call) -> Multiplier:
    """Return that of the centred integers of the one input (activations.cc, ``QuantizedReluX``)."""
    return fp.quantize_multiplier(np.float64(c.scale(0) / c.scale(-1)))


def requantize(c: Call) -> Multiplier:
    """Return that of the centred integers of the one input (quantize.cc)."""
    return fp.quantize_multiplier(np.float64(c.scale(0)) / np.float64(c.scale(-1)))


def mean(c: Call) -> Multiplier:
    """Return that of sums: it takes 1 / count in, truncated, with as many bits as keep it in 31 (reduce.cc)."""
    _, height, width, _ = c.inputs[0].shape
    count = height * width
    multiplier, shift = requantize(c)
    bits = min(count.bit_length() - 1, 32, 31 + int(shift))
    return (multiplier << bits) // count, shift - bits


def softmax(c: Call) -> Multiplier:
    """Return that of a difference of integers, to Q5.26 (``PreprocessSoftmaxScaling``, beta 1)."""
    return fp.quantize_multiplier(min(np.float64(c.scale(0)) * 2.0**26, 2.0**31 - 1))
