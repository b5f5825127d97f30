"""Channel splitting: the network computes the same, its noise falls, and nothing that an image may reach is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import normal_for, smooth
from golden_files import golden
from graphs import random_graph
from int8_builder import float_graph
from torch import nn

from edgecnn.graph.batch import Batch
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import check_integers
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Constant, Metadata
from edgecnn.quant.executor import fake_quantize
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Work
from edgecnn.quant.steps.channel_splitting import ChannelSplitting, chains

GOLDEN = golden("quant")["channel_splitting"]
PLAIN = recipe("fast").without("equalization", "adaptive_rounding")
SPLIT = PLAIN.with_settings("channel_splitting")
IMAGES = SPLIT.setting("channel_splitting", "images")
DEAD = [1, 4, 6]
SHAPE = (12, 10, 4)


def network(*, dead, depthwise=True, groups=1, seed=0):
    """Convolution, depthwise convolution, projection; the channels in ``dead`` have no weights and a bias below 0."""
    torch.manual_seed(seed)
    first = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    with torch.no_grad():
        first.weight[dead], first.bias[dead] = 1e-17, -0.3
        first.bias[[0, 2, 3, 5, 7]] += 2.0
    layers = [first, nn.ReLU6()]
    if depthwise:
        second = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        with torch.no_grad():
            second.bias[dead] = -0.1
            second.bias[[0, 2, 3, 5, 7]] += 2.0
        layers += [second, nn.ReLU6()]
    module = nn.Sequential(*layers, nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    return capture(module.eval(), (4, 12, 10), Metadata(model="m"))


def on_grids(graph, x):
    work = Work(graph=graph, recipe=PLAIN, statistics=calibrate(graph, [x]).statistics)
    for name in ("ranges", "rounding_safe_scales"):
        work = PLAIN.step(name).apply(work)
    return work.graph


def split_channels(graph, x):
    return ChannelSplitting().apply(Work(graph=graph, recipe=SPLIT, images=Batch.of(graph.inputs, x))).graph


def sqnr(want, got):
    return 10 * float(torch.log10(want.square().sum() / (want - got).square().sum()))


@pytest.mark.parametrize("depthwise", [True, False])
def test_the_network_computes_the_same(depthwise):
    graph, x = network(dead=DEAD, depthwise=depthwise), smooth(SHAPE, IMAGES)
    before = on_grids(graph, x)
    after = split_channels(before, x)
    want, got = (TorchGraph(g)(torch.from_numpy(x)) for g in (before, after))
    assert sqnr(want, got) >= GOLDEN["sqnr_db"]
    taken = after.tensors[after.nodes[0].inputs[1]].value
    assert all(np.abs(taken[k]).max() > 0.01 for k in DEAD)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("depthwise", [True, False])
def test_the_noise_of_its_grids_falls(depthwise, seed):
    """The last convolution's sums of the split activations are nearer to float, other layers' noise left out."""
    graph, x = network(dead=DEAD, depthwise=depthwise, seed=seed), smooth(SHAPE, 64)
    before = on_grids(graph, x)
    *split, last = (node.output for node in graph if node.op == "conv2d")

    def noise(made):
        def rounded(name, value):
            seen[name] = value.clone()
            return fake_quantize(value.clone(), made.quant(name)) if name in split else None

        seen = {}
        TorchGraph(made)(torch.from_numpy(x), rounded)
        found = seen[last]
        TorchGraph(graph)(torch.from_numpy(x), lambda name, value: seen.update({name: value.clone()}))
        return float((found - seen[last]).square().sum())

    share = noise(split_channels(before, x)) / noise(before)
    assert share <= GOLDEN["share_of_noise"]["depthwise" if depthwise else "dense"], f"{share:.3f} of the noise is left"


@pytest.mark.parametrize("depthwise", [True, False])
def test_a_split_network_meets_the_contract(depthwise):
    graph, x = network(dead=DEAD, depthwise=depthwise), smooth(SHAPE, 64)
    check_integers(quantize(graph, calibrate(graph, [x], keep=IMAGES), SPLIT).graph)


def test_what_only_these_images_leave_at_zero_is_not_taken():
    graph = network(dead=[])
    x = smooth(SHAPE, IMAGES)
    name = graph.nodes[0].inputs[2]
    bias = graph.tensors[name].value.copy()
    weight = graph.tensors[graph.nodes[0].inputs[1]].value
    reach = np.abs(weight).reshape(8, -1).sum(axis=1) * np.abs(x).max()
    bias[2] = -0.9 * reach[2]  # images of the largest values everywhere would open it, these do not
    lowered = graph.with_tensors(replace(graph.constant(name), value=bias))
    int8 = on_grids(lowered, x)
    assert split_channels(int8, x) is int8


def test_a_layer_in_groups_is_left_alone():
    int8 = on_grids(network(dead=DEAD, groups=2), smooth(SHAPE, IMAGES))
    assert not [chain for chain in chains(int8) if chain.layers[0] is int8.nodes[0]]


def with_dead_channels(graph):
    """A third of the channels behind each ReLU are always zero."""
    changed = []
    for node in graph:
        if node.op == "conv2d" and node.attrs["activation"] != "none":
            weight, bias = (Constant.of(graph.tensors[name]) for name in node.inputs[1:])
            dead = np.arange(len(bias.value)) % 3 == 1
            changed.append(replace(weight, value=np.where(dead.reshape(-1, 1, 1, 1), 0, weight.value)))
            changed.append(replace(bias, value=np.where(dead, np.float32(-0.3), bias.value)))
    return graph.with_tensors(*changed)


def test_any_network_computes_the_same():
    """Most networks of 20 are split, and all of them compute what they did."""
    split = 0
    for seed in range(20):
        graph = with_dead_channels(float_graph(random_graph(seed, 6, body=("conv", "pointwise", "depthwise"))))
        x = normal_for(graph, 4)
        int8 = on_grids(graph, x)
        after = split_channels(int8, x)
        if after is not int8:
            split += 1
            want, got = (TorchGraph(g)(torch.from_numpy(x)) for g in (int8, after))
            assert sqnr(want, got) >= GOLDEN["sqnr_db"], seed
    assert split > 10, f"{split} of 20 networks were split"
