"""One quantization, three formats: the same integers in each file, and runtimes that compute the same network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import runtimes
from graphs import piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images, weight_only_graph
from runtimes import WRITERS, assert_integers_are_the_graphs

from edgecnn.artifact import PRECISIONS, write_artifact
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Graph, Metadata, QParams, Quantized
from edgecnn.graph.ops import make_node
from edgecnn.graph.oracle import mlas, run
from edgecnn.graph.oracle.parameters import called
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn_converters import onnx as to_onnx
from edgecnn_converters import openvino as to_openvino
from edgecnn_converters.openvino.reader import integers as openvino_integers
from edgecnn_converters.registry import converter, converters
from edgecnn_targets.devices import device
from edgecnn_targets.registry import open_session, runtime
from edgecnn_targets.registry import runtimes as targets
from edgecnn_targets.runtimes.openvino import settings


def session(target, converted, folder, *, fast=False):
    """Open with kernels whose sums are exact on any CPU, unless the fastest are asked for."""
    return runtimes.opened(target, converted, folder, None if fast else runtime(target).exact)


@pytest.fixture(scope="module")
def mobilenet():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96"))
    graph = capture(module, (3, 96, 96), Metadata(model="m"))
    images = np.random.default_rng(0).normal(0, 0.5, (4, 96, 96, 3)).astype(np.float32)
    return quantize(graph, calibrate(graph, [images]), recipe("minmax")).graph


def test_onnx_runtime_fuses_every_convolution_and_addition(mobilenet, tmp_path):
    opened = session("onnx", to_onnx.convert(mobilenet, precision="int8"), tmp_path, fast=True)
    kinds = Counter(op.kind for op in opened.ops)
    assert kinds["QLinearConv"] == 52
    assert kinds["QLinearAdd"] == 10
    assert not {"Conv", "Add", "Clip", "Relu", "Gemm", "MatMul"} & set(kinds)
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 1
    assert not [op for op in opened.ops if op.is_float]


@pytest.mark.parametrize(
    ("piece", "precision", "opset", "ir"),
    [("max_pool", "fp32", 9, 4), ("max_pool", "int8", 12, 7), ("pad", "fp32", 11, 6), ("conv", "int8", 13, 7),
     ("conv", "w8", 13, 7), ("hard_swish", "fp32", 14, 7)],
)  # fmt: skip
def test_opset_and_ir_version_are_the_oldest_that_carry_what_is_used(piece, precision, opset, ir, tmp_path):
    import onnx

    drawn = (piece_graph(piece, seed) for seed in range(9))
    graph = next(g for g in drawn if all(t.quant.axis == 0 for t in g.constants()))
    graph = {"int8": lambda g: g, "w8": weight_only_graph}.get(precision, float_graph)(graph)
    converted = to_onnx.convert(graph, precision=precision)
    model = onnx.load_from_string(converted.files[".onnx"])
    assert ([o.version for o in model.opset_import], model.ir_version) == ([opset], ir)
    onnx.checker.check_model(model, full_check=True)
    session("onnx", converted, tmp_path)
    model.opset_import[0].version -= 1
    needed = {"max_pool": "MaxPool", "pad": "Pad", "conv": "DequantizeLinear", "hard_swish": "HardSwish"}[piece]
    if opset > 9:
        faults = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
        with pytest.raises(faults, match=needed):
            onnx.checker.check_model(model, full_check=True)


def test_openvino_runs_every_convolution_and_linear_layer_in_int8(mobilenet, tmp_path):
    import openvino

    path = write_artifact(tmp_path, "net", to_openvino.convert(mobilenet, precision="int8"), Metadata())
    compiled = openvino.Core().compile_model(str(path), "CPU", settings(1, "fast"))
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    model = compiled.get_runtime_model()
    infos = [n.get_rt_info() for n in model.get_ordered_ops()]
    kinds = Counter((i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in infos)
    weighted = {k: v for k, v in kinds.items() if k[0] in ("Convolution", "FullyConnected")}
    assert {precision for _, precision in weighted} <= {"u8", "i8"}
    assert sum(weighted.values()) == 53
    assert not [op for op in open_session(device("host"), path).ops if op.is_float]


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "int8"])
def test_the_same_graph_gives_the_same_bytes_and_says_what_it_is(target, precision, mobilenet):
    form = {"int8": lambda g: g, "w8": weight_only_graph}.get(precision, float_graph)
    first, second = (WRITERS[target].convert(form(mobilenet), precision=precision) for _ in range(2))
    assert first.files == second.files
    main = next(iter(first.files.values()))
    assert WRITERS[target].describe(main) == (precision, form(mobilenet).metadata)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
def test_float_forms_compute_the_float_network(target, precision, tmp_path):
    import torch

    from edgecnn.graph.interpreter import TorchGraph

    for seed in range(5):
        graph = (weight_only_graph if precision == "w8" else float_graph)(random_graph(seed))
        opened = session(target, WRITERS[target].convert(graph, precision=precision), tmp_path)
        x = np.random.default_rng(seed).normal(0, 1, (2, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.float32)
        want = TorchGraph(graph, integers=precision == "w8")(torch.from_numpy(x)).numpy()
        got = opened.output.decode(opened.run(opened.input.encode(x))).reshape(want.shape)
        scale = np.abs(want).max() + 1e-6
        assert np.abs(got - want).max() / scale < (2e-2 if precision == "fp16" else 1e-4)


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_onnx_takes_integers_by_choice(io, mobilenet, tmp_path):
    plain = session("onnx", to_onnx.convert(mobilenet, precision="int8"), tmp_path)
    converted = to_onnx.convert(mobilenet, precision="int8", io=io)
    opened = session("onnx", converted, tmp_path / io)
    assert (opened.input, opened.output) == (converted.input, converted.output)
    assert Counter(op.kind for op in opened.ops)["QLinearConv"] == 52
    x = np.random.default_rng(0).normal(0, 0.5, (2, 96, 96, 3)).astype(np.float32)
    a, b = (s.output.decode(s.run(s.input.encode(x))) for s in (plain, opened))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_onnx_carries_signed_activations_for_devices_that_want_them(mobilenet, tmp_path):
    converted = to_onnx.convert(mobilenet, precision="int8", activations="int8")
    assert_integers_are_the_graphs(mobilenet, "onnx", converted)
    signed = session("onnx", converted, tmp_path)  # on x86 ONNX Runtime leaves some of these in float; on Arm none
    unsigned = session("onnx", to_onnx.convert(mobilenet, precision="int8"), tmp_path / "u8")
    x = np.zeros((1, 96, 96, 3), np.float32)
    a, b = (s.output.decode(s.run(s.input.encode(x))) for s in (signed, unsigned))
    np.testing.assert_allclose(a, b, atol=1e-6)
    for io in ("uint8", "int8"):
        chosen = to_onnx.convert(mobilenet, precision="int8", activations="int8", io=io)
        assert session("onnx", chosen, tmp_path / io).input == chosen.input
    with pytest.raises(InputError, match="unknown type of activations 'int4'"):
        to_onnx.convert(mobilenet, precision="int8", activations="int4")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_one_line(mobilenet, share, tmp_path):
    onnx_data = to_onnx.convert(mobilenet, precision="int8").files[".onnx"]
    ir = to_openvino.convert(mobilenet, precision="int8").files
    cut = {k: v[: int(len(v) * share)] for k, v in ir.items()}
    with pytest.raises(InputError, match="ONNX file is truncated or corrupt"):
        to_onnx.describe(onnx_data[: int(len(onnx_data) * share)])
    with pytest.raises(InputError, match="truncated or corrupt"):
        to_openvino.describe(cut[".xml"])
    with pytest.raises(InputError, match="does not fit"):
        openvino_integers(ir[".xml"], cut[".bin"])
    for suffix, data in ((".onnx", onnx_data[: int(len(onnx_data) * share)]), (".xml", cut[".xml"])):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(data)
        (tmp_path / "broken.bin").write_bytes(ir[".bin"])
        with pytest.raises(InputError, match="broken") as error:
            open_session(device("host"), path)
        assert "\n" not in str(error.value)


def test_every_converter_has_its_runtime():
    assert set(converters()) == set(targets()) >= set(WRITERS)
    for target, row in converters().items():
        assert row.target == target
        for precision in set(PRECISIONS) - set(row.precisions):
            with pytest.raises(UnsupportedError, match=f"{target} is not written in {precision}.*; it takes: "):
                row.require(precision)


@pytest.mark.parametrize("target", WRITERS)
def test_what_a_format_cannot_hold_is_listed_before_it_is_written(target):
    graph = float_graph(piece_graph("conv", 0))
    weight = next(t for t in graph.constants() if len(t.shape) == 4)
    huge = graph.with_tensors(replace(weight, value=weight.value * np.float32(1e8)))
    assert converter(target).unsupported(graph, "fp16") == []
    ((node, reason),) = converter(target).unsupported(huge, "fp16")
    assert node == graph.nodes[0].output
    assert f"'{weight.name}' is larger than float16's" in reason
    with pytest.raises(UnsupportedError, match="larger than float16"):
        WRITERS[target].convert(huge, precision="fp16")


PRODUCTS = {  # scale and zero point of both operands and of the product; ONNX Runtime lost halves of each
    "seresnet18": ((0.06857965886592865, 7), (1 / 256, -128), (0.05089868, 8)),
    "convnext_tiny": ((0.005595572292804718, 0), (0.06310643255710602, -128), (0.04237393, 4)),
    "starnet_s1": ((0.0036454813089221716, -128), (0.007449335418641567, -7), (0.003150143, -18)),
    "mambaout_femto": ((0.0029955380596220493, -72), (0.005731707438826561, 0), (0.001922983, 8)),
    "efficientnet_b0_gn": ((0.03753389045596123, -10), (0.009645942598581314, -128), (0.0456182, -38)),
}
BYTES = np.arange(-128, 128, dtype=np.int8)


def affine(scale, zero):
    return QParams(scale=np.array([scale], np.float32), zero_point=np.array([zero]), dtype="int8")


@pytest.mark.parametrize("network", PRODUCTS)
def test_every_product_of_two_activations_is_the_same_in_all_formats(network, tmp_path):
    first, second, made = (affine(*pair) for pair in PRODUCTS[network])
    b = Int8Builder((1, 256, 1, 1))
    fed = {b.input: BYTES.reshape(1, 256, 1, 1), "gate": BYTES.reshape(1, 1, 256, 1)}
    for name, quant in ((b.input, first), ("gate", second)):
        b.tensors[name] = Quantized(name=name, shape=fed[name].shape, quant=quant)
    b.nodes.append(make_node("mul", (b.input, "gate"), "product", "test"))
    b.tensors["product"] = Quantized(name="product", shape=(1, 256, 256, 1), quant=made)
    graph = Graph(nodes=tuple(b.nodes), tensors=b.tensors, inputs=tuple(fed), outputs=("product",), metadata=Metadata())
    assert mlas.product_scale(called(graph, graph.nodes[-1])) != made.scale[0]  # else this product tests nothing
    assert_alike(graph, fed, tmp_path)


@pytest.mark.parametrize("transposed", [False, True])
def test_litert_rounds_a_product_of_matrices_once_where_the_second_is_symmetric(transposed, tmp_path):
    quants = {"left": affine(1 / 256, -128), "right": affine(0.07565814, 0), "product": affine(0.07317073, -11)}
    shapes = {"left": (1, 4, 96, 96), "right": (1, 4, 96, 96), "product": (1, 4, 96, 96)}
    tensors = {name: Quantized(name=name, shape=shapes[name], quant=quant) for name, quant in quants.items()}
    node = make_node("batch_matmul", ("left", "right"), "product", "test", transpose_b=transposed)
    graph = Graph(nodes=(node,), tensors=tensors, inputs=("left", "right"), outputs=("product",), metadata=Metadata())
    rng = np.random.default_rng(0)
    shares = np.minimum(rng.exponential(1.5, shapes["left"]), 255) - 128
    fed = {"left": shares.astype(np.int8), "right": rng.integers(-128, 128, shapes["right"]).astype(np.int8)}
    assert_alike(graph, fed, tmp_path)
    made = [run(graph, fed, arithmetic=a)["product"] for a in ("litert", "xnnpack", "onnxruntime", "openvino")]
    assert [int((other != made[1]).sum()) > 0 for other in made] == [True, False, False, False]


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_a_padded_average_pool_is_the_same_in_all_formats(size, tmp_path):
    b = Int8Builder((1, size, 9, 4), seed=size)
    x = b.weighted("conv2d", b.input, (4, 1, 1, 4), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    b.op("avg_pool2d", x, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    assert_alike(b.graph(), {b.input: random_images(b.graph(), 20)}, tmp_path)


def assert_alike(graph, fed, folder):
    """Assert that all runtimes make the same integers, in integers."""
    found, (result,) = {}, graph.outputs
    for target, writer in WRITERS.items():
        opened = session(target, writer.convert(graph, precision="int8"), folder)
        assert not [op for op in opened.ops if op.is_float]
        real = {port.name: port.encode(graph.quant(port.name).dequantize(fed[port.name])) for port in opened.inputs}
        (port,) = opened.outputs
        found[target] = graph.quant(result).quantize(port.decode(opened.run(real)[port.name])).reshape(-1).astype(int)
    first = found["tflite"]
    assert {target: int(np.abs(made - first).max()) for target, made in found.items()} == dict.fromkeys(found, 0)
