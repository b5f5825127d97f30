"""The facts of ONNX files that reading and writing share: how an integer file holds a graph's tensors.

``NAME/q`` holds the integers of the graph tensor ``NAME``, and ``NAME`` their real values. Images are NCHW, weights
OIHW.
"""

from __future__ import annotations

INTEGERS = "q"  # see ``names.part``
TO_INTEGERS, TO_REAL = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "Gemm", "MatMul")  # the second input is a weight
MOVING = ("Clip", "Concat", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Transpose")
"""Of integers: their output is on the grid of their input."""
