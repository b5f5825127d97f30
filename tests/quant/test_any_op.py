"""Every step works on networks of any op and rank, or leaves them alone: what comes out meets the contract and runs."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import normal_for
from graphs import BODY, MORE_PIECES, piece_graph, random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from int8_builder import float_graph

from edgecnn.graph.contract import check_integers
from edgecnn.graph.oracle import run
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import images_needed, quantize
from edgecnn.quant.recipe import recipe, recipes
from edgecnn_converters.tflite import convert, unsupported
from edgecnn_targets.runtimes.litert import LiteRtSession

BOTH = (*BODY, *MORE_PIECES)
UNKNOWN = {"log", "pow"}  # have no value for some inputs: their networks are not finite
LAST = {"argmax"}  # a network is quantized without it: tests/quant/test_indices.py
FINITE = tuple(piece for piece in BOTH if piece not in UNKNOWN | LAST)


def quantized(graph, name, count=6, judging=0, precision="int8"):
    steps = recipe(name)
    seen = calibrate(graph, [normal_for(graph, count)], keep=images_needed(graph, steps) + judging)
    return quantize(graph, seen, steps, precision, judging=judging).graph


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("piece", [piece for piece in MORE_PIECES if piece in FINITE])
def test_every_recipe_quantizes_every_op(piece, name):
    graph = float_graph(piece_graph(piece, 5))
    int8 = quantized(graph, name, 8, judging=4)
    check_integers(int8)
    x = normal_for(graph, 4, 1)
    into, out = (int8.quant(names[0]) for names in (int8.inputs, int8.outputs))
    assert run(int8, into.quantize(x))[int8.outputs[0]].shape[0] == 4
    assert out.dtype == "int8"
    assert not unsupported(int8, "int8")


@settings(max_examples=25, print_blob=True, deadline=None)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6), name=st.sampled_from(sorted(recipes())))
def test_random_networks_of_any_op_run_as_the_oracle_says(seed, pieces, name, tmp_path_factory):
    note(f"random_graph({seed}, {pieces}, FINITE)")
    graph = float_graph(random_graph(seed, pieces, FINITE))
    int8 = quantized(graph, name)
    check_integers(int8)
    path = tmp_path_factory.mktemp("any") / "graph.tflite"
    path.write_bytes(convert(int8, precision="int8").files[".tflite"])
    kernels = "xnnpack" if any(node.op == "elu" for node in int8) else "reference"
    session = LiteRtSession(path, kernels=kernels)
    x = int8.quant(int8.inputs[0]).quantize(normal_for(graph, 2, 1))
    got = session.run(x)
    want = run(int8, x, arithmetic=session.arithmetic)[int8.outputs[0]].reshape(got.shape)
    apart = np.abs(got.astype(int) - want)
    assert apart.max() <= (1 if kernels == "xnnpack" else 0)
