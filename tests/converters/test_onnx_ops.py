"""Hold ONNX files of the ops that came with imported networks to the oracle's integers, and to torch in float."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from int8_builder import Int8Builder, float_graph, random_images, weight_only_graph
from runtimes import assert_integers_are_the_graphs

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import QParams
from edgecnn.graph.oracle import run
from edgecnn_converters.metadata import KEY
from edgecnn_converters.onnx import convert, own, reader, unsupported
from edgecnn_targets.runtimes.onnxruntime import OnnxRuntime, _ops, session_options


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


def moved(*steps, shape=(1, 6, 4, 8)):
    """A graph of moves, one after the other."""
    b = Int8Builder(shape)
    x = b.input
    for op, attrs in steps:
        x = b.op(op, x, **attrs)
    return ended(b)


MOVES = {
    "transpose": [("transpose", {"perm": (0, 2, 3, 1)})],
    "transposes": [("transpose", {"perm": (0, 2, 3, 1)}), ("transpose", {"perm": (0, 2, 1, 3)})],
    "slice": [("slice", {"begin": (1, 0, 2), "end": (6, 4, 7), "step": (2, 1, 3)})],
    "slice of all": [("slice", {"begin": (0, 0, 0), "end": (6, 4, 8), "step": (1, 1, 1)})],
    "gather of rows": [("gather", {"axis": 1, "indices": (2, 1, 0, 0, 5)})],
    "gather of channels": [("gather", {"axis": 3, "indices": (7, 1, 0, 0, 5)})],
    "gather of columns": [("gather", {"axis": 2, "indices": (2, 1, 0, 0, 3)})],
    "reflection": [("gather", {"axis": 1, "indices": (3, 2, 1, 0, 1, 2, 3, 4, 5, 4)})],
    "replication": [("gather", {"axis": 2, "indices": (0, 0, 0, 1, 2, 3, 3)})],
    "replication of a channel": [("gather", {"axis": 3, "indices": (*range(8), 7)})],
    "blocks": [("depth_to_space", {"block": 2}), ("space_to_depth", {"block": 4}), ("space_to_depth", {"block": 1})],
    "depth_to_space": [("depth_to_space", {"block": 2})],
    "space_to_depth": [("space_to_depth", {"block": 2})],
    "2-d": [("reshape", {"shape": (1, 192)}), ("reshape", {"shape": (1, 8, 6, 4)})],
    "3-d": [
        ("reshape", {"shape": (1, 24, 8)}),
        ("transpose", {"perm": (0, 2, 1)}),
        ("slice", {"begin": (0, 3), "end": (8, 20), "step": (2, 1)}),
        ("gather", {"axis": 2, "indices": (3, 1, 2, 2)}),
    ],
    "4-d from 3-d": [
        ("reshape", {"shape": (1, 24, 8)}),
        ("reshape", {"shape": (1, 24, 2, 4)}),
        ("transpose", {"perm": (0, 2, 1, 3)}),
    ],
    "5-d": [
        ("reshape", {"shape": (1, 3, 2, 4, 8)}),
        ("transpose", {"perm": (0, 2, 4, 1, 3)}),
        ("slice", {"begin": (0, 1, 0, 0), "end": (2, 8, 3, 4), "step": (1, 1, 2, 1)}),
        ("reshape", {"shape": (1, 14, 2, 4)}),
    ],
    "6-d": [
        ("reshape", {"shape": (1, 3, 2, 2, 2, 8)}),
        ("transpose", {"perm": (0, 1, 3, 5, 2, 4)}),
        ("gather", {"axis": 3, "indices": (7, 0)}),
        ("reshape", {"shape": (1, 6, 2, 4)}),
    ],
}


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("name", MOVES)
def test_moves_are_of_integers_and_in_the_order_of_the_graph(name, activations, tmp_path):
    graph = moved(*MOVES[name])
    kinds = held(graph, tmp_path, activations=activations)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds)
    close(graph, tmp_path, rtol=1e-7)


def test_transposes_that_follow_each_other_are_one(tmp_path):
    there_and_back = [("transpose", {"perm": (0, 3, 1, 2)}), ("transpose", {"perm": (0, 2, 3, 1)})]
    assert "Transpose" not in held(moved(*there_and_back, ("gather", {"axis": 3, "indices": (1, 0, 7)})), tmp_path)
    graph = moved(*MOVES["4-d from 3-d"])
    kinds = held(graph, tmp_path)
    assert kinds.count("Transpose") == 2  # to the order that is reshaped, and from it


@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize("sides", [(1, 0), (0, 1), (2, 3), (3, 3)])
def test_a_border_of_the_images_own_pixels_is_padding(mode, sides, tmp_path):
    for axis in (1, 2):
        size = (6, 4)[axis - 1]
        indices = tuple(np.pad(np.arange(size), sides, mode).tolist())
        assert held(moved(("gather", {"axis": axis, "indices": indices})), tmp_path) == ["Pad"]
    assert "Gather" in held(moved(("gather", {"axis": 1, "indices": (5, 0, 1, 2, 3, 4, 5, 0)})), tmp_path)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_concat_joins_integers_of_any_rank_and_constants(rank, activations, tmp_path):
    shape = {2: (1, 192), 3: (1, 24, 8), 4: (1, 4, 6, 8), 5: (1, 3, 2, 4, 8)}[rank]
    for axis in range(1, rank):
        b = Int8Builder((1, 6, 4, 8))
        x = b.op("reshape", b.input, shape=shape)
        longer = tuple(3 if k == axis else d for k, d in enumerate(shape))
        b.op("concat", x, b.constant(longer, b.quant(x)), x, axis=axis)
        assert "Concat" in held(ended(b), tmp_path, activations=activations)
        close(ended(b), tmp_path, rtol=1e-7)


SIZES = [
    ((5, 7), (10, 14)), ((5, 7), (10, 7)), ((4, 6), (16, 18)), ((8, 6), (4, 3)), ((7, 9), (13, 5)), ((3, 5), (1, 2)),
    ((1, 1), (4, 4)), ((33, 40), (100, 61)),
]  # fmt: skip


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("places", ["asymmetric", "half_pixel", "align_corners"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_makes_the_oracles_integers(mode, places, activations, tmp_path):
    for seed, (size, made) in enumerate(SIZES):
        b = Int8Builder((1, *size, 3), seed)
        b.op("resize", b.input, size=made, mode=mode, **({} if places == "asymmetric" else {places: True}))
        held(ended(b), tmp_path, activations=activations)
        if activations == "uint8":
            close(ended(b), tmp_path, rtol=1e-5)


def test_resizing_to_twice_the_size_is_a_convolution(tmp_path):
    b = Int8Builder((1, 5, 7, 3))
    b.op("resize", b.input, size=(10, 14), mode="bilinear", half_pixel=True)
    assert {"Resize", "Pad", "QLinearConv"} <= set(held(ended(b), tmp_path, count=20))


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


def function_graph(op, attrs, seed, made=None, scale=None, shape=(1, 16, 16, 3)):
    rng = np.random.default_rng(seed)
    b = Int8Builder(shape, seed)
    scale = scale or float(np.exp(rng.uniform(-4, -1.5)))
    low = -129 if op in POSITIVE else int(rng.integers(-128, 128))
    b.tensors[b.input] = b.tensors[b.input].__class__(name=b.input, shape=shape, quant=grid(scale, max(low, -128)))
    b.op(op, b.input, out=made or grid(scale * float(rng.uniform(0.3, 1.5)), int(rng.integers(-128, 128))), **attrs)
    return b.graph()


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_make_the_oracles_integers(op, activations, tmp_path):
    for attrs in FUNCTIONS[op]:
        for seed in range(3):
            graph = function_graph(op, attrs, seed)
            every = np.resize(np.arange(-128, 128, dtype=np.int8), (1, 16, 16, 3))
            held(graph, tmp_path, images=every, activations=activations)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_of_real_values_are_torchs(op, tmp_path):
    for attrs in FUNCTIONS[op]:
        graph = function_graph(op, attrs, 0)
        images = None if op not in POSITIVE else np.abs(random_images(graph, 2).astype(np.int16)).clip(1, 127)
        close(graph, tmp_path, images=None if images is None else images.astype(np.int8))


def test_the_fastest_exact_form_of_a_function_is_written(tmp_path):
    def kinds(op, made, scale, **attrs):
        graph = function_graph(op, attrs, 0, made=made, scale=scale)
        return set(held(graph, tmp_path)) - {"Reshape", "Transpose"}

    first = function_graph("clamp", {"low": -1.0, "high": 1.0}, 0, scale=0.02)
    same = first.quant(first.inputs[0])
    assert kinds("clamp", same, 0.02, low=-1.0, high=1.0) == {"Clip"}
    assert kinds("clamp", grid(0.0171, 3), 0.02, low=-1.0, high=1.0) == {"QLinearMul", "Clip"}
    assert kinds("leaky_relu", grid(0.0171, 3), 0.02, alpha=0.1) == {"QLinearLeakyRelu"}
    assert kinds("leaky_relu", grid(0.01, 3), 0.025, alpha=0.1) == {"Cast", "GatherElements"}  # halves
    assert kinds("tanh", grid(0.0171, 3), 0.02) == {"Cast", "GatherElements"}


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(1, 5, 6, 7), (1, 30, 7), (1, 210)])
def test_prelu_has_a_table_for_each_channel(shape, activations, tmp_path):
    for seed in range(4):
        b = Int8Builder((1, 5, 6, 7), seed)
        x = b.op("reshape", b.input, shape=shape)
        b.op("prelu", x, b.constant((shape[-1],)))
        held(ended(b), tmp_path, count=6, activations=activations)
        close(ended(b), tmp_path)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 12, 10), (1, 3, 8, 10), (1, 3, 1, 8, 5)])
def test_products_of_activations_are_of_integers(shape, transposed, activations, tmp_path):
    for seed in range(3):
        b = Int8Builder((1, *shape[1:]), seed) if len(shape) == 4 else Int8Builder((1, 1, 1, int(np.prod(shape))), seed)
        x = b.input if len(shape) == 4 else b.op("reshape", b.input, shape=shape)
        order = list(range(len(shape)))
        order[-2:] = order[:-3:-1]
        y = b.op("relu", x, out=b.grid(0.02))
        y = y if transposed else b.op("transpose", y, perm=tuple(order))
        b.op("batch_matmul", x, y, transpose_b=transposed, out=b.grid(0.08))
        kinds = held(ended(b), tmp_path, count=3, activations=activations)
        assert "QLinearMatMul" in kinds
        close(ended(b), tmp_path)


@pytest.mark.parametrize("shape", [(1, 40), (1, 5, 16), (1, 5, 4, 8), (1, 2, 4, 2, 10)])
def test_softmax_is_over_the_graphs_last_dimension(shape, tmp_path):
    for seed in range(3):
        b = Int8Builder((1, 1, 1, int(np.prod(shape))), seed)
        b.op("softmax", b.op("reshape", b.input, shape=shape))
        assert "QLinearSoftmax" in held(ended(b), tmp_path, count=6)
        close(ended(b), tmp_path)


def test_a_product_of_more_products_than_fit_32_bits_is_refused():
    for depth, refused in ((33025, False), (33026, True)):
        b = Int8Builder((1, 1, 1, depth))
        x = b.op("reshape", b.input, shape=(1, 1, depth))
        b.op("batch_matmul", x, x, transpose_b=True, out=grid(1.0))
        assert bool(unsupported(b.graph(), "int8")) == refused


PAIRS = [
    ((1, 5, 6, 7), (1, 1, 1, 7)), ((1, 5, 6, 7), (1, 5, 6, 1)), ((1, 5, 6, 7), (1, 1, 6, 1)),
    ((1, 5, 6, 7), (1, 1, 1, 1)), ((1, 5, 1, 7), (1, 1, 6, 1)), ((1, 30, 7), (1, 30, 1)), ((1, 30, 7), (1, 1, 7)),
    ((1, 210), (1, 1)), ((1, 3, 5, 2, 7), (1, 1, 5, 1, 7)),
]  # fmt: skip


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("op", ["add", "mul"])
def test_broadcast_operands_make_the_oracles_integers(op, constant, tmp_path):
    for seed, (left, right) in enumerate(PAIRS):
        b = Int8Builder((1, 1, 1, int(np.prod(left))), seed)
        x = b.op("reshape", b.input, shape=left)
        if constant:
            y = b.constant(right)
        else:
            places = tuple(0 for _ in right[1:]), right[1:], tuple(1 for _ in right[1:])
            small = tuple(min(a, c) for a, c in zip(left, right, strict=True))
            if small != right:
                continue
            y = b.op("slice", x, **dict(zip(("begin", "end", "step"), places, strict=True)))
            y = b.op("relu", y, out=b.grid(0.03))
        b.op(op, *((x, y) if seed % 2 else (y, x)))
        kinds = held(ended(b), tmp_path, count=3)
        assert {"add": "QLinearAdd", "mul": "QLinearMul"}[op] in kinds
        close(ended(b), tmp_path)


@pytest.mark.parametrize("op", ["add", "mul"])
def test_broadcast_operands_round_ties_as_the_oracle_does(op, tmp_path):
    for unit in (1 / 64, 0.013):
        for seed, (left, right) in enumerate(PAIRS):
            b = Int8Builder((1, 1, 1, int(np.prod(left))), seed)
            zeros = [int(z) for z in b.rng.integers(-128, 128, 3)]
            b.tensors[b.input] = replace(b.tensors[b.input], quant=grid(unit * 3, zeros[0]))
            x = b.op("reshape", b.input, shape=left)
            both = left == (1, 5, 1, 7)  # are broadcast
            end = (1, 1, 7) if both else tuple(map(min, left[1:], right[1:]))
            y = b.op("slice", x, begin=(0,) * len(end), end=end, step=(1,) * len(end))
            y = b.op("clamp", y, low=-9.0, high=9.0, out=grid(unit * 5 if op == "add" else 0.5, zeros[1]))
            if both:
                x = b.op("slice", x, begin=(0, 0, 0), end=(5, 1, 1), step=(1, 1, 1))
            b.op(op, *((x, y) if seed % 2 else (y, x)), out=grid(unit * (8 if op == "add" else 24), zeros[2]))
            held(ended(b), tmp_path, count=3)


def tokens(activation="none"):
    """Linear layers on tokens, of rank 3, as convolutions of one pixel."""
    b = Int8Builder((1, 4, 6, 8))
    x = b.op("reshape", b.input, shape=(1, 24, 8))
    for outputs in (16, 8):
        image = b.op("reshape", x, shape=(1, 1, 24, b.shape(x)[2]))
        made = b.weighted("conv2d", image, (outputs, 1, 1, b.shape(image)[3]), activation=activation)
        x = b.op("reshape", made, shape=(1, 24, outputs))
    return ended(b)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_linear_layers_on_tokens_are_products_of_matrices(activation, tmp_path):
    kinds = close(tokens(activation), tmp_path)
    assert not {"Conv", "FusedConv"} & set(kinds)
    assert kinds.count("Transpose") == 1  # of the image
    close(tokens(activation), tmp_path, precision="fp16", rtol=5e-3)
    held(tokens(activation), tmp_path)


def test_weights_of_8_bits_on_tokens_are_read_back_as_they_are(tmp_path):
    graph = tokens()
    converted = convert(weight_only_graph(graph), precision="w8")
    assert_integers_are_the_graphs(weight_only_graph(graph), "onnx", converted)
    opened, _ = session(converted.files[".onnx"], tmp_path)
    image = graph.quant(graph.inputs[0]).dequantize(random_images(graph, 1))
    (made,) = opened.run(None, {graph.inputs[0]: placed(image)})
    want = TorchGraph(weight_only_graph(graph), integers=True)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_in_float16_are_near_torchs(op, tmp_path):
    graph = function_graph(op, FUNCTIONS[op][0], 0, scale=0.02)
    images = np.abs(random_images(graph, 2).astype(np.int16)).clip(1, 127).astype(np.int8)
    close(graph, tmp_path, precision="fp16", rtol=4e-3, images=images)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_in_float16_is_near_torchs(mode, tmp_path):
    b = Int8Builder((1, 6, 8, 3))
    b.op("resize", b.input, size=(12, 12), mode=mode, half_pixel=True)
    close(b.graph(), tmp_path, precision="fp16", rtol=2e-3)


def chain(seed):
    """Random ops of this file, one after the other, each on what the one before made."""
    rng = np.random.default_rng(seed)
    b = Int8Builder((1, 8, 6, 4), seed)
    x = b.input
    for _ in range(7):
        shape = b.shape(x)
        kinds = ["function", "move", "reshape", "product", "slice", "gather", "add", "relu"]
        kinds += ["conv", "resize", "blocks", "pool"] if len(shape) == 4 else []
        match str(rng.choice(kinds)):
            case "function":
                op = str(rng.choice([name for name in FUNCTIONS if name not in POSITIVE]))
                x = b.op(op, x, out=b.grid(float(b.quant(x).scale[0])), **FUNCTIONS[op][0])
            case "move":
                order = (0, *(int(k) + 1 for k in rng.permutation(len(shape) - 1)))
                x = b.op("transpose", x, perm=order)
            case "reshape":
                count = int(np.prod(shape))
                small = next(k for k in (2, 3, 5, 1) if count % k == 0)
                wanted = [(1, count), (1, small, count // small), (1, shape[-1], count // shape[-1], 1),
                          (1, small, 1, count // small), (1, *shape[:0:-1])]  # fmt: skip
                x = b.op("reshape", x, shape=wanted[int(rng.integers(len(wanted)))])
            case "product" if len(shape) > 2:
                x = b.op("batch_matmul", x, x, transpose_b=True, out=b.grid(float(b.quant(x).scale[0]) * 9))
            case "slice":
                end = tuple(max(1, d - int(rng.integers(2))) for d in shape[1:])
                x = b.op("slice", x, begin=(0,) * len(end), end=end, step=(1,) * len(end))
            case "gather":
                axis = int(rng.integers(1, len(shape)))
                x = b.op("gather", x, axis=axis, indices=tuple(int(k) for k in rng.permutation(shape[axis])))
            case "add":
                x = b.op("add", x, b.constant((1, *(d if rng.random() < 0.5 else 1 for d in shape[1:]))))
            case "relu":
                x = b.op("relu", x, out=b.quant(x))
            case "conv":
                x = b.weighted("conv2d", x, (int(rng.integers(1, 7)), 1, 1, shape[3]))
            case "resize":
                mode = str(rng.choice(["nearest", "bilinear"]))
                size = tuple(int(k) for k in rng.integers(1, 14, 2))
                x = b.op("resize", x, size=size, mode=mode, half_pixel=bool(rng.random() < 0.5))
            case "blocks" if shape[3] % 4 == 0:
                x = b.op("depth_to_space", x, block=2)
            case "blocks" if shape[1] % 2 == shape[2] % 2 == 0:
                x = b.op("space_to_depth", x, block=2)
            case "pool" if min(shape[1:3]) > 1:
                x = b.op("max_pool2d", x, kernel=(2, 2), stride=(1, 1))
    if not b.nodes:
        b.op("relu", x, out=b.quant(x))
    return ended(b)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_make_the_oracles_integers(seed, tmp_path):
    graph = chain(seed)
    held(graph, tmp_path)
    if not {"exp", "pow"} & {node.op for node in graph}:  # which leave the range of float32
        close(graph, tmp_path, rtol=1e-4)
