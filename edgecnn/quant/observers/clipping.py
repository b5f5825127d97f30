"""Clipping: the range of an activation that its 8-bit grid covers, chosen from what calibration saw."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.quant.observers.histogram import Range
from edgecnn.quant.scales.consumers import SWISHES, Nonlinearity

SHRUNK = np.linspace(1.0, 0.3, 36)  # of the whole range: first both ends shrink together
NARROW = 1e-6  # of the range: bins of a single value are taken to be that wide
POINTS = (np.arange(16) + 0.5) / 16  # at which a bin's values are taken where a function stands behind the grid

Reals = NDArray[np.float64]


def mse_range(seen: Range, consumer: Nonlinearity | None = None, *, clipped: float = 1.0) -> tuple[float, float]:
    """Return the sub-range whose 8-bit grid has the least squared error on what was seen.

    First both ends shrink together, then each alone. Source: the MSE criterion of Krishnamoorthi 2018 and of
    Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1.

    Args:
        seen: of the activation.
        consumer: the error is counted after this function, and only ends where it saturates are clipped; also what a
            swish lets through, where the counts tell which channels matter.
        clipped: what the squared error of a value beyond the grid counts, without a consumer; of a rounded one it is 1.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if high <= low:
        return low, high

    def best(lows: Reals, highs: Reals) -> tuple[float, float]:
        if consumer is None:
            errors = _squared_errors(seen, lows, highs, clipped)
        else:
            errors = np.array([_error_after(seen, a, b, consumer) for a, b in zip(lows, highs, strict=True)])
        k = int(np.argmin(errors))
        return float(lows[k]), float(highs[k])

    if consumer is None:
        low, high = best(low * SHRUNK, high * SHRUNK)
    fine = np.linspace(1.15, 0.7, 19) if consumer is None else np.linspace(1, 0.025, 40)
    if low < 0:
        low, high = best(np.maximum(low * fine, seen.low), np.full_like(fine, high))
    if high > 0 and (seen.weighted or consumer not in SWISHES):
        low, high = best(np.full_like(fine, low), np.minimum(high * fine, max(seen.high, 0.0)))
    return low, high


def percentile_range(seen: Range, percentile: float) -> tuple[float, float]:
    """Return the sub-range that leaves out ``100 - percentile`` per cent of the values at either end.

    Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 3.2 (percentile calibration).
    """
    order = np.argsort(seen.lower, kind="stable")
    share = np.cumsum(seen.counts[order])
    share /= share[-1]
    low = seen.lower[order][np.searchsorted(share, 1 - percentile / 100, side="right")]
    high = seen.upper[order][np.searchsorted(share, percentile / 100)]
    return max(float(low), seen.low), min(float(high), seen.high)


def _squared_errors(seen: Range, lows: Reals, highs: Reals, clipped: float) -> Reals:
    """Return the squared error on each of several grids, integrated over the bins: ``(grids,)``.

    The integral of ``(t - round(t))**2`` from 0 to ``t`` is ``n / 12 + (t - n)**3 / 3`` with ``n = round(t)``; beyond
    the ends of the grid the integrand is ``clipped`` times the square of the distance from them.
    """
    width = np.maximum(seen.upper - seen.lower, NARROW * (max(seen.high, 0.0) - min(seen.low, 0.0)))
    scale = np.maximum((highs - lows) / 255, 1e-30)[:, None]
    zero = np.rint(-128 - lows[:, None] / scale)

    def primitive(x: Reals) -> Reals:
        steps = x / scale
        inside = np.clip(steps, -128 - zero, 127 - zero)
        whole = np.rint(inside)
        beyond = clipped * (steps - inside) ** 3 / 3
        return np.asarray(scale**3 * (whole / 12 + (inside - whole) ** 3 / 3 + beyond))

    inside_bins = primitive(seen.lower + width) - primitive(seen.lower)
    return np.asarray((inside_bins * (seen.counts / width)).sum(axis=1), np.float64)


def _error_after(seen: Range, low: float, high: float, consumer: Nonlinearity) -> float:
    """Return the squared error of a grid after a function."""
    x = (seen.lower[:, None] + (seen.upper - seen.lower)[:, None] * POINTS).astype(np.float32)
    scale = max((high - low) / 255, 1e-30)
    zero = round(-128 - low / scale)
    real = (np.clip(np.rint(x / scale) + zero, -128, 127) - zero) * scale
    made, wanted = (consumer(torch.from_numpy(a.astype(np.float32))).numpy() for a in (real, x))
    return float(np.square(made - wanted).mean(axis=1) @ seen.counts)
