"""What an int8 ONNX file must hold so that ONNX Runtime computes in integers, exactly as the oracle rounds."""

from __future__ import annotations

import numpy as np
import pytest
from int8_builder import Int8Builder, random_images
from runtimes import distances, opened

from edgecnn.graph.ir import QParams, Quantized
from edgecnn_converters.onnx import convert

BYTES = np.arange(-128, 128, dtype=np.int8)


def grid(scale, zero=0):
    return QParams(scale=np.array([scale], np.float32), zero_point=np.array([zero]), dtype="int8")


def builder(quant, shape=(1, 16, 16, 1)):
    b = Int8Builder(shape)
    b.tensors[b.input] = Quantized(name=b.input, shape=shape, quant=quant)
    return b


def held(graph, folder, images, **options):
    """Kinds of the ops that run, after asserting that none is of float and that outputs are the oracle's."""
    session = opened("onnx", convert(graph, precision="int8", **options), folder, "exact")
    assert not [str(op) for op in session.ops if op.is_float]
    assert distances(graph, session, images).max() == 0
    return [op.kind for op in session.ops if not op.kind.endswith("eLinear")]


def every_byte(graph):
    return BYTES.reshape(graph.tensors[graph.inputs[0]].shape)


@pytest.mark.parametrize("op", ["add", "mul"])
def test_all_pairs_of_bytes_round_as_the_oracle_does_ties_included(op, tmp_path):
    rng = np.random.default_rng(0)
    for unit in (0.013, 1 / 64, 0.7):
        zeros = [int(z) for z in rng.integers(-128, 128, 3)]
        b = builder(grid(unit * 3, zeros[0]))
        name = b.constant((1, 1, 1, 256), grid(unit * 5 if op == "add" else 0.5, zeros[1]))
        b.tensors[name] = b.tensors[name].quantized(b.quant(name), BYTES.reshape(1, 1, 1, 256))
        b.op(op, b.input, name, out=grid(unit * (8 if op == "add" else 24), zeros[2]))
        held(b.graph(), tmp_path, every_byte(b.graph()))


def test_sigmoid_and_softmax_round_as_the_oracle_does(tmp_path):
    rng = np.random.default_rng(0)
    for scale in np.exp(rng.uniform(-5, 0.5, 12)):
        b = builder(grid(scale, int(rng.integers(-128, 128))))
        b.op("sigmoid", b.input)
        assert held(b.graph(), tmp_path, every_byte(b.graph())) == ["QLinearSigmoid"]
        b = builder(grid(scale, 0), (1, 1, 1, 40))
        b.op("softmax", b.op("reshape", b.input, shape=(1, 40)))
        assert held(b.graph(), tmp_path, random_images(b.graph(), 20)) == ["Reshape", "QLinearSoftmax"]
