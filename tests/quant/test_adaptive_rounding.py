"""Adaptive rounding: neighbours of the float weights only, better than the nearest, and no single step would help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import smooth_for
from golden_files import golden
from graphs import random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from int8_builder import float_graph
from torch import nn

from edgecnn.graph.batch import Batch
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import WEIGHT_LIMIT, check_integers
from edgecnn.graph.interpreter import TorchGraph, laid_out
from edgecnn.graph.ir import Metadata, QuantizedConstant
from edgecnn.quant import rounding_solver as module
from edgecnn.quant.executor import FakeQuantizedGraph, affordable, cost
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Work
from edgecnn.quant.steps.adaptive_rounding import AdaptiveRounding

GOLDEN = golden("quant")["adaptive_rounding"]
NEAREST = recipe("fast").without("adaptive_rounding")
LAYERS = {
    "convolution": lambda: nn.Conv2d(3, 8, 3, padding=1),
    "strided pointwise": lambda: nn.Conv2d(3, 8, 1, stride=2),
    "depthwise": lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1),
    "dilated": lambda: nn.Conv2d(3, 8, 3, dilation=2),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 10, 5)),
}


def layer(name, *after):
    """A network of a layer, always with the same weights."""
    torch.manual_seed(0)
    return capture(nn.Sequential(LAYERS[name](), *after).eval(), (3, 12, 10), Metadata(model=name))


def nearest(graph, x):
    return quantize(graph, calibrate(graph, [x]), NEAREST).graph


def round_adaptively(int8, x):
    best = recipe("best")
    return best.step("adaptive_rounding").apply(Work(graph=int8, recipe=best, images=Batch.of(int8.inputs, x))).graph


def error(graph, int8, x):
    """Mean squared error of the output of a single layer, before the output is rounded itself."""
    want = TorchGraph(graph)(torch.from_numpy(x))
    grid = int8.tensors[int8.inputs[0]].quant
    got = TorchGraph(int8, integers=True)(torch.from_numpy(grid.dequantize(grid.quantize(x))))
    return float((got - want).square().mean())


@settings(max_examples=25, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_every_integer_is_a_neighbour_of_its_float_weight(seed, pieces):
    note(f"random_graph({seed}, {pieces})")
    graph = float_graph(random_graph(seed, pieces))
    x = smooth_for(graph, 4)
    before = nearest(graph, x)
    after = round_adaptively(before, x)
    check_integers(after)
    for node in after:
        if node.weighted:
            weight, old = after.tensors[node.inputs[1]], before.tensors[node.inputs[1]]
            if weight.value[0].size > module.FEW:
                assert weight.quant.same_as(old.quant)
            steps = weight.value / weight.quant.scale.reshape(-1, *[1] * (weight.value.ndim - 1))
            assert np.abs(weight.integers - steps.clip(-WEIGHT_LIMIT, WEIGHT_LIMIT)).max() < 1 + 1e-4


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_nearer_than_with_the_nearest_integers(name):
    graph = layer(name)
    x = smooth_for(graph, 64)
    before = nearest(graph, x)
    share = error(graph, round_adaptively(before, x), x) / error(graph, before, x)
    assert share <= GOLDEN["share_of_error"][name], f"{share:.3f} of the squared error is left"


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "linear"])
def test_the_last_shift_of_a_bias_brings_the_mean_behind_the_activation_nearer(name, monkeypatch):
    graph = layer(name, nn.ReLU())
    x = smooth_for(graph, 64)
    before = nearest(graph, x)

    def mean_error():
        """Return the root of the mean square, over channels, of how wrong their means are."""
        networks = TorchGraph(graph), FakeQuantizedGraph(round_adaptively(before, x))
        want, got = (network(torch.from_numpy(x)) for network in networks)
        return float((got - want).mean((0, 1, 2)).square().mean().sqrt())

    shifted = mean_error()
    monkeypatch.setattr(module, "bias_shift", lambda pairs, function: torch.zeros(pairs[0][0].shape[1]).double())
    share = shifted / mean_error()
    assert share <= GOLDEN["share_of_mean_error"], f"{share:.3f} of the mean error is left"


def test_a_channel_with_few_taps_chooses_a_scale_that_is_no_worse(monkeypatch):
    graph = layer("depthwise")
    x = smooth_for(graph, 64)
    before = nearest(graph, x)
    chosen = round_adaptively(before, x)
    check_integers(chosen)
    monkeypatch.setattr(module, "FEW", 0)
    share = error(graph, chosen, x) / error(graph, round_adaptively(before, x), x)
    assert share <= GOLDEN["share_of_error_few"], f"{share:.3f} of the squared error is left"


def test_no_single_weight_would_be_better_at_its_other_neighbour():
    torch.manual_seed(0)
    graph = capture(nn.Conv2d(3, 4, 3).eval(), (3, 12, 10), Metadata(model="m"))
    x = smooth_for(graph, 32)
    moments, rows, scales = solved(graph, x)
    covariance, cross = moments.problem(rows)
    integers = module.round_rows(covariance, cross, rows, scales, 127)

    def cost(candidate):
        w = candidate * scales
        return float((w @ covariance * w - 2 * w * cross).sum())

    reached = cost(integers)
    low, high = torch.floor(rows / scales), torch.ceil(rows / scales)
    for index in np.ndindex(*integers.shape):
        other = integers.clone()
        other[index] = low[index] + high[index] - other[index]
        assert cost(other) >= reached - 1e-9


def solved(graph, x):
    """The moments of the only layer, its rows and their scales."""
    (node,) = (n for n in graph if n.weighted)
    weight = nearest(graph, x).tensors[node.inputs[1]]
    value = laid_out(weight.value)
    moments = module.Moments(1, value[0].numel(), len(value))
    made = TorchGraph(graph)(torch.from_numpy(x)).permute(0, 3, 1, 2)
    moments.add(module.patches(node, torch.from_numpy(x).permute(0, 3, 1, 2), value), made)
    scales = torch.from_numpy(weight.quant.scale).double().reshape(1, -1, 1)
    return moments, value.reshape(1, len(value), -1).double(), scales


def test_inputs_around_a_large_mean_keep_their_covariance():
    """Products of float32 around 50 hold the square of the mean and little else (MediaPipe's iris_landmark)."""
    random = torch.Generator().manual_seed(0)
    x = 50 + 0.05 * torch.randn(1, 64, 4096, generator=random)
    moments = module.Moments(1, 64, 2)
    for part in x.split(512, 2):
        moments.add(part, part[:, :2, :, None].reshape(1, 2, -1, 1))
    wanted = torch.cov(x[0].double(), correction=0)
    covariance, _ = moments.problem(torch.zeros(1, 2, 64, dtype=torch.float64))
    found = covariance[0] - torch.diag_embed(covariance[0].diagonal() - wanted.diagonal())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-8)
    assert torch.linalg.eigvalsh(covariance[0]).min() > 0
    torch.testing.assert_close(moments.means()[0][0], x[0].double().mean(1))


