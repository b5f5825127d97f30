"""Multipliers and scales at the edge: a converter refuses them, or its runtime computes them exactly."""

from __future__ import annotations

import numpy as np
import pytest
from int8_builder import Int8Builder, random_images
from runtimes import WRITERS, distances, opened

from edgecnn.errors import UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata, QParams
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn_converters.preconditions import multipliers
from edgecnn_converters.registry import converters

REFUSED = {
    "tflite": {"conv2d", "fully_connected", "mul", "add"},
    "onnx": {"mean"},
    "openvino": {"fully_connected", "mean"},
    "c": set(),
}
"""Target to the ops whose multipliers of 256 and more it refuses; OpenVINO of linear layers from 64 on."""
OPS = sorted(set().union(*REFUSED.values()))


def grid(scale, zero=-5):
    return QParams(scale=np.array([scale]), zero_point=np.array([zero]), dtype="int8")


def graph_of(op, multiplier):
    """A graph of one op between activations of scale 1 / 16, with a multiplier near one."""
    b = Int8Builder((1, 4, 4, 4), seed=1)
    b.tensors["input"] = b.tensors["input"].__class__(name="input", shape=(1, 4, 4, 4), quant=grid(1 / 16, 3))
    if op in ("conv2d", "fully_connected"):
        x = b.input if op == "conv2d" else b.op("reshape", b.input, shape=(1, 64))
        shape = (4, 1, 1, 4) if op == "conv2d" else (4, 64)
        return b.graph(b.weighted(op, x, shape, bias=False, out=grid(0.01 / 16 / multiplier)))
    out = {"add": 1 / 16, "mul": 1 / 256, "mean": 1 / 256}[op] / multiplier
    inputs = [b.input] * (1 if op == "mean" else 2)
    return b.graph(b.op(op, *inputs, out=grid(out)))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("target", [*WRITERS, "c"])
def test_large_multipliers_are_refused_or_computed_exactly(op, target, tmp_path):
    large, fair = graph_of(op, 4000), graph_of(op, 10)
    assert multipliers(large, large.nodes[-1]).max() >= 256
    writer = converters()[target]
    assert writer.unsupported(fair, "int8") == []
    if op in REFUSED[target]:
        ((node, reason),) = writer.unsupported(large, "int8")
        assert node == large.outputs[0]
        assert "a multiplier of" in reason
        assert "take" in reason
        assert "choose another scale" in reason
        with pytest.raises(UnsupportedError, match=f"cannot hold {node}: a multiplier of"):
            writer.convert(large, precision="int8")
        return
    if target == "c":
        writer.convert(large, precision="int8")  # bounds.py proves that its sums fit
        return
    opened_ = opened(target, writer.convert(large, precision="int8"), tmp_path)
    assert distances(large, opened_, random_images(large, 4)).max() == 0


def test_openvino_takes_no_scale_above_a_thousand():
    b = Int8Builder((1, 4, 4, 4))
    large = b.graph(b.weighted("conv2d", b.input, (4, 1, 1, 4), out=grid(1001.0)))
    ((node, reason),) = WRITERS["openvino"].unsupported(large, "int8")
    assert (node, reason[:16]) == (large.outputs[0], "a scale of 1e+03")
    assert WRITERS["tflite"].unsupported(large, "int8") == []


def test_a_layer_that_is_always_zero_gets_multipliers_that_every_converter_takes():
    import torch

    class Dead(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1)
            torch.nn.init.constant_(self.b.weight, 1e-9)
            torch.nn.init.zeros_(self.b.bias)

        def forward(self, x):
            live = self.a(x) * 100
            return (self.b(live) + live * self.b(live)).mean((2, 3))

    graph = capture(Dead().eval(), (3, 6, 6), Metadata())
    images = np.random.default_rng(0).normal(0, 1, (8, 6, 6, 3)).astype(np.float32)
    for name in ("minmax", "fast"):
        made = quantize(graph, calibrate(graph, [images], keep=8), recipe(name)).graph
        for target in WRITERS:
            assert WRITERS[target].unsupported(made, "int8") == []
