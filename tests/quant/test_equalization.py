"""Equalization changes the weights, not what the network computes; integers then cost less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import normal
from golden_files import golden
from odd_networks import ODD, calibration, network
from odd_networks import images as odd_images
from user_modules import GOOD

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Work
from edgecnn.quant.steps import equalization
from edgecnn.quant.steps.equalization import Equalization, scalable

SHAPE = (3, 12, 10)
IMAGES, UNSEEN = (normal((12, 10, 3), 24, seed) for seed in (0, 1))
LIMITS = golden("quant")["equalization"]


class Chain(torch.nn.Module):
    """Dense, depthwise, dense with unequal channels: what equalization is for."""

    def __init__(self, activation=torch.nn.ReLU):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.c = torch.nn.Conv2d(3, 16, 1), torch.nn.Conv2d(16, 8, 1)
        self.b = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.act, self.head = activation(), torch.nn.Linear(8, 5)
        factors = 2.0 ** torch.linspace(-4, 4, 16)[torch.randperm(16)]
        self.b.weight.data *= factors.reshape(-1, 1, 1, 1)
        self.b.bias.data *= factors
        self.c.weight.data /= factors.reshape(1, -1, 1, 1)

    def forward(self, x):
        return self.head(self.c(self.act(self.b(self.act(self.a(x))))).mean((2, 3)))


def equalized(graph, *, per_tensor=False):
    steps = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    seen = calibrate(graph, [IMAGES]).statistics
    return Equalization().apply(Work(graph=graph, recipe=steps, statistics=seen)).graph


def error_db(exact, got):
    return float(10 * torch.log10(exact.square().sum() / (exact - got).square().sum().clamp(min=1e-30)))


def int8_db(graph, recipe):
    x = torch.from_numpy(UNSEEN)
    int8 = quantize(graph, calibrate(graph, [IMAGES], keep=24), recipe).graph
    return error_db(TorchGraph(graph)(x), FakeQuantizedGraph(int8)(x))


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("module", sorted(GOOD))
def test_an_equalized_network_computes_the_same(module, per_tensor):
    torch.manual_seed(1)
    graph = capture(GOOD[module]().eval(), SHAPE, Metadata())
    equal = equalized(graph, per_tensor=per_tensor)
    x = torch.from_numpy(IMAGES)
    torch.testing.assert_close(TorchGraph(equal)(x), TorchGraph(graph)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_tensor", [False, True])
def test_integers_cost_an_equalized_network_less(per_tensor):
    limit = LIMITS["per_tensor_gain_db" if per_tensor else "per_channel_gain_db"]
    graph = capture(Chain().eval(), SHAPE, Metadata())
    fast = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    assert int8_db(graph, fast) > int8_db(graph, fast.without("equalization")) + limit


def test_the_noise_that_decides_is_the_noise_that_rounding_makes():
    """Of the activation between two layers, and of the second one's weights, as shares of its outputs' squares."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), torch.nn.Conv2d(16, 32, 1)).eval()
    graph = capture(module, SHAPE, Metadata())
    (group,) = scalable(graph)
    (consumer,) = group.consumers
    scaling = equalization._Scaling(graph, calibrate(graph, [IMAGES]).statistics, per_tensor=False)
    importance = np.square(scaling.weights[consumer.output]).sum(axis=(0, 1)) / scaling.energy[consumer.output]
    expected = scaling._noise(group, np.ones(16), importance)
    expected_of_weights = scaling._weight_noise(consumer, np.ones(16), np.ones(32))
    with torch.no_grad():
        between = module[0](torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(-1, 16).double()
        weight = module[1].weight[:, :, 0, 0].double()
        steps, step = weight.abs().amax(1, keepdim=True) / 127, (between.max() - between.min()) / 255
        outputs = between @ weight.T + module[1].bias.double()
        of_weights = (between @ ((weight / steps).round() * steps - weight).T).square().sum() / outputs.square().sum()
        of_activation = (((between / step).round() * step - between) @ weight.T).square().sum() / outputs.square().sum()
    assert expected_of_weights == pytest.approx(float(of_weights), rel=LIMITS["noise_within"])
    assert expected - expected_of_weights == pytest.approx(float(of_activation), rel=LIMITS["noise_within"])


def test_large_weights_that_meet_zeros_change_no_scaling_of_channels_with_scales_of_their_own():
    biases = []
    for factor in (1.0, 64.0):
        chain, shown = Chain(), IMAGES.copy()
        shown[..., 2] = 0
        chain.a.weight.data[:, 2] *= factor * torch.linspace(1, 8, 16).reshape(-1, 1, 1) ** (factor > 1)
        graph = capture(chain.eval(), SHAPE, Metadata())
        seen = calibrate(graph, [shown]).statistics
        made = Equalization().apply(Work(graph=graph, recipe=recipe("fast"), statistics=seen)).graph
        biases.append([made.constant(node.inputs[2]).value for node in made if node.weighted])
    for small, large in zip(*biases, strict=True):
        np.testing.assert_array_equal(small, large)


def test_a_residual_stream_is_scaled_as_one():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96", 10), seed=4)
    groups = list(scalable(capture(module, (3, 96, 96), Metadata())))
    streams = [g for g in groups if len(g.producers) > 1]
    assert streams
    assert all(len(g.tensors) == 2 * len(g.producers) - 1 for g in streams)


def test_a_clipped_channel_is_left_alone():
    graph = capture(Chain(torch.nn.ReLU6).eval(), SHAPE, Metadata())
    seen = calibrate(graph, [IMAGES]).statistics
    equal = equalized(graph, per_tensor=True)
    name = next(n.output for n in graph if n.attrs.get("groups") == 16)
    before, after = (g.tensors[f"{name}.bias"].value for g in (graph, equal))
    clipped = seen[name].high >= 6
    assert clipped.any()
    assert not clipped.all()
    np.testing.assert_array_equal(before[clipped], after[clipped])
    assert not np.array_equal(before, after)
    exact = equalized(graph)
    np.testing.assert_array_equal(exact.tensors[f"{name}.bias"].value, before)


RARE_CHANNELS = {0: 0.0, 1: 1.0, 2: 3.0}  # of every activation, as many images made it large


def chain_with_rare_channels():
    """The chain, and statistics in which some channels were seen in few images only, one of them at a thousandfold."""
    graph = capture(Chain().eval(), SHAPE, Metadata())
    statistics = {}
    for name, seen in calibrate(graph, [IMAGES]).statistics.items():
        support, high = seen.support.copy(), seen.high.copy()
        if len(support) > 8:
            for channel, count in RARE_CHANNELS.items():
                support[channel] = count
                high[channel] = 1e3 * count
        statistics[name] = replace(seen, support=support, high=high)
    return graph, statistics


@pytest.mark.parametrize("per_tensor", [False, True])
def test_a_channel_that_was_hardly_seen_keeps_its_weights_bit_for_bit(per_tensor):
    graph, statistics = chain_with_rare_channels()
    steps = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    made = Equalization().apply(Work(graph=graph, recipe=steps, statistics=statistics))
    equal = made.graph
    first, second, third = (node for node in graph if node.op == "conv2d")
    kept, others = sorted(RARE_CHANNELS), np.setdiff1d(np.arange(16), sorted(RARE_CHANNELS))

    def rows(made, chosen):
        weights = [made.constant(node.inputs[1]).value for node in (first, second, third)]
        biases = [made.constant(node.inputs[2]).value[chosen] for node in (first, second)]
        return [weights[0][chosen], weights[1][chosen], *biases]

    for before, after in zip(rows(graph, kept), rows(equal, kept), strict=True):
        np.testing.assert_array_equal(before, after)
    assert any(not np.array_equal(a, b) for a, b in zip(rows(graph, others), rows(equal, others), strict=True))
    columns = (g.constant(third.inputs[1]).value[..., kept] for g in (graph, equal))
    behind = made.statistics[third.output].divisor.reshape(-1, 1, 1, 1)  # the third layer's rows may be scaled
    before, after = columns
    np.testing.assert_allclose(before, after * behind, rtol=1e-6)


def test_what_was_hardly_seen_moves_no_other_channel():
    """As long as it sets no range, whether it is small or nothing is no matter for the rest."""
    graph, statistics = chain_with_rare_channels()

    def with_rare(size):
        changed = {
            name: replace(
                seen, low=np.where(seen.support <= 3, 0, seen.low), high=np.where(seen.support <= 3, size, seen.high)
            )
            for name, seen in statistics.items()
            if len(seen.high) == 16
        }
        work = Work(graph=graph, recipe=recipe("fast"), statistics={**statistics, **changed})
        return Equalization().apply(work).statistics

    first, second = with_rare(1e-9), with_rare(1e-3)
    for name, seen in first.items():
        np.testing.assert_allclose(seen.divisor, second[name].divisor)


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_odd_networks_compute_the_same_and_no_scale_exceeds_its_support(odd, per_tensor):
    steps = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    for seed in range(3):
        graph, x = network(odd, seed), torch.from_numpy(odd_images(seed, 32, 5))
        before = calibrate(graph, [calibration(odd, seed)]).statistics
        made = Equalization().apply(Work(graph=graph, recipe=steps, statistics=before))
        clipped = any(g.clipped for g in scalable(graph)) and per_tensor
        if not clipped:  # of a ReLU6 it holds on what was seen
            want, got = TorchGraph(graph)(x), TorchGraph(made.graph)(x)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.std()))
        for group in scalable(graph):
            support = np.max([before[name].support for name in group.tensors], axis=0)
            for name in group.tensors:
                scaling = made.statistics[name].divisor
                assert (scaling <= np.maximum(support, 1) * (1 + 1e-9)).all()
                assert (scaling >= 1 / np.maximum(support, 1) * (1 - 1e-9)).all()
                assert (scaling[support <= 3] == 1).all()


