"""What calibration would have seen of values at hand."""

from __future__ import annotations

import numpy as np

from edgecnn.quant.observers.histogram import Range


def range_of(values):
    """Return the range of values at hand."""
    samples, counts = np.unique(values, return_counts=True)
    return Range(low=float(samples[0]), high=float(samples[-1]), samples=samples, counts=counts.astype(np.float32))
