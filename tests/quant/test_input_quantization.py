"""Pixels are the input's integers, and the network computes what it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from user_modules import GOOD

from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.preprocess import Preprocess
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Work
from edgecnn.quant.steps.input_quantization import InputQuantization

SHAPE = (3, 32, 32)
LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(3, axis=3)


def network(**fed):
    return capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata(preprocess=Preprocess(resize=None, **fed)))


def fold_mean(graph):
    return InputQuantization().apply(Work(graph=graph, recipe=recipe("fast"))).graph


def pixel_parameters(graph):
    return InputQuantization().fixed_parameters(graph).get("input")


@pytest.mark.parametrize(("mean", "std"), [(127.5, 127.5), (0.0, 255.0), (128.0, 64.0), (0.0, 1.0), (127.4, 127.5)])
def test_every_level_is_its_own_integer(mean, std):
    graph = fold_mean(network(mean=(mean,) * 3, std=(std,) * 3))
    grid = pixel_parameters(graph)
    x = graph.metadata.preprocess.normalise(LEVELS)
    np.testing.assert_array_equal(grid.quantize(x), LEVELS.astype(int) - 128)
    np.testing.assert_allclose(grid.dequantize(grid.quantize(x)), x, atol=1e-6 * 255 / std)


def test_the_network_is_the_same_but_at_the_padding():
    graph = network()
    moved = fold_mean(graph)
    assert moved.metadata.preprocess.mean == (127.0, 127.0, 127.0)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    first = graph.nodes[0].output
    inner = []
    for side in (graph, moved):
        seen = {}
        fed = torch.from_numpy(side.metadata.preprocess.normalise(pixels))
        TorchGraph(side)(fed, lambda name, value, seen=seen: seen.update({name: value.clone()}))
        inner.append(seen[first][:, :, 1:-1, 1:-1].numpy())
    np.testing.assert_allclose(*inner, atol=1e-5)
    np.testing.assert_allclose(
        moved.metadata.preprocess.renormalised(moved.metadata.preprocess.normalise(pixels), graph.metadata.preprocess),
        graph.metadata.preprocess.normalise(pixels),
        atol=1e-6,
    )


def test_nothing_moves_where_it_cannot():
    several = network(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    assert fold_mean(several) is several
    assert pixel_parameters(several) is None
    assert pixel_parameters(network(mean=(300.0,) * 3, std=(1.0,) * 3)) is None
    assert pixel_parameters(capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())) is None