def test_the_statistics_are_those_of_the_equalized_network():
    graph = capture(Chain().eval(), SHAPE, Metadata())
    made = Equalization().apply(
        Work(graph=graph, recipe=recipe("fast"), statistics=calibrate(graph, [IMAGES]).statistics)
    )
    again = calibrate(made.graph, [IMAGES]).statistics
    assert any((seen.divisor != 1).any() for seen in made.statistics.values())
    for name, seen in made.statistics.items():
        for key in ("low", "high", "square"):
            wanted = getattr(again[name], key)
            np.testing.assert_allclose(getattr(seen, key), wanted, rtol=0.05, atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_allclose(seen.support, again[name].support, rtol=1e-3)


def test_half_of_its_strength_goes_half_of_the_way():
    graph = capture(Chain().eval(), SHAPE, Metadata())
    seen = calibrate(graph, [IMAGES]).statistics
    full, half, none = (
        step.apply(Work(graph=graph, recipe=recipe("fast"), statistics=seen))
        for step in (Equalization(), Equalization().damped(), Equalization(strength=0.0))
    )
    for name in seen:
        np.testing.assert_allclose(half.statistics[name].divisor ** 2, full.statistics[name].divisor)
        assert (none.statistics[name].divisor == 1).all()
    x = torch.from_numpy(UNSEEN)
    torch.testing.assert_close(TorchGraph(half.graph)(x), TorchGraph(graph)(x), rtol=1e-4, atol=1e-5)
