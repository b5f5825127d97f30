"""Integer kernels of moves, tables and products: what they make is near the float network, and exact where it moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from int8_builder import Int8Builder, random_images

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import QParams
from edgecnn.graph.oracle import ARITHMETICS, run
from edgecnn.graph.oracle.table_kernels import table
from edgecnn.graph.unary_functions import FUNCTIONS

MOVES = {
    "transpose": {"perm": (0, 3, 1, 2)},
    "slice": {"begin": (1, 0, 2), "end": (6, 3, 8), "step": (2, 1, 3)},
    "gather": {"axis": 2, "indices": (3, 0, 0, 2, 1)},
    "depth_to_space": {"block": 2},
    "space_to_depth": {"block": 2},
    "reshape": {"shape": (1, 6, 2, 2, 8)},
}
RESIZES = [
    {"size": (9, 3), "mode": mode, "align_corners": corners, "half_pixel": half}
    for mode in ("nearest", "bilinear")
    for corners, half in ((False, False), (True, False), (False, True))
]
ATTRS = {
    "clamp": {"low": -0.5, "high": 0.7},
    "pow": {"exponent": 2.0},
}


def both(builder, name):
    """The oracle's integers and the float network's values, of the same images."""
    graph = builder.graph(name)
    images = random_images(graph, 3)
    real = graph.quant(graph.inputs[0]).dequantize(images)
    return graph.quant(name), run(graph, images)[name], TorchGraph(graph, integers=True)(torch.from_numpy(real)).numpy()


@pytest.mark.parametrize("op", MOVES)
def test_moves_are_exact(op):
    builder = Int8Builder((1, 6, 4, 8))
    quant, got, want = both(builder, builder.op(op, builder.input, **MOVES[op]))
    np.testing.assert_array_equal(got, quant.quantize(want))


@pytest.mark.parametrize("attrs", RESIZES, ids=lambda a: f"{a['mode']}-{a['align_corners']}-{a['half_pixel']}")
def test_resized_pixels_are_the_nearest_integers(attrs):
    builder = Int8Builder((1, 6, 4, 8))
    quant, got, want = both(builder, builder.op("resize", builder.input, **attrs))
    steps = got - quant.zero_point[0] - want / quant.scale[0]
    assert np.abs(steps).max() < (1.25 if attrs["mode"] == "bilinear" else 1e-3)  # places have ten bits


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_are_the_nearest_integers(op):
    builder = Int8Builder((1, 3, 3, 4))
    builder.tensors[builder.input] = type(builder.tensors[builder.input])(
        name=builder.input, shape=(1, 3, 3, 4), quant=builder.grid(0.02, -128 if op == "log" else None)
    )
    out = QParams(scale=np.array([0.05], np.float32), zero_point=np.array([-20]), dtype="int8")
    quant, got, want = both(builder, builder.op(op, builder.input, out=out, **ATTRS.get(op, {})))
    low, high = ((end - quant.zero_point[0]) * quant.scale[0] for end in quant.limits)
    apart = np.abs((got - quant.zero_point[0]) * quant.scale[0] - np.clip(want, low, high))
    assert apart.max() < 0.5001 * quant.scale[0]


@pytest.mark.parametrize(
    ("op", "attrs", "first"),
    [("log", {}, -128), ("pow", {"exponent": 0.5}, -128), ("pow", {"exponent": -0.5}, 127)],
)
def test_where_a_function_has_no_value_that_of_the_nearest_input_stands(op, attrs, first):
    quant = QParams(scale=np.array([0.1], np.float32), zero_point=np.array([0]), dtype="int8")
    made = QParams(scale=np.array([0.1], np.float32), zero_point=np.array([-128]), dtype="int8")
    assert (table(op, quant, made, attrs)[:129] == first).all()


@pytest.mark.parametrize("arithmetic", [name for name in ARITHMETICS if name != "litert"])
@pytest.mark.parametrize("op", ["mean", "add", "mul", "relu", "relu6", "hard_swish", "softmax", "conv2d"])
def test_runtimes_are_at_most_one_step_apart(op, arithmetic):
    builder = Int8Builder((1, 6, 5, 4), 2)
    if op == "conv2d":
        builder.weighted("conv2d", builder.input, (8, 3, 3, 4))
    elif op == "mean":
        builder.op("mean", builder.input, out=builder.grid(0.01, -7))
    else:
        builder.op(op, *[builder.input] * (1 + (op == "add")), *[builder.constant((4,))] * (op == "mul"))
    graph = builder.graph()
    images, name = random_images(graph, 20), graph.outputs[0]
    ours, theirs = (run(graph, images, arithmetic=each)[name].astype(int) for each in ("litert", arithmetic))
    assert np.ptp(ours) > 4
    assert np.abs(ours - theirs).max() <= 1


def test_what_float64_cannot_tell_from_a_half_is_one():
    every = QParams(scale=np.array([1.0], np.float32), zero_point=np.array([-128]), dtype="int8")
    twos = QParams(scale=np.array([2.0], np.float32), zero_point=np.array([-128]), dtype="int8")
    assert 125 ** (1 / 3) / 2 < 2.5  # 4.999999999999999: in float64 less than the half that it is
    assert table("pow", every, twos, {"exponent": 1 / 3})[125] == -128 + 3


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_activations_are_near_the_float_ones(transposed):
    builder = Int8Builder((1, 4, 6, 5))
    left = right = builder.input
    if not transposed:
        right = builder.op("transpose", left, perm=(0, 1, 3, 2))
    quant, got, want = both(builder, builder.op("batch_matmul", left, right, transpose_b=transposed))
    low, high = ((end - quant.zero_point[0]) * quant.scale[0] for end in quant.limits)
    apart = np.abs((got - quant.zero_point[0]) * quant.scale[0] - np.clip(want, low, high))
    assert apart.max() < 0.51 * quant.scale[0]  # values are float32


def test_slopes_are_of_channels():
    builder = Int8Builder((1, 4, 6, 5))
    quant, got, want = both(builder, builder.op("prelu", builder.input, builder.constant((5,))))
    low, high = ((end - quant.zero_point[0]) * quant.scale[0] for end in quant.limits)
    apart = np.abs((got - quant.zero_point[0]) * quant.scale[0] - np.clip(want, low, high))
    assert apart.max() < 0.76 * quant.scale[0]  # the kernel rounds twice