def test_the_same_images_give_the_same_integers():
    graph = layer("convolution")
    x = smooth_for(graph, 16)
    first, second = (round_adaptively(nearest(graph, x), x) for _ in range(2))
    for name, tensor in first.tensors.items():
        if isinstance(tensor, QuantizedConstant):
            np.testing.assert_array_equal(tensor.integers, second.tensors[name].integers)


def test_memory_bounds_the_images():
    graph = layer("convolution")
    int8 = nearest(graph, smooth_for(graph, 4))
    both = 12 * 10 * (3 + 8) * 5  # input and output, float32 and int8
    assert affordable(int8, 300, lambda _: 5, 2 << 30) == 300
    assert affordable(int8, 300, lambda _: 5, 7 * both) == 7
    assert affordable(int8, 300, lambda _: 8, 7 * both) == 4
    assert affordable(int8, 300, lambda _: 5, 1) == 1


def test_a_layer_of_many_taps_keeps_its_integers_and_has_its_bias_corrected():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    graph = capture(module.eval(), (3, 12, 10), Metadata())
    x = smooth_for(graph, 16)
    plain = nearest(graph, x)
    step = recipe("best").step("adaptive_rounding").with_settings(taps=30)
    made = step.apply(Work(graph=plain, recipe=recipe("best"), images=Batch.of(plain.inputs, x))).graph
    first, second = (node for node in graph if node.weighted)
    same = [
        np.array_equal(plain.tensors[name].integers, made.tensors[name].integers)
        for name in (*first.inputs[1:], *second.inputs[1:])
    ]
    assert same == [False, False, True, False]


def test_no_more_images_are_kept_than_it_looks_at():
    graph = random_graph(3, 5)
    each = cost(graph) / 1e9
    step = AdaptiveRounding(images=100)
    assert step.images_needed(graph) == 100
    assert replace(step, gmacs=40.5 * each).images_needed(graph) == 40
    assert replace(step, gmacs=each).images_needed(graph) == 16
