"""Compute what ONNX Runtime's kernels on x86 with AVX2 do with activations of 8 bits, to the last bit.

The zero point is in what is rounded, so the integers are those of a uint8 file: 128 higher. Sources: ONNX Runtime 1.32,
``mlas/lib/intrinsics/avx2/qladd_avx2.cpp``, ``mlas/lib/qlmul.cpp``, ``mlas/lib/logistic.cpp`` (after Eigen), and
``qlinear_pool.cc``, ``qlinear_lookup_table.cc`` and ``qlinear_softmax.cc`` in ``contrib_ops/cpu/quantization``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import QuantizedConstant
from edgecnn.graph.oracle.kernels import KERNELS, Integers, multiplied, requantized
from edgecnn.graph.oracle.parameters import Call
from edgecnn.graph.oracle.product_kernels import matrix_sums

Reals = NDArray[np.float32]
OFFSET = 128
SIX = np.float32(6)
STEPS = 127  # the most steps to 3 with which a byte holds 0 to 6
NUDGES = np.arange(-64, 65) * 1e-6  # relative changes of a product's scale that are tried
LOGISTIC_RANGE = np.float32(18)
NUMERATOR = (
    4.37031012579801e-11,
    1.15627324459942e-07,
    6.08574864600143e-05,
    8.51377133304701e-03,
    2.48287947061529e-01,
)
DENOMINATOR = (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
               1.16817656904453e-01, 9.93151921023180e-01)  # fmt: skip
"""Coefficients of the logistic function's rational approximation, the highest power first."""


def _fused(a: Any, b: Any, c: Any) -> Reals:
    """``a * b + c``, rounded once to float32."""
    return np.asarray(np.asarray(a, np.float64) * b + np.asarray(c, np.float64), np.float32)


def _rounded(c: Call, values: NDArray[Any]) -> Integers:
    """Round values that have the zero point of uint8 in them."""
    return requantized(c, values, lambda part: np.rint(part).astype(np.int64) - OFFSET - c.zero(-1))


def _upper(c: Call, k: int) -> np.float32:
    return np.float32(c.zero(k) + OFFSET)


def _sum(left: NDArray[Any], right: Any, ratios: Sequence[np.float32], zeros: Sequence[np.float32]) -> Reals:
    """``QLinearAdd`` before it rounds: of bytes, with the inputs' scales over the output's, and three zero points."""
    fixed = zeros[2] - _fused(ratios[0], zeros[0], ratios[1] * zeros[1])
    return _fused(left, ratios[0], _fused(right, ratios[1], fixed))


def addends(shapes: Sequence[Sequence[int]], made: Sequence[int]) -> tuple[int, int]:
    """Return the order of a sum's inputs in the file: one that is broadcast comes second.

    ``QLinearAdd`` exchanges its inputs where the first is one number beside a row, and where it is depends on how ONNX
    Runtime arranges both.
    """
    first_is_broadcast = tuple(shapes[0]) != tuple(made) == tuple(shapes[1])
    return (1, 0) if first_is_broadcast else (0, 1)


def add(c: Call) -> Integers:
    """``QLinearAdd``: in float32 with fused multiply-adds, the second input of the file first."""
    order = addends([t.shape for t in c.inputs], c.output.shape)
    left, right = (c.values[k].astype(np.int32) + OFFSET for k in order)
    ratios = [np.float32(c.scale(k) / c.scale(-1)) for k in order]
    return _rounded(c, _sum(left, right, ratios, [_upper(c, k) for k in (*order, -1)]))


def mul(c: Call) -> Integers:
    """``QLinearMul``: the product of the centred integers times one scale, plus the zero point, each in float32.

    Files quantize it by ``product_scale``, so that the sum with the zero point loses no half.
    """
    return _rounded(c, _product(c, multiplied(c), c.scale(0) * c.scale(1), product_scale(c)))


def _product(c: Call, integers: NDArray[Any], scale: np.float32, made: np.float32 | None = None) -> Reals:
    ratio = np.float32(scale / (c.scale(-1) if made is None else made))
    product: Reals = integers.astype(np.float32) * ratio + _upper(c, -1)
    return product


