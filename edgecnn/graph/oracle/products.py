"""Integer kernels of products of two activations, and of slopes per channel, bit-exact with LiteRT's reference kernels.

Names in docstrings are LiteRT's source files under ``kernels`` (``*.cc``) and ``kernels/internal/reference`` (``*.h``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.oracle import fixed_point as fp
from edgecnn.graph.oracle import parameters
from edgecnn.graph.oracle.parameters import Call

Integers = NDArray[Any]  # of the activations' type


def batch_matmul(c: Call) -> Integers:
    """``BatchMatMul`` of batch_matmul.h: exact sums of products of the centred integers, one multiplier."""
    multiplier, shift = parameters.batch_matmul(c)
    sums = matrix_sums(c)
    made = fp.multiply_wide(sums, multiplier, shift) if c.wide else fp.multiply(sums, multiplier, shift)
    return np.clip(made + c.zero(-1), *c.limits("none")).astype(c.dtype)


def matrix_sums(c: Call) -> fp.Integers:
    """Return exact sums of a batch_matmul."""
    left, right = (c.values[k].astype(np.float64) - c.zero(k) for k in (0, 1))  # below 2**53: exact
    sums = left @ (np.swapaxes(right, -1, -2) if c.attrs["transpose_b"] else right)
    return sums.astype(np.int64)


def prelu(c: Call) -> Integers:
    """``Prelu`` of prelu.h: one multiplier at and above zero, one for products with a slope below."""
    above, below = parameters.prelu(c)
    x, slope = (c.values[k].astype(np.int64) - c.zero(k) for k in (0, 1))
    made: fp.Integers = np.where(x >= 0, fp.multiply(x, *above), fp.multiply(x * slope, *below))
    return np.asarray(np.clip(made + c.zero(-1), *c.limits("none")), c.dtype)


KERNELS: Mapping[str, Callable[[Call], Integers]] = {"batch_matmul": batch_matmul, "prelu": prelu}
