"""Passes leave fewer nodes that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata

SHAPE = (3, 9, 8)


class Own(nn.Module):
    """Two convolutions, a linear layer, and a function of them."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.linear = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)
        self.per_channel = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def gated(m, x):
    y = m.first(x)
    return m.second(y * F.hardsigmoid(m.second(y.mean((2, 3), keepdim=True))))


FOLDED = {
    "a constant after a convolution": (lambda m, x: m.first(x) + 0.5, ["conv2d"]),
    "one per channel, and a ReLU": (lambda m, x: F.relu(m.first(x) + m.per_channel), ["conv2d"]),
    "a factor after a convolution": (lambda m, x: F.relu(m.first(x) * m.per_channel), ["conv2d"]),
    "a factor before a padded convolution": (lambda m, x: m.second(F.relu(m.first(x)) * 0.3), ["conv2d", "conv2d"]),
    "a linear layer": (lambda m, x: m.linear(m.first(x).mean((2, 3))) * 2 + 1, ["conv2d", "mean", "fully_connected"]),
    "a hard sigmoid that gates": (gated, ["conv2d", "mean", "conv2d", "mul", "conv2d"]),
    "a pad of nothing, twice": (lambda m, x: m.second(F.pad(F.pad(m.first(x), (0, 0)), (0, 0, 0, 0))), ["conv2d"] * 2),
    "pooling and a 1x1 convolution as a head": (
        lambda m, x: F.conv2d(
            m.first(x).mean((2, 3), keepdim=True), m.second.weight[:, :, :1, :1], m.second.bias
        ).flatten(1),
        ["conv2d", "mean", "fully_connected"],
    ),
}
KEPT = {
    "read twice": (lambda m, x: (lambda y: y + (y + 1))(m.first(x)), ["conv2d", "add", "add"]),
    "squared": (lambda m, x: m.second((lambda y: y * y)(F.relu(m.first(x)) * 0.3)), ["conv2d", "mul", "mul", "conv2d"]),
    "behind a ReLU": (lambda m, x: F.relu(m.first(x)) + 0.5, ["conv2d", "add"]),
    "added before a padded convolution": (lambda m, x: m.second(F.relu(m.first(x)) + 1), ["conv2d", "add", "conv2d"]),
    "weights that two layers share": (lambda m, x: m.second(m.second(m.first(x)) * 2), ["conv2d", "conv2d", "conv2d"]),
}


@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_the_graph_computes_the_module_by_these_ops(name):
    function, ops = {**FOLDED, **KEPT}[name]
    torch.manual_seed(0)
    module = Own(function).eval()
    graph = capture(module, SHAPE, Metadata())
    x = torch.randn(2, *SHAPE)
    with torch.inference_mode():
        want = module(x)
    got = TorchGraph(graph)(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(got, want.permute(0, 2, 3, 1) if want.ndim == 4 else want, rtol=1e-5, atol=1e-5)
    assert [n.op for n in graph] == ops
