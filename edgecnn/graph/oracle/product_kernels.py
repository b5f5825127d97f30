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
SMALLEST_PRODUCT, LARGEST_PRODUCT = 2.0**-16, 2.0**8  # multipliers of a product that XNNPACK takes, and does not


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


def combined(c: Call) -> np.ufunc | None:
    """Return what makes a prelu of two products, the input times one and times its slope, each on the output's grid.

    It is the larger of both where no slope is above one, and the smaller where none is below. Files for runtimes
    without a fast prelu hold products. ``None`` where slopes lie on both sides, a multiplier is beyond what kernels
    take, or the roundings of products would make other integers.
    """
    every, slopes = c.every(0)[:, None], np.unique(c.values[1])[None]
    reals = (slopes.astype(np.int64) - c.zero(1)) * np.float64(c.scale(1))
    larger = bool((reals <= 1).all())
    if not larger and not (reals >= 1).all():
        return None
    ratios = (float(c.scale(0) / c.scale(-1)), float(c.scale(0) * c.scale(1) / c.scale(-1)))
    if not all(SMALLEST_PRODUCT <= ratio < LARGEST_PRODUCT for ratio in ratios):
        return None
    made, (above, below) = np.maximum if larger else np.minimum, parameters.prelu(c)
    x = every - c.zero(0)
    both = made(fp.multiply(x, *above), fp.multiply(x * (slopes.astype(np.int64) - c.zero(1)), *below)) + c.zero(-1)
    wanted = prelu(Call(attrs=c.attrs, inputs=c.inputs, output=c.output, values=[every, slopes]))
    return made if np.array_equal(np.clip(both, *c.limits("none")), wanted) else None


KERNELS: Mapping[str, Callable[[Call], Integers]] = {"batch_matmul": batch_matmul, "prelu": prelu}
