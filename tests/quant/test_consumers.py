"""Ranges of what a swish or a sigmoid reads: chosen by what the function makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seen import conv_of, range_of
from torch import nn

from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata, Tensor
from edgecnn.graph.ops import make_node
from edgecnn.quant.observers.clipping import mse_range
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.scales.consumers import around_swishes, positions_summed, saturating_consumer, visible
from edgecnn.quant.scales.qparams import activation_qparams

X = torch.linspace(-9, 9, 37)


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (F.silu, F.silu),
        (F.hardswish, F.hardswish),
        (torch.sigmoid, torch.sigmoid),
        (F.gelu, F.gelu),
        (F.mish, F.mish),
        (torch.tanh, torch.tanh),
        (lambda x: x.clamp(-2, 3), lambda x: x.clamp(-2, 3)),
        (lambda x: x.clamp(min=-2), None),
        (F.hardsigmoid, None),
        (lambda x: F.silu(x) + x, None),
        (lambda x: x * torch.sigmoid(x + x), None),
        (F.relu, None),
        (lambda x: x + x, None),
        (lambda x: x * 2, None),
    ],
    ids=[
        "silu",
        "hard_swish",
        "sigmoid",
        "gelu",
        "mish",
        "tanh",
        "clamp",
        "lower_end",
        "hard_sigmoid",
        "silu_and_more",
        "other_gate",
        "relu",
        "sum",
        "twice",
    ],
)
def test_what_reads_an_activation(function, same):
    consumer = saturating_consumer(*conv_of(function))
    assert (consumer is None) == (same is None)
    if same is not None:
        torch.testing.assert_close(consumer(X), same(X))


def error_after(function, samples, low, high):
    quant = activation_qparams(low, high)
    seen = torch.from_numpy(quant.dequantize(quant.quantize(samples)))
    return float((function(seen) - function(torch.from_numpy(samples))).square().mean())


@pytest.mark.parametrize("function", [F.silu, F.hardswish, F.gelu, torch.sigmoid, torch.tanh])
def test_steps_go_where_the_function_is_steep(function):
    samples = np.random.default_rng(0).normal(-4, 6, 20000).astype(np.float32)
    seen = range_of(samples)
    (low, high), plain = mse_range(seen, function), mse_range(seen)
    assert low > plain[0] / 2
    assert error_after(function, samples, low, high) < error_after(function, samples, *plain) / 2


def test_it_is_a_matter_of_least_squares_alone():
    torch.manual_seed(0)
    graph, name = conv_of(F.silu)
    seen = calibrate(graph, [np.random.default_rng(0).normal(0, 20, (8, 8, 8, 3)).astype(np.float32)])
    steps = {how: recipe("minmax").with_settings("ranges", method=how) for how in ("minmax", "mse")}
    scales = {how: float(quantize(graph, seen, made).graph.tensors[name].quant.scale[0]) for how, made in steps.items()}
    assert scales["mse"] < scales["minmax"] * 0.7


@pytest.mark.parametrize(
    ("function", "swish"),
    [
        (F.silu, True),
        (F.hardswish, True),
        (F.gelu, True),
        (torch.sigmoid, False),
        (lambda x: F.silu(x) + x, False),
        (F.relu, False),
    ],
)
def test_a_swish_stands_between_two_activations(function, swish):
    graph, conv = conv_of(function)
    made = [node.output for node in graph if node.op in ("mul", "hard_swish", "gelu")]
    assert around_swishes(graph) == ({conv, *made} if swish else set())


class Sum(nn.Module):
    """A branch within [0, 6] and one of some 60, summed."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.near, self.far, self.function = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), function
        with torch.no_grad():
            self.near.weight.mul_(10)
            self.far.weight.mul_(20)

    def forward(self, x):
        return self.function(F.relu6(self.near(x)) + self.far(x))


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [(F.relu6, -6.0, 6.0), (F.relu, -6.0, None), (lambda x: x, None, None)],
    ids=["relu6", "relu", "none"],
)
def test_an_operand_of_a_sum_covers_what_its_relu_can_show(function, low, high):
    graph = capture(Sum(function).eval(), (3, 8, 8), Metadata(model="m"))
    (far,) = (n.output for n in graph if n.op == "conv2d" and n.attrs["activation"] == "none")
    seen = calibrate(graph, [np.random.default_rng(0).normal(0, 1, (16, 8, 8, 3)).astype(np.float32)])
    steps = recipe("minmax").with_settings("ranges", method="mse")
    quant = quantize(graph, seen, steps).graph.quant(far)
    ends = [float(quant.scale[0]) * (end - int(quant.zero_point[0])) for end in quant.limits]
    whole = seen.statistics[far]
    wanted = (whole.low.min() if low is None else low, whole.high.max() if high is None else high)
    assert wanted[0] * 1.05 <= ends[0] <= wanted[0] * 0.6
    assert wanted[1] * 0.6 <= ends[1] <= wanted[1] * 1.05
    bounds = visible(graph, far, {name: each.range() for name, each in seen.statistics.items()})
    assert bounds == (low if low is not None else -np.inf, high if high is not None else np.inf)


def test_what_is_read_twice_is_seen_whole():
    graph = capture(Sum(lambda x: F.relu6(x) + 1).eval(), (3, 8, 8), Metadata(model="m"))
    ranges = {t.name: range_of(np.ones(4, np.float32)) for t in graph.activations()}
    relu6 = next(n.output for n in graph if n.op == "add" and n.attrs["activation"] == "relu6")
    assert visible(graph, relu6, ranges) == (-np.inf, np.inf)  # the other operand is a constant
    (near,) = (n.output for n in graph if n.op == "conv2d" and n.attrs["activation"] == "relu6")
    assert visible(graph, near, ranges) == (-1.0, 5.0)
    again = {"again": Tensor(name="again", shape=graph.tensors[near].shape)}
    nodes = (*graph.nodes, make_node("relu", (near,), "again"))
    twice = replace(graph, nodes=nodes, tensors={**graph.tensors, **again})
    assert visible(twice, near, ranges) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("behind", "positions"),
    [
        (nn.Conv2d(4, 4, 1), 1),
        (nn.Conv2d(4, 4, 3), 9),
        (nn.Conv2d(4, 4, 5, groups=4), 25),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)), 9),
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 4, 3)), 4),
        (nn.AdaptiveAvgPool2d(1), 64),
        (nn.ReLU6(), 1),
    ],
    ids=["1x1", "3x3", "depthwise", "through_a_pool", "average", "mean", "none"],
)
def test_how_many_positions_are_summed(behind, positions):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), behind)
    graph = capture(module.eval(), (3, 8, 8), Metadata(model="behind"))
    assert positions_summed(graph, {graph.nodes[0].output}) == positions


def test_a_clipped_value_counts_more_where_sums_add_it_up():
    samples = np.random.default_rng(0).laplace(0, 1, 200_000).astype(np.float32)
    once, nine = (mse_range(range_of(samples), clipped=times) for times in (1.0, 9.0))
    assert np.abs(samples).max() > nine[1] > 1.1 * once[1]
    assert nine[0] < 1.1 * once[0]
