"""How much the logits feel of an activation: what a little noise there does to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.quant.felt import felt


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 50))
    return capture(nn.Sequential(*layers).eval(), (3, 8, 8), Metadata(model="m"))


def test_it_is_what_noise_on_a_channel_does_to_the_logits():
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (16, 8, 8, 3)).astype(np.float32)
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
    found = felt(graph, [name], x)[name]
    np.testing.assert_allclose(found / found.sum(), seen / seen.sum(), rtol=0.25)


def test_the_same_images_say_the_same_and_no_images_nothing():
    graph, x = network(), np.random.default_rng(0).normal(0, 1, (5, 8, 8, 3)).astype(np.float32)
    names = [node.output for node in graph.nodes[:2]]
    first, second = felt(graph, names, x), felt(graph, names, x)
    assert set(first) == set(names)
    for name in names:
        np.testing.assert_array_equal(first[name], second[name])
    assert not any(value.any() for value in felt(graph, names, x[:0]).values())
