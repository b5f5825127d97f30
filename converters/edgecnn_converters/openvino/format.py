"""The facts of OpenVINO IR that reading and writing share: how an integer file holds a graph's tensors.

An activation is a FakeQuantize between the constants ``NAME/low`` and ``NAME/high``. A weight is ``NAME/q`` times
``NAME/scale``, behind a Convert; a bias has two factors instead, ``NAME/weight_scale`` and ``NAME/input_scale``. What
only moves integers, ``NAME/moved``, has the grid of its operands, so no FakeQuantize of its own.
Images are NCHW, weights (O, I, H, W), or (groups, O / groups, I, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized
from edgecnn.graph.rounding import REACH, past_halves
from edgecnn_converters.names import part, part_of

LEVELS = 256
LOW, HIGH, QUANTIZED, MOVED = "low", "high", "quantized", "moved"  # see ``names.part``
IN_ORDER = "_nhwc"  # ends the names of what makes an image with channels last
INTEGERS, SCALE, ZERO_POINT = "q", "scale", "zero_point"
WEIGHT_SCALE, INPUT_SCALE = "weight_scale", "input_scale"
SUMS, WITH_BIAS = "conv", "bias_add"
IDENTITY, WHOLE, SCALED, ROUNDED = UNSEEN = "identity", "whole", "scaled", "rounded"  # keep the plugin exact
UNIT = "unit"
ORDERED = "as"  # begins the name of a tensor with its dimensions in another order
WIDEST = 13  # pixels of a depthwise kernel: see ``limits``
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")  # the second input is a weight
LOST = 2.0**-22  # of a sum and its bias: scales and both are rounded a few times in float32
AWAY = 2.0**-21  # by that share a half is taken away from zero: more than float32 loses
MOST_PARTS = 2.0**12  # of a step: the furthest half, times that share, is half a part
SIDES = {-128: 1, 127: -1}  # zero points of grids on one side of zero: which way is away from it


def maker(name: str, what: str, order: tuple[int, ...] | None) -> str:
    """Return the name of the operation that makes an activation, QUANTIZED or MOVED, in an order of dimensions."""
    return part(name, what + IN_ORDER * (order == (0, 1, 2, 3)))


def made_by(name: str, what: str) -> str | None:
    """Return the activation that the operation of a name makes, or ``None``: the inverse of ``maker``."""
    owner, found = part_of(name)
    return owner if found in (what, what + IN_ORDER) else None


def parameters(low: float, high: float) -> QParams:
    """Return the parameters of a FakeQuantize from its ends, which ``layout.grid_ends`` gives.

    The ends are float32, so the scale may be one float32 step off.
    """
    scale = (high - low) / (LEVELS - 1)
    return QParams(scale=np.array([scale]), zero_point=np.array([round(-128 - low / scale)]), dtype="int8")


def in_steps(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a convolution of 8-bit integers whose row makes steps of its output's grid.

    Those make real values whose sums lie beyond halves, all in one direction from the zero point: see ``convolution``.
    """
    if node.op != "conv2d" or not is_narrow(graph, node):
        return False
    one_sided = graph.quant(node.output).zero_point[0] in SIDES
    return not one_sided or not past_halves(multipliers(graph, node)).all()


def multipliers(graph: Graph, node: Node) -> NDArray[np.float64]:
    """Return what the sums of a convolution are multiplied by to be steps of its output: one, or one per channel."""
    source, weight, made = (graph.quant(name) for name in (*node.inputs[:2], node.output))
    return np.asarray(weight.scale.astype(np.float64) * source.scale / made.scale)


def parts_of_a_step(graph: Graph, node: Node) -> float | None:
    """Return parts of an output's step, such that a sum next to a half is the half once it is rounded to one of them.

    No other sum may be. Parts are a power of two, so halves and parts are exact in float32.

    Returns:
        how many are a step; ``None`` where float32 loses too much of the sums, where they lie anywhere, and of a
        depthwise convolution, whose kernel with a multiplier per channel after the bias is the faster one.
    """
    a: Mapping[str, Any] = node.attrs
    factors, depthwise = multipliers(graph, node), graph.tensors[node.inputs[1]].shape[3] == 1 < a["groups"]
    if depthwise or not past_halves(factors).all():
        return None
    even = 2 * np.rint(0.5 / factors)
    bias = float(np.abs(graph.constant(node.inputs[2]).value).max(initial=0) / graph.quant(node.output).scale[0])
    off = REACH * float((factors * even - 1).max()) + LOST * (REACH + 2 * bias)
    least = float(factors.min())
    half_parts = 2.0 ** np.floor(np.log2(least)) / np.array([1, 2])  # a half of a part
    room = np.minimum(half_parts, least - half_parts)
    parts = float(0.5 / half_parts[room.argmax()])
    return parts if room.max() > off and parts <= MOST_PARTS else None


def is_narrow(graph: Graph, node: Node) -> bool:
    """Tell whether a node reads and makes activations of 8-bit integers, and no others."""
    tensors = [t for name in (*node.inputs, node.output) if not isinstance(t := graph.tensors[name], Constant)]
    return all(isinstance(t, Quantized) and t.quant.dtype == "int8" for t in tensors)


def stride_over(graph: Graph, node: Node, axis: int) -> int:
    """Return the stride over height (0) or width (1): 1 where the kernel covers all of it."""
    a: Mapping[str, Any] = node.attrs
    size, kernel = graph.tensors[node.inputs[0]].shape[1 + axis], graph.tensors[node.inputs[1]].shape[1 + axis]
    reach = a["dilation"][axis] * (kernel - 1) + 1
    covers = size + sum(a["padding"][2 * axis : 2 * axis + 2]) == reach
    return 1 if covers else int(a["stride"][axis])