def product_scale(c: Call) -> np.float32:
    """Return the scale that a file quantizes a product by, with which every product rounds as without a zero point.

    The sum with the zero point in float32 may lose that a product is just beyond a half. A scale smaller by some
    millionths takes such products further beyond it. Of the scales that take no other across a half, it is the middle
    one. It is the output's own where that serves, and where none does.
    """
    own, scale = c.scale(-1), c.scale(0) * c.scale(1)
    products = np.unique(np.multiply.outer(*(_integers(c, k) - c.zero(k) for k in (0, 1))))
    exact = products * (np.float64(scale) / np.float64(own))
    from_half = np.abs(exact - np.floor(exact) - 0.5)
    products = products[from_half <= (np.abs(exact) + _upper(c, -1)) * (NUDGES[-1] + 2.0**-22)]
    wanted = _bytes(np.rint(products.astype(np.float32) * np.float32(scale / own)) + _upper(c, -1))

    def fits(made: np.float32) -> bool:
        return bool((_bytes(_product(c, products, scale, made)) == wanted).all())

    if fits(own):
        return own
    trials = (np.float64(own) / (1 + NUDGES)).astype(np.float32)
    fitting = np.flatnonzero([fits(trial) for trial in trials])
    if not fitting.size:
        return own
    together = max(np.split(fitting, np.flatnonzero(np.diff(fitting) > 1) + 1), key=len)
    return np.float32(trials[together[len(together) // 2]])


def _integers(c: Call, k: int) -> Integers:
    """Return the integers that an input can hold."""
    tensor = c.inputs[k]
    held = np.unique(tensor.integers) if isinstance(tensor, QuantizedConstant) else c.every(k)
    return held.astype(np.int64)


def _real(c: Call, centred: NDArray[Any]) -> Reals:
    made: Reals = centred.astype(np.float32) * c.scale(0)
    return made


# --- ops of one input: a table with an entry for each integer that it can hold ---


def _by_table(function: Callable[[Call, Integers], Reals]) -> Callable[[Call], Integers]:
    def kernel(c: Call) -> Integers:
        byte = np.clip(np.rint(function(c, c.every(0) - c.zero(0))), 0, 255).astype(np.int64)
        return c.looked_up((byte - OFFSET).astype(c.dtype), 0)

    kernel.__doc__ = function.__doc__
    return kernel


def relu(activation: str) -> Callable[[Call], Integers]:
    """Return the kernel of ``relu`` or ``relu6``: ``QLinearMul`` with 1 where the grid changes, then ``Clip``."""

    def kernel(c: Call, centred: Integers) -> Reals:
        low, high = c.limits(activation)
        return np.clip(np.rint(_product(c, centred, c.scale(0))), low + OFFSET, high + OFFSET)

    return _by_table(kernel)


def _bytes(values: NDArray[np.floating[Any]]) -> Integers:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.int64) - OFFSET


def rescaled(c: Call) -> Integers:
    """Return what ``QLinearMul`` with 1 makes of every integer of the input."""
    return _bytes(_product(c, c.every(0) - c.zero(0), c.scale(0)))


def leaky_relu(c: Call, slope: np.float32) -> Integers:
    """Return what ``QLinearLeakyRelu`` makes of every integer of the input."""
    real = _real(c, c.every(0) - c.zero(0))
    return _bytes(np.where(real >= 0, real, real * slope) / c.scale(-1) + _upper(c, -1))


def batch_matmul(c: Call) -> Integers:
    """``QLinearMatMul``: exact sums times one scale, in float32."""
    scale = c.scale(0) * c.scale(1) / c.scale(-1)
    return requantized(c, matrix_sums(c), lambda part: np.rint(part.astype(np.float32) * scale).astype(np.int64))


@_by_table
def sigmoid(c: Call, centred: Integers) -> Reals:
    """``QLinearSigmoid``: ``p(x * x) * x / q(x * x) + 1 / 2``."""
    x = np.clip(_real(c, centred), -LOGISTIC_RANGE, LOGISTIC_RANGE)
    square = x * x
    made = _polynomial(NUMERATOR, square) * x / _polynomial(DENOMINATOR, square) + np.float32(0.5)
    return np.asarray(made / c.scale(-1) + _upper(c, -1), np.float32)


def _polynomial(coefficients: Sequence[float], x: Reals) -> Reals:
    made = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        made = _fused(made, x, np.float32(coefficient))
    return made


def steps_to_three(scale: np.float32) -> int:
    """Return the integer ``k`` for which a scale is ``3 / k`` and 2 k + 1 integers hold ``x + 3`` exactly; else 0."""
    k = int(np.rint(3 / np.float64(scale)))
    return k if 1 <= k <= STEPS and np.float32(3 / k) == scale else 0


def hard_swish(c: Call) -> Integers:
    """``QLinearMul`` of bytes, where ``x + 3`` is exact in them; else LiteRT's table."""
    return _hard_swish_of_bytes(c) if steps_to_three(c.scale(0)) else KERNELS["hard_swish"](c)


@_by_table
def _hard_swish_of_bytes(c: Call, centred: Integers) -> Reals:
    """``x * clip(x + 3, 0, 6) / 6`` of integers that are ``3 / k`` apart."""
    steps = steps_to_three(c.scale(0))
    gate = np.clip(centred, -steps, steps) + steps
    return _product(c, centred * gate, c.scale(0) * (c.scale(0) / SIX))


def softmax(c: Call) -> Integers:
    """``QLinearSoftmax``: float32 exponentials of a table, added one after the other.

    The table makes them as large as their sum allows: times ``exp`` of the largest float32 over their count, less 5.
    """
    x, scale = c.values[0].astype(np.int32), np.float64(c.scale(0))
    room = max(0.0, float(np.log(np.float64(np.finfo(np.float32).max) / x.shape[-1])) - 5) / scale
    table = np.exp((np.arange(256) - 255 + room) * scale).astype(np.float32)
    powers = table[255 - x.max(axis=-1, keepdims=True) + x]
    total = np.add.accumulate(powers, axis=-1)[..., -1:]
    with np.errstate(over="ignore"):  # a power that is alone: the runtime's product is infinite too
        share = np.rint(np.minimum(powers * np.float32(256) / total, 255)).astype(np.int64)
    made: Integers = (share - OFFSET).astype(c.dtype)
    return made


CHANGED: Mapping[str, Callable[[Call], Integers]] = {
    "add": add,
    "mul": mul,
    "relu": relu("relu"),
    "relu6": relu("relu6"),
    "hard_swish": hard_swish,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "batch_matmul": batch_matmul,
}
"""Kernels of the ops that ONNX Runtime computes in a way of its own."""
