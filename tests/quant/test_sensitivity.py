"""Sensitivity finds the layer that was spoilt, says why, and ranks it first."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from drawn import normal
from golden_files import golden
from user_modules import GOOD

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.graph.serialize import save
from edgecnn.preprocess import Preprocess
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.sensitivity import sensitivity

LIMITS = golden("quant")
PLAIN = recipe("minmax")
IMAGES = normal((6, 6, 3), 8)


class Uneven(torch.nn.Module):
    """Three layers; the second one's channels reach unequally far, and one of its channels is dead."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Conv2d(3 if k == 0 else 8, 8, 1) for k in range(3))
        self.b.weight.data[3] *= 500
        self.b.weight.data[5] = 0
        self.b.bias.data[5] = -1
        self.c.weight.data[:, 3] /= 500

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3))


def quantized(steps=PLAIN, shown=1.0):
    torch.manual_seed(1)
    graph = capture(Uneven().eval(), (3, 6, 6), Metadata(preprocess=Preprocess(resize=(6, 6))))
    return quantize(graph, calibrate(graph, [IMAGES * np.float32(shown)]), steps).graph


def test_uneven_layers_come_first_and_the_reason_is_named():
    rows = sensitivity(quantized(), IMAGES)
    assert {r.name for r in rows} == {"input", "a", "b", "c", "mean"}
    assert [r.alone_db for r in rows] == sorted(r.alone_db for r in rows)
    assert {rows[0].name, rows[1].name} == {"b", "c"}
    said = "; ".join(next(r for r in rows if r.name == "b").reasons)
    assert "channel 3 reaches" in said
    assert "1 of 8 channels are dead" in said
    assert rows[1].alone_db < rows[2].alone_db - LIMITS["sensitivity"]["gap_db"]


def test_a_clipped_activation_is_named_with_its_share():
    rows = sensitivity(quantized(shown=0.2), IMAGES)
    first = next(r for r in rows if r.name == "a")
    assert any("% of its values are clipped" in reason for reason in first.reasons)


def test_one_scale_for_all_weights_is_a_reason_where_they_are_uneven():
    per_tensor = recipe("fast").without("equalization", "adaptive_rounding").with_settings("weights", per_tensor=True)
    (row,) = (r for r in sensitivity(quantized(per_tensor), IMAGES) if r.name == "b")
    assert any("the weights of channel 3 are" in reason for reason in row.reasons)


def test_running_error_is_what_the_quantized_network_has():
    graph = quantized()
    from edgecnn.graph.interpreter import TorchGraph
    from edgecnn.quant.executor import FakeQuantizedGraph

    x = torch.from_numpy(IMAGES)
    want, got = TorchGraph(graph)(x), FakeQuantizedGraph(graph)(x)
    (row,) = (r for r in sensitivity(graph, IMAGES) if r.name == graph.outputs[0])
    assert row.running_db == pytest.approx(float(10 * torch.log10(want.square().sum() / (want - got).square().sum())))


def test_a_float_graph_and_no_images_are_refused():
    torch.manual_seed(1)
    graph = capture(GOOD["residual"]().eval(), (3, 12, 10), Metadata())
    with pytest.raises(InputError, match="the graph is fp32"):
        sensitivity(graph, IMAGES)
    with pytest.raises(InputError, match="no images"):
        sensitivity(quantized(), IMAGES[:0])


def test_the_command_line(tmp_path, capsys):
    from PIL import Image

    path = tmp_path / "net.edgecnn"
    save(quantized(), path)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    words = ["inspect", str(path), "--sensitivity"]
    assert main([*words, "--data", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["entries"]
    assert set(rows[0]) == {"name", "op", "alone_db", "running_db", "reasons"}
    assert main([*words, "--data", str(tmp_path)]) == 0
    assert "running dB" in capsys.readouterr().out
    assert main(words) == 2
    assert "needs images" in capsys.readouterr().err
    assert main(["inspect", "mobilenet_v2", "--sensitivity", "--data", str(tmp_path)]) == 2
