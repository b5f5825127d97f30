"""Clipping: the range of an activation that its 8-bit grid covers, chosen from what calibration saw."""

from __future__ import annotations

import numpy as np
import torch

from edgecnn.quant.observers.histogram import Range
from edgecnn.quant.scales.consumers import SWISHES, Nonlinearity

SHRUNK = torch.linspace(1.0, 0.3, 36)  # of the whole range: first both ends shrink together


def mse_range(seen: Range, consumer: Nonlinearity | None = None) -> tuple[float, float]:
    """Return the sub-range whose 8-bit grid has the least squared error on the samples.

    First both ends shrink together, then each alone. Source: the MSE criterion of Krishnamoorthi 2018 and of
    Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1.

    Args:
        seen: of the activation.
        consumer: the error is counted after this function, and only ends where it saturates are clipped; also what a
            swish lets through, where the counts tell which channels matter.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if high <= low:
        return low, high
    x, counts = torch.from_numpy(seen.samples), torch.from_numpy(seen.counts)

    def best(lows: torch.Tensor, highs: torch.Tensor) -> tuple[float, float]:
        errors = [_squared_error(x, counts, float(a), float(b), consumer) for a, b in zip(lows, highs, strict=True)]
        k = int(np.argmin(errors))
        return float(lows[k]), float(highs[k])

    if consumer is None:
        low, high = best(low * SHRUNK, high * SHRUNK)
    fine = torch.linspace(1.15, 0.7, 19) if consumer is None else torch.linspace(1, 0.025, 40)
    if low < 0:
        low, high = best((low * fine).clamp(min=seen.low), torch.full_like(fine, high))
    if high > 0 and (seen.weighted or consumer not in SWISHES):
        low, high = best(torch.full_like(fine, low), (high * fine).clamp(max=max(seen.high, 0.0)))
    return low, high


def percentile_range(seen: Range, percentile: float) -> tuple[float, float]:
    """Return the sub-range that leaves out ``100 - percentile`` per cent of the samples at either end.

    Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 3.2 (percentile calibration).
    """
    share = np.cumsum(seen.counts, dtype=np.float64) / seen.counts.sum(dtype=np.float64)
    low = seen.samples[np.searchsorted(share, 1 - percentile / 100, side="right")]
    high = seen.samples[np.searchsorted(share, percentile / 100)]
    return float(low), float(high)


def _squared_error(
    x: torch.Tensor, counts: torch.Tensor, low: float, high: float, consumer: Nonlinearity | None
) -> float:
    scale = max((high - low) / 255, 1e-30)
    zero = round(-128 - low / scale)
    real = (torch.clamp(torch.round(x / scale) + zero, -128, 127) - zero) * scale
    if consumer is not None:
        real, x = consumer(real), consumer(x)
    return float(torch.dot((real - x) ** 2, counts))
