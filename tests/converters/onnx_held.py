"""Hold an ONNX file to the oracle's integers, and to torch in float."""

from __future__ import annotations

import json

import numpy as np
import onnx
import torch
from int8_builder import float_graph, random_images
from runtimes import assert_integers_are_the_graphs

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import QParams
from edgecnn.graph.oracle import run
from edgecnn_converters.metadata import KEY
from edgecnn_converters.onnx import convert, own, reader
from edgecnn_targets.runtimes.onnxruntime import OnnxRuntime, _ops, session_options

FUNCTIONS = {
    "leaky_relu": [{"alpha": 0.01}, {"alpha": 0.1}, {"alpha": 0.25}, {"alpha": 1.5}, {"alpha": -0.2}],
    "clamp": [{"low": -0.5, "high": 0.7}, {"low": -float("inf"), "high": 1.0}, {"low": 0.3, "high": float("inf")}],
    "tanh": [{}],
    "elu": [{"alpha": 1.0}, {"alpha": 0.3}],
    "gelu": [{"approximate": False}, {"approximate": True}],
    "softplus": [{}],
    "mish": [{}],
    "hard_sigmoid": [{"alpha": 1 / 6, "beta": 0.5}, {"alpha": 0.2, "beta": 0.5}],
    "abs": [{}],
    "exp": [{}],
    "log": [{}],
    "pow": [{"exponent": k} for k in (2.0, 0.5, -0.5, -1.0, 1.7)],
}
POSITIVE = ("log", "pow")


def grid(scale, zero=0):
    return QParams(scale=np.array([scale], np.float32), zero_point=np.array([zero]), dtype="int8")


def session(data, folder, activations="uint8"):
    """The file open in ONNX Runtime, and the ops that run; with int8 as Arm's, which has kernels of it."""
    options = session_options(1, "exact")
    options.add_session_config_entry("session.qdqisint8allowed", str(int(activations == "int8")))
    made = folder / "made.onnx"
    options.optimized_model_filepath = str(made)
    opened = OnnxRuntime.library().InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return opened, _ops(onnx.load(str(made)))


def recalled(data, graph):
    """The graph that is read back out of a file."""
    (record,) = [json.loads(p.value) for p in reader.read(data).metadata_props if p.key == KEY]
    return own.recalled(record[own.RECORD], data, graph.metadata)


def placed(array):
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def held(graph, folder, count=2, images=None, activations="uint8"):
    """Kinds of the ops that run, after asserting that none is of float and that outputs are the oracle's."""
    images = random_images(graph, count) if images is None else images
    converted = convert(graph, precision="int8", io=activations, activations=activations)
    opened, ops = session(converted.files[".onnx"], folder, activations)
    assert not [str(op) for op in ops if op.is_float]
    shift = 128 if activations == "uint8" else 0
    (name,) = graph.outputs
    for image in images:
        fed = (placed(image[None]).astype(np.int16) + shift).astype(activations)
        (made,) = opened.run(None, {graph.inputs[0]: fed})
        want = placed(run(graph, image[None], arithmetic="onnxruntime")[name]).astype(np.int16) + shift
        np.testing.assert_array_equal(made.astype(np.int16), want)
    assert_integers_are_the_graphs(graph, "onnx", converted)
    reader.layers(converted.files[".onnx"])
    assert recalled(converted.files[".onnx"], graph).nodes == graph.nodes
    return [op.kind for op in ops]


def close(graph, folder, precision="fp32", rtol=1e-5, images=None):
    """Kinds of the ops that run in float, after asserting that outputs are near those of torch."""
    plain = float_graph(graph)
    images = random_images(graph, 2) if images is None else images
    images = graph.quant(graph.inputs[0]).dequantize(images)
    opened, ops = session(convert(plain, precision=precision).files[".onnx"], folder)
    for image in images:
        (made,) = opened.run(None, {graph.inputs[0]: placed(image[None])})
        want = placed(TorchGraph(plain)(torch.from_numpy(image[None])).numpy())
        assert made.shape == want.shape
        np.testing.assert_allclose(made, want, rtol=rtol, atol=rtol * np.abs(want).max())
    return [op.kind for op in ops]


def ended(b):
    """The graph, flat at the end where it has other than 2 or 4 dimensions."""
    shape = b.shape(b.nodes[-1].output)
    if len(shape) not in (2, 4):
        b.op("reshape", b.nodes[-1].output, shape=(1, int(np.prod(shape))))
    return b.graph()
