"""Limits of integer kernels: scales that they cannot work with are raised to ones that they can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import CHOSEN, WEIGHT_LIMIT
from edgecnn.graph.ir import Constant, Graph, QParams
from edgecnn.graph.ops import OPS
from edgecnn.quant.scales.qparams import activation_qparams, rescale

BIAS_LIMIT = {"int8": 2**30, "int16": 2**46}  # half of the 32 and 48 bits that sums of products have
ACCUMULATOR_REACH = 2.0**30  # output steps that a 48-bit sum may be away from zero: it is brought to int32 first
LEAST_PRODUCT = 2.0**-15  # multiplier of a product: below 2**-16 XNNPACK refuses it
FINEST_OPERAND = 1000.0  # times finer than its output that an add takes an operand
SMALLEST_MULTIPLIER = np.float32(2**-30)  # of a convolution: below 2**-32 XNNPACK refuses it


def raise_for_kernels(graph: Graph, chosen: dict[str, QParams]) -> None:
    """Raise scales of activations, in place, until integer kernels can work with them; only dead layers need it."""

    def raise_to(name: str, scale: float) -> bool:
        old = chosen[name]
        if np.float32(scale) <= old.scale[0]:
            return False
        rescale(chosen, old, scale)
        return True

    changed = True
    while changed:
        changed = False
        for node in graph:
            if node.spec.scale != "own" or node.op == "requantize":
                continue
            names, dtype = [i for i in node.inputs if i in chosen], chosen[node.output].dtype
            constants = [t.value for i in node.inputs[1:] if isinstance(t := graph.tensors[i], Constant)]
            weight = max((constant_scale(node.op, v, dtype) for v in constants[:1]), default=0.0)
            scales, output = kernel_scales(
                node.op, [float(chosen[i].scale[0]) for i in names], float(chosen[node.output].scale[0]), weight
            )
            for name, scale in ((node.output, output), *zip(names, scales, strict=True)):
                changed |= chosen[name] not in CHOSEN and raise_to(name, scale)
            if dtype == "int16" and node.weighted:
                changed |= raise_to(node.output, accumulator_scale(float(chosen[names[0]].scale[0]), *constants))


def kernel_scales(op: str, inputs: Sequence[float], output: float, weight: float) -> tuple[list[float], float]:
    """Return the scales of an op's inputs and output, raised where its integer kernels could not work with them.

    They can with those of any lively layer; a dead one (always zero) has a scale so small that fixed-point multipliers
    overflow: LiteRT's add stops the process, XNNPACK refuses the file.

    Args:
        op: of scale ``own``.
        inputs: of its activations.
        output: of its output.
        weight: largest scale of its weight, or the scale of its constant operand; 0 where it has none.

    Source: the limits in XNNPACK's ``subgraph`` definitions: convolutions and linear layers ``s_in s_w / s_out`` in
    [2**-32, 2**8), products [2**-16, 2**8), sums ``s_in / s_out`` in [2**-10, 2**8), others [2**-8, 2**7].
        Linear layers of OpenVINO are wrong above 2**6 or so.
    """
    raised = list(inputs)
    if OPS[op].weighted:
        return raised, max(output, raised[0] * weight / (50 if op == "fully_connected" else 200))
    if OPS[op].function:  # a table has no limits
        return raised, output
    if op == "batch_matmul":
        return raised, max(output, math.prod(raised) / 200)
    if op == "prelu":
        return raised, max(output, raised[0] * max(weight, 1.0) / 100)
    if op == "mul":
        first, second = (*raised, weight)[:2]
        output = max(output, first * second / 200)
        least = output * 2**-15 / max(first, second)
        return [max(s, least) for s in raised], output
    high, low = (200.0, FINEST_OPERAND) if op == "add" else (100.0, 200.0)
    output = max(output, max(*raised, weight) / high)
    return [max(s, output / low) for s in raised], output


def constant_scale(op: str, value: NDArray[np.float32], dtype: str = "int8") -> float:
    """Return the largest scale that a weight, or a constant operand, will get."""
    if OPS[op].weighted:
        return float(np.abs(value).max()) / WEIGHT_LIMIT
    return float(activation_qparams(float(value.min()), float(value.max()), dtype).scale[0])


def operand_qparams(op: str, value: NDArray[np.float32], made: QParams, *others: QParams) -> QParams:
    """Return the parameters of a constant operand, of its output's type: over its values, not too fine for its op.

    One number that is multiplied onto a much larger scale is a small integer, so that the multiplier is not below what
    kernels take. No smaller than needed: LiteRT's reference kernels round a product of small integers twice, coarsely.

    Args:
        value: of the constant.
        made: parameters of the output.
        others: of the op's activations.
    """
    size = float(np.abs(value).max())
    if op == "mul" and value.size == 1 and made.dtype == "int8" and others:
        most = size * float(others[0].scale[0]) / float(made.scale[0]) / LEAST_PRODUCT
        if 0 < most < 255:
            return QParams(
                scale=np.array([size / np.clip(np.floor(most), 1, 127)]), zero_point=np.array([0]), dtype="int8"
            )
    low, high = min(float(value.min()), 0.0), float(value.max())
    if op == "add" and made.dtype == "int8":
        high = max(high, low + 255 * float(made.scale[0]) / FINEST_OPERAND)
    return activation_qparams(low, high, made.dtype)


def accumulator_scale(input_scale: float, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> float:
    """Return the smallest output scale at which no 48-bit sum of a 16-bit layer leaves int32 on its way out."""
    products = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1) * 2**15 * input_scale
    return float((products + np.abs(bias)).max() / ACCUMULATOR_REACH)


def clamp_weight_scales(
    scales: NDArray[np.float32], source: QParams, made: QParams, bias: NDArray[Any]
) -> NDArray[np.float32]:
    """Return weight scales, raised where kernels could not hold them, or half of a sum's bits not the bias."""
    scales = np.maximum(scales, made.scale / source.scale * SMALLEST_MULTIPLIER)
    needed = np.abs(bias.astype(np.float64)) / (BIAS_LIMIT[source.dtype] * float(source.scale[0]))
    raised: NDArray[np.float32] = np.maximum(scales, needed if scales.size == bias.size else needed.max())
    return raised.astype(np.float32)
