"""Learned step sizes: nearer to the float network than they were, and what must stay stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import float_graph, random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from zoo import GOOD

from edgecnn.errors import UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import FIXED, check_integers
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.quant import learned_steps as module
from edgecnn.quant.calibrate import calibrate
from edgecnn.quant.learned_steps import learn_steps
from edgecnn.quant.ptq import quantize, quantize_activations
from edgecnn.quant.recipe import Recipe
from edgecnn.quant.scheme import scale_groups
from edgecnn.quant.simulate import on_grid

WIDE = Recipe(name="wide", activation_range="minmax")
LEARNED = Recipe(name="learned", activation_range="learned", equalization=False, step_epochs=2)


def images(graph, count):
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    return np.random.default_rng(0).normal(0, 1, (count, *shape)).astype(np.float32)


def captured(name):
    torch.manual_seed(0)
    return capture(GOOD[name]().eval(), (3, 12, 10), Metadata(model=name))


def wide(graph, x):
    """Grids that cover three times what was seen, on which much is lost."""
    return quantize_activations(graph, calibrate(graph, [3 * x]).ranges, WIDE)


def error(graph, x):
    """Mean squared error of the output, with exact weights."""
    run, x = TorchGraph(graph), torch.from_numpy(x)
    grids = {t.name: t.quant for t in graph.activations()}
    return float((run(x, lambda name, value: on_grid(value.clone(), grids[name])) - run(x)).square().mean())


def test_the_output_comes_nearer():
    graph = captured("residual")
    x = images(graph, 32)
    before = wide(graph, x)
    assert error(learn_steps(before, x, epochs=6), x) < error(before, x)


@pytest.mark.parametrize("name", ["conv_bn_relu6", "squeeze_excite", "branches"])
def test_scales_that_are_not_nearer_on_other_images_stay(name, monkeypatch):
    monkeypatch.setattr(module, "RATE", 2.0)  # leads anywhere
    graph = captured(name)
    x = images(graph, 32)
    before = wide(graph, x)
    after = learn_steps(before, x, epochs=1)
    assert all(t.quant is before.tensors[t.name].quant for t in after.activations())


@settings(max_examples=15, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_what_must_stay_stays(seed, pieces):
    note(f"random_graph({seed}, {pieces})")
    graph = float_graph(random_graph(seed, pieces))
    x = images(graph, 8)
    try:
        before = wide(graph, x)
    except UnsupportedError:
        return
    after = learn_steps(before, x, epochs=1)
    for group in scale_groups(after):
        first, *others = (after.tensors[name].quant for name in sorted(group))
        assert all(first.same_as(other) for other in others)
    for tensor in after.activations():
        old = before.tensors[tensor.name].quant
        assert tensor.quant.zero_point == old.zero_point
        if tensor.name in (*graph.inputs, *graph.outputs) or old is FIXED:
            assert tensor.quant is old


def test_the_recipe_keeps_the_contract_and_gives_the_same_again():
    graph = captured("residual")
    x = images(graph, 16)
    first, second = (quantize(graph, calibrate(graph, [x], keep=16), LEARNED) for _ in range(2))
    check_integers(first)
    for name, tensor in first.tensors.items():
        assert tensor.quant.same_as(second.tensors[name].quant)
        if tensor.integers is not None:
            np.testing.assert_array_equal(tensor.integers, second.tensors[name].integers)


def test_16_bit_steps_stay():
    graph = captured("residual")
    x = images(graph, 8)
    before = quantize_activations(graph, calibrate(graph, [x]).ranges, WIDE, "int16x8")
    after = learn_steps(before, x, epochs=1)
    assert all(t.quant is before.tensors[t.name].quant for t in after.activations())
