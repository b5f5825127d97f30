"""The facts of OpenVINO IR that reading and writing share: how an integer file holds a graph's tensors.

An activation is a FakeQuantize between the constants ``NAME/low`` and ``NAME/high``. A weight is ``NAME/q`` times
``NAME/scale``, behind a Convert; a bias has two factors instead, ``NAME/weight_scale`` and ``NAME/input_scale``. A
concatenation, ``NAME/joined``, has the grid of its operands, so no FakeQuantize of its own.
Images are NCHW, weights (O, I, H, W), or (groups, O / groups, I, H, W).
"""

from __future__ import annotations

import numpy as np

from edgecnn.graph.ir import Graph, Node, QParams, Quantized

LEVELS = 256
LOW, HIGH, QUANTIZED, JOINED = "low", "high", "quantized", "joined"  # see ``names.part``
INTEGERS, SCALE, ZERO_POINT = "q", "scale", "zero_point"
WEIGHT_SCALE, INPUT_SCALE = "weight_scale", "input_scale"
SUMS, WITH_BIAS = "conv", "bias_add"
IDENTITY, WHOLE, SCALED, ROUNDED = UNSEEN = "identity", "whole", "scaled", "rounded"  # keep the plugin exact
UNIT = "unit"
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")  # the second input is a weight
SIDES = {-128: 1, 127: -1}  # zero points of grids on one side of zero: which way is away from it


def parameters(low: float, high: float) -> QParams:
    """Return the parameters of a FakeQuantize from its ends, which ``layout.grid_ends`` gives.

    The ends are float32, so the scale may be one float32 step off.
    """
    scale = (high - low) / (LEVELS - 1)
    return QParams(scale=np.array([scale]), zero_point=np.array([round(-128 - low / scale)]), dtype="int8")


def is_whole(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a convolution of 8-bit integers whose output has its zero point inside."""
    if node.op != "conv2d":
        return False
    source, made = (graph.tensors[name] for name in (node.inputs[0], node.output))
    narrow = all(isinstance(t, Quantized) and t.quant.dtype == "int8" for t in (source, made))
    return narrow and graph.quant(node.output).zero_point[0] not in SIDES
