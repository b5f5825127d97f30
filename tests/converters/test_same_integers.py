"""One quantization, three formats: the same integers in each file, and runtimes that compute the same network."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import PIECES, float_graph, piece_graph, random_graph, random_images, weight_only_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st

from edgecnn.artifact import write_artifact
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata, Tensor
from edgecnn.models import FAMILIES, resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.calibrate import calibrate
from edgecnn.quant.ptq import quantize
from edgecnn.quant.reference import run
from edgecnn.recipe import RECIPES
from edgecnn_converters import onnx as to_onnx
from edgecnn_converters import openvino as to_openvino
from edgecnn_converters import tflite as to_tflite
from edgecnn_converters.onnx.reader import integers as onnx_integers
from edgecnn_converters.openvino.reader import integers as openvino_integers
from edgecnn_converters.registry import CONVERTERS
from edgecnn_converters.tflite.reader import integers as tflite_integers
from edgecnn_targets.devices import device
from edgecnn_targets.registry import RUNTIMES, open_session
from edgecnn_targets.saturation import has_vnni

LIMITS = tomllib.loads((Path(__file__).parents[1] / "golden" / "targets.toml").read_text("utf-8"))["runtimes"]
WRITERS = {"tflite": to_tflite, "onnx": to_onnx, "openvino": to_openvino}
SCALE_STEP = 3e-7  # OpenVINO's FakeQuantize holds the ends of a grid, not its scale: one float32 step


def integers_in(target, emission):
    files = emission.files
    if target == "openvino":
        return openvino_integers(files[".xml"], files[".bin"])
    return {"tflite": tflite_integers, "onnx": onnx_integers}[target](files[f".{target}"])


def assert_integers_are_the_graphs(graph, target, emission):
    quantized = {k: t for k, t in graph.tensors.items() if t.quant is not None}
    found = integers_in(target, emission)
    assert set(found) == set(quantized)
    for name, (quant, values) in found.items():
        want = quantized[name].quant
        np.testing.assert_allclose(quant.scale, want.scale, rtol=SCALE_STEP if target == "openvino" else 0)
        np.testing.assert_array_equal(quant.zero_point, want.zero_point)
        assert (quant.dtype, quant.axis) == (want.dtype, want.axis), name
        if values is not None:
            np.testing.assert_array_equal(values.reshape(quantized[name].shape), quantized[name].integers)


def session(target, emission, folder, *, fast=False):
    """Open with kernels whose sums are exact on any CPU, unless the fastest are asked for."""
    path = write_artifact(folder, "net", emission, Metadata(), {})
    return open_session(device("host"), path, kernels=None if fast else RUNTIMES[target].exact)


def seven_bits(graph):
    """The same graph with 7-bit weights: no kernel saturates, and the fastest can be held to the oracle everywhere."""
    weights = [graph.tensors[n.inputs[1]] for n in graph if n.op in ("conv2d", "fully_connected")]
    halved = [(w, (w.integers // 2).astype(np.int8)) for w in weights]
    return graph.with_tensors(*(replace(w, integers=i, value=w.quant.dequantize(i)) for w, i in halved))


def distance(graph, opened, images):
    """Largest LSB from the oracle at the output."""
    into, out = (graph.tensors[n].quant for n in (graph.inputs[0], graph.outputs[0]))
    real = opened.output.decode(opened.run(opened.input.encode(into.dequantize(images))))
    want = run(graph, images)[graph.outputs[0]]
    return int(np.abs(out.quantize(real).reshape(want.shape).astype(int) - want).max())


@pytest.mark.parametrize("kernels", ["exact", "fast"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("piece", PIECES)
def test_every_op_is_near_the_oracle(piece, target, kernels, tmp_path):
    """8-bit weights in exact kernels; in the fastest ones too, with 7 bits where they would saturate."""
    limit = LIMITS["chains"] if piece in ("squeeze_excite", "softmax") else LIMITS["one_op"]
    fast = kernels == "fast"
    for seed in range(3):
        graph = piece_graph(piece, seed)
        if fast and not has_vnni():
            graph = seven_bits(graph)
        emission = WRITERS[target].convert(graph, precision="int8")
        assert_integers_are_the_graphs(graph, target, emission)
        opened = session(target, emission, tmp_path, fast=fast)
        assert not fast or opened.findings == ()
        apart = distance(graph, opened, random_images(graph, 4, seed))
        assert apart <= limit, f"seed {seed}: {apart} LSB"


@settings(max_examples=40, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_random_networks_hold_the_same_integers_in_every_file(seed, pieces):
    note(f"random_graph({seed}, {pieces})")
    graph = random_graph(seed, pieces)
    for target, writer in WRITERS.items():
        if target == "tflite" and to_tflite.unsupported(graph, "int8"):
            continue
        assert_integers_are_the_graphs(graph, target, writer.convert(graph, precision="int8"))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_random_networks_run_everywhere(seed, pieces, tmp_path_factory):
    """LiteRT's reference kernels bit for bit; the others so near that a wrong scale, padding or order would show."""
    note(f"random_graph({seed}, {pieces})")
    graph, folder = random_graph(seed, pieces), tmp_path_factory.mktemp("net")
    images = random_images(graph, 2, seed)
    out = graph.tensors[graph.outputs[0]].quant
    want = run(graph, images)[graph.outputs[0]].astype(int)
    for target, writer in WRITERS.items():
        path = write_artifact(folder, "net", writer.convert(graph, precision="int8"), Metadata(), {})
        opened = open_session(device("host"), path, kernels="reference" if target == "tflite" else "exact")
        into = graph.tensors[graph.inputs[0]].quant
        real = opened.output.decode(opened.run(opened.input.encode(into.dequantize(images))))
        apart = np.abs(out.quantize(real).reshape(want.shape).astype(int) - want)
        if target == "tflite":
            assert apart.max() == 0, f"{apart.max()} LSB in LiteRT's reference kernels"
        else:
            limit = LIMITS["softmax_mean" if graph.nodes[-1].op == "softmax" else "network_mean"]
            assert np.mean(apart) <= limit, f"{target}: mean {np.mean(apart):.2f}, max {apart.max()} LSB"


