"""Ranges as calibration would have seen them in values at hand."""

from __future__ import annotations

import numpy as np

from edgecnn.quant.observers.histogram import Range
from edgecnn.quant.recipe import recipe

SHAPE = (3, 12, 10)
UNCORRECTED = recipe("fast").without("bias_correction")


def range_of(values):
    """Return the range of values at hand."""
    samples, counts = np.unique(values, return_counts=True)
    return Range(low=float(samples[0]), high=float(samples[-1]), samples=samples, counts=counts.astype(np.float32))


def images(graph, count, seed=0):
    """Draw network inputs from a normal distribution."""
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    return np.random.default_rng(seed).normal(0, 1, (count, *shape)).astype(np.float32)
