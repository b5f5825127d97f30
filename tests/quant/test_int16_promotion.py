"""16-bit activations: the scheme, the oracle bit for bit with LiteRT's reference kernels, and the borders to int8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import PIECES, piece_graph, random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from int8_builder import Int8Builder, float_graph, random_images
from seen import statistics_of

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Graph, Quantized
from edgecnn.graph.ops import make_node
from edgecnn.graph.oracle import run
from edgecnn.quant.observers.histogram import Calibration
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.scales import qparams
from edgecnn_converters.tflite import convert
from edgecnn_converters.tflite.reader import integers, read
from edgecnn_targets.runtimes.litert import LiteRtSession


def requantized(graph: Graph, precision: str = "int8", keep: tuple[str, ...] = ()) -> Graph:
    """An int8 graph's float network quantized again, over the ranges of its own grids."""
    statistics = {}
    for tensor in graph.activations():
        ends = tensor.quant.dequantize(np.array(tensor.quant.limits))
        statistics[tensor.name] = statistics_of(np.repeat(ends[:, None], tensor.shape[-1], axis=1))
    steps = recipe("minmax").with_settings("int16_promotion", keep=keep)
    return quantize(float_graph(graph), Calibration(statistics=statistics), steps, precision).graph


def some_inside(graph: Graph, seed: int, count: int = 3) -> tuple[str, ...]:
    """Some activations that may be kept: that share their scale with neither input nor output."""
    names = sorted(set().union(*qparams.groups_inside(graph)))
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    return tuple(names[i] for i in sorted(chosen))


def equal(graph: Graph, x: np.ndarray, folder, kernels: str = "reference") -> None:
    path = folder / "graph.tflite"
    path.write_bytes(convert(graph, precision=graph.precision).files[".tflite"])
    want = LiteRtSession(path, kernels=kernels).run(x)
    got = run(graph, x)[graph.outputs[0]].reshape(want.shape)
    apart = np.abs(got.astype(int) - want)
    assert apart.max() == 0, f"{np.count_nonzero(apart)} of {apart.size} outputs differ, by at most {apart.max()} LSB"


@pytest.mark.parametrize("piece", PIECES)
def test_each_op_equals_litert_in_16_bits(piece, tmp_path):
    for seed in range(5):
        graph = requantized(piece_graph(piece, seed), "int16x8")
        assert graph.precision == "int16x8"
        equal(graph, random_images(graph, 2, seed), tmp_path)


