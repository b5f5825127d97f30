"""Hold int8 ONNX files to what ONNX Runtime needs to compute in integers, exactly as the oracle rounds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import PIECES, piece_graph
from int8_builder import Int8Builder, random_images
from runtimes import assert_integers_are_the_graphs, distances, integers_in, opened

from edgecnn.errors import UnsupportedError
from edgecnn.graph.ir import QParams, Quantized
from edgecnn.graph.oracle import run
from edgecnn.graph.oracle.mlas import steps_to_three
from edgecnn_converters.onnx import convert, lowering, unsupported
from edgecnn_converters.onnx.reader import layers
from edgecnn_targets.runtimes.onnxruntime import activations

LOOKUP = ["Reshape", "Cast", "GatherElements", "Reshape"]
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
    shape = graph.tensors[graph.inputs[0]].shape
    return np.resize(BYTES, shape)


@pytest.mark.parametrize("io", ["float32", "uint8", "int8"])
@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_computes_in_integers(piece, io, tmp_path):
    for seed in range(2):
        graph = piece_graph(piece, seed)
        held(graph, tmp_path, random_images(graph, 2, seed), io=io)


@pytest.mark.parametrize("op", ["relu", "relu6"])
@pytest.mark.parametrize("zero", [-128, -7, 120])
def test_a_relu_clips_integers_and_a_product_brings_them_onto_another_grid(op, zero, tmp_path):
    for made, kinds in ((grid(0.05, zero), ["Clip"]), (grid(0.03, zero), ["QLinearMul", "Clip"])):
        b = builder(grid(0.05, zero))
        b.op(op, b.input, out=made)
        clipped = kinds if zero > -128 or op == "relu6" or len(kinds) == 1 else kinds[:1]
        assert held(b.graph(), tmp_path, every_byte(b.graph())) == clipped


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("op", ["conv2d", "add", "mul"])
def test_an_activation_that_the_grid_does_not_imply_clips_integers(op, activation, tmp_path):
    b = builder(grid(0.05, 3))
    if op == "conv2d":
        b.weighted(op, b.input, (4, 1, 1, 1), out=grid(0.04, 5), activation=activation)
    else:
        b.op(op, b.input, b.constant((1,)), out=grid(0.04, 5), activation=activation)
    kind = {"conv2d": "QLinearConv", "add": "QLinearAdd", "mul": "QLinearMul"}[op]
    assert set(held(b.graph(), tmp_path, every_byte(b.graph()))) - {"Transpose", "Reshape"} == {kind, "Clip"}


@pytest.mark.parametrize(
    ("scale", "zero", "kinds"),
    [
        (3 / 38, 10, ["Clip", "QLinearMul"]),
        (3 / 38, -100, ["QLinearAdd", "Clip", "QLinearMul"]),  # -3 is no integer of the input's
        (3 / 127, 0, ["Clip", "QLinearMul"]),
        (3 / 128, 30, LOOKUP),  # 6 needs 256 steps
        (3 / 2000, -40, LOOKUP),
        (0.0771, -12, LOOKUP),
        (4.0, -12, LOOKUP),
    ],
)
def test_hard_swish_is_a_product_of_bytes_where_they_hold_it_else_a_table(scale, zero, kinds, tmp_path):
    rng = np.random.default_rng(0)
    assert bool(steps_to_three(np.float32(scale))) == (round(3 / scale, 4) in range(1, 128))
    for ratio in (0.5, 1.0, *rng.uniform(0.3, 1.2, 6)):
        b = builder(grid(scale, zero), (1, 16, 16, 17))
        b.op("hard_swish", b.input, out=grid(scale * ratio, int(rng.integers(-128, 128))))
        assert held(b.graph(), tmp_path, every_byte(b.graph())) == kinds


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("io", ["float32", "uint8", "int8"])
def test_a_hard_swish_of_another_scale_is_looked_up_as_litert_has_it(io, activations, tmp_path):
    b = builder(grid(0.0123, 30))
    name = b.op("hard_swish", b.input, out=grid(0.009, -3))
    assert held(b.graph(), tmp_path, every_byte(b.graph()), io=io, activations=activations) == LOOKUP
    made = [run(b.graph(), every_byte(b.graph()), arithmetic=a)[name] for a in ("onnxruntime", "litert")]
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("op", ["hard_swish", "avg_pool2d"])
def test_a_tensor_whose_integers_alone_are_read_has_its_grid_in_the_file(op, tmp_path):
    b = builder(grid(0.0123, 30))
    attrs = {} if op == "hard_swish" else {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0)}
    x = b.op(op, b.input, out=grid(0.009, -3) if op == "hard_swish" else None, **attrs)
    flat = b.op("reshape", x, shape=(1, 256 if op == "hard_swish" else 64))
    graph = b.graph(b.weighted("fully_connected", flat, (5, b.shape(flat)[1])))
    held(graph, tmp_path, every_byte(graph))
    assert_integers_are_the_graphs(graph, "onnx", convert(graph, precision="int8"))


@pytest.mark.parametrize("steps", [1, 5, 38, 86, 127])
def test_hard_swish_is_within_a_half_where_its_scale_is_3_over_k(steps):
    b = builder(grid(3 / steps, 0))
    name = b.op("hard_swish", b.input, out=grid(2.2 / steps, 100))
    x = BYTES.astype(float) * 3 / steps
    exact = np.clip(x * np.clip(x + 3, 0, 6) / 6 / (2.2 / steps) + 100, -128, 127)
    made = run(b.graph(), every_byte(b.graph()), arithmetic="onnxruntime")[name].ravel()
    assert np.abs(made - exact).max() <= 0.5 + 1e-4


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


POOLS = {  # kernel, stride, padding (top, bottom, left, right), input's height and width
    "halves": ((2, 2), (2, 2), (0, 0, 0, 0), (7, 9)),
    "odd": ((3, 3), (1, 1), (0, 0, 0, 0), (5, 5)),
    "whole": ((4, 4), (4, 4), (0, 0, 0, 0), (4, 4)),
    "whole, odd": ((1, 5), (1, 1), (0, 0, 0, 0), (1, 5)),
    "same": ((3, 3), (1, 1), (1, 1, 1, 1), (9, 8)),
    "same, strided": ((3, 3), (2, 2), (1, 1, 1, 1), (8, 9)),
    "below alone": ((2, 2), (2, 2), (0, 1, 0, 1), (7, 5)),
    "wide": ((5, 2), (1, 2), (2, 2, 1, 0), (6, 7)),
    "larger than the image": ((5, 5), (1, 1), (2, 2, 2, 2), (3, 4)),
}


@pytest.mark.parametrize("zero", [-128, 17])
@pytest.mark.parametrize("pool", POOLS)
def test_an_average_pool_is_convolutions_that_round_as_litert(pool, zero, tmp_path):
    kernel, stride, padding, size = POOLS[pool]
    b = builder(grid(0.0412, zero), (1, *size, 5))
    name = b.op("avg_pool2d", b.input, kernel=kernel, stride=stride, padding=padding)
    x = random_images(b.graph(), 8)
    kinds = held(b.graph(), tmp_path, x)
    assert set(kinds) - {"Transpose"} <= {"QLinearConv", "Slice", "Concat"}
    assert kinds.count("QLinearConv") == 1 or any(padding)
    made = [run(b.graph(), x, arithmetic=a)[name] for a in ("onnxruntime", "litert", "openvino")]
    assert all((other == made[0]).all() for other in made)


def test_sigmoid_and_softmax_round_as_the_oracle_does(tmp_path):
    rng = np.random.default_rng(0)
    for scale in np.exp(rng.uniform(-5, 0.5, 12)):
        b = builder(grid(scale, int(rng.integers(-128, 128))))
        b.op("sigmoid", b.input)
        assert held(b.graph(), tmp_path, every_byte(b.graph())) == ["QLinearSigmoid"]
        b = builder(grid(scale, 0), (1, 1, 1, 40))
        b.op("softmax", b.op("reshape", b.input, shape=(1, 40)))
        assert held(b.graph(), tmp_path, random_images(b.graph(), 20)) == ["Reshape", "QLinearSoftmax"]


def moves():
    """Pooled, padded, transposed and clipped integers: no DequantizeLinear between them."""
    b = builder(grid(0.05, 3), (1, 8, 6, 4))
    pooled = b.op("max_pool2d", b.input, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0))
    padded = b.op("pad", pooled, padding=(1, 0, 0, 1), channels=(0, 1))
    turned = b.op("reshape", padded, shape=(1, 4, 5, 5))
    b.op("relu", turned, out=b.quant(turned))
    return b.graph()


@pytest.mark.parametrize("io", ["float32", "uint8", "int8"])
def test_every_tensor_of_moved_integers_has_its_grid_and_its_values(io, tmp_path):
    graph = moves()
    converted = convert(graph, precision="int8", io=io)
    found = integers_in("onnx", converted)
    assert set(found) == set(graph.tensors)
    assert all(quant.same_as(graph.quant(name)) for name, (quant, _) in found.items())
    rows = layers(converted.files[".onnx"])
    assert [row.op for row in rows] == ["MaxPool", "Pad", "Transpose", "Reshape", "Transpose", "Clip"]
    assert {row.scale for row in rows} == {np.float32(0.05)}
    images = random_images(graph, 1)
    session = opened("onnx", converted, tmp_path)
    assert session.input.dtype == io
    assert distances(graph, session, images).max() == 0
    inner = [node.output for node in graph]
    reals = graph.quant(graph.inputs[0]).dequantize(images)
    parameters = dict.fromkeys(inner, (0.05, 3))
    values = activations(tmp_path / "net.onnx", reals.astype(np.float32), parameters, None)
    want = run(graph, images, keep=inner, arithmetic="onnxruntime")
    assert set(values) >= set(inner[:-1])
    for name, value in values.items():
        np.testing.assert_allclose(value, graph.quant(name).dequantize(want[name]), rtol=1e-6)


def test_a_float_op_counts_once(tmp_path, monkeypatch):
    b = builder(grid(0.05, 3))
    x = b.op("hard_swish", b.op("relu", b.input, out=b.quant(b.input)), out=grid(0.04, 3))
    b.op("max_pool2d", x, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0))
    monkeypatch.setitem(lowering.LOWERINGS, "hard_swish", lowering._unary("Elu"))
    session = opened("onnx", convert(b.graph(), precision="int8"), tmp_path)
    assert [op.kind for op in session.ops if op.is_float] == ["Elu"]
    rescaled = lambda e, node: e.quantize(e.value(node.inputs[0]), node)  # noqa: E731 - a row is one expression
    monkeypatch.setitem(lowering.LOWERINGS, "hard_swish", rescaled)
    session = opened("onnx", convert(b.graph(), precision="int8", io="uint8"), tmp_path)
    assert [op.kind for op in session.ops if op.is_float] == ["QuantizeLinear"]


@pytest.mark.parametrize("op", ["add", "mul", "relu", "hard_swish", "mean"])
def test_what_would_wrap_around_in_its_kernel_is_refused_and_what_is_nearly_so_is_exact(op, tmp_path):
    limit = {"add": 2**31 / 255, "mul": 2**31 / 255**2, "relu": 2**31 / 255, "hard_swish": 2**31 / 255, "mean": 256.0}[
        op
    ]
    for part, refused in ((0.99, False), (1.01, True)):
        b = builder(grid(1.0, 3), (1, 4, 4, 1))
        constant = [b.constant((1,), grid({"add": 1e-9, "mul": 1.0}[op], 0))] if op in ("add", "mul") else []
        scale = 1 / (limit * part) / (16 if op == "mean" else 1)
        b.op(op, b.input, *constant, out=grid(scale, 0), **({"keepdims": True} if op == "mean" else {}))
        graph = b.graph()
        assert bool(unsupported(graph, "int8")) == refused
        if refused:
            with pytest.raises(UnsupportedError, match="ONNX Runtime"):
                convert(graph, precision="int8")
        else:
            held(graph, tmp_path, random_images(graph, 4))


def test_files_of_one_scale_per_tensor_keep_an_old_opset():
    b = builder(grid(0.05, 3))
    b.op("mul", b.op("sigmoid", b.input), b.constant((1,)))
    model = onnx.load_from_string(convert(b.graph(), precision="int8").files[".onnx"])
    assert model.opset_import[0].version == 10
    b.op("relu", b.nodes[-1].output)
    model = onnx.load_from_string(convert(b.graph(), precision="int8").files[".onnx"])
    assert model.opset_import[0].version == 12
