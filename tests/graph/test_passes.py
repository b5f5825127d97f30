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
        self.transposed = nn.Parameter(torch.randn(4, 4, 2, 2))
        self.wide = nn.Parameter(torch.randn(16, 3, 1, 1))
        self.per_channel = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.mean, self.std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.5
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def enlarged(m, x):
    y = F.conv_transpose2d(m.first(x), m.transposed, stride=2)
    return F.relu(F.conv2d(y, m.second.weight[:, :1, :1, :1], m.second.bias, groups=4) + 0.5)


def scaled_and_shifted(m, x):
    y = F.hardswish(m.first(x)) * -0.3 + 0.7
    return m.second(y) + F.conv2d(y, m.second.weight[:, :1], m.second.bias, padding=1, groups=4)


def pooled(m, x):
    return m.first(x).mean((2, 3), keepdim=True)


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
    "a batch norm and a ReLU behind a transposed convolution": (enlarged, ["conv2d", "conv2d", "depth_to_space"]),
    "a ReLU behind a pixel shuffle": (
        lambda m, x: F.relu(F.pixel_shuffle(F.conv2d(x, m.wide), 2)),
        ["conv2d", "depth_to_space"],
    ),
    "a factor and a term before padded convolutions": (
        scaled_and_shifted,
        ["conv2d", "hard_swish", "add", "conv2d", "conv2d", "add"],
    ),
    "a pad of nothing, twice": (lambda m, x: m.second(F.pad(F.pad(m.first(x), (0, 0)), (0, 0, 0, 0))), ["conv2d"] * 2),
    "pooling and a 1x1 convolution as a head": (
        lambda m, x: F.conv2d(pooled(m, x), m.second.weight[:, :, :1, :1], m.second.bias).flatten(1),
        ["conv2d", "mean", "fully_connected"],
    ),
}
FOLDED |= {
    "pooling and a flatten": (lambda m, x: pooled(m, x).flatten(1), ["conv2d", "mean"]),
    "an average pool over the whole image": (
        lambda m, x: m.linear(F.avg_pool2d(m.first(x), (7, 6)).flatten(1)),
        ["conv2d", "mean", "fully_connected"],
    ),
    "a convolution over time and its ReLU": (
        lambda m, x: F.relu(F.conv1d(F.relu(F.conv1d(x[:, :, 0], m.first.weight[:, :, 0])), m.second.weight[:, :, 0])),
        ["slice", "conv2d", "conv2d", "reshape", "transpose"],
    ),
    "one of a sound of one channel, padded before": (
        lambda m, x: F.conv1d(F.pad(x[:, 0, 0][:, None], (2, 0)), m.wide[:, :1, 0]),
        ["slice", "reshape", "slice", "reshape", "conv2d", "reshape", "transpose"],
    ),
    "one over a part of it, and one with a border": (
        lambda m, x: F.avg_pool2d(F.avg_pool2d(m.first(x), (7, 5)), (1, 2), padding=(0, 1), count_include_pad=False),
        ["conv2d", "avg_pool2d", "avg_pool2d"],
    ),
    "pooling and what undoes a flatten": (lambda m, x: m.first(x).mean((2, 3))[:, :, None, None], ["conv2d", "mean"]),
    "a normalised input": (lambda m, x: m.first((x - m.mean) / m.std), ["conv2d"]),
    "the scale of an input before zeros around it": (
        lambda m, x: F.conv2d((x - m.mean) / m.std, m.first.weight, padding=1),
        ["add", "conv2d"],
    ),
    "a factor per channel before groups": (
        lambda m, x: F.conv2d(F.relu(m.first(x)) * m.per_channel, m.second.weight[:, :2], groups=2),
        ["conv2d", "conv2d"],
    ),
    **{
        f"{name}, by hand": (lambda m, x, f=f: f(m.first(x)), ["conv2d", *ops])
        for name, f, ops in (
            ("hard swish", lambda x: x * F.relu6(x + 3) / 6, ["hard_swish"]),
            ("hard swish of clamp", lambda x: x * ((x + 3).clamp(0, 6) * (1 / 6)), ["hard_swish"]),
            ("hard sigmoid of 0.2", lambda x: (0.2 * x + 0.5).clamp(0, 1), ["mul"]),
            ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), ["gelu"]),
            ("gelu, other order", lambda x: x * (torch.erf(x * 0.7071067811865475) + 1) / 2, ["gelu"]),
            (
                "gelu of tanh",
                lambda x: x * 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
                ["gelu"],
            ),
            ("mish", lambda x: x * torch.tanh(F.softplus(x)), ["mish"]),
            ("mish of log", lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), ["mish"]),
            ("sigmoid", lambda x: 1 / (1 + torch.exp(-x)), ["sigmoid"]),
            ("silu", lambda x: x * torch.sigmoid(x), ["sigmoid", "mul"]),
            ("leaky relu", lambda x: torch.maximum(x, 0.1 * x), ["leaky_relu"]),
            ("abs", lambda x: F.relu(x) + F.relu(-x), ["abs"]),
            ("clamp", lambda x: x.clamp_min(-1).clamp_max(2), ["clamp"]),
            ("relu twice", lambda x: F.relu(F.relu(x)), []),
            ("half of it", lambda x: x / 2, []),
            ("a mean of a mean", lambda x: x.mean(3).mean(2), ["mean"]),
            ("a mean of means", lambda x: x.mean(2, keepdim=True).mean(3, keepdim=True).flatten(1), ["mean"]),
            ("a mean of pixels", lambda x: x.flatten(2).mean(2), ["mean"]),
            ("a mean of a view", lambda x: x.view(1, 4, -1).mean(-1), ["mean"]),
            ("channel shuffle", lambda x: x.view(1, 2, 2, 7, 6).transpose(1, 2).reshape(x.shape), ["gather"]),
            (
                "pixel shuffle",
                lambda x: x.view(1, 1, 2, 2, 7, 6).permute(0, 1, 4, 2, 5, 3).reshape(1, 1, 14, 12),
                ["depth_to_space"],
            ),
            (
                "pixel unshuffle",
                lambda x: x[:, :, :6].reshape(1, 4, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 16, 3, 3),
                ["slice", "space_to_depth", "gather"],
            ),
            ("inverse permutes", lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2), []),
            ("inverse reshapes", lambda x: x.flatten(2).unflatten(2, (7, 6)) + x, ["add"]),
            ("pads", lambda x: F.pad(F.pad(x, (1, 0)), (0, 0, 2, 1)), ["pad"]),
            ("slices", lambda x: x[:, :, 1:][:, :, ::2][..., :4], ["slice"]),
            ("squeeze and excite", lambda x: x * x.mean((2, 3))[:, :, None, None].expand_as(x), ["mean", "mul"]),
            ("the same twice", lambda x: torch.tanh(x) * torch.tanh(x).flip(1), ["tanh", "gather", "mul"]),
            ("a root and its inverse", lambda x: x / torch.sqrt(x.abs() + 1), ["abs", "add", "pow", "mul"]),
        )
    },
}
KEPT = {
    "read twice": (lambda m, x: (lambda y: y + (y + 1))(m.first(x)), ["conv2d", "add", "add"]),
    "squared": (lambda m, x: m.second((lambda y: y * y)(F.relu(m.first(x)) * 0.3)), ["conv2d", "mul", "mul", "conv2d"]),
    "behind a ReLU": (lambda m, x: F.relu(m.first(x)) + 0.5, ["conv2d", "add"]),
    "added before a padded convolution": (lambda m, x: m.second(F.relu(m.first(x)) + 1), ["conv2d", "add", "conv2d"]),
    "a head that pads": (
        lambda m, x: F.conv2d(pooled(m, x), m.second.weight[:, :, :1, :1], m.second.bias, padding=1).flatten(1),
        ["conv2d", "mean", "conv2d", "transpose", "reshape"],
    ),
    "a head in groups": (
        lambda m, x: F.conv2d(pooled(m, x), m.second.weight[:, :2, :1, :1], m.second.bias, groups=2).flatten(1),
        ["conv2d", "mean", "conv2d", "reshape"],
    ),
    "columns in another order": (lambda m, x: m.first(x).flip(3), ["conv2d", "gather"]),
    "channels in another order, kept": (lambda m, x: m.first(x).flip(1), ["conv2d", "gather"]),
    "a channel twice before a pixel shuffle": (
        lambda m, x: F.pixel_shuffle(m.first(x)[:, [0, 1, 2, 2]], 2),
        ["conv2d", "gather", "depth_to_space"],
    ),
    "weights that two layers share": (lambda m, x: m.second(m.second(m.first(x)) * 2), ["conv2d", "conv2d", "conv2d"]),
}


@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_the_graph_computes_the_module_by_these_ops(name):
    function, ops = {**FOLDED, **KEPT}[name]
    torch.manual_seed(0)
    module = Own(function).eval()
    graph = capture(module, SHAPE, Metadata())
    x = torch.randn(1, *SHAPE)
    with torch.inference_mode():
        want = module(x)
    got = TorchGraph(graph)(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(got, want.permute(0, 2, 3, 1) if want.ndim == 4 else want, rtol=1e-5, atol=1e-5)
    assert [n.op for n in graph] == ops


def test_what_has_six_dimensions_is_sliced_in_fewer():
    module = Own(lambda m, x: m.first(x).view(1, 2, 2, 7, 2, 3)[:, :, :, 1:, :, 1:].tanh()).eval()
    graph, x = capture(module, SHAPE, Metadata()), torch.randn(1, *SHAPE)
    slices = [n for n in graph if n.op == "slice"]
    assert slices
    assert all(len(graph.tensors[n.inputs[0]].shape) < 6 for n in slices)
    with torch.inference_mode():
        torch.testing.assert_close(TorchGraph(graph)(x.permute(0, 2, 3, 1)), module(x), rtol=1e-5, atol=1e-5)
