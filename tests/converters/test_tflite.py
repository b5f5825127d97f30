"""The TFLite writer: what is in the file, that it runs, and that the same graph gives the same bytes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from graphs import PIECES, piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images, weight_only_graph

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata, Quantized
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.preprocess import Preprocess
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn_converters.registry import converter
from edgecnn_converters.tflite import convert, describe
from edgecnn_converters.tflite.reader import integers, layers, read
from edgecnn_targets.runtimes.litert import LiteRtSession

FORMS = {"int8": lambda g: g, "fp32": float_graph, "fp16": float_graph, "w8": weight_only_graph}


def session(data, tmp_path, kernels=None):
    path = tmp_path / "g.tflite"
    path.write_bytes(data)
    return LiteRtSession(path, kernels=kernels)


@pytest.fixture(scope="module")
def mobilenet():
    """An int8 MobileNetV2 of random weights."""
    module, source = random_weights(resolve("mobilenet_v2_1.0_96"))
    graph = capture(module, (3, 96, 96), Metadata(model="m", preprocess=source.preprocess, labels=("a",) * 1000))
    images = np.random.default_rng(0).normal(0, 0.5, (8, 96, 96, 3)).astype(np.float32)
    return quantize(graph, calibrate(graph, [images]), recipe("minmax")).graph


def test_an_int8_mobilenet_has_no_float_no_transpose_and_no_conversion_inside(mobilenet, tmp_path):
    data = convert(mobilenet, precision="int8").files[".tflite"]
    model = read(data)
    names = [op.name for op in model.ops]
    assert len(names) <= 69
    assert not {"TRANSPOSE", "QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "PAD"} & set(names)
    assert not [t.name for t in model.tensors if t.dtype.startswith("float")]
    for op in model.ops:
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weight, bias = (model.tensors[i] for i in op.inputs[1:3])
            channels = model.tensors[op.outputs[0]].shape[-1]
            assert (weight.dtype, bias.dtype) == ("int8", "int32")
            assert weight.scale.size == bias.scale.size == channels
            assert not weight.zero_point.any()
            assert weight.data.min() >= -127
    opened = session(data, tmp_path)
    assert opened.findings == ()
    assert (opened.input.dtype, opened.output.dtype, opened.input.layout) == ("int8", "int8", "NHWC")


def test_buffers_are_aligned_to_sixteen_bytes(mobilenet):
    data = convert(mobilenet, precision="int8").files[".tflite"]
    for tensor in read(data).tensors:
        if tensor.data is not None and tensor.data.nbytes >= 256 and tensor.data.any():
            assert data.find(tensor.data.tobytes()) % 16 == 0, tensor.name


def test_the_same_graph_gives_the_same_bytes(mobilenet):
    first = convert(mobilenet, precision="int8").files[".tflite"]
    assert first == convert(mobilenet, precision="int8").files[".tflite"]


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_input_and_output_types_are_a_choice_of_two_ops(mobilenet, io, tmp_path):
    plain, converted = convert(mobilenet, precision="int8"), convert(mobilenet, precision="int8", io=io)
    names = [op.name for op in read(converted.files[".tflite"]).ops]
    inner = [op.name for op in read(plain.files[".tflite"]).ops]
    assert [n for n in names if n not in ("QUANTIZE", "DEQUANTIZE")] == inner
    assert len(names) - len(inner) == (0 if io == "int8" else 2)
    assert converted.input.dtype == converted.output.dtype == io
    opened = session(converted.files[".tflite"], tmp_path, "reference")
    assert (opened.input, opened.output) == (converted.input, converted.output)
    images = np.random.default_rng(1).normal(0, 0.5, (2, 96, 96, 3)).astype(np.float32)
    want = session(plain.files[".tflite"], tmp_path, "reference")
    a = opened.output.decode(opened.run(opened.input.encode(images)))
    b = want.output.decode(want.run(want.input.encode(images)))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("precision", FORMS)
def test_random_networks_load_and_compute(precision, tmp_path):
    for seed in range(8):
        graph = FORMS[precision](random_graph(seed))
        converted = convert(graph, precision=precision)
        opened = session(converted.files[".tflite"], tmp_path, "reference")
        if precision == "int8":
            continue  # tests/quant/test_reference.py compares every integer
        x = np.random.default_rng(seed).normal(0, 1, (2, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.float32)
        import torch

        want = TorchGraph(graph, integers=precision == "w8")(torch.from_numpy(x)).numpy()
        got = opened.run(x)
        scale = np.abs(want).max() + 1e-6
        assert np.abs(got - want.reshape(got.shape)).max() / scale < (5e-3 if precision == "fp16" else 1e-4)


def test_smaller_precisions_make_smaller_files(mobilenet):
    plain = mobilenet.as_float()
    weights = {n.inputs[1] for n in plain if n.op in ("conv2d", "fully_connected")}
    w8 = plain.with_tensors(*(mobilenet.tensors[n] for n in weights))
    sizes = {
        precision: len(convert(graph, precision=precision).files[".tflite"])
        for precision, graph in (("fp32", plain), ("fp16", plain), ("w8", w8), ("int8", mobilenet))
    }
    assert sizes["fp16"] < 0.53 * sizes["fp32"]
    assert sizes["w8"] < 0.3 * sizes["fp32"]
    assert sizes["int8"] < 0.3 * sizes["fp32"]


def test_integers_read_back_equal_the_graphs(mobilenet):
    found = integers(convert(mobilenet, precision="int8").files[".tflite"])
    quantized = {k: t for k, t in mobilenet.tensors.items() if isinstance(t, Quantized)}
    assert set(found) == set(quantized)
    for name, (quant, values) in found.items():
        assert quant.same_as(quantized[name].quant), name
        if values is not None:
            np.testing.assert_array_equal(values, quantized[name].integers)


def test_metadata_travels_inside(mobilenet):
    metadata = Metadata(
        model="m", preprocess=Preprocess(resize=(96, 96)), labels=("ä", "b"), label_offset=1, weights_sha256="f" * 64
    )
    converted = convert(replace(mobilenet, metadata=metadata), precision="int8")
    assert describe(converted.files[".tflite"]) == ("int8", metadata)


@pytest.mark.parametrize("precision", FORMS)
def test_the_precision_of_a_file_that_does_not_say_is_seen(precision):
    from edgecnn_converters.tflite.reader import guess_precision

    graph = FORMS[precision](random_graph(2))
    assert guess_precision(read(convert(graph, precision=precision).files[".tflite"])) == precision


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_line(mobilenet, share):
    data = convert(mobilenet, precision="int8").files[".tflite"]
    for reader in (read, integers, layers, describe):
        with pytest.raises(InputError, match="TFLite file") as error:
            reader(data[: int(len(data) * share)])
        assert "\n" not in str(error.value)


def test_corrupt_files_never_raise_anything_else(mobilenet):
    data = bytearray(convert(piece_graph("squeeze_excite", 0), precision="int8").files[".tflite"])
    rng = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.integers(8, len(data), 12):
            broken[place] = int(rng.integers(256))
        try:
            layers(bytes(broken))
        except InputError as error:
            assert "\n" not in str(error)


def test_what_cannot_be_written_is_said_before(mobilenet):
    with pytest.raises(UnsupportedError, match="int16x8"):
        converter("onnx").require("int16x8")
    with pytest.raises(InputError, match="this one is in int8"):
        convert(mobilenet, precision="fp32")
    with pytest.raises(InputError, match="unknown input and output type 'int4'"):
        convert(mobilenet, precision="int8", io="int4")
    with pytest.raises(InputError, match="unknown target 'tflit'.*did you mean"):
        converter("tflit")
    graph = float_graph(piece_graph("conv", 0))
    weight = next(t for t in graph.constants() if len(t.shape) == 4)
    huge = graph.with_tensors(replace(weight, value=weight.value * np.float32(1e8)))
    with pytest.raises(UnsupportedError, match=f"'{weight.name}' is larger than float16's"):
        convert(huge, precision="fp16")


def test_a_graph_that_breaks_the_contract_is_refused():
    builder = Int8Builder((1, 4, 4, 3), 0)
    graph = builder.graph(builder.weighted("conv2d", builder.input, (4, 1, 1, 3)))
    weight = graph.tensors[graph.nodes[0].inputs[1]]
    low = weight.integers.copy()
    low[0] = -128
    with pytest.raises(InputError, match="must be symmetric"):
        convert(graph.with_tensors(replace(weight, integers=low)), precision="int8")


def test_layers_and_precisions_are_listed(mobilenet):
    rows = layers(convert(mobilenet, precision="int8").files[".tflite"])
    graph_macs = sum(r.macs for r in __import__("edgecnn.graph.summary", fromlist=["layers"]).layers(mobilenet))
    assert sum(r.macs for r in rows) == graph_macs
    assert "stride=2x2 padding=SAME activation=RELU6" in rows[0].details
    assert set(converter("tflite").precisions) == {*FORMS, "int16x8"}


def test_every_piece_runs_in_every_kernel(tmp_path):
    for piece in PIECES:
        graph = piece_graph(piece, 1)
        data = convert(graph, precision="int8").files[".tflite"]
        assert session(data, tmp_path, "builtin").run(random_images(graph, 1)).dtype == np.int8


def test_writing_does_not_copy_the_network_many_times(mobilenet):
    tracemalloc.start()
    size = len(convert(mobilenet, precision="int8").files[".tflite"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * size
