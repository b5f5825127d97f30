"""Scales of added branches and of slopes between them: no sum lies where runtimes round apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from int8_builder import Int8Builder, float_graph

from edgecnn.graph.contract import FIXED
from edgecnn.graph.ir import Constant, QParams
from edgecnn.graph.oracle import ARITHMETICS
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.scales.kernel_limits import operand_qparams
from edgecnn.quant.scales.qparams import parameters_of, with_parameters
from edgecnn.quant.scales.rounding_counts import apart, called, lost
from edgecnn.quant.scales.rounding_safe import operand_parameters
from edgecnn.quant.step import Work

SHARED = recipe("minmax").with_settings("shared_scales")


def residual_prelus(blocks, channels=32):
    """A chain of residual blocks with slopes between their additions, and quantized parameters of its graph."""
    b = Int8Builder((1, 6, 6, 8), seed=3)
    x = b.op("add", *(b.weighted("conv2d", b.input, (channels, 1, 1, 8)) for _ in range(2)))
    for _ in range(blocks):
        x = b.op("prelu", x, b.constant((channels,)))
        x = b.op("add", x, b.weighted("conv2d", x, (channels, 1, 1, channels)))
    return float_graph(b.graph(b.weighted("conv2d", x, (4, 1, 1, channels))))


@pytest.mark.parametrize("least", [1 / 3, 1 / 60, 1 / 450])
def test_sums_of_branches_of_any_size_are_far_from_halves(least):
    rng = np.random.default_rng(0)
    b = Int8Builder((1, 1, 1, 1), seed=3)
    x = b.weighted("conv2d", b.input, (1, 1, 1, 1))
    for _ in range(5):
        x = b.op("add", b.weighted("conv2d", x, (1, 1, 1, 1)), x)
    x = b.op("add", x, b.op("add", b.weighted("conv2d", x, (1, 1, 1, 1)), b.constant((1,))))
    graph = float_graph(b.graph(x))
    adds = [node for node in graph if node.op == "add" and all(map(graph.producer, node.inputs))]
    made = {node.output for node in adds} | {adds[0].inputs[1]}
    quants = {}
    for node in graph:
        scale = np.array([rng.uniform(0.5, 2) * (1 if node.output in made else least)], np.float32)
        quants[node.output] = QParams(scale=scale, zero_point=np.array([0]), dtype="int8")
    given = quants | dict.fromkeys(graph.inputs, FIXED)
    work = Work(graph=with_parameters(graph, given), recipe=SHARED)
    after = parameters_of(recipe("minmax").step("rounding_safe_scales").apply(work).graph)
    for node in adds:
        quants = [after[name] for name in (*node.inputs, node.output)]
        first, second, out = (float(quant.scale[0]) for quant in quants)
        zeros = [int(quant.zero_point[0]) for quant in quants]
        pairs = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
        exact = ((pairs[0] - zeros[0]) * first + (pairs[1] - zeros[1]) * second) / out + zeros[2]
        inside = (exact >= -128) & (exact <= 127)
        assert np.abs(exact - np.floor(exact) - 0.5)[inside].min() > 2e-4, (first, second, out)
        wanted = np.clip(np.rint(exact), -128, 127).reshape(-1, 1)
        call = replace(called(graph, node, after), values=[each.astype(np.int8).reshape(-1, 1) for each in pairs])
        for kernels in ARITHMETICS.values():
            np.testing.assert_array_equal(kernels["add"](call), wanted)
        for name in (*node.inputs, node.output):
            grown = after[name].scale[0] / given[name].scale[0]
            assert 0.98 < grown < (1.03 if name in made or least > 0.1 else 3)


def test_slopes_between_tied_additions_choose_their_scale():
    images = np.random.default_rng(5).normal(size=(4, 6, 6, 8)).astype(np.float32)
    graph = residual_prelus(6)
    integer = quantize(
        graph, calibrate(graph, [images], keep=4), recipe("minmax").without("zero_point_placement")
    ).graph
    slopes = [node for node in integer if node.op == "prelu"]
    plain = integer.with_tensors(*(graph.constant(node.inputs[1]) for node in slopes))
    chosen = parameters_of(integer)
    before, after = ([lost("prelu", called(g, node, chosen)) for node in slopes] for g in (plain, integer))
    assert sum(after) == 0 < sum(before)


def test_a_factor_between_tied_scales_chooses_its_own():
    """A half of a sum that shares its scale: the ratio of the two scales is given, and puts a product at a half."""
    b = Int8Builder((1, 4, 4, 3))
    half = b.constant((1,))
    graph = float_graph(b.graph(b.op("mul", b.input, half)))
    graph = graph.with_tensors(Constant(name=half, value=np.array([0.5], np.float32)))
    scales = {b.input: 0.31282744, graph.outputs[0]: 0.15564321}
    grids = {k: QParams(scale=np.array([s]), zero_point=np.array([-128]), dtype="int8") for k, s in scales.items()}
    graph = with_parameters(graph, grids)
    node, constant = graph.nodes[-1], graph.constant(half)
    plain = operand_qparams("mul", constant.value, *(grids[name] for name in (node.output, b.input)))
    found = operand_parameters(graph, node, constant)
    before, after = (apart("mul", called(graph, node, grids, each)) for each in (plain, found))
    assert after == 0 < before
    assert found.dequantize(found.quantize(constant.value)) == pytest.approx(0.5, rel=0.01)


def test_a_long_chain_of_residual_blocks_is_traced_in_no_time():
    graph = residual_prelus(40, channels=2)
    chosen = dict.fromkeys((t.name for t in graph.activations()), FIXED)
    assert called(graph, graph.producer(graph.nodes[-1].inputs[0]), chosen).values[0].size == 256**2
