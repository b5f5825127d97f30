"""OpenVINO computes the oracle's integers of ops that move, resize, multiply matrices or are functions, in 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images
from pieces import MORE_PIECES
from runtimes import WRITERS, held_by_openvino, opened, unsaturated

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Constant, QParams, Quantized
from edgecnn.graph.ops import OPS
from edgecnn.graph.unary_functions import evaluate
from edgecnn_converters.openvino import reader
from edgecnn_targets.registry import activations
from edgecnn_targets.runtimes.saturation import onednn_has_vnni

RELATIVE = 1e-5  # of the largest output, in float32
PLACES = {"asymmetric": (False, False), "align_corners": (True, False), "half_pixel": (False, True)}
PRODUCTS = pytest.mark.skipif(
    not onednn_has_vnni(), reason="without VNNI products of two activations saturate: the session warns"
)
MOVES = ("transpose", "shuffle", "slice", "gather", "resize_nearest", "depth_to_space", "space_to_depth", "concat")
MIXED = (*MOVES, "resize_bilinear", "gelu", "mish", "leaky_relu", "softplus", "hard_sigmoid", "conv", "residual")


@pytest.fixture
def hold(tmp_path):
    """Assert that the plugin computes a graph in integers, 0 LSB from the oracle; returns the session."""

    return lambda graph, images=4: held_by_openvino(graph, tmp_path, images)


@pytest.fixture
def hold_float(tmp_path):
    """Assert that the plugin computes the float graph as torch does."""

    def check(graph, precision="fp32", positive=False):
        graph = float_graph(graph)
        session = opened("openvino", WRITERS["openvino"].convert(graph, precision=precision), tmp_path)
        x = np.random.default_rng(0).normal(0, 2, graph.tensors[graph.inputs[0]].shape).astype(np.float32)
        x = np.abs(x) + np.float32(0.1) if positive else x
        made = session.output.decode(session.run(session.input.encode(x)))
        wanted = TorchGraph(graph)(torch.from_numpy(x)).numpy()
        assert made.shape == wanted.shape
        assert np.abs(made - wanted).max() <= RELATIVE * np.abs(wanted).max()

    return check


def conv(b, x, channels=8, **attrs):
    return b.weighted("conv2d", x, (channels, 1, 1, b.shape(x)[3]), **attrs)


def grid(scale, zero_point):
    return QParams(scale=np.array([scale], np.float32), zero_point=np.array([zero_point]), dtype="int8")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
@pytest.mark.parametrize("piece", [pytest.param(p, marks=PRODUCTS if p == "attention" else ()) for p in MORE_PIECES])
def test_a_piece(piece, seed, hold):
    hold(piece_graph(piece, seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_network_of_pieces(seed, hold):
    hold(random_graph(1000 + seed, body=MIXED), 2)


@pytest.mark.parametrize("piece", [p for p in MORE_PIECES if p not in ("log", "pow")])
def test_a_piece_in_float(piece, hold_float):
    hold_float(piece_graph(piece, 3))


@pytest.mark.parametrize(("op", "exponent"), [("log", 0), ("pow", 0.5), ("pow", -0.5), ("pow", -1.0), ("pow", 3.0)])
def test_a_function_of_positive_numbers_in_float(op, exponent, hold_float):
    b = Int8Builder((1, 4, 5, 3))
    hold_float(b.graph(b.op(op, b.input, **({"exponent": exponent} if op == "pow" else {}))), positive=True)


def test_a_convolution_behind_moves_in_float16(tmp_path):
    b = Int8Builder((1, 6, 6, 8))
    graph = float_graph(b.graph(conv(b, b.op("gather", b.input, axis=3, indices=(1, 2, 3, 4, 5, 6, 7, 0)))))
    session = opened("openvino", WRITERS["openvino"].convert(graph, precision="fp16"), tmp_path)
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 8)).astype(np.float32)
    wanted = TorchGraph(graph)(torch.from_numpy(x)).numpy()
    made = session.output.decode(session.run(session.input.encode(x)))
    assert np.abs(made - wanted).max() <= 2e-3 * np.abs(wanted).max()


def test_a_product_with_zero_before_a_linear_layer(hold):
    """The plugin folds it to a constant, and then has a linear layer of constants, which it does not compile."""
    b = Int8Builder((1, 4, 5, 6))
    zero = b.constant((1,))
    integers = np.full((1,), b.quant(zero).zero_point[0], np.int8)
    b.tensors[zero] = Constant(name=zero, value=np.zeros(1, np.float32)).quantized(b.quant(zero), integers)
    hold(b.graph(b.weighted("fully_connected", b.op("mean", b.op("mul", b.input, zero)), (5, 6))))


# --- moves ---


@pytest.mark.parametrize("before", ["conv2d", "nothing"])
@pytest.mark.parametrize("indices", [(0, 4, 1, 5, 2, 6, 3, 7), (7, 6, 5, 4, 3, 2, 1, 0), (1, 2, 3, 4, 5, 6, 7, 0)])
def test_channels_in_another_order(indices, before, hold, hold_float):
    """The plugin permutes the weights of the convolution instead; by the wrong one of a permutation and its inverse."""
    b = Int8Builder((1, 6, 7, 8))
    x = conv(b, b.input) if before == "conv2d" else b.input
    graph = b.graph(conv(b, b.op("gather", x, axis=3, indices=indices)))
    hold(graph)
    hold_float(graph)


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_channels_apart_and_together_in_another_order(order, hold, hold_float):
    b = Int8Builder((1, 6, 7, 3))
    ends = [{"begin": (0, 0, k), "end": (6, 7, k + 1), "step": (1, 1, 1)} for k in order]
    graph = b.graph(conv(b, b.op("concat", *(b.op("slice", b.input, **end) for end in ends), axis=3)))
    hold(graph)
    hold_float(graph)


def test_tokens_cost_no_transpose_between_convolutions(hold):
    """Linear layers on tokens are 1x1 convolutions between reshapes: channels last is how the plugin holds images."""
    b = Int8Builder((1, 6, 8, 8))
    x = b.op("reshape", conv(b, b.input), shape=(1, 48, 8))
    x = b.op("reshape", conv(b, b.op("reshape", x, shape=(1, 1, 48, 8)), 16), shape=(1, 48, 16))
    session = hold(b.graph(conv(b, b.op("reshape", x, shape=(1, 6, 8, 16)))))
    assert "Transpose" not in {op.kind for op in session.ops}


def test_two_transposes_that_cancel_leave_one_operation(hold):
    b = Int8Builder((1, 6, 8, 8))
    x = b.op("transpose", b.op("reshape", conv(b, b.input), shape=(1, 48, 8)), perm=(0, 2, 1))
    graph = b.graph(conv(b, b.op("reshape", b.op("transpose", x, perm=(0, 2, 1)), shape=(1, 6, 8, 8))))
    session = hold(graph)
    assert "Transpose" not in {op.kind for op in session.ops}


def test_moves_are_read_with_the_grid_of_what_they_move(hold, tmp_path):
    b = Int8Builder((1, 6, 6, 8))
    x = b.op("transpose", conv(b, b.input, out=b.grid(0.1, 9)), perm=(0, 3, 1, 2))
    x = b.op("slice", x, begin=(0, 1, 0), end=(8, 6, 6), step=(1, 2, 1))
    graph = b.graph(conv(b, b.op("reshape", x, shape=(1, 6, 8, 3))))
    hold(graph)
    files = WRITERS["openvino"].convert(graph, precision="int8").files
    rows = {layer.name: layer for layer in reader.layers(*files.values())}
    moves = [node.output for node in graph if node.op != "conv2d"]
    assert [(rows[name].dtype, rows[name].zero_point) for name in moves] == [("u8 levels", 9)] * len(moves)
    used = unsaturated(graph)
    opened("openvino", WRITERS["openvino"].convert(used, precision="int8"), tmp_path)
    quant, images = graph.quant(graph.inputs[0]), random_images(graph, 1)
    grids = {name: (float(graph.quant(name).scale[0]), 9) for name in moves}
    inside = activations("openvino", tmp_path / "net.xml", quant.dequantize(images), grids)
    assert {name: values.shape for name, values in inside.items()} == {n: graph.tensors[n].shape for n in moves}


def test_what_an_op_is_made_of_is_not_listed():
    b = Int8Builder((1, 6, 8, 4))
    x = b.op("resize", conv(b, b.input), size=(13, 31), mode="bilinear")
    graph = b.graph(b.op("log", b.op("reshape", x, shape=(1, 31, 13, 8))))
    rows = reader.layers(*WRITERS["openvino"].convert(graph, precision="int8").files.values())
    names = [row.name for row in rows if row.op != "Convolution"]
    assert [name for name in names if "/as" not in name] == [node.output for node in graph]


# --- operands ---


@pytest.mark.parametrize("op", ["add", "mul"])
@pytest.mark.parametrize("shape", [(8,), (1, 8), (7, 8), (6, 1, 1), (1, 6, 7, 8), (1, 6, 7, 1)])
def test_a_constant_of_any_shape(shape, op, hold, hold_float):
    b = Int8Builder((1, 6, 7, 8))
    held = b.constant(shape, b.grid(0.02, -128))
    graph = b.graph(conv(b, b.op(op, conv(b, b.input), held)))
    hold(graph)
    hold_float(graph)


@pytest.mark.parametrize("op", ["add", "mul"])
@pytest.mark.parametrize("rank", [3, 5])
def test_operands_of_other_ranks(rank, op, hold, hold_float):
    b = Int8Builder((1, 6, 4, 8), seed=1)
    shape = (1, 24, 8) if rank == 3 else (1, 3, 2, 4, 8)
    x, y = (b.op("reshape", conv(b, b.input), shape=shape) for _ in range(2))
    y = b.op("slice", y, begin=(0,) * (rank - 1), end=(1, *shape[2:]), step=(1,) * (rank - 1))
    graph = b.graph(conv(b, b.op("reshape", b.op(op, x, y), shape=(1, 6, 4, 8))))
    hold(graph)
    hold_float(graph)


def test_an_activation_of_fewer_dimensions_beside_an_image(hold, hold_float):
    b = Int8Builder((1, 6, 7, 8))
    x = conv(b, b.input)
    row = b.op(
        "reshape", b.op("slice", conv(b, b.input), begin=(0, 0, 0), end=(1, 7, 8), step=(1, 1, 1)), shape=(1, 7, 8)
    )
    graph = b.graph(b.op("add", x, row))
    hold(graph, 1)
    hold_float(graph)


@pytest.mark.parametrize("rank", [2, 3, 4, 5, 6])
def test_a_softmax_of_any_rank(rank, hold, hold_float):
    b = Int8Builder((1, 4, 6, 10))
    shape = {2: (1, 240), 3: (1, 24, 10), 4: (1, 6, 4, 10), 5: (1, 2, 2, 6, 10), 6: (1, 2, 2, 3, 2, 10)}[rank]
    x = b.op("softmax", b.op("reshape", conv(b, b.input, 10, out=b.grid(0.05)), shape=shape))
    graph = b.graph(conv(b, b.op("reshape", x, shape=(1, 4, 6, 10))))
    hold(graph)
    hold_float(graph)


@pytest.mark.parametrize(("count", "scale"), [(16, 0.1), (300, 0.05), (1001, 0.12), (9, 1e-4)])
def test_a_softmax_that_weights_read_is_no_step_away(count, scale, hold):
    """Boxes of detectors are sums of its integers times up to 15: one step that rounds otherwise would be several."""
    b = Int8Builder((1, 30, 40, count), count)
    x = b.op("softmax", b.op("mul", b.input, b.constant((1,)), out=b.grid(scale)))
    hold(b.graph(b.weighted("conv2d", x, (1, 1, 1, count))), 3)


@PRODUCTS
@pytest.mark.parametrize("zeros", [(-128, 0), (5, 0), (-128, 9), (127, -30)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_of_two_activations(zeros, transposed, hold):
    b = Int8Builder((1, 5, 6, 4))
    left, right = (b.op("reshape", conv(b, b.input, 12, out=b.grid(0.3, zero)), shape=(1, 30, 12)) for zero in zeros)
    right = right if transposed else b.op("transpose", right, perm=(0, 2, 1))
    made = b.op("batch_matmul", left, right, transpose_b=transposed)
    session = hold(b.graph(conv(b, b.op("reshape", made, shape=(1, 5, 6, 30)))))
    assert "MatMul" in {op.kind for op in session.ops}


def test_products_of_activations_saturate_without_vnni_and_the_user_is_told(tmp_path):
    graph = piece_graph("attention", 0)
    session = opened("openvino", WRITERS["openvino"].convert(unsaturated(graph), precision="int8"), tmp_path)
    assert any("16 bits" in finding for finding in session.findings) != onednn_has_vnni()


@pytest.mark.parametrize("before", ["conv2d", "avg_pool2d"])
@pytest.mark.parametrize("op", ["add", "mul", "relu6", "tanh", "mish", "softplus", "clamp", "prelu", "log"])
def test_an_elementwise_op_behind_a_kernel_that_takes_others_in(op, before, hold):
    """The plugin leaves room for it behind a pool, and then computes it alone, in float."""
    b = Int8Builder((1, 6, 6, 8))
    x = b.op("add", b.input, b.constant((1,)))
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 0, 0)}
    x = conv(b, x) if before == "conv2d" else b.op(before, x, **pool)
    if op in ("add", "mul"):
        x = b.op(op, x, b.constant((1, 1, 1, 8)), activation="relu6")
    elif op == "prelu":
        x = b.op(op, x, b.constant((8,), b.grid(0.004)))
    else:
        x = b.op(op, x, out=b.grid(0.05), **({"low": -0.5, "high": 0.9} if op == "clamp" else {}))
    hold(b.graph(conv(b, x)))


def test_a_concatenation_behind_an_average_pool_and_its_scaled_channels(hold):
    """Dense blocks: batch norms behind concatenations are depthwise convolutions of one pixel."""
    b = Int8Builder((1, 6, 6, 8))
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0)}
    x = b.op("avg_pool2d", conv(b, b.input), **pool)
    for _ in range(2):
        x = b.op("concat", x, conv(b, x, out=b.quant(x)), axis=3)
        x = b.weighted("conv2d", x, (b.shape(x)[3], 1, 1, 1), groups=b.shape(x)[3])
    hold(b.graph(x))


# --- functions ---


FUNCTIONS = {
    "leaky_relu": {"alpha": 0.2},
    "clamp": {"low": -0.7, "high": 1.3},
    "tanh": {},
    "elu": {"alpha": 0.7},
    "gelu": {},
    "softplus": {},
    "mish": {},
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.4},
    "abs": {},
    "exp": {},
    "log": {},
    "pow": {"exponent": -1.0},
}


@pytest.mark.parametrize("zero_point", [-128, -7])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_every_entry_of_a_function(op, zero_point, hold):
    b = Int8Builder((1, 16, 16, 1))
    b.tensors["input"] = Quantized(name="input", shape=(1, 16, 16, 1), quant=grid(0.017, zero_point))
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    hold(b.graph(b.op(op, b.input, out=b.grid(0.02), **FUNCTIONS[op])), every)


@pytest.mark.parametrize("off", [-1e-5, 0, 1e-5])
@pytest.mark.parametrize("op", ["tanh", "gelu", "leaky_relu"])
def test_an_entry_next_to_a_half_comes_from_a_table(op, off, hold):
    source = grid(0.02, -10)
    attrs = dict(OPS[op].attrs)
    value = float(evaluate(op, np.array([70 * np.float64(source.scale[0])]), attrs)[0])
    b = Int8Builder((1, 16, 16, 1))
    b.tensors["input"] = Quantized(name="input", shape=(1, 16, 16, 1), quant=source)
    graph = b.graph(b.op(op, b.input, out=grid(value / (40.5 + off), 3)))
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    assert "Gather" in {op.kind for op in hold(graph, every).ops}


# --- resizing ---


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [(12, 16), (3, 4), (13, 31), (1, 1)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_resize(mode, size, place, hold, hold_float):
    corners, half = PLACES[place]
    attrs = {"mode": mode, "size": size, "align_corners": corners, "half_pixel": half}
    b = Int8Builder((1, 6, 8, 4), sum(size))
    graph = b.graph(b.op("resize", b.input, **attrs))
    hold(graph, 12)
    hold_float(graph)
    b = Int8Builder((1, 6, 8, 4), sum(size))
    hold(b.graph(conv(b, b.op("resize", conv(b, b.input), **attrs))))


def test_a_resize_to_twice_between_convolutions_is_one_kernel(hold):
    b = Int8Builder((1, 6, 8, 4))
    x = b.op("resize", conv(b, b.input), size=(12, 16), mode="bilinear", half_pixel=True)
    assert "Interpolate" in {op.kind for op in hold(b.graph(conv(b, x))).ops}


def test_a_resize_that_is_added_to_a_convolution(hold):
    """The plugin adds it inside the convolution, and the resize's last operation is then one of floats."""
    b = Int8Builder((1, 6, 8, 4))
    x = b.op("resize", conv(b, b.input), size=(12, 16), mode="bilinear", half_pixel=True)
    side = conv(b, b.op("resize", b.input, size=(12, 16), mode="nearest"), activation="relu6")
    hold(b.graph(conv(b, b.op("add", x, side))))


def test_a_number_added_behind_a_function_and_a_factor_is_rounded_with_the_zero_point_it_has(hold):
    """The plugin folds the sum into the FakeQuantize before it, and loses 0.45 of a step there."""

    def number(grid, integer):
        name = b.constant((1,), grid)
        held = np.array([integer], np.int8)
        b.tensors[name] = Constant(name=name, value=grid.dequantize(held)).quantized(grid, held)
        return name

    b = Int8Builder((1, 6, 6, 8))
    x = b.op("hard_swish", conv(b, b.input, out=grid(2.0, -110)), out=grid(1.5306727, -128))
    x = b.op("mul", x, number(grid(0.7628043, 0), 1), out=grid(1.6263051, -128))
    x = b.op("add", x, number(grid(0.00288619, 127), -128), out=grid(1.626252, -127))
    hold(b.graph(b.weighted("conv2d", x, (8, 3, 3, 1), groups=8, padding=(1, 1, 1, 1), stride=(1, 1), dilation=(1, 1))))
