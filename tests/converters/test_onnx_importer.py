"""ONNX files become graphs that compute what ONNX Runtime computes of them: op by op, whole networks, and bad files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import PIECES, piece_graph, random_graph
from int8_builder import float_graph, weight_only_graph
from onnx import TensorProto, helper, numpy_helper
from onnx_files import FLOAT, OPS, File, ints, reals
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import edgecnn
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.ir import Graph, QuantizedConstant
from edgecnn.import_check import check_import, evaluate, random_inputs
from edgecnn_converters import onnx as to_onnx
from edgecnn_converters.onnx.importer import read
from edgecnn_converters.onnx.model_file import open_model


def loaded(file: File, folder: Path, outputs: Sequence[str] = (), **how: Any) -> edgecnn.Network:
    """Import a file and check it beside ONNX Runtime; that is part of loading."""
    network = edgecnn.load(file.save(folder, outputs), **how)
    (finding,) = network.findings
    assert "largest relative difference" in finding.text
    return network


@pytest.mark.parametrize("case", OPS, ids=lambda case: case.id)
def test_an_op_computes_what_onnx_runtime_does(case, tmp_path):
    file = File(case.shape, case.opset)
    case.build(file)
    if file.last == "x" or case.id in ("Dropout", "Identity", "Cast-to1", "ReduceSum-noop_with_empty_axes1"):
        file.add("Mul", reals(2))
    network = loaded(file, tmp_path)
    if case.nodes is not None:
        assert {node.op for node in network.graph} == case.nodes


def test_batch_norm_and_activations_are_folded_wherever_the_nodes_stand(tmp_path):
    file = File((1, 3, 8, 8))
    file.add("Conv", file.normal(4, 3, 3, 3))
    left = file.last
    file.last = "x"
    file.add("Conv", file.normal(4, 3, 3, 3))
    right = file.last
    for name in (left, right):
        file.last = name
        file.add("BatchNormalization", *(np.abs(file.normal(4)) + 0.5 for _ in range(4)))
        file.add("Relu")
    file.add("Concat", "relu_3", axis=1)
    assert [node.op for node in loaded(file, tmp_path).graph] == ["conv2d", "conv2d", "concat"]


def test_batch_norm_of_a_row_is_folded(tmp_path):
    file = File((1, 6, 20))
    file.add("Conv", file.normal(8, 6, 3), file.normal(8), pads=[1, 1])
    file.add("BatchNormalization", *(np.abs(file.normal(8)) + 0.5 for _ in range(4)))
    file.add("Relu")
    file.add("ReduceMean", axes=[2], keepdims=0)
    file.add("Gemm", file.normal(8, 3), file.normal(3))
    ops = [node.op for node in loaded(file, tmp_path).graph]
    assert ops.count("conv2d") == 1
    assert "mul" not in ops


def test_a_hard_sigmoid_of_any_slope_behind_a_layer_costs_no_op(tmp_path):
    file = File((1, 6, 8, 8))
    file.add("Conv", file.normal(6, 6, 1, 1), file.normal(6))
    file.add("HardSigmoid", alpha=0.2)
    file.add("Mul", "x")
    file.add("Conv", file.normal(6, 6, 1, 1), file.normal(6))
    assert [node.op for node in loaded(file, tmp_path).graph] == ["conv2d", "mul", "conv2d"]


def several(file: File) -> list[str]:
    """Two inputs and three outputs, one of them inside."""
    file.inputs.append(helper.make_tensor_value_info("other/side:0", FLOAT, [1, 5]))
    file.add("Conv", file.normal(4, 6, 3, 3))
    conv = file.last
    file.add("Relu")
    file.add("GlobalAveragePool")
    file.add("Flatten")
    file.add("Concat", "other/side:0", axis=1)
    file.add("Gemm", file.normal(9, 7), file.normal(7), outputs=["/scores"])
    file.add("Sigmoid", outputs=["boxes"])
    return [conv, "/scores", "boxes"]


def test_inputs_and_outputs_keep_their_names(tmp_path):
    file = File()
    graph = loaded(file, tmp_path, several(file)).graph
    assert graph.inputs == ("x", "other.side:0")
    assert graph.outputs == ("conv_0", "scores", "boxes")


def test_a_dynamic_batch_is_one_and_other_sizes_are_asked_for(tmp_path):
    file = File(("n", 3, "h", "w"))
    file.add("Conv", file.normal(4, 3, 3, 3))
    with pytest.raises(InputError, match=r"input 'x' is \?x3x\?x\?, whose size is not fixed; .*--input-shape x=3xSIZE"):
        edgecnn.load(file.save(tmp_path))
    for shape in ((3, 8, 9), {"x": (3, 8, 9)}, {"x": (1, 3, 8, 9)}):
        assert loaded(file, tmp_path, input_shape=shape).input_shape == (8, 9, 3)
    with pytest.raises(InputError, match="a shape of 4x8x9 does not fit it"):
        edgecnn.load(file.save(tmp_path), input_shape=(4, 8, 9))
    with pytest.raises(InputError, match="shapes are given of y; the inputs are: x"):
        edgecnn.load(file.save(tmp_path), input_shape={"y": (3, 8, 9)})
    file = File(("n", 3, 8, 8))
    file.add("Conv", file.normal(4, 3, 3, 3))
    assert loaded(file, tmp_path).input_shape == (8, 8, 3)


def test_float16_is_read_as_float32(tmp_path):
    file = File()
    file.add("Conv", file.normal(4, 6, 3, 3).astype(np.float16))
    file.add("Add", np.float16(1.5))
    file.inputs[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model = file.model()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "m.onnx")
    graph = edgecnn.load(tmp_path / "m.onnx").graph
    assert all(t.value.dtype == np.float32 for t in graph.constants())


def external(file: File, folder: Path, **how: Any) -> Path:
    path = folder / "m.onnx"
    onnx.save(file.model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0, **how)
    return path


def test_external_data_is_read_from_the_folder_of_the_model(tmp_path):
    file = File()
    file.add("Conv", file.normal(4, 6, 3, 3))
    path = external(file, tmp_path)
    edgecnn.load(path)
    (tmp_path / "weights.bin").write_bytes(b"0123")
    with pytest.raises(InputError, match=r"external data 'weights.bin' is truncated: 4 bytes where 864 are needed"):
        edgecnn.load(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="its external data 'weights.bin' is missing: put it beside the model"):
        edgecnn.load(path)
    model = onnx.load(path, load_external_data=False)
    (tmp_path / "outside.bin").write_bytes(bytes(864))
    for entry in model.graph.initializer[0].external_data:
        entry.value = "../outside.bin" if entry.key == "location" else entry.value
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"data in '../outside.bin', which is not in the folder of the model"):
        edgecnn.load(tmp_path / "inner" / "m.onnx")


def test_a_branch_with_a_known_condition_is_taken(tmp_path):
    file = File((1, 4))
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        node = helper.make_node(kind, ["x"], [f"{name}_out"])
        ends = [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)]
        branches[name] = helper.make_graph([node], name, [], ends)
    file.add("If", file.store(np.array(True)), first=False, **branches)
    file.add("Mul", reals(2))
    assert [node.op for node in loaded(file, tmp_path).graph] == ["relu", "mul"]


def unsupported_ops(file: File) -> None:
    file.add("Conv", file.normal(4, 6, 3, 3))
    file.add("Sin")
    file.add("Relu")
    file.add("Round")
    file.nodes.append(helper.make_node("Magic", [file.last], ["magic"], name="wand", domain="com.example"))
    file.last = "magic"
    file.add("Relu")


def test_all_that_is_not_supported_is_listed_at_once(tmp_path):
    file = File()
    unsupported_ops(file)
    with pytest.raises(UnsupportedError) as raised:
        edgecnn.load(file.save(tmp_path))
    text = str(raised.value)
    assert "Sin 'node_1'; Round 'node_3'; com.example.Magic 'wand'; " in text
    assert re.search(r"\d+ ops are supported.*; `edgecnn models ops onnx` lists all", text)
    assert "\n" not in text


def cyclic(file: File) -> None:
    file.add("Add", "back")
    file.nodes.append(helper.make_node("Relu", ["add_0"], ["back"], name="turn"))


def twins(file: File) -> list[str]:
    file.add("Relu")
    return [file.last, file.last]


def loop(file: File) -> None:
    file.add("Loop", "", file.store(np.array(True)), body=helper.make_graph([], "body", [], []))


def doubles(file: File) -> None:
    file.inputs[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    file.add("Relu")


def computed_weight(file: File) -> None:
    file.inputs.append(helper.make_tensor_value_info("w", FLOAT, [4, 6, 3, 3]))
    file.add("Conv", "w")


BAD: list[tuple[Callable[[File], Any], int, str]] = [
    (cyclic, 17, "the graph is cyclic: Add 'node_0', Relu 'turn' wait for each other"),
    (twins, 17, "two outputs are named 'relu_0'; name each output once"),
    (loop, 17, "Loop 'node_0': control flow"),
    (doubles, 17, "input 'x' is float64; float32 and float16 are read: export the network in float32"),
    (lambda f: f.add("Relu"), 25, "has opset 25, newer than what is read: 7 to 24; export it again"),
    (lambda f: f.add("Relu"), 6, "has opset 6, older than what is read: 7 to 24"),
    (lambda f: f.add("Add", "nobody"), 17, "tensor 'nobody' is read, and nothing makes it"),
    (lambda f: f.add("Cast", to=TensorProto.INT64), 17, "Cast 'node_0': a cast of an activation to int64"),
    (computed_weight, 17, "input 'w' is 4x6x3x3; its first dimension must be a batch of 1"),
    (lambda f: f.add("ConstantOfShape", f.store(ints(1, 10**5, 10**5)), first=False),
    17, "a constant of 1e.10 elements"),
    (lambda f: f.add("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), np.float32("-inf")),
    17, "padding of mode 'constant' with -inf"),
    (lambda f: f.add("Add", f.normal(8) / 0), 17, "constant 'w0' holds NaN or infinity"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("build", "opset", "said"), BAD, ids=[said[:24] for *_, said in BAD])
def test_what_is_wrong_with_a_file_is_one_line(build, opset, said, tmp_path):
    file = File(opset=opset)
    outputs = build(file)
    with pytest.raises(InputError, match=said) as raised:
        edgecnn.load(file.save(tmp_path, outputs if isinstance(outputs, list) else ()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_damaged_file_is_one_line(share, tmp_path):
    file = File()
    file.add("Conv", file.normal(40, 6, 3, 3))
    data = file.save(tmp_path).read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"m\.onnx") as raised:
        edgecnn.load(tmp_path / "m.onnx")
    assert "\n" not in str(raised.value)


def test_an_import_that_differs_names_the_first_tensor_that_parts(tmp_path):
    file = File()
    file.add("Conv", file.normal(4, 6, 3, 3), outputs=["first"])
    file.add("Sigmoid")
    file.add("Conv", file.normal(4, 4, 3, 3), outputs=["last"])
    imported = read(file.save(tmp_path))
    weight = imported.graph.constant(imported.graph.nodes[0].inputs[1])
    wrong = imported.graph.with_tensors(replace(weight, value=weight.value * np.float32(1.01)))
    with pytest.raises(InputError, match=r"of output 'last'; .* first tensor that parts is of conv2d 'first'"):
        check_import(replace(imported, graph=wrong), wrong)


@pytest.mark.parametrize("io", ["float32", "uint8", "int8"])
def test_an_integer_file_of_ours_comes_back_with_the_same_integers(io, tmp_path):
    for k, piece in enumerate(PIECES):
        graph = piece_graph(piece, k)
        network = back(graph, tmp_path, io)
        assert network.graph.nodes == graph.nodes
        for name, tensor in graph.tensors.items():
            again = network.graph.tensors[name]
            assert again.quant.same_as(tensor.quant), (piece, name)
            if isinstance(tensor, QuantizedConstant):
                assert np.array_equal(again.integers, tensor.integers), (piece, name)


def back(graph: Graph, folder: Path, io: str = "float32") -> edgecnn.Network:
    """Write a graph, and load the file."""
    (folder / "m.onnx").write_bytes(to_onnx.convert(graph, precision="int8", io=io).files[".onnx"])
    network = edgecnn.load(folder / "m.onnx")
    assert re.search("largest difference [01] LSB", network.findings[0].text)  # scales here are not rounding-safe
    return network


@pytest.mark.parametrize(("piece", "seed"), [("swish", 15), ("product", 26), ("squeeze_excite", 0)])
def test_an_integer_file_of_ours_whose_record_is_lost(piece, seed, tmp_path):
    """A product may be quantized by a scale that is millionths off; a Clip of integers ends where integers do."""
    written = onnx.load_from_string(to_onnx.convert(piece_graph(piece, seed), precision="int8").files[".onnx"])
    del written.metadata_props[:]
    onnx.save(written, tmp_path / "m.onnx")
    network = edgecnn.load(tmp_path / "m.onnx")
    assert network.precision == "int8"
    assert re.search("largest difference [01] LSB", network.findings[0].text)


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_a_float_file_of_ours_computes_the_same(precision, tmp_path):
    for seed in range(6):
        graph = (float_graph if precision == "fp32" else weight_only_graph)(random_graph(seed))
        (tmp_path / "m.onnx").write_bytes(to_onnx.convert(graph, precision=precision).files[".onnx"])
        again = edgecnn.load(tmp_path / "m.onnx").graph
        inputs = random_inputs(graph)
        (wanted,) = evaluate(graph, inputs).values()
        (made,) = evaluate(again, dict(zip(again.inputs, inputs.values(), strict=True))).values()
        np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


class Random(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.left = [{"x": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def residual(file: File) -> None:
    """Every layer that integer files often have."""
    file.add("Conv", file.normal(8, 3, 3, 3), file.normal(8), pads=[1, 1, 1, 1], strides=[2, 2])
    file.add("Relu")
    early = file.last
    file.add("Conv", file.normal(8, 1, 3, 3), file.normal(8), pads=[1, 1, 1, 1], group=8)
    file.add("Clip", np.float32(0), np.float32(6))
    file.add("Conv", file.normal(8, 8, 1, 1))
    file.add("Add", early)
    file.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    pooled = file.last
    file.add("Conv", file.normal(4, 8, 1, 1), file.normal(4))
    file.add("Concat", pooled, axis=1)
    file.add("GlobalAveragePool")
    file.add("Flatten")
    file.add("Gemm", file.normal(10, 12), file.normal(10), transB=1)


def quantized_by_onnx_runtime(file: File, folder: Path, **how: Any) -> Path:
    how = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True} | how
    quantize_static(str(file.save(folder)), str(folder / "q.onnx"), Random(), quant_format=QuantFormat.QDQ, **how)
    return folder / "q.onnx"


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
def test_integers_of_another_quantizer_are_taken_as_they_are(kind, per_channel, tmp_path):
    file = File((1, 3, 16, 16))
    residual(file)
    path = quantized_by_onnx_runtime(file, tmp_path, activation_type=kind, per_channel=per_channel)
    network = edgecnn.load(path)
    assert network.precision == "int8"
    assert re.search("largest difference [0-3] LSB", network.findings[0].text)
    stored = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    weights = [n for n in network.graph if n.weighted]
    assert len(weights) == 5
    for k, node in enumerate(weights):
        weight, bias = (network.graph.constant(name) for name in node.inputs[1:])
        own = [v for v in stored.values() if v.dtype == np.int8 and v.size == weight.value.size]
        flat = weight.integers if weight.integers.ndim == 2 else weight.integers.transpose(0, 3, 1, 2)
        assert any(np.array_equal(v.reshape(flat.shape), flat) for v in own), k
        assert bias.quant.dtype == "int32"
    assert edgecnn.convert(network, "onnx").precision == "int8"


def plain(file: File) -> None:
    """A Q/DQ pair before a layer whose weights are float."""
    grid = [file.store(np.float32(0.1)), file.store(np.uint8(3))]
    for name in ("QuantizeLinear", "DequantizeLinear"):
        file.add(name, *grid)
    file.add("Conv", file.normal(4, 6, 3, 3))


def unequal(file: File) -> None:
    """A sigmoid on a scale of its own."""
    for scale in (0.1, 0.005):
        grid = [file.store(np.float32(scale)), file.store(np.uint8(3))]
        for name in ("QuantizeLinear", "DequantizeLinear"):
            file.add(name, *grid)
        if scale == 0.1:
            file.add("Sigmoid")


REFUSED = [
    (plain, "conv2d that makes 'conv_2': the file has no integers of it: there is no QuantizeLinear behind it"),
    (unequal, r"sigmoid that makes '.*': scale 0.005 and zero point -125; scale 1/256 and -128 are supported"),
]


@pytest.mark.parametrize(("build", "said"), REFUSED, ids=["float", "sigmoid"])
def test_integers_that_break_the_contract_are_refused(build, said, tmp_path):
    file = File()
    build(file)
    with pytest.raises(UnsupportedError, match=said):
        edgecnn.load(file.save(tmp_path))


def test_ops_on_integers_are_refused_with_what_to_do(tmp_path):
    file = File(opset=17)
    file.add("DynamicQuantizeLinear", outputs=["q", "s", "z"])
    file.add("DequantizeLinear", "s", "z")
    with pytest.raises(UnsupportedError, match=r"DynamicQuantizeLinear 'node_0': an op on integers; .*QuantFormat.QDQ"):
        edgecnn.load(file.save(tmp_path))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*net.onnx: Is a directory"):
        open_model(tmp_path / "net.onnx")
