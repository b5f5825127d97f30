"""TFLite files of the ops that move, resize, multiply or look up: float and integer forms, and every kernel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from graphs import MORE_PIECES, piece_graph
from int8_builder import float_graph, random_images, weight_only_graph
from runtimes import assert_integers_are_the_graphs, distances, opened

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.oracle import run
from edgecnn.graph.unary_functions import FUNCTIONS
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn_converters.tflite import convert, unsupported
from edgecnn_converters.tflite.reader import layers

TOLERANCE = {"fp32": 1e-4, "w8": 1e-4, "fp16": 2e-2}  # of the largest output


@pytest.mark.parametrize("piece", MORE_PIECES)
@pytest.mark.parametrize("precision", TOLERANCE)
def test_float_forms_compute_the_float_network(piece, precision, tmp_path):
    graph = (weight_only_graph if precision == "w8" else float_graph)(piece_graph(piece, 1))
    session = opened("tflite", convert(graph, precision=precision), tmp_path)
    x = np.random.default_rng(1).normal(0, 1, (2, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.float32)
    want = TorchGraph(graph, integers=precision == "w8")(torch.from_numpy(x)).numpy()
    got = session.run(x).reshape(want.shape)
    known = np.isfinite(want)
    assert np.abs(got - want)[known].max() <= TOLERANCE[precision] * np.abs(want[known]).max()


@pytest.mark.parametrize("piece", MORE_PIECES)
def test_xnnpack_is_the_oracle(piece, tmp_path):
    for seed in (1, 2):
        graph = piece_graph(piece, seed)
        session = opened("tflite", convert(graph, precision="int8"), tmp_path / str(seed))
        apart = distances(graph, session, random_images(graph, 8, seed))
        assert apart.max() == 0, Counter(apart.ravel().tolist())


@pytest.mark.parametrize("piece", MORE_PIECES)
def test_integers_are_read_back_and_no_op_is_float(piece, tmp_path):
    graph = piece_graph(piece, 3)
    converted = convert(graph, precision="int8")
    assert_integers_are_the_graphs(graph, "tflite", converted)
    types = {"int8", "int32", "uint8"} if piece == "argmax" else {"int8", "int32"}
    assert {layer.dtype for layer in layers(converted.files[".tflite"])} <= types
    assert not [op for op in opened("tflite", converted, tmp_path).ops if op.is_float]


WITHOUT_INT16 = {*FUNCTIONS, "prelu"}


@pytest.mark.parametrize("piece", [piece for piece in MORE_PIECES if piece not in ("log", "pow", "argmax")])
def test_16_bits_are_the_oracles_or_refused_with_a_reason(piece, tmp_path):
    graph = float_graph(piece_graph(piece, 0))
    x = np.random.default_rng(0).normal(0, 1, (4, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.float32)
    wide = quantize(graph, calibrate(graph, [x]), recipe("minmax"), "int16x8").graph
    if piece in WITHOUT_INT16:
        ((node, reason),) = unsupported(wide, "int16x8")
        assert node == wide.outputs[0]
        assert "no kernel of LiteRT makes the graph's integers" in reason
        return
    session = opened("tflite", convert(wide, precision="int16x8"), tmp_path, "reference")
    integers = wide.quant(wide.inputs[0]).quantize(x)
    want = run(wide, integers)[wide.outputs[0]]
    np.testing.assert_array_equal(session.run(integers).reshape(want.shape), want)


def test_multiplications_of_activations_are_counted():
    graph = piece_graph("attention", 0)
    found = {layer.name: layer.macs for layer in layers(convert(graph, precision="int8").files[".tflite"])}
    for node in graph:
        assert found[node.output] == graph.macs(node)
