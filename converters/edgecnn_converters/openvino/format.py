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

from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized
from edgecnn.graph.rounding import past_halves
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


def is_whole(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a convolution of 8-bit integers whose sums are whole numbers in the file.

    Those are not that lie beyond halves, all in one direction from the zero point: see ``convolution``.
    """
    if node.op != "conv2d" or not is_narrow(graph, node):
        return False
    source, weight, made = (graph.quant(name) for name in (*node.inputs[:2], node.output))
    multipliers = weight.scale.astype(np.float64) * source.scale / made.scale
    return made.zero_point[0] not in SIDES or not past_halves(multipliers).all()


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
