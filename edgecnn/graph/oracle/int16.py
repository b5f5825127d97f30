"""Sigmoid and softmax of 16-bit activations, as LiteRT's reference kernels do them: tables and lines between entries.

Names in docstrings are LiteRT's, in ``kernels/activations.cc`` and, under ``kernels/internal``, ``common.h``,
``reference/integer_ops/logistic.h`` and ``reference/softmax.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.oracle import fixed_point as fp

LOW, HIGH = -(2**15), 2**15 - 1
STEPS = 512  # lines of a table over the whole of int16
EXP_REACH = 10.0  # exp(-10) is taken for zero


def sigmoid(centred: fp.Integers, scale: np.float32) -> fp.Integers:
    """``Logistic`` of int16: integers of scale 1/32768. A table of sigmoid(k / 24) in Q0.16, 512 steps to an entry."""
    real = np.float64(scale)
    exponent = 12 + int(np.round(np.log2(real)))
    if exponent in (0, 1) and real == 2.0 ** (exponent - 12):  # a power of two goes in exactly
        fine = centred * (3 << exponent)
    else:
        factor, shift = real * 4096 * 3, 0
        while factor <= HIGH / 2 and shift <= 30:
            factor, shift = factor * 2, shift + 1
        fine = (centred * int(factor) + ((1 << shift) >> 1)) >> shift
    entry, rest = np.abs(fine) >> 9, np.abs(fine) & 0x1FF
    table = _sigmoid_table()
    inside = np.minimum(entry, 254)
    line = (table[inside] << 9) + rest * (table[inside + 1] - table[inside])
    above = np.where(entry >= 255, HIGH << 10, line)
    return np.where(fine >= 0, above + (1 << 9), (1 << 25) - above + (1 << 9) - 1) >> 10


@cache
def _sigmoid_table() -> fp.Integers:
    """``sigmoid_table_uint16``: each entry moved by half of its line's error in the middle, the last one full."""
    at = np.arange(257) / 24
    start, middle = 65536 / (1 + np.exp(-at)), 65536 / (1 + np.exp(-(at[:-1] + 1 / 48)))
    entries = np.rint(start[:-1] + (middle - (start[:-1] + start[1:]) / 2) / 2).astype(np.int64)
    entries[-1] = 65535
    return entries


def softmax(x: NDArray[Any], scale: np.float32) -> NDArray[np.int16]:
    """``SoftmaxInt16``: integers of scale 1/32768; exponentials in Q0.15, one reciprocal per row."""
    multiplier, shift = fp.quantize_multiplier(np.float64(scale) / (EXP_REACH / 65535))
    below = x.astype(np.int64)
    below -= below.max(axis=-1, keepdims=True)
    place = np.clip(fp.multiply(below, multiplier, shift) + HIGH, LOW, HIGH)
    powers = _on_lines(place, _exp_table())
    total = powers.sum(axis=-1, keepdims=True)
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # leading zeros of a uint32
    shifted = ((total << (headroom - 1)) + (1 << 13)) >> 14  # [1, 2) in Q1.16
    inverse = _on_lines(np.clip(shifted - (1 << 15) - (1 << 16), LOW, HIGH), _reciprocal_table())
    right = 31 - headroom
    share = (powers * inverse + (np.int64(1) << (right - 1))) >> right
    made: NDArray[np.int16] = np.clip(share, 0, HIGH).astype(np.int16)
    return made


def _on_lines(x: fp.Integers, table: fp.Integers) -> fp.Integers:
    """``LUTLookup``: between two entries, halves up."""
    entry = 256 + (x >> 7)
    made: fp.Integers = table[entry] + (((table[entry + 1] - table[entry]) * (x & 0x7F) + 64) >> 7)
    return made


@cache
def _exp_table() -> fp.Integers:
    return _table(np.exp, -EXP_REACH, 0.0)


@cache
def _reciprocal_table() -> fp.Integers:
    return _table(lambda x: 1 / (1 + x), 0.0, 1.0)


def _table(function: Callable[[NDArray[Any]], NDArray[Any]], low: float, high: float) -> fp.Integers:
    """``LUTPopulate``: 513 entries in Q0.15 over [low, high], each moved by half of its line's error in the middle."""
    step = (high - low) / STEPS
    at = low + np.arange(STEPS) * step
    start, middle, end = (function(v) * 2.0**15 for v in (at, at + step / 2, at + step))
    sample = fp.round_away(start)
    off = fp.round_away((end + sample) / 2) - fp.round_away(middle)
    entries = sample - fp.round_away(off / 2)
    last = fp.round_away(function(np.array([high])) * 2.0**15)
    made: fp.Integers = np.clip(np.concatenate([entries, last]), LOW, HIGH).astype(np.int64)
    return made
