"""Quantization-aware training: it starts at PTQ's integers, and what it computes is what it exports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import normal_for
from golden_files import golden
from graphs import random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_builder import float_graph
from user_modules import GOOD

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Metadata, QParams, QuantizedConstant
from edgecnn.graph.oracle import run
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import images_needed, quantize
from edgecnn.quant.qat import QatGraph, RoundToGrid
from edgecnn.quant.recipe import recipe
from edgecnn.quant.scales.qparams import scale_groups

GOLDEN = golden("training")["qat"]


def quantized(graph, steps=None):
    steps = steps or recipe("fast")
    return quantize(graph, calibrate(graph, [normal_for(graph, 8)], keep=images_needed(graph, steps)), steps).graph


def assert_same(a, b):
    for name, tensor in a.tensors.items():
        other = b.tensors[name]
        assert tensor.quant.same_as(other.quant), name
        if isinstance(tensor, QuantizedConstant):
            np.testing.assert_array_equal(tensor.integers, other.integers)
            np.testing.assert_array_equal(tensor.value, other.value)


def nchw(x):
    return torch.from_numpy(x).permute(0, 3, 1, 2) if x.ndim == 4 else torch.from_numpy(x)


def beside_oracle(module, graph, x):
    """LSB between what the module computes in float and what its integers compute."""
    out, into = graph.tensors[graph.outputs[0]].quant, graph.tensors[graph.inputs[0]].quant
    with torch.no_grad():
        got = module(nchw(x)).numpy()
    exact = run(graph, into.quantize(x))[graph.outputs[0]].astype(int)
    exact = exact.transpose(0, 3, 1, 2) if exact.ndim == 4 else exact
    return np.abs(out.quantize(got).astype(int) - exact.reshape(len(x), -1))


def some_steps(module, x, count=3, lr=0.02):
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr)
    for _ in range(count):
        optimizer.zero_grad()
        module(nchw(x)).square().mean().backward()
        optimizer.step()


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 5), learn_steps=st.booleans())
def test_random_networks_start_at_their_integers_and_export_what_they_learned(seed, pieces, learn_steps):
    graph = quantized(float_graph(random_graph(seed, pieces)))
    if not any(n.weighted for n in graph):
        with pytest.raises(InputError, match="nothing in it could learn"):
            QatGraph(graph, weight_limit=127, learn_steps=learn_steps)
        return
    module = QatGraph(graph, weight_limit=127, learn_steps=learn_steps)
    assert_same(module.quantized(), graph)
    some_steps(module, normal_for(graph, 4))
    learned = module.quantized()
    check_integers(learned)
    moved = [n for n, t in learned.tensors.items() if not t.quant.same_as(graph.tensors[n].quant)]
    assert learn_steps or not moved


@pytest.mark.parametrize("learn_steps", [False, True])
@pytest.mark.parametrize("module", ["conv_bn_relu6", "residual", "squeeze_excite", "branches", "normalised"])
def test_what_is_computed_is_what_is_exported(module, learn_steps):
    torch.manual_seed(1)
    graph = quantized(capture(GOOD[module]().eval(), (3, 12, 10), Metadata(model=module)))
    x = normal_for(graph, 8)
    learning = QatGraph(graph, weight_limit=127, learn_steps=learn_steps)
    some_steps(learning, x)
    learned = learning.quantized()
    changed = [t.name for t in learned.constants() if not np.array_equal(t.integers, graph.tensors[t.name].integers)]
    assert changed
    for name in changed:
        np.testing.assert_array_equal(learned.tensors[name].value, graph.tensors[name].value)  # still the float network
    lsb = beside_oracle(learning, learned, x)
    assert lsb.max() <= GOLDEN["small"]["max_lsb"]
    assert lsb.mean() <= GOLDEN["small"]["mean_lsb"]


def test_shared_scales_stay_shared_and_fixed_ones_fixed():
    torch.manual_seed(0)
    graph = quantized(capture(GOOD["branches"]().eval(), (3, 12, 10), Metadata(model="branches")))
    learning = QatGraph(graph, weight_limit=127, learn_steps=True)
    some_steps(learning, normal_for(graph, 4))
    learned = learning.quantized()
    for group in scale_groups(graph):
        first, *others = (learned.tensors[n].quant for n in sorted(group))
        assert all(first.same_as(other) for other in others)
    assert any(not t.quant.same_as(graph.tensors[t.name].quant) for t in learned.activations())


def test_a_start_that_was_not_rounded_to_nearest_keeps_its_integers():
    graph = quantized(float_graph(random_graph(3, 2)))
    node = next(n for n in graph if n.op == "conv2d")
    weight = graph.tensors[node.inputs[1]]
    other = np.where(weight.integers > 0, weight.integers - 2, weight.integers + 1).astype(np.int8)
    graph = graph.with_tensors(replace(weight, integers=other))
    assert_same(QatGraph(graph, weight_limit=127, learn_steps=False).quantized(), graph)


def test_seven_bit_and_per_tensor_weights_stay_so():
    graph = quantized(float_graph(random_graph(5, 3)), recipe("fast").with_settings("weights", bits=7, per_tensor=True))
    learning = QatGraph(graph, weight_limit=63, learn_steps=True)
    some_steps(learning, normal_for(graph, 4), lr=0.2)
    learned = learning.quantized()
    check_integers(learned)
    weights = [learned.tensors[n.inputs[1]] for n in graph if n.op in ("conv2d", "fully_connected")]
    assert weights
    assert all(np.abs(w.integers).max() <= 63 and w.quant.axis is None for w in weights)


def test_rounding_and_its_gradients():
    """Values as ``QParams`` rounds them; slopes as in Esser et al. 2020, equations 3 and 5, written out."""
    x = torch.tensor([-9.0, -1.26, -0.25, 0.0, 0.24, 0.25, 1.3, 40.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    low, high = -8, 20
    got = RoundToGrid.apply(x, scale, low, high)
    grid = QParams(scale=np.array([0.5]), zero_point=np.array([-120]), dtype="int8")
    np.testing.assert_array_equal(got[1:7].detach().numpy(), grid.dequantize(grid.quantize(x[1:7].detach().numpy())))
    assert got[0] == -4
    assert got[7] == 10
    got.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    steps = x.detach() / 0.5
    inside = (steps.round() - steps)[1:7].sum()
    assert scale.grad == pytest.approx(float(inside + low + high))


def test_only_int8_graphs_learn_this_way():
    with pytest.raises(InputError, match="the graph is fp32; quantization-aware training starts from an int8 graph"):
        QatGraph(float_graph(random_graph(1, 1)), weight_limit=127, learn_steps=False)
