"""Slices of the last dimension at a network's end are made each by itself, so that each has a scale of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn


class Detector(nn.Module):
    """Boxes and scores of two levels, joined and taken apart again."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(8, 9, 1) for _ in range(2))

    def forward(self, x):
        first = self.stem(x).relu()
        made = [head(level) for head, level in zip(self.heads, (first, self.down(first).relu()), strict=True)]
        y = torch.cat([each.permute(0, 2, 3, 1).reshape(1, -1, 9) for each in made], 1)
        return 40 * y[..., :4], y[..., 4:].sigmoid()


class Joined(Detector):
    """Boxes and scores that are read whole too."""

    def forward(self, x):
        y = self.heads[0](self.stem(x)).flatten(2).transpose(1, 2)
        return y, y[..., :4], y[..., 4:]


class Attention(nn.Module):
    """Slices that layers read: they stay those of one layer, which is faster than three."""

    def __init__(self):
        super().__init__()
        self.qkv, self.last = nn.Linear(12, 24), nn.Linear(8, 4)

    def forward(self, x):
        q, k, v = self.qkv(x.mean((2, 3))).split(8, -1)
        return self.last(q * k + v)


class Apart(nn.Module):
    def forward(self, y):
        return y[:, :4], y[:, 4:]


def loaded(module, shape=(3, 16, 16)):
    torch.manual_seed(0)
    return edgecnn.load(module.eval(), input_shape=shape, preprocess="mean=0,std=255")


def ops(network):
    return [node.op for node in network.graph]


@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_and_scores_have_scales_of_their_own(seed):
    network = loaded(Detector())
    assert "slice" not in ops(network)
    assert ops(network).count("conv2d") == 6, "two heads, each in two"
    images = np.random.default_rng(seed).integers(0, 256, (16, 16, 16, 3), np.uint8)
    graph = edgecnn.quantize(network, images).graph
    scores = next(node for node in graph if node.op == "sigmoid")
    assert graph.quant(graph.outputs[0]).scale[0] > 8 * graph.quant(scores.inputs[0]).scale[0]


def test_a_vector_that_is_taken_apart_comes_from_two_layers():
    network = loaded(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 9), Apart()))
    assert sorted(ops(network)) == ["fully_connected", "fully_connected", "mean"]
    assert [network.graph.tensors[name].shape for name in network.graph.outputs] == [(1, 4), (1, 5)]


def test_an_activation_before_the_slices_is_made_of_each():
    network = loaded(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 9), nn.Tanh(), Apart()))
    assert sorted(ops(network)) == ["fully_connected", "fully_connected", "mean", "tanh", "tanh"]


def test_what_is_read_whole_stays_whole():
    assert ops(loaded(Joined())).count("slice") == 2


def test_what_layers_read_stays_one_layer():
    assert ops(loaded(Attention(), (12, 4, 4))).count("slice") == 3
