"""Integer arithmetic as LiteRT's reference kernels do it (x86 build: double rounding). Arrays of any shape.

Sources: Jacob et al. 2018, section 2.2 and appendix B; LiteRT ``kernels/internal/quantization_util.cc`` and
``kernels/internal/common.cc``; gemmlowp ``fixedpoint/fixedpoint.h``. Docstrings name the function followed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Q31 = 31
ONE = 2**31 - 1  # gemmlowp's FixedPoint<int32, 0>::One(): 1.0 is not representable in Q0.31


def round_away(x: Any) -> NDArray[Any]:
    """To the nearest integer, halves away from zero, in the type of ``x`` (C's ``round``; ``TfLiteRound``)."""
    whole = np.trunc(x)
    nearest: NDArray[Any] = whole + np.copysign((np.abs(x - whole) >= 0.5).astype(x.dtype), x)
    return nearest


def quantize_multiplier(real: NDArray[np.float64] | float) -> tuple[Integers, Integers]:
    """``real = multiplier / 2**31 * 2**shift`` with a multiplier in [2**30, 2**31) (``QuantizeMultiplier``).

    Returns:
        (multiplier, shift), each of the shape of ``real``.
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    multiplier = round_away(fraction * 2.0**Q31).astype(np.int64)
    shift = exponent.astype(np.int64)
    full = multiplier == 2**Q31
    multiplier, shift = np.where(full, multiplier // 2, multiplier), shift + full
    vanished = shift < -Q31
    return np.where(vanished, 0, multiplier), np.where(vanished, 0, shift)


def high_mul(a: Integers, b: Integers | int) -> Integers:
    """``round(a * b / 2**31)``, halves up (gemmlowp ``SaturatingRoundingDoublingHighMul`` of int32 values).

    The sign-dependent nudge and the truncating division of the C source come to this floor.
    """
    product = a * b
    product += 1 << 30
    product >>= Q31
    return product


def divide_by_power(x: Integers, exponent: Integers | int) -> Integers:
    """``x / 2**exponent``, halves away from zero (gemmlowp ``RoundingDivideByPOT``). Works in place where it can."""
    power = np.asarray(exponent, np.int64)
    nudge = (np.int64(1) << power) >> 1
    sign = x >> 63  # -1 where negative: halves then go down
    sign &= -(power > 0).astype(np.int64)
    sign += nudge
    sign += x
    sign >>= power
    return sign


def multiply(x: Integers, multiplier: Integers, shift: Integers) -> Integers:
    """``x * multiplier / 2**31 * 2**shift``, rounded twice (``MultiplyByQuantizedMultiplier``).

    Args:
        x: accumulators in the range of int32.
        multiplier, shift: from ``quantize_multiplier``; broadcast against ``x``.
    """
    if np.any(shift > 0):
        x = x << np.maximum(shift, 0)
    return divide_by_power(high_mul(x, multiplier), np.maximum(-shift, 0))


def multiply_once(x: Integers, multiplier: Integers, shift: Integers) -> Integers:
    """``x * multiplier / 2**31 * 2**shift``, rounded once, halves up (the single-rounding form of the above).

    Args:
        x: accumulators in the range of int32.
        multiplier, shift: from ``quantize_multiplier``, shift below 31; broadcast against ``x``.
    """
    total = Q31 - shift
    product = x * multiplier
    product += np.int64(1) << (total - 1)
    product >>= total
    return product


def multiply_wide(x: Integers, multiplier: Integers, shift: Integers) -> Integers:
    """``x * multiplier / 2**31 * 2**shift`` by the upper 16 bits of the multiplier, rounded once, halves up.

    ``MultiplyByQuantizedMultiplier`` of an int64: what convolutions of 16-bit activations use.

    Args:
        x: accumulators in [-2**47, 2**47).
        multiplier, shift: from ``quantize_multiplier``, shift below 8; broadcast against ``x``.
    """
    reduced = np.minimum((multiplier + (1 << 15)) >> 16, 2**15 - 1)
    total = 15 - shift
    product: Integers = x * reduced
    product += np.int64(1) << (total - 1)
    product >>= total
    return product


def saturate32(x: Integers) -> Integers:
    """Clipped to int32."""
    return np.clip(x, -(2**31), 2**31 - 1)


def exp_on_negative_values(x: Integers) -> Integers:
    """``exp(x)`` of Q5.26 values at or below 0, as Q0.31 (gemmlowp ``exp_on_negative_values``).

    The fraction below a quarter by a Taylor polynomial around -1/8; each bit of the rest is one factor exp(-2**k).
    """
    quarter = 1 << 24
    below = (x & (quarter - 1)) - quarter  # in [-1/4, 0)
    rest = below - x
    a = saturate32(below << 5) + (1 << 28)  # now Q0.31, around -1/8
    a2 = high_mul(a, a)
    a3 = high_mul(a2, a)
    a4_over_4 = divide_by_power(high_mul(a2, a2), 2)
    higher = divide_by_power(high_mul(a4_over_4 + a3, _constant(1 / 3)) + a2, 1)
    eighth = _constant(np.exp(-1 / 8))
    result = eighth + high_mul(a + higher, eighth)
    for k in range(-2, 5):
        factor = high_mul(result, _constant(np.exp(-(2.0**k))))
        result = np.where(rest & (1 << (26 + k)), factor, result)
    return np.where(x == 0, ONE, result)


def _constant(real: float) -> int:
    return int(np.rint(real * 2.0**Q31))


def reciprocal(x: Integers, integer_bits: int) -> tuple[Integers, Integers]:
    """``1 / x`` of positive values (LiteRT ``GetReciprocal``, gemmlowp ``one_over_one_plus_x_for_x_in_0_1``).

    Returns:
        (Q0.31 value of ``1 / (x normalised to [1, 2))``, bits by which x exceeds 1).
    """
    headroom = 32 - np.frexp(x.astype(np.float64))[1].astype(np.int64)  # leading zeros of a uint32
    a = (x << headroom) - (1 << 31)
    half = (a + ONE + 1) // 2  # RoundingHalfSum of non-negative values
    y = _constant(48 / 17 / 4) + high_mul(half, _constant(-32 / 17 / 4))  # Q2.29
    for _ in range(3):  # Newton and Raphson
        error = (1 << 29) - high_mul(half, y)
        y = y + saturate32(high_mul(y, error) << 2)
    return saturate32(y << 1), integer_bits - headroom
