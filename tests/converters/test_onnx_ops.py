"""Hold ONNX files of the ops that came with imported networks to the oracle's integers, and to torch in float."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from int8_builder import Int8Builder, random_images
from onnx_held import FUNCTIONS, POSITIVE, close, ended, grid, held

from edgecnn_converters.onnx import unsupported


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


@pytest.mark.parametrize("shape", [(1, 40), (1, 5, 16), (1, 5, 4, 8), (1, 2, 4, 2, 10), (1, 7, 1)])
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
