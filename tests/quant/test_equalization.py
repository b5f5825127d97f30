"""Equalization changes the weights, not what the network computes; integers then cost less."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import GOOD

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.observers.channels import channel_statistics
from edgecnn.quant.observers.histogram import calibrate, peek
from edgecnn.quant.pipeline import calibrated, quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Work
from edgecnn.quant.steps.equalization import Equalization, scalable

SHAPE = (3, 12, 10)
LIMITS = tomllib.loads((Path(__file__).parents[1] / "golden" / "quant.toml").read_text("utf-8"))["equalization"]


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


def images(count=24, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (count, SHAPE[1], SHAPE[2], 3)).astype(np.float32)


def equalized(graph, *, per_tensor=False):
    steps = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    return Equalization().apply(Work(graph=graph, recipe=steps, images=images())).graph


def error_db(exact, got):
    return float(10 * torch.log10(exact.square().sum() / (exact - got).square().sum().clamp(min=1e-30)))


def int8_db(graph, prepared, recipe):
    x = torch.from_numpy(images(seed=1))
    int8 = quantize(prepared, calibrate(prepared, [images()], keep=24), recipe)
    return error_db(TorchGraph(graph)(x), FakeQuantizedGraph(int8)(x))


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("module", sorted(GOOD))
def test_an_equalized_network_computes_the_same(module, per_tensor):
    torch.manual_seed(1)
    graph = capture(GOOD[module]().eval(), SHAPE, Metadata())
    equal = equalized(graph, per_tensor=per_tensor)
    x = torch.from_numpy(images())
    torch.testing.assert_close(TorchGraph(equal)(x), TorchGraph(graph)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_tensor", [False, True])
def test_integers_cost_an_equalized_network_less(per_tensor):
    limit = LIMITS["per_tensor_gain_db" if per_tensor else "per_channel_gain_db"]
    graph = capture(Chain().eval(), SHAPE, Metadata())
    fast = recipe("fast").with_settings("weights", per_tensor=per_tensor)
    plain, (equal, _) = fast.without("equalization"), calibrated(graph, iter([images()]), fast)
    assert int8_db(graph, equal, plain) > int8_db(graph, graph, plain) + limit


def test_a_residual_stream_is_scaled_as_one():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96", 10), seed=4)
    groups = list(scalable(capture(module, (3, 96, 96), Metadata())))
    streams = [g for g in groups if len(g.producers) > 1]
    assert streams
    assert all(len(g.tensors) == 2 * len(g.producers) - 1 for g in streams)


def test_a_clipped_channel_is_left_alone():
    graph = capture(Chain(torch.nn.ReLU6).eval(), SHAPE, Metadata())
    seen = channel_statistics(graph, images())
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


def test_the_first_images_are_seen_twice_and_in_order():
    batches = [images(4, seed) for seed in range(5)]
    first, stream = peek(iter(batches), 6)
    np.testing.assert_array_equal(first, np.concatenate(batches)[:6])
    np.testing.assert_array_equal(np.concatenate(list(stream)), np.concatenate(batches))
    first, stream = peek(iter(batches), 100)
    assert len(first) == 20
    assert len(list(stream)) == 5
