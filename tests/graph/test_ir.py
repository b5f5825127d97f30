"""Graphs hold what the op table says, and survive the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import piece_graph, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_builder import Int8Builder, float_graph, weight_only_graph

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.ir import Constant, Graph, Metadata, QParams, Quantized, Tensor
from edgecnn.graph.ops import make_node, same_padding
from edgecnn.graph.serialize import load, save
from edgecnn.graph.summary import layers
from edgecnn.preprocess import Preprocess


def equal(a: Graph, b: Graph) -> bool:
    def facts(t: Tensor):
        held = {**vars(t), **vars(t.quant), "quant": None} if isinstance(t, Quantized) else vars(t)
        return type(t), {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in held.items()}

    return (
        (a.nodes, a.inputs, a.outputs, a.metadata) == (b.nodes, b.inputs, b.outputs, b.metadata)
        and set(a.tensors) == set(b.tensors)
        and all(facts(a.tensors[k]) == facts(b.tensors[k]) for k in a.tensors)
    )


METADATA = Metadata(
    model="m",
    preprocess=Preprocess(resize=(8, 9), mean=(1.5, 2.0, 3.0)),
    labels=("a", "ü"),
    label_offset=1,
    weights_sha256="0" * 64,
    quantization={"recipe": {"name": "default"}, "seed": 0},
)


@pytest.mark.parametrize("form", [lambda g: g, float_graph, weight_only_graph], ids=["int8", "fp32", "w8"])
def test_a_graph_survives_its_file_byte_for_byte(form, tmp_path):
    for seed in range(5):
        graph = replace(form(random_graph(seed)), metadata=METADATA)
        save(graph, tmp_path / "a.edgecnn")
        again = load(tmp_path / "a.edgecnn")
        assert equal(graph, again)
        assert again.precision == graph.precision
        save(again, tmp_path / "b.edgecnn")
        assert (tmp_path / "a.edgecnn").read_bytes() == (tmp_path / "b.edgecnn").read_bytes()


def test_as_float_keeps_values_and_drops_the_rest():
    graph = replace(piece_graph("conv", 1), metadata=METADATA)
    plain = graph.as_float()
    assert plain.precision == "fp32"
    assert plain.metadata.quantization is None
    assert all(np.array_equal(plain.constant(t.name).value, t.value) for t in graph.constants())
    assert {type(t) for t in plain.tensors.values()} == {Tensor, Constant}


def damaged(data: bytes, how: str) -> bytes:
    if how == "empty":
        return b""
    if how == "text":
        return b"not a graph"
    if how == "other":
        from safetensors.numpy import save as to_bytes

        return to_bytes({"x": np.zeros(3, np.float32)})
    if how == "format":
        return data.replace(b'\\"format\\": 1', b'\\"format\\": 9')
    return data[: int(len(data) * float(how))]


@pytest.mark.parametrize("how", ["empty", "text", "other", "format", "0.01", "0.5", "0.999"])
def test_a_damaged_file_is_one_line(how, tmp_path):
    path = tmp_path / "g.edgecnn"
    save(random_graph(0), path)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(InputError, match=r"g\.edgecnn") as error:
        load(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="none"):
        load(tmp_path / "none.edgecnn")


def graph_of(node, tensors, inputs=("x",)):
    return Graph(nodes=(node,), tensors={t.name: t for t in tensors}, inputs=inputs, outputs=(node.output,))


X = Tensor(name="x", shape=(1, 4, 4, 2))


def test_the_class_of_a_tensor_says_what_is_known_of_it():
    quant = QParams(scale=np.array([0.5]), zero_point=np.array([0]), dtype="int8")
    constant = Constant(name="w", value=np.ones((2, 3), np.float32))
    made = constant.quantized(quant, np.full((2, 3), 2, np.int8))
    assert made.shape == constant.shape == (2, 3)
    assert isinstance(made, Quantized)
    assert type(made.as_float()) is Constant
    with pytest.raises(InputError, match=r"'w': integers must be int8 of shape \(2, 3\)"):
        constant.quantized(quant, np.full((2, 3), 2, np.int32))
    with pytest.raises(ValueError, match="tensor 'x' is a Tensor; it must be a Constant"):
        Constant.of(X)


@pytest.mark.parametrize("missing", ["value", "integers"])
def test_a_file_that_lacks_half_of_a_constant_is_not_read(missing, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    save(piece_graph("conv", 1), tmp_path / "whole.edgecnn")
    with safe_open(tmp_path / "whole.edgecnn", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        del arrays[next(name for name in arrays if name.endswith(f".weight/{missing}"))]
        save_file(arrays, tmp_path / "half.edgecnn", metadata=file.metadata())
    with pytest.raises(InputError, match="weight'.*a constant has integers exactly when it is quantized"):
        load(tmp_path / "half.edgecnn")


def test_wrong_graphs_name_the_node():
    relu = make_node("relu", ("x",), "y", "net.act")
    with pytest.raises(InputError, match=r"relu 'y' \(net\.act\) makes \(1, 4, 4, 2\) but its tensor is \(1, 4\)"):
        graph_of(relu, [X, Tensor(name="y", shape=(1, 4))])
    with pytest.raises(InputError, match=r"reads \['z'\] before anything makes it"):
        graph_of(make_node("relu", ("z",), "y"), [X, Tensor(name="y", shape=X.shape), Tensor(name="z", shape=X.shape)])
    with pytest.raises(UnsupportedError, match=r"unknown op 'relu7' \(did you mean 'relu'\?\)"):
        make_node("relu7", ("x",), "y")
    with pytest.raises(InputError, match="needs the attribute 'kernel'"):
        make_node("max_pool2d", ("x",), "y")
    with pytest.raises(InputError, match="unknown attribute of relu 'alpha'"):
        make_node("relu", ("x",), "y", alpha=1)
    weight = Constant(name="w", value=np.zeros((3, 1, 1, 5), np.float32))
    with pytest.raises(InputError, match=r"conv2d 'y' \(net.conv\).*do not fit"):
        graph_of(make_node("conv2d", ("x", "w"), "y", "net.conv"), [X, weight, Tensor(name="y", shape=(1, 4, 4, 3))])
    pool = make_node("max_pool2d", ("x",), "y", kernel=(9, 9))
    with pytest.raises(InputError, match="too small"):
        graph_of(pool, [X, Tensor(name="y", shape=X.shape)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": [0.0], "zero_point": [0], "dtype": "int8"}, "not a finite number above 0"),
        ({"scale": [float("nan")], "zero_point": [0], "dtype": "int8"}, "not a finite number above 0"),
        ({"scale": [1.0], "zero_point": [200], "dtype": "int8"}, r"outside int8's \[-128, 127\]"),
        ({"scale": [1.0, 2.0], "zero_point": [0, 0], "dtype": "int8"}, "without a channel axis"),
        ({"scale": [1.0], "zero_point": [0, 0], "dtype": "int8"}, "must be equal vectors"),
        ({"scale": [1.0], "zero_point": [0], "dtype": "int4"}, "quantized type 'int4'"),
    ],
)
def test_wrong_quantization_parameters(fields, message):
    with pytest.raises(InputError, match=message):
        QParams(**{k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()})


@settings(max_examples=200)
@given(scale=st.floats(1e-6, 1e3), zero=st.integers(-128, 127), integer=st.integers(-128, 127))
def test_integers_survive_their_real_values(scale, zero, integer):
    quant = QParams(scale=np.array([scale]), zero_point=np.array([zero]), dtype="int8")
    integers = np.array([integer], np.int8)
    assert quant.quantize(quant.dequantize(integers)) == integers
    assert quant.quantize(np.zeros(1)) == zero


@settings(max_examples=300)
@given(size=st.integers(1, 300), kernel=st.integers(1, 9), stride=st.integers(1, 4), dilation=st.integers(1, 3))
def test_same_padding_gives_the_size_over_the_stride(size, kernel, stride, dilation):
    before, after = same_padding(size, kernel, stride, dilation)
    assert 0 <= after - before <= 1
    assert (size + before + after - dilation * (kernel - 1) - 1) // stride + 1 == -(-size // stride)


def test_the_summary_counts_what_the_graph_holds():
    builder = Int8Builder((1, 8, 8, 3), 0)
    conv = builder.weighted("conv2d", builder.input, (16, 3, 3, 3), padding=(1, 1, 1, 1), activation="relu6")
    graph = builder.graph(builder.weighted("fully_connected", builder.op("mean", conv), (5, 16)))
    rows = layers(graph)
    assert [r.op for r in rows] == ["conv2d", "mean", "fully_connected"]
    assert [r.macs for r in rows] == [8 * 8 * 16 * 27, 0, 5 * 16]
    assert rows[0].weight_bytes == 16 * 27 + 4 * 16
    assert rows[0].details == "padding=1x1x1x1 activation=relu6"
    assert rows[0].weight_scales[2] == 16
    assert {r.dtype for r in rows} == {"int8"}
    assert {r.dtype for r in layers(float_graph(graph))} == {"float32"}
