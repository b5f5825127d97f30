"""One quantization, three formats: the same integers in each file, and runtimes that compute the same network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import runtimes
from graphs import piece_graph, random_graph
from int8_builder import float_graph, weight_only_graph
from runtimes import WRITERS, assert_integers_are_the_graphs

from edgecnn.artifact import PRECISIONS, write_artifact
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
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
