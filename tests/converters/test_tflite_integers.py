"""An integer .tflite file becomes a quantized graph with the file's integers, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from graphs import MORE_PIECES, PIECES, piece_graph
from tflite_files import TfliteFile, grid

from edgecnn.errors import UnsupportedError
from edgecnn.graph import oracle
from edgecnn.graph.ir import QuantizedConstant
from edgecnn_converters.tflite import convert, unsupported
from edgecnn_converters.tflite.importer import import_tflite


def imported(tmp_path, data):
    path = tmp_path / "network.tflite"
    path.write_bytes(data)
    return import_tflite(path)


def integers_of(graph):
    return {t.name: t for t in graph.tensors.values() if isinstance(t, QuantizedConstant)}


def random_integers(graph):
    rng = np.random.default_rng(3)
    return {n: rng.integers(-128, 128, graph.tensors[n].shape).astype(np.int8) for n in graph.inputs}


def assert_oracle_is_litert(got):
    values = random_integers(got.graph)
    (made,) = oracle.run(got.graph, *values.values()).values()
    np.testing.assert_array_equal(made, got.reference(values)[got.graph.outputs[0]])


OUTER = [(piece, io) for piece in ("dense", "softmax") for io in ("uint8", "float32")]


@pytest.mark.parametrize(("piece", "io"), [*((piece, "int8") for piece in [*PIECES, *MORE_PIECES]), *OUTER])
def test_our_own_file_comes_back_with_the_same_integers(tmp_path, piece, io):
    graph = piece_graph(piece, 1)
    if refused := unsupported(graph, "int8"):
        pytest.skip(f"no .tflite file holds it: {refused[0][1][:60]}")
    got = imported(tmp_path, convert(graph, precision="int8", io=io).files[".tflite"])
    back = integers_of(got.graph)
    for name, tensor in integers_of(graph).items():
        np.testing.assert_array_equal(back[name].integers.reshape(-1), tensor.integers.reshape(-1))
        assert back[name].quant.same_as(tensor.quant)
    values = random_integers(got.graph)
    (want,), (made,) = (oracle.run(g, *values.values()).values() for g in (graph, got.graph))
    np.testing.assert_array_equal(made, want)


def _input(f: TfliteFile, **more: object) -> int:
    return f.input((1, 6, 6, 4), dtype="int8", quant=grid(0.05, 3), **more)


def _weights(f: TfliteFile, *shape: int, axis: int = 0, zero: int = 0, dtype: str = "int8") -> int:
    count = shape[axis]
    scales = 0.01 * (1 + np.arange(count))
    return f.constant(f.rng.integers(-127, 128, shape), dtype, quant=grid(scales, zero, axis=axis))


def _bias(f: TfliteFile, count: int) -> int:
    scales = np.float64(np.float32(0.05)) * np.float32(0.01 * (1 + np.arange(count)))
    return f.constant(f.rng.integers(-900, 900, count), "int32", quant=grid(scales, 0, "int32", axis=0))


def _conv(f: TfliteFile) -> int:
    inputs = [_input(f), _weights(f, 5, 3, 3, 4), _bias(f, 5)]
    return f.op("CONV_2D", inputs, "Conv2DOptionsT", version=3, made="int8", quant=grid(0.4, -20), strideH=2, strideW=2,
                dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=1)  # fmt: skip


def _depthwise(f: TfliteFile) -> int:
    inputs = [_input(f), _weights(f, 1, 3, 3, 4, axis=3), _bias(f, 4)]
    return f.op("DEPTHWISE_CONV_2D", inputs, "DepthwiseConv2DOptionsT", version=3, made="int8", quant=grid(0.2, 5),
                strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1, depthMultiplier=1)  # fmt: skip


def _regrid(f: TfliteFile) -> int:
    return f.op("QUANTIZE", [_input(f)], "QuantizeOptionsT", version=2, made="int8", quant=grid(0.08, -7))


def _same_grid(f: TfliteFile) -> int:
    return f.op("QUANTIZE", [_conv(f)], "QuantizeOptionsT", version=2, made="int8", quant=grid(0.4, -20))


def _mean(f: TfliteFile) -> int:
    inputs = [_input(f), f.constant([1, 2])]
    return f.op("MEAN", inputs, "ReducerOptionsT", version=2, made="int8", quant=grid(0.03, 1), keepDims=True)


def _mean_of_one(f: TfliteFile) -> int:
    inputs = [f.input((1, 1, 1, 4), dtype="int8", quant=grid(0.05, 3)), f.constant([1, 2])]
    return f.op("MEAN", inputs, "ReducerOptionsT", version=2, made="int8", quant=grid(0.03, 1), keepDims=False)


def _softmax(f: TfliteFile) -> int:
    flat = f.op("RESHAPE", [_input(f), f.constant([1, 144])], "ReshapeOptionsT", made="int8", quant=grid(0.05, 3))
    return f.op("SOFTMAX", [flat], "SoftmaxOptionsT", version=2, made="int8", quant=grid(1 / 256, -128), beta=1.0)


def _added(f: TfliteFile) -> int:
    other = f.constant(f.rng.integers(-128, 128, 4), "int8", quant=grid(0.02, -4))
    return f.op("ADD", [_input(f), other], "AddOptionsT", version=2, made="int8", quant=grid(0.06, 0))


TAKEN: Mapping[str, Callable[[TfliteFile], int]] = {
    "conv": _conv, "depthwise": _depthwise, "onto another grid": _regrid, "onto the same grid": _same_grid,
    "mean": _mean, "mean of one pixel": _mean_of_one, "softmax": _softmax, "add": _added,
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_anothers_file_is_taken_with_its_integers(tmp_path, name):
    file = TfliteFile()
    got = imported(tmp_path, file.bytes(TAKEN[name](file)))
    assert got.graph.precision == "int8"
    assert_oracle_is_litert(got)


def _asymmetric(f: TfliteFile) -> int:
    weight = f.constant(f.rng.integers(-127, 128, (5, 1, 1, 4)), "int8", quant=grid(0.01, 3))
    bias = f.constant(np.zeros(5), "int32", quant=grid(0.0005, 0, "int32"))
    return f.op("CONV_2D", [_input(f), weight, bias], "Conv2DOptionsT", version=3, made="int8", quant=grid(0.4, -20),
                shape=(1, 6, 6, 5), strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)  # fmt: skip


def _hybrid(f: TfliteFile) -> int:
    weight = f.constant(f.rng.integers(-127, 128, (5, 144)), "int8", quant=grid(0.01))
    flat = f.op("RESHAPE", [f.input((1, 6, 6, 4)), f.constant([1, 144])], "ReshapeOptionsT")
    return f.op("FULLY_CONNECTED", [flat, weight, f.normal(5)], "FullyConnectedOptionsT", version=3)


def _float_inside(f: TfliteFile) -> int:
    real = f.op("DEQUANTIZE", [_input(f)], "DequantizeOptionsT", version=2)
    return f.op("QUANTIZE", [f.op("ABS", [real])], "QuantizeOptionsT", made="int8", quant=grid(0.05, 3))


def _several(f: TfliteFile) -> int:
    x = _input(f)
    other = f.op("ADD", [x, x], "AddOptionsT", version=2, made="int8", quant=grid(0.1, 3))
    return f.op("SUB", [other, x], "SubOptionsT", version=2, made="int8", quant=grid(0.1, 3))


REFUSED: Mapping[str, tuple[Callable[[TfliteFile], int], str]] = {
    "asymmetric weight": (_asymmetric, r"CONV_2D 'conv_2d_3': its weight 'constant_.' is asymmetric: zero point 3"),
    "hybrid": (_hybrid, r"FULLY_CONNECTED .*: it computes in float with 'constant_0', which is int8 \(dynamic-range"),
    "float inside": (_float_inside, r"DEQUANTIZE 'dequantize_1': it makes 'dequantize_1' float inside an integer net"),
    "several nodes": (_several, r"SUB 'sub_2': it becomes several ops \(mul, add\), between which the file has no int"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_the_contract_is_refused_with_the_tensor(tmp_path, name):
    body, message = REFUSED[name]
    file = TfliteFile()
    with pytest.raises(UnsupportedError, match=message) as caught:
        imported(tmp_path, file.bytes(body(file)))
    assert "\n" not in str(caught.value)


def test_a_change_of_grids_is_nothing_in_float(tmp_path):
    file = TfliteFile()
    made = _conv(file)
    moved = file.op("QUANTIZE", [made], "QuantizeOptionsT", version=2, made="int8", quant=grid(0.21, 7))
    both = file.op("ADD", [made, moved], "AddOptionsT", version=2, made="int8", quant=grid(0.6, 7))
    graph = imported(tmp_path, file.bytes(both)).graph
    assert [n.op for n in graph] == ["conv2d", "requantize", "add"]
    plain = graph.as_float()
    assert [n.op for n in plain] == ["conv2d", "add"]
    assert plain.nodes[1].inputs == (plain.nodes[0].output,) * 2
