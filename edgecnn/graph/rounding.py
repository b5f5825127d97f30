"""Choose rounding-safe multipliers: those with which every runtime rounds alike.

A sum ``a`` of integers becomes an output integer as ``a * m`` rounded, ``m = s_in s_w / s_out``. Kernels differ in how
they round: once in float32, halves to even (XNNPACK, ONNX Runtime, OpenVINO), or twice in fixed point, halves away from
zero (LiteRT's reference kernels, TFLite Micro, CMSIS-NN, Ethos-U): to a multiple of ``2**-s`` first, where
``m = m0 * 2**-s`` and ``0.5 <= m0 < 1``, then to an integer. They part where ``a * m`` is a half to seven digits, and
where the first rounding makes it one: at up to ``2**-(s+1)`` below. With

    m = (1 + e) / q,    q even,    0 < e < (2**s / q - 1/2) / (2**s * 255.5)

neither happens within the 256 integers there are. The sums next to a half, ``a = q (n + 1/2)``, lie ``(n + 1/2) e``
beyond it, more than float32 loses, so all round them away from zero; and the next sum before it, ``m`` further down, is
far enough from it that the first of two roundings leaves it there. Where a kernel rounds once in any arithmetic (linear
layers, and every layer with ``m >= 1/2``) ``m = p / q`` with an odd ``q`` is enough, and so it is for the
``a s_a + b s_b`` of an add: no multiple of ``1 / q`` is a half.

Sources: gemmlowp ``fixedpoint.h`` (the two roundings); Jacob et al. 2018, section 2.2 (``m``). The choice is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 255.5  # the half furthest from zero between two of 256 integers
LEAST = 2.0**-22  # of e: three roundings in float32 lose up to 3 * 2**-24 of a value
CHOICES = 16  # multipliers to choose from: with one of them, the largest weight lies near an integer again
ODD = 2047  # the finest odd denominator, where the multiplier leaves a choice
ROOM = 127.5 / 127  # a weight that much beyond the largest integer still rounds to it
HALF = 0.5 * (1 + 2**-12)  # the largest multiplier of the kind above: it is rounded once

Reals = NDArray[np.float64]


def _most(q: NDArray[Any]) -> Reals:
    """Return the bound of ``e``."""
    power = 2.0 ** np.floor(np.log2(q))
    bound: Reals = (power / q - 0.5) / (power * REACH)
    return bound


def _table() -> tuple[NDArray[np.int64], Reals, Reals]:
    """Return the even ``q`` there are, ascending, and of each ``e`` the geometric mean of its bounds and the upper."""
    q = np.arange(2, 4096, 2)
    power, most = 2.0 ** np.floor(np.log2(q)), _most(q)
    fits = (most > 1.5 * LEAST) & (power < q)
    return q[fits], np.sqrt(most[fits] * LEAST), most[fits]


EVEN, BEYOND, FURTHEST = _table()
PRODUCTS = np.sort(np.concatenate([(1 + BEYOND) / EVEN, (1 + 0.9 * FURTHEST) / EVEN]))[::-1]
"""Multipliers of products, descending, two for each ``q``. The larger ``e`` loses fewer sums where a runtime adds a
zero point in float32."""
MEANS = np.concatenate([(1 + part * FURTHEST) / EVEN for part in (0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35)])
"""Multipliers of means: XNNPACK's arithmetic loses the more the larger the zero points are, so several are tried."""


def twice_rounded(wanted: Reals) -> Reals:
    """Return the ``CHOICES`` next multipliers of convolutions, no smaller than wanted, less ``ROOM``, ascending.

    Args:
        wanted: (channels,), positive. Those beyond 1 / 6, of layers that read few integers, become 1 / 2 or as
            ``once_rounded`` says.

    Returns:
        (CHOICES, channels).
    """
    place = np.searchsorted(EVEN, ROOM / wanted, side="right") - 1
    places = np.maximum(place - np.arange(CHOICES)[:, None], 0)
    large = np.where(wanted <= HALF, HALF, once_rounded(wanted))
    return np.where(place >= 0, (1 + BEYOND[places]) / EVEN[places], large)


def once_rounded(wanted: Reals) -> Reals:
    """Return fractions with an odd denominator, no smaller than wanted, less ``ROOM``."""
    wanted = wanted / ROOM
    numerator = np.ceil(wanted * ODD)
    chosen: Reals = numerator / (2 * np.floor((numerator / wanted + 1) / 2) - 1)
    return chosen


def past_halves(multiplier: Reals) -> NDArray[np.bool_]:
    """Say which multipliers are ``(1 + e) / q`` with an even ``q``: sums then lie next to halves, beyond them.

    A part of a sum's unit may be added to all sums of such a layer: none of them crosses a half, and those next to one
    are as far from it as they can be.
    """
    q = np.maximum(2 * np.rint(0.5 / multiplier), 2)
    beyond = multiplier * q - 1
    return np.asarray((beyond > LEAST / 2) & (beyond < _most(q) + LEAST))
