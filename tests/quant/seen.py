"""Ranges and statistics as calibration would have seen them in values at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.quant.observers.histogram import ChannelObserver, Range
from edgecnn.quant.recipe import recipe

SHAPE = (3, 12, 10)
UNCORRECTED = recipe("fast").without("adaptive_rounding")


def range_of(values):
    """Return the range of values at hand."""
    samples, counts = np.unique(values, return_counts=True)
    values, low, high = samples.astype(np.float64), float(samples[0]), float(samples[-1])
    return Range(low=low, high=high, lower=values, upper=values, counts=counts.astype(np.float64))


def statistics_of(*batches, output=False):
    """Return the statistics of values at hand: NHWC, NC, or a list of numbers that a single channel has."""
    observer = ChannelObserver(nonnegative=False)
    for batch in batches:
        value = torch.as_tensor(np.asarray(batch, np.float32))
        value = value[:, None] if value.ndim == 1 else value
        observer.update(value.permute(0, 3, 1, 2) if value.ndim == 4 else value, output=output)
    return observer.statistics()


class Read(nn.Module):
    """A convolution that one function reads, or more."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x):
        return self.function(self.conv(x))


def conv_of(function):
    """Capture such a network: its graph, and the name of what the convolution makes."""
    graph = capture(Read(function).eval(), (3, 8, 8), Metadata(model="read"))
    return graph, next(node.output for node in graph if node.op == "conv2d")
