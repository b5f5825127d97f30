"""Gradient sensitivity: what a little noise on an activation does to the logits, and ranges that know it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from seen import UNCORRECTED
from torch import nn

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.observers.gradient_sensitivity import channel_weights, gradient_sensitivity
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import calibrated, quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.steps.ranges import Ranges


class Around(nn.Module):
    """Add to the input what a convolution and a gate make of it: one block, inside which much is alive."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

    def forward(self, x):
        return x + self.conv(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


def network(middle=nn.Identity):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), middle(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 50))
    return capture(nn.Sequential(*layers).eval(), (3, 8, 8), Metadata(model="m"))


@pytest.mark.parametrize("middle", [nn.Identity, Around])
def test_it_is_what_noise_on_a_channel_does_to_the_logits(middle):
    graph, x = network(middle), np.random.default_rng(0).normal(0, 1, (16, 8, 8, 3)).astype(np.float32)
    name = graph.nodes[0].output
    run, noise = TorchGraph(graph), torch.Generator().manual_seed(1)
    want, seen = run(torch.from_numpy(x)), np.zeros(6)
    for channel in range(6):
        for _ in range(20):

            def noisy(at, value, channel=channel):
                if at != name:
                    return None
                value = value.clone()
                added = 1e-3 * torch.randn(value[:, channel].shape, generator=noise)
                value[:, channel] += added * (value[:, channel] > 0)  # zeros of a ReLU are never rounded
                return value

            seen[channel] += float((run(torch.from_numpy(x), noisy) - want).square().sum())
    found = gradient_sensitivity(graph, [name], x)[name]
    np.testing.assert_allclose(found / found.sum(), seen / seen.sum(), rtol=0.25)


def test_the_same_images_say_the_same_and_no_images_nothing():
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (5, 8, 8, 3)).astype(np.float32)
    names = [node.output for node in graph.nodes[:2]]
    first, second = gradient_sensitivity(graph, names, x), gradient_sensitivity(graph, names, x)
    assert set(first) == set(names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name])
    assert not any(value.any() for value in gradient_sensitivity(graph, names, x[:0]).values())


def test_a_channel_weighs_what_an_error_of_each_of_its_values_costs():
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (16, 8, 8, 3)).astype(np.float32)
    name = graph.nodes[0].output
    run, noise = TorchGraph(graph), torch.Generator().manual_seed(1)
    want, seen, size = run(torch.from_numpy(x)), np.zeros(6), 1e-3
    for channel in range(6):

        def noisy(at, value, channel=channel):
            if at == name:
                value = value.clone()
                value[:, channel] += size * torch.randn(value[:, channel].shape, generator=noise)  # of zeros, too
                return value
            return None

        for _ in range(20):
            seen[channel] += float((run(torch.from_numpy(x), noisy) - want).square().sum()) / 20
    values = 16 * 6 * 6
    np.testing.assert_allclose(channel_weights(graph, [name], x)[name], seen / size**2 / values, rtol=0.25)


def test_counts_take_the_weight_of_their_channel():
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (4, 8, 8, 3)).astype(np.float32)
    name = graph.nodes[0].output
    one, other = np.array([0, 0, 2.0, 0, 0, 0]), np.array([0, 0, 0, 0, 0.5, 0])
    seen = calibrate(graph, [x]).statistics[name]
    plain, *found = [seen.range(weights) for weights in (None, np.ones(6), one, one + other)]
    assert found[0].counts.sum() == plain.counts.sum() == 4 * 6 * 6 * 6
    np.testing.assert_array_equal(found[0].counts, plain.counts)
    assert found[0].weighted
    assert not plain.weighted
    assert found[1].counts.sum() == 2 * 4 * 6 * 6
    assert found[2].counts.sum() == 2.5 * 4 * 6 * 6
    assert all(seen.high == plain.high for seen in found)  # what is seen stays what it is
    values = [np.zeros(0)]
    TorchGraph(graph)(torch.from_numpy(x), lambda n, v: values.append(v[:, 2].numpy().ravel()) if n == name else None)
    of_one = np.concatenate(values).astype(np.float64)[:, None]
    inside = (of_one >= found[1].lower) & (of_one < np.nextafter(found[1].upper, np.inf))
    assert (found[1].counts <= 2 * inside.sum(axis=0)).all()


def test_a_sensitive_channel_gets_the_steps_that_a_swish_cannot_give_it():
    """A swish lets no scale through: one grid serves a small channel that matters and large ones that do not."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
    with torch.no_grad():
        first.weight[1:] *= 50
        second.weight[:, 1:] *= 1e-4
        second.bias.zero_()
    module = nn.Sequential(first, nn.SiLU(), second, nn.Flatten(), nn.Linear(5 * 64, 10, bias=False))
    graph = capture(module.eval(), (3, 8, 8), Metadata(model="m"))
    images = np.random.default_rng(0).normal(0, 1, (96, 8, 8, 3)).astype(np.float32)
    x = torch.from_numpy(images[64:])
    want, sqnr = TorchGraph(graph)(x), {}
    for how in ("swish", "everywhere", "alike"):
        steps = UNCORRECTED.with_settings("ranges", sensitivity="everywhere" if how == "everywhere" else "swish")
        prepared, seen = calibrated(graph, iter(np.split(images[:64], 16)), steps)
        if how == "alike":
            seen = replace(seen, images=images[:0])
        error = FakeQuantizedGraph(quantize(prepared, seen, steps).graph)(x) - want
        sqnr[how] = 10 * float(torch.log10(want.square().sum() / error.square().sum()))
    assert sqnr["everywhere"] == pytest.approx(sqnr["swish"], abs=0.5)
    assert sqnr["everywhere"] > sqnr["alike"] + 3


def test_without_a_swish_no_gradient_is_taken_for_ranges(monkeypatch):
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (4, 8, 8, 3)).astype(np.float32)
    monkeypatch.setattr("edgecnn.quant.observers.gradient_sensitivity.channel_weights", None)  # it is not called
    assert Ranges().images_needed(graph) == 0
    prepared, seen = calibrated(graph, iter([x]), recipe("fast"), keep=4)
    quantize(prepared, seen, recipe("fast"))