@pytest.fixture(scope="module")
def mobilenet():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96"))
    graph = capture(module, (3, 96, 96), Metadata(model="m"))
    images = np.random.default_rng(0).normal(0, 0.5, (4, 96, 96, 3)).astype(np.float32)
    return quantize(graph, calibrate(graph, [images]), RECIPES["minmax"])


def test_onnx_runtime_fuses_every_convolution_and_addition(mobilenet, tmp_path):
    opened = session("onnx", to_onnx.convert(mobilenet, precision="int8"), tmp_path, fast=True)
    kinds = Counter(op.kind for op in opened.ops)
    assert kinds["QLinearConv"] == 52
    assert kinds["QLinearAdd"] == 10
    assert not {"Conv", "Add", "Clip", "Relu", "Gemm", "MatMul"} & set(kinds)
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 1
    assert not [op for op in opened.ops if op.is_float]


def test_openvino_runs_every_convolution_and_linear_layer_in_int8(mobilenet, tmp_path):
    import openvino

    path = write_artifact(tmp_path, "net", to_openvino.convert(mobilenet, precision="int8"), Metadata(), {})
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
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
    emission = to_onnx.convert(mobilenet, precision="int8", io=io)
    opened = session("onnx", emission, tmp_path / io)
    assert (opened.input, opened.output) == (emission.input, emission.output)
    x = np.random.default_rng(0).normal(0, 0.5, (2, 96, 96, 3)).astype(np.float32)
    a, b = (s.output.decode(s.run(s.input.encode(x))) for s in (plain, opened))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_onnx_carries_signed_activations_for_devices_that_want_them(mobilenet, tmp_path):
    emission = to_onnx.convert(mobilenet, precision="int8", activations="int8")
    assert_integers_are_the_graphs(mobilenet, "onnx", emission)
    opened = session("onnx", emission, tmp_path)  # on x86 ONNX Runtime leaves some of these in float; on Arm none
    images = mobilenet.tensors[mobilenet.inputs[0]].quant.quantize(np.zeros((1, 96, 96, 3)))
    unsigned = session("onnx", to_onnx.convert(mobilenet, precision="int8"), tmp_path / "u8")
    assert distance(mobilenet, opened, images) == distance(mobilenet, unsigned, images)
    for io in ("uint8", "int8"):
        chosen = to_onnx.convert(mobilenet, precision="int8", activations="int8", io=io)
        assert session("onnx", chosen, tmp_path / io).input == chosen.input
    with pytest.raises(InputError, match="unknown type of activations 'int4'"):
        to_onnx.convert(mobilenet, precision="int8", activations="int4")


def names():
    """Every family, narrow, shallow and on a small image: each kind of block, few weights."""
    return [f"{f.name}_{'0.25x0.25' if f.scaling else '0.25'}_64" for f in FAMILIES.values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_family_holds_the_same_integers(name):
    module, source = random_weights(resolve(name))
    side = source.spec.resolution
    graph = capture(module, (3, side, side), Metadata(model=name))
    images = np.random.default_rng(0).normal(0, 0.5, (1, side, side, 3)).astype(np.float32)
    int8 = quantize(graph, calibrate(graph, [images]), RECIPES["minmax"])
    for target, writer in WRITERS.items():
        assert_integers_are_the_graphs(int8, target, writer.convert(int8, precision="int8"))


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
    assert set(CONVERTERS) == set(RUNTIMES) == set(WRITERS)
    for target, row in CONVERTERS.items():
        assert row.target == target
        with pytest.raises(InputError, match="int16x8"):
            row.require("int16x8")


@pytest.mark.parametrize("target", WRITERS)
def test_what_a_format_cannot_hold_is_listed_before_it_is_written(target):
    graph = float_graph(piece_graph("conv", 0))
    weight = next(t for t in graph.tensors.values() if t.is_constant and len(t.shape) == 4)
    huge = graph.with_tensors(Tensor(name=weight.name, shape=weight.shape, value=weight.value * np.float32(1e8)))
    assert CONVERTERS[target].unsupported(graph, "fp16") == []
    ((node, reason),) = CONVERTERS[target].unsupported(huge, "fp16")
    assert node == graph.nodes[0].output
    assert f"'{weight.name}' is larger than float16's" in reason
    with pytest.raises(UnsupportedError, match="larger than float16"):
        WRITERS[target].convert(huge, precision="fp16")
