"""The executor: pieces of a graph, and both networks side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn import normal_for
from graphs import random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from int8_builder import float_graph

from edgecnn.graph.capture import capture
from edgecnn.graph.execution import released
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.executor import FakeQuantizedGraph, SideBySide, pieces
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe

DEMO = "mobilenet_v2_0.35_96"


def test_a_residual_block_is_never_cut():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96", 10), seed=4)
    graph = capture(module, (3, 96, 96), Metadata())
    parts = pieces(graph, 3)
    assert [node.output for part in parts for node in part] == [node.output for node in graph]
    for part, after in pairwise(parts):
        assert after.inputs == part.outputs
        assert sum(node.weighted for node in part) == 3
    adds = {node.output for node in graph if node.op == "add"}
    assert adds
    assert adds <= {part.outputs[0] for part in parts}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), layers=st.integers(1, 4))
def test_pieces_one_after_another_are_the_network(seed, count, layers):
    note(f"random_graph({seed}, {count})")
    graph = float_graph(random_graph(seed, count))
    x = whole = torch.from_numpy(normal_for(graph, 2))
    for part in pieces(graph, layers):
        x = TorchGraph(part)(x)
    torch.testing.assert_close(x, TorchGraph(graph)(whole))


@pytest.mark.parametrize("compact", [False, True])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_side_by_side_is_one_network_and_the_other(seed, count, compact):
    graph = float_graph(random_graph(seed, count))
    x = normal_for(graph, 5)
    int8 = quantize(graph, calibrate(graph, [x]), recipe("minmax")).graph
    both, seen = SideBySide(int8, x, compact=compact), []

    def check(name):
        seen.append(name)
        if name in graph.outputs:
            for j, batch in enumerate(np.split(x, [4])):
                exact, got = both.real(name, j), both.coarse(name, j)
                exact, got = (v.permute(0, 2, 3, 1) if v.ndim == 4 else v for v in (exact, got))
                want = TorchGraph(graph)(torch.from_numpy(batch))
                reach = float(want.abs().max())
                torch.testing.assert_close(exact, want, rtol=0, atol=(0.05 if compact else 1e-6) * max(reach, 1))
                assert torch.equal(got, FakeQuantizedGraph(int8)(torch.from_numpy(batch)))

    with torch.inference_mode():
        both.run(after=check)
    assert seen == [t.name for t in int8.activations()]
    assert set(both.floats) == set(both.quantized) == set(int8.outputs)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_every_activation_is_released_once_after_it_was_read_last(seed, count):
    graph = random_graph(seed, count)
    expired, gone = released(graph), set()
    for node, names in zip(graph, expired, strict=True):
        assert not gone & set(node.inputs)
        gone |= set(names)
    flat = [name for names in expired for name in names]
    assert len(flat) == len(set(flat))
    assert gone == {t.name for t in graph.activations()} - set(graph.outputs)
