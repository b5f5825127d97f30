"""OpenVINO's CPU plugin computes what the files say: one small graph for each op that needs more than its own name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import piece_graph
from int8_builder import Int8Builder, float_graph, random_images
from runtimes import WRITERS, held_by_openvino, opened
from torch import nn

import edgecnn
from edgecnn.graph.ir import Constant, QParams, Quantized
from edgecnn.graph.rounding import BEYOND, EVEN
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino import reader
from edgecnn_converters.openvino.convolution import unit_of
from edgecnn_targets.registry import activations


@pytest.fixture
def hold(tmp_path):
    """Assert that the plugin computes a graph in integers, 0 LSB from the oracle; returns the session."""

    return lambda graph, images=8: held_by_openvino(graph, tmp_path, images)


def conv(b, x, channels=4, **attrs):
    return b.weighted("conv2d", x, (channels, 1, 1, b.shape(x)[3]), **attrs)


def read_again(b, x):
    """Two concatenations, as in a DenseNet: the first is read by the second and by a convolution."""
    shared = b.grid(0.5, 7)
    joined = b.op("concat", *(conv(b, x, out=shared) for _ in range(2)), axis=3)
    return b.op("concat", joined, conv(b, joined, out=shared), axis=3)


def test_a_concatenation_that_is_read_again_is_no_float_op(hold, tmp_path):
    b = Int8Builder((1, 5, 6, 3))
    graph = b.graph(conv(b, read_again(b, b.input)))
    session = hold(graph)
    assert "Concatenation" in {op.kind for op in session.ops}
    name = next(node.output for node in graph if node.op == "concat")
    files = WRITERS["openvino"].convert(graph, precision="int8").files
    (row,) = (layer for layer in reader.layers(*files.values()) if layer.name == name)
    assert (row.op, row.dtype, row.zero_point) == ("Concat", "u8 levels", 7)
    quant, x = graph.quant(name), random_images(graph, 1)
    grids = {name: (float(quant.scale[0]), 7)}
    inside = activations("openvino", tmp_path / "net.xml", graph.quant(graph.inputs[0]).dequantize(x), grids)
    assert inside[name].shape == graph.tensors[name].shape


def test_what_reads_or_writes_8_bits_is_no_float_op(hold):
    session = hold(piece_graph("squeeze_excite", 1))
    assert "Subgraph" in {op.kind for op in session.ops}, "the plugin multiplies in registers, between 8-bit tensors"


def test_a_last_softmax_computes_in_integers(hold):
    session = hold(piece_graph("softmax", 0))
    assert "Softmax" not in {op.kind for op in session.ops}
    assert session.findings == ()


def test_what_computes_between_float_edges_is_a_float_op(tmp_path):
    b = Int8Builder((1, 5, 6, 3))
    graph = float_graph(b.graph(b.op("add", conv(b, b.input), b.constant((1, 1, 1, 4)))))
    session = opened("openvino", WRITERS["openvino"].convert(graph, precision="fp32"), tmp_path)
    assert any(op.is_float for op in session.ops)


def test_a_chain_of_linear_layers_stays_a_chain_of_linear_layers(hold):
    b = Int8Builder((1, 4, 4, 8))
    x = b.op("reshape", b.input, shape=(1, 128))
    for activation in ("relu", "relu6", "none"):
        x = b.weighted("fully_connected", x, (20, b.shape(x)[1]), activation=activation)
    session = hold(b.graph(x))
    assert [op.kind for op in session.ops if op.kind in ("FullyConnected", "Subgraph")][1:] == ["FullyConnected"] * 3


@pytest.mark.parametrize("after", ["conv2d", "max_pool2d", "reshape"])
def test_a_product_with_constants_of_both_signs(after, hold):
    b = Int8Builder((1, 6, 6, 8))
    x = conv(b, b.input, 8, out=b.grid(0.5, -128))
    if after == "max_pool2d":
        x = b.op(after, x, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0))
    if after == "reshape":
        x = b.op(after, x, shape=(1, 4, 9, 8))
    hold(b.graph(b.op("mul", x, b.constant((1, 1, 1, 8), b.grid(0.02, 0)))))


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "hard_swish", "relu6"])
def test_a_function_of_a_max_pool_times_constants_is_no_float_op(op, hold):
    b = Int8Builder((1, 6, 6, 8))
    x = b.op("max_pool2d", conv(b, b.input, 8), kernel=(2, 2), stride=(1, 1), padding=(0, 0, 0, 0))
    x = b.op("mul", x, b.constant((1, 1, 1, 8), b.grid(0.02, -128)))
    x = b.op(op, x, out=None if op == "sigmoid" else b.grid(0.03))
    hold(b.graph(b.op("add", x, b.constant((1,)), activation="relu6")))


@pytest.mark.parametrize("fused", ["relu6", "conv2d", "add", "mul"])
@pytest.mark.parametrize("high", [5.5, 6.5, 9, 30, 180])
def test_a_relu6(fused, high, hold):
    """Ends of the grid below 6, and beyond it: there something has to hold values at 6."""
    b = Int8Builder((1, 6, 6, 8), seed=int(high))
    x, out = b.op("add", b.input, b.constant((1, 1, 1, 8)), out=b.grid(0.05)), b.grid(high / 255, -44)
    if fused == "relu6":
        x = b.op(fused, x, out=out)
    elif fused == "conv2d":
        x = conv(b, x, 8, activation="relu6", out=out)
    else:
        x = b.op(fused, x, b.constant((1, 1, 1, 8)), activation="relu6", out=out)
    hold(b.graph(x))


@pytest.mark.parametrize("zero_point", [-128, 5, 127])
@pytest.mark.parametrize("shape", [(1, 1, 6, 4), (1, 6, 1, 4), (1, 1, 1, 1), (1, 4, 4, 3)])
@pytest.mark.parametrize("pads", [(1, 0, 2, 3, 0, 0), (0, 0, 0, 0, 1, 2), (0, 1, 0, 0, 0, 3)])
def test_a_pad(zero_point, shape, pads, hold):
    b = Int8Builder(shape)
    x = b.op("add", b.input, b.constant((1,)), out=b.grid(0.04, zero_point))
    hold(b.graph(conv(b, b.op("pad", x, padding=pads[:4], channels=pads[4:]))))


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(("kernel", "pads"), [((2, 2), 0), ((3, 3), 1), ((7, 7), 0), ((8, 6), 1)])
def test_an_average_pool_takes_halves_away_from_zero(channels, kernel, pads, hold):
    for seed, size in ((0, kernel), (1, (16, 16))):  # of the first the output is a pixel
        b = Int8Builder((1, *size, channels), seed)
        x = b.op("add", b.input, b.constant((1,)))
        pool = b.op("avg_pool2d", x, kernel=kernel, stride=kernel, padding=(pads,) * 4)
        hold(b.graph(pool), 4)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.08187263, 7), (0.299190878868103, -14), (0.3, 60)])
def test_halves_of_few_pixels_go_away_from_zero_whatever_the_grid(scale, zero_point, hold):
    quant = QParams(scale=np.array([scale], np.float32), zero_point=np.array([zero_point]), dtype="int8")
    b = Int8Builder((1, 32, 32, 8))
    b.tensors["input"] = Quantized(name="input", shape=(1, 32, 32, 8), quant=quant)
    pool = b.op("avg_pool2d", b.input, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0))
    halves = np.repeat(np.repeat(np.arange(-128, 128).reshape(1, 16, 16, 1), 2, axis=1), 2, axis=2)
    halves[:, ::2] = np.minimum(halves[:, ::2] + 1, 127)
    hold(b.graph(pool), np.repeat(halves, 8, axis=3).astype(np.int8))


@pytest.mark.parametrize("padding", [(1, 0, 0, 0), (0, 2, 0, 0), (1, 1, 1, 1)])
def test_a_depthwise_convolution_of_height_1_between_rows_does_not_crash(padding, hold):
    """With AVX-512 and a multiple of 16 channels the plugin crashes where it pads rows itself."""
    b = Int8Builder((1, 6, 6, 16))
    hold(b.graph(b.weighted("conv2d", b.input, (16, 1, 1, 1), groups=16, padding=padding)))


@pytest.mark.parametrize(("scale", "fits"), [(1e-8, False), (3e-8, True), (250, True), (260, False)])
def test_scales_beyond_what_the_plugin_carries_are_refused_with_their_node(scale, fits, hold):
    b = Int8Builder((1, 4, 4, 8))
    quant = QParams(scale=np.array([scale], np.float32), zero_point=np.array([90]), dtype="int8")
    b.tensors["input"] = Quantized(name="input", shape=(1, 4, 4, 8), quant=quant)
    graph = b.graph(b.op("sigmoid", b.input))
    if fits:
        hold(graph)
    else:
        ((node, reason),) = WRITERS["openvino"].unsupported(graph, "int8")
        assert node in ("input", graph.outputs[0])
        assert f"{scale:.3g}" in reason


def test_a_bias_of_which_float32_loses_steps_is_refused():
    b = Int8Builder((1, 4096))
    x, weights = b.input, (8, 4096)
    scale = float(b.quant(x).scale[0]) / (73 * 64) * 1.5  # of products, at most
    out = QParams(scale=np.array([scale / 60], np.float32), zero_point=np.array([3]), dtype="int8")
    graph = b.graph(b.weighted("fully_connected", x, weights, out=out))
    ((node, reason),) = WRITERS["openvino"].unsupported(graph, "int8")
    assert node == graph.outputs[0]
    assert "give the output a larger scale" in reason


def test_wide_borders_are_made_in_steps_and_wide_depthwise_kernels_refused(hold):
    """The plugin never ends to compile a kernel of 14 pixels or more for AVX-512."""
    b = Int8Builder((1, 3, 22, 16))
    hold(b.graph(b.op("pad", b.input, padding=(1, 14, 26, 9), channels=(0, 0))))
    for width, size, fits in ((13, 56, True), (14, 29, True), (14, 30, False)):
        b = Int8Builder((1, 4, size, 16))
        graph = b.graph(b.weighted("conv2d", b.input, (16, 1, width, 1), groups=16, padding=(0, 0, 6, 6)))
        if fits:
            hold(graph)
        else:
            ((node, reason),) = WRITERS["openvino"].unsupported(graph, "int8")
            assert (node, "14 pixels wide" in reason) == (graph.outputs[0], True)


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_kernel_that_covers_the_image_needs_no_stride(stride, channels, hold):
    b = Int8Builder((1, 8, 5, channels))
    hold(b.graph(b.weighted("conv2d", b.input, (6, 5, 5, channels), stride=stride)))


def test_one_channel_in_and_one_of_several_pixels_out_is_refused(hold):
    for width, fits in ((6, False), (7, True)):
        b = Int8Builder((1, 8, width, 1))
        graph = b.graph(b.weighted("conv2d", b.input, (6, 5, 5, 1), stride=(1, 2)))
        if fits:
            hold(graph)
        else:
            ((node, reason),) = WRITERS["openvino"].unsupported(graph, "int8")
            assert node == graph.outputs[0]
            assert "a stride of 1" in reason


def with_integers(b, name, integers, scale):
    """Give a weight or a bias other integers."""
    old = b.tensors[name]
    dtype, axis = old.quant.dtype, 0 if np.size(scale) > 1 else None
    quant = QParams(scale=np.atleast_1d(scale), zero_point=np.zeros(np.size(scale), int), dtype=dtype, axis=axis)
    integers = np.reshape(integers, old.shape).astype(dtype)
    b.tensors[name] = Constant(name=name, value=quant.dequantize(integers)).quantized(quant, integers)


def one_scale(scale, zero_point):
    return QParams(scale=np.atleast_1d(np.float32(scale)), zero_point=np.array([zero_point]), dtype="int8")


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_sums_that_float32_can_barely_tell_from_a_half(activation, hold):
    """With this input scale no weight scale makes each sum a whole number of steps: the file's are three times it."""
    source, weight, out = np.array([0.013403161, 0.0011981457, 0.014373025], np.float32)
    steps = np.arange(250000) * float(source) * float(weight) / float(out)
    nearest = np.argsort(np.abs(steps % 1 - 0.5))[:64]
    b = Int8Builder((1, 1, 1, 1))
    b.tensors["input"] = Quantized(name="input", shape=(1, 1, 1, 1), quant=one_scale(source, -128))
    assert unit_of(b.quant("input"))[1] == 3
    made = b.weighted("conv2d", b.input, (64, 1, 1, 1), out=one_scale(out, -124), activation=activation)
    with_integers(b, f"{made}.weight", np.full(64, 100), weight)
    with_integers(b, f"{made}.bias", nearest - 100 * 100, source * weight)
    hold(b.graph(made), np.full((1, 1, 1, 1), 100 - 128, np.int8))


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("zero_point", [-128, -100, 3, 127])
@pytest.mark.parametrize("least", [200, 600, 1100])
def test_sums_next_to_every_half_behind_rounding_safe_scales(least, zero_point, activation, hold):
    """They go away from zero on both sides, whatever cancels."""
    places = np.searchsorted(EVEN, np.linspace(least, 1.4 * least, 256))
    wanted, even = (1 + BEYOND[places]) / EVEN[places], EVEN[places]
    source, out = np.float32(0.0131), np.float32(0.0243)
    scales = (wanted * out / source).astype(np.float32)
    b = Int8Builder((1, 16, 16, 2))
    b.tensors["input"] = Quantized(name="input", shape=(1, 16, 16, 2), quant=one_scale(source, -128))
    made = b.weighted("conv2d", b.input, (256, 1, 1, 2), out=one_scale(out, zero_point), activation=activation)
    other = np.arange(256) % 255 - 127
    with_integers(b, f"{made}.weight", np.stack([np.ones(256), other], axis=1), scales)
    halves = even * (np.arange(256) - 128 - zero_point) + even // 2
    with_integers(b, f"{made}.bias", halves - 128 - 255 * other, scales * source)
    image = np.full((1, 16, 16, 2), 127, np.int8)
    image[..., 0] = np.arange(-128, 128).reshape(1, 16, 16)
    graph = b.graph(made)
    assert facts.in_steps(graph, graph.nodes[0]) == (abs(zero_point) < 127)
    assert (facts.parts_of_a_step(graph, graph.nodes[0]) is None) == (least > 1000)
    hold(graph, image)


class Grouped(nn.Module):
    """A convolution in groups of several channels, whose sums lie on both sides of zero."""

    def __init__(self, groups):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1, groups=groups)

    def forward(self, x):
        return self.second(nn.functional.silu(self.first(x)))


@pytest.mark.parametrize("groups", [2, 8])
def test_convolutions_in_groups_round_as_the_oracle(groups):
    torch.manual_seed(groups)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 48, 48, 3), np.uint8)
    network = edgecnn.load(Grouped(groups).eval(), input_shape=(3, 48, 48), preprocess=edgecnn.Preprocess())
    int8 = edgecnn.quantize(network, pixels, recipe="minmax", guard=False, reduce_range=True)
    (entry,) = edgecnn.validate(edgecnn.convert(int8, "openvino"), pixels, allow_loss=True).entries
    assert entry.parity.max_lsb == 0, "without a maximum between, some sums are rounded otherwise"
    assert entry.float_ops == ()
