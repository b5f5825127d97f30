"""From a module to a graph that computes the same; what cannot be captured is named, all of it at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bad_modules import BAD
from user_modules import GOOD
from wide_modules import WIDE

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.graph.ops import OPS
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights

SHAPE = (3, 12, 10)


def made(name):
    torch.manual_seed(0)
    module = GOOD[name]().eval()
    return module, capture(module, SHAPE, Metadata(model=name))


@pytest.mark.parametrize("name", GOOD)
def test_the_graph_computes_what_the_module_does(name):
    module, graph = made(name)
    x = torch.randn(3, *SHAPE)
    with torch.inference_mode():
        want = module(x)
    got = TorchGraph(graph)(x.permute(0, 2, 3, 1))
    want = want.permute(0, 2, 3, 1) if want.ndim == 4 else want
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert {n.op for n in graph} <= set(OPS)


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("conv_bn_relu6", ["conv2d", "mean", "fully_connected"]),
        ("zero_pad", ["conv2d"]),
        ("same_padding", ["conv2d"]),
        ("residual", ["conv2d", "add"]),
        ("unused", ["conv2d"]),
        ("flatten_image", ["conv2d", "max_pool2d", "reshape", "fully_connected"]),
    ],
)
def test_norms_are_folded_activations_fused_and_dead_nodes_gone(name, ops):
    _, graph = made(name)
    assert [n.op for n in graph] == ops
    used = {i for n in graph for i in n.inputs}
    assert all(t.name in used or t.name in graph.outputs for t in graph.constants())


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_captured_is_one_line_that_names_it(name):
    factory, message = BAD[name]
    with pytest.raises(InputError, match=message) as error:
        capture(factory().eval(), SHAPE, Metadata())
    assert "\n" not in str(error.value)


def test_all_offending_ops_are_listed_with_module_and_line():
    factory, _ = BAD["unsupported"]
    with pytest.raises(InputError) as error:
        capture(torch.nn.Sequential(factory(), factory()).eval(), SHAPE, Metadata())
    text = str(error.value)
    for op in ("sin", "cumsum", "sort"):
        assert text.count(f"{op} in ") == 2, text
    assert "bad_modules.py:" in text


@pytest.mark.parametrize("name", WIDE)
def test_what_users_write_beside_convolutions_is_captured(name):
    torch.manual_seed(0)
    module, x = WIDE[name]().eval(), torch.randn(1, *SHAPE)
    graph = capture(module, SHAPE, Metadata(model=name))
    with torch.no_grad():
        want = module(x)
    got = TorchGraph(graph)(x.permute(0, 2, 3, 1))
    want = want.permute(0, 2, 3, 1) if want.ndim == 4 else want
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) < 1e-5


def test_capture_prints_nothing(capfd):
    made("squeeze_excite")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_64", "mobilenet_v2_0.35_96"])
def test_registered_models_become_convolutions_adds_a_mean_and_a_linear_layer(name):
    module, source = random_weights(resolve(name))
    side = source.spec.resolution
    graph = capture(module, (3, side, side), Metadata(model=name))
    counts = {op: sum(n.op == op for n in graph) for op in {n.op for n in graph}}
    assert counts == (
        {"conv2d": 27, "mean": 1, "fully_connected": 1}
        if "v1" in name
        else {"conv2d": 52, "add": 10, "mean": 1, "fully_connected": 1}
    )
    x = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        want = module(x).numpy()
    np.testing.assert_allclose(TorchGraph(graph)(x.permute(0, 2, 3, 1)).numpy(), want, rtol=1e-3, atol=1e-4)