@settings(max_examples=40, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_random_networks_equal_litert_in_16_bits(seed, pieces, tmp_path_factory):
    note(f"random_graph({seed}, {pieces})")
    graph = requantized(random_graph(seed, pieces), "int16x8")
    equal(graph, random_images(graph, 1, seed), tmp_path_factory.mktemp("wide"))


@settings(max_examples=40, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(2, 6))
def test_random_mixed_networks_equal_litert(seed, pieces, tmp_path_factory):
    note(f"random_graph({seed}, {pieces})")
    plain = random_graph(seed, pieces)
    graph = requantized(plain, keep=some_inside(plain, seed))
    assert graph.precision == "int8"
    equal(graph, random_images(graph, 1, seed), tmp_path_factory.mktemp("mixed"))


def test_every_integer_goes_through_sigmoid_and_softmax_as_in_litert(tmp_path):
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    for scale in (0.0005, 1e-4, 2.0**-12, 2.0**-11):  # powers of two go another way in LiteRT
        for op in ("sigmoid", "softmax"):
            b = Int8Builder((1, 64), 1)
            b.op(op, b.input)
            graph = requantized(b.graph(), "int16x8")
            source = graph.tensors["input"]
            exact = qparams.rescaled(source.quant, scale)
            graph = graph.with_tensors(type(source)(name="input", shape=source.shape, quant=exact))
            equal(graph, every.reshape(-1, 64), tmp_path)


def test_the_scheme_is_symmetric_and_the_biases_are_wide():
    graph = requantized(random_graph(3), "int16x8")
    check_integers(graph)
    for tensor in graph.activations():
        assert tensor.quant.dtype == "int16"
        assert tensor.quant.zero_point[0] == 0
    biases = [graph.tensors[n.inputs[2]] for n in graph if n.op in ("conv2d", "fully_connected")]
    assert {b.quant.dtype for b in biases} == {"int64"}


@settings(max_examples=100)
@given(low=st.floats(-1e4, 1e4), high=st.floats(-1e4, 1e4))
def test_a_16_bit_range_is_covered(low, high):
    quant = qparams.activation_qparams(low, high, "int16")
    ends = np.array([min(low, 0), max(high, 0)])
    np.testing.assert_allclose(quant.dequantize(quant.quantize(ends)), ends, atol=float(quant.scale[0]) * 0.51)


def test_only_what_touches_a_kept_activation_is_wide():
    b = Int8Builder((1, 8, 8, 3))
    first = b.weighted("conv2d", b.input, (4, 1, 1, 3))
    second = b.weighted("conv2d", first, (4, 1, 1, 4))
    third = b.weighted("conv2d", second, (4, 1, 1, 4))
    b.weighted("conv2d", third, (4, 1, 1, 4))
    graph = requantized(b.graph(), keep=(second,))
    assert graph.kept == (second, f"{third}.int16")
    assert [n.op for n in graph] == ["conv2d", "requantize", "conv2d", "conv2d", "requantize", "conv2d"]
    assert graph.tensors[third].quant.dtype == "int8"


def test_what_shares_a_scale_is_kept_together():
    b = Int8Builder((1, 8, 8, 3))
    grid = b.grid(0.5)
    left, right = (b.weighted("conv2d", b.input, (4, 1, 1, 3), out=grid) for _ in range(2))
    joined = b.op("concat", left, right, axis=3)
    b.weighted("conv2d", joined, (4, 1, 1, 8))
    graph = requantized(b.graph(), keep=(left,))
    assert {name for name in (left, right, joined) if graph.tensors[name].quant.dtype == "int16"} == {
        left,
        right,
        joined,
    }


def test_the_file_says_the_same_integers_and_versions():
    graph = requantized(random_graph(5), "int16x8")
    data = convert(graph, precision="int16x8").files[".tflite"]
    found = integers(data)
    for name, (quant, values) in found.items():
        assert quant.same_as(graph.tensors[name].quant), name
        if values is not None:
            np.testing.assert_array_equal(values, graph.tensors[name].integers)
    assert set(found) == {t.name for t in graph.tensors.values() if isinstance(t, Quantized)}
    versions = {op.name: op.version for op in read(data).ops}
    assert versions.get("CONV_2D", 4) in (4, 6)
    assert versions.get("ADD", 3) == 3


def test_what_cannot_be_kept_is_one_line():
    graph = random_graph(0)
    for name in (*graph.inputs, *graph.outputs, "nothing"):
        with pytest.raises(InputError, match="activation to keep in 16 bits"):
            requantized(graph, keep=(name,))


def test_a_node_of_two_types_breaks_the_contract():
    graph = requantized(random_graph(5), "int16x8")
    name = graph.nodes[0].output
    narrow = qparams.activation_qparams(-1, 1)
    broken = graph.with_tensors(type(graph.tensors[name])(name=name, shape=graph.tensors[name].shape, quant=narrow))
    with pytest.raises(InputError, match="put a requantize between|another grid|must have scale"):
        check_integers(broken)


def test_litert_has_no_16_bit_hard_swish():
    b = Int8Builder((1, 4, 4, 2))
    b.op("hard_swish", b.input, out=b.quant(b.input))
    graph = b.graph()
    wide = [
        type(t)(name=t.name, shape=t.shape, quant=qparams.activation_qparams(-1, 1, "int16"))
        for t in graph.activations()
    ]
    with pytest.raises(UnsupportedError, match="no hard_swish of 16-bit activations"):
        convert(graph.with_tensors(*wide), precision="int16x8")


def test_a_dead_layer_stays_in_int32_on_its_way(tmp_path):
    b = Int8Builder((1, 4, 4, 2))
    dead = b.weighted("conv2d", b.input, (3, 1, 1, 2), activation="relu")
    b.weighted("conv2d", dead, (3, 1, 1, 3))
    graph = float_graph(b.graph())
    bias = graph.tensors[graph.nodes[0].inputs[2]]
    graph = graph.with_tensors(replace(bias, value=np.full(bias.shape, -30, np.float32)))
    ends = {t.name: np.repeat([[-1], [1]], t.shape[-1], axis=1) * (t.name != dead) for t in graph.activations()}
    seen = Calibration(statistics={name: statistics_of(values) for name, values in ends.items()})
    wide = quantize(graph, seen, recipe("minmax"), "int16x8").graph
    equal(wide, random_images(wide, 20), tmp_path)
    assert not run(wide, random_images(wide, 20), keep=(dead,))[dead].any()


def test_a_requantize_says_what_it_makes():
    with pytest.raises(InputError, match="needs the attribute 'to'"):
        make_node("requantize", ("x",), "y")
