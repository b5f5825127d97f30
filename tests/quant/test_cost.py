"""What a layer costs a reconstruction, for the time that is left."""

from __future__ import annotations

import torch
from torch import nn

from edgecnn.graph.capture import capture
from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.ir import Metadata
from edgecnn.quant.cost import layer_cost


def costs(module, images=1000, **known):
    graph = capture(module.eval(), (8, 16, 16), Metadata(model="m"))
    return [layer_cost(node, graph, images, **{"solved": False, **known}) for node in graph if node.op in WEIGHTED]


def test_more_images_pixels_and_weights_cost_more():
    (one,) = costs(nn.Conv2d(8, 8, 3, padding=1))
    assert costs(nn.Conv2d(8, 8, 3, padding=1), images=2000)[0] > 1.3 * one
    assert costs(nn.Conv2d(8, 8, 3, padding=1, stride=2))[0] < one
    assert costs(nn.Conv2d(8, 32, 3, padding=1))[0] > one
    assert costs(nn.Conv2d(8, 8, 5, padding=2))[0] > one


def test_a_layer_that_is_solved_costs_what_the_images_cost():
    module = nn.Sequential(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.Flatten(), nn.Linear(64 * 196, 5))
    for whole, through in zip(costs(module), costs(module, solved=True), strict=True):
        assert 0 < through < whole


def test_an_op_without_weights_costs_its_values():
    graph = capture(nn.AvgPool2d(2).eval(), (8, 16, 16), Metadata(model="m"))
    (node,) = graph
    torch.testing.assert_close(layer_cost(node, graph, 20, solved=False), 2 * layer_cost(node, graph, 10, solved=True))
