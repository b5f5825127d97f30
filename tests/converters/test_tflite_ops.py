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
from edgecnn_converters.tflite import convert
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
        assert apart.max() <= (1 if piece == "softmax_of_channels" else 0), Counter(apart.ravel().tolist())


@pytest.mark.parametrize("piece", MORE_PIECES)
def test_integers_are_read_back_and_no_op_is_float(piece, tmp_path):
    graph = piece_graph(piece, 3)
    converted = convert(graph, precision="int8")
    assert_integers_are_the_graphs(graph, "tflite", converted)
    assert {layer.dtype for layer in layers(converted.files[".tflite"])} <= {"int8", "int32"}
    assert not [op for op in opened("tflite", converted, tmp_path).ops if op.is_float]
