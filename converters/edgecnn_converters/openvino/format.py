"""The facts of OpenVINO IR that reading and writing share: how an integer file holds a graph's tensors.

An activation is a FakeQuantize between the constants ``NAME/low`` and ``NAME/high``. A weight is ``NAME/q`` times
``NAME/scale``, behind a Convert; a bias has two factors instead, ``NAME/weight_scale`` and ``NAME/input_scale``. A
concatenation, ``NAME/joined``, has the grid of its operands, so no FakeQuantize of its own.
Images are NCHW, weights (O, I, H, W), or (groups, O / groups, I, H, W).
"""

from __future__ import annotations

import numpy as np

from edgecnn.graph.ir import QParams

LEVELS = 256
LOW, HIGH, QUANTIZED, JOINED = "low", "high", "quantized", "joined"  # see ``names.part``
INTEGERS, SCALE, ZERO_POINT = "q", "scale", "zero_point"
WEIGHT_SCALE, INPUT_SCALE = "weight_scale", "input_scale"
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")  # the second input is a weight


def parameters(low: float, high: float) -> QParams:
    """Return the parameters of a FakeQuantize from its ends, which ``layout.grid_ends`` gives.

    The ends are float32, so the scale may be one float32 step off.
    """
    scale = (high - low) / (LEVELS - 1)
    return QParams(scale=np.array([scale]), zero_point=np.array([round(-128 - low / scale)]), dtype="int8")
