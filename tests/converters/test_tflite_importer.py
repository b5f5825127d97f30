"""A .tflite file becomes a graph that computes what LiteRT computes of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from tflite_bodies import BODIES, RELU, RELU6, computed_shape
from tflite_files import TfliteFile, edited

from edgecnn.errors import InputError
from edgecnn.graph import passes
from edgecnn.graph.execution import execute, released
from edgecnn.graph.interpreter import laid_out, run_node
from edgecnn_converters.tflite.importer import import_tflite

NEAR = 1e-5  # largest difference from LiteRT, of the largest value


def computed(graph, values):
    """The outputs of a float graph, in torch."""
    named = {c.name: laid_out(np.array(c.value)) for c in graph.constants()}
    for name, value in values.items():
        tensor = torch.from_numpy(value)
        named[name] = tensor.permute(0, 3, 1, 2) if value.ndim == 4 else tensor
    made = execute(graph, named, lambda n, v: run_node(n, [v[i] for i in n.inputs]), released(graph))
    return [(made[name].permute(0, 2, 3, 1) if made[name].ndim == 4 else made[name]).numpy() for name in graph.outputs]


def imported(tmp_path, data):
    path = tmp_path / "network.tflite"
    path.write_bytes(data)
    return import_tflite(path)


def assert_alike(got, low=-2.0, high=2.0, tolerance=NEAR):
    """Compare the graph, as read and simplified, with LiteRT on a random input."""
    graph, rng = got.graph, np.random.default_rng(7)
    values = {n: rng.uniform(low, high, graph.tensors[n].shape).astype(np.float32) for n in graph.inputs}
    wanted = got.reference(values)
    for form in (graph, passes.simplify(graph)):
        for name, made in zip(graph.outputs, computed(form, values), strict=True):
            assert made.shape == wanted[name].shape == graph.tensors[name].shape
            worst = np.abs(made - wanted[name]).max() / max(np.abs(wanted[name]).max(), 1e-6)
            assert worst < tolerance, f"{name} of {len(form.nodes)} nodes parts by {worst:.1e}"


@pytest.mark.parametrize("name", BODIES)
def test_an_op_computes_what_litert_computes(tmp_path, name):
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    assert_alike(imported(tmp_path, file.bytes(BODIES[name](file, x))))


def test_a_sparse_weight_is_dense_in_the_graph(tmp_path):
    """Rows dense, places in a row listed: what a pruned MediaPipe network has behind DENSIFY."""
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    dense = np.array([[0, 2, 0, -1], [0, 0, 0, 0], [3, 0, 0.5, 0]], np.float32)
    weight = file.op("DENSIFY", [file.constant(dense.reshape(3, 1, 1, 4))], "DensifyOptionsT", shape=(3, 1, 1, 4))
    plain = file.bytes(file.conv(x, weight, file.normal(3), shape=(1, 6, 6, 3)))

    def prune(model):
        from ai_edge_litert import schema_py_generated as schema

        (index,) = (k for k, t in enumerate(model.subgraphs[0].tensors) if list(t.shape) == [3, 1, 1, 4] and t.buffer)
        tensor = model.subgraphs[0].tensors[index]
        values = np.array([2, -1, 3, 0.5], np.float32)
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        levels = [schema.DimensionMetadataT(format=0, denseSize=n) for n in (3, 1, 1)]
        segments, indices = ([0, 2, 2, 4], [1, 3, 0, 2])
        vectors = (schema.Int32VectorT(values=np.array(v, np.int32)) for v in (segments, indices))
        listed = schema.DimensionMetadataT(format=1, denseSize=0)
        listed.arraySegments, listed.arrayIndices = vectors
        listed.arraySegmentsType = listed.arrayIndicesType = schema.SparseIndexVector.Int32Vector
        order = np.arange(4, dtype=np.int32)
        tensor.sparsity = schema.SparsityParametersT(traversalOrder=order, dimMetadata=[*levels, listed])

    got = imported(tmp_path, edited(plain, prune))
    np.testing.assert_array_equal(got.graph.constant(got.graph.nodes[0].inputs[1]).value.reshape(3, 4), dense)
    assert_alike(got)


def test_inputs_and_outputs_have_the_names_of_the_signature(tmp_path):
    file = TfliteFile()
    left, right = file.input((1, 6, 6, 4), "image"), file.input((1, 4), "state")
    added = file.op("ADD", [left, right], "AddOptionsT")
    mean = file.op("MEAN", [added, file.constant([1, 2])], "ReducerOptionsT")
    got = imported(tmp_path, file.bytes(mean, added))
    assert (got.graph.inputs, got.graph.outputs) == (("image", "state"), ("out0", "out1"))
    assert [got.graph.tensors[name].shape for name in got.graph.outputs] == [(1, 4), (1, 6, 6, 4)]
    assert_alike(got)


def test_an_open_batch_is_one(tmp_path):
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    data = file.bytes(computed_shape(file, x))

    def open_batch(model):
        for tensor in model.subgraphs[0].tensors[:1]:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)

    got = imported(tmp_path, edited(data, open_batch))
    assert got.graph.tensors[got.graph.inputs[0]].shape == (1, 6, 6, 4)
    assert_alike(got)


def test_an_op_of_the_file_is_a_node_of_the_graph(tmp_path):
    """No transpose, no reshape and no copy is added to a network of images."""
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    made = file.conv(x, file.normal(4, 3, 3, 4), file.normal(4), fusedActivationFunction=RELU)
    made = file.op("ADD", [made, x], "AddOptionsT", fusedActivationFunction=RELU6)
    made = file.op("RESIZE_BILINEAR", [made, file.constant([12, 12])], "ResizeBilinearOptionsT")
    made = file.op("SLICE", [made, file.constant([0, 1, 1, 0]), file.constant([1, 8, -1, 2])], "SliceOptionsT")
    made = file.op("RESHAPE", [made, file.constant([1, 176])], "ReshapeOptionsT")
    made = file.op("FULLY_CONNECTED", [made, file.normal(3, 176), file.normal(3)], "FullyConnectedOptionsT")
    graph = imported(tmp_path, file.bytes(made)).graph
    assert [n.op for n in graph] == ["conv2d", "add", "resize", "slice", "reshape", "fully_connected"]
    assert [n.output for n in graph][:3] == ["conv_2d_3", "add_4", "resize_bilinear_6"]


def _network() -> bytes:
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    first = file.conv(x, file.normal(4, 3, 3, 4), file.normal(4))
    return file.bytes(file.op("ADD", [first, x], "AddOptionsT"), first)


def _each(change: Callable[..., None]) -> Callable[[object], None]:
    return lambda model: change(model.subgraphs[0], model)


def _custom(graph, model):
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].customCode = "Landmarks"


def _unknown_twice(graph, model):
    for code, builtin in zip(model.operatorCodes, (90, 119), strict=True):  # SCATTER_ND, WHILE
        code.builtinCode = code.deprecatedBuiltinCode = builtin


def _named_alike(graph, model):
    model.signatureDefs[0].outputs[1].name = "out0"


BAD: Mapping[str, tuple[Callable[..., None], str]] = {
    "custom op": (_custom, r"no graph holds: CUSTOM:Landmarks 'conv_2d_3': a custom .*; \d+ ops are supported"),
    "several": (_unknown_twice, r": [A-Z_]+ 'conv_2d_3'(: .*)?; [A-Z_0-9]+ 'add_4'(: .*)?; \d+ ops are"),
    "batch of two": (
        lambda graph, model: setattr(graph.tensors[0], "shape", np.array([2, 6, 6, 4], "i4")),
        r"input 'in0' of shape \(2, 6, 6, 4\); the first must be a batch of 1",
    ),
    "open height": (
        lambda graph, model: setattr(graph.tensors[0], "shapeSignature", np.array([1, -1, 6, 4], "i4")),
        r"leaves the size of dimension \[1\] open; only the batch may be",
    ),
    "float64": (
        lambda graph, model: setattr(graph.tensors[0], "type", 10),
        "input 'in0' is float64; supported: float32",
    ),
    "subgraphs": (lambda graph, model: model.subgraphs.append(graph), "2 subgraphs, where one is supported"),
    "outputs alike": (_named_alike, "two outputs are named 'out0'"),
    "no outputs": (lambda graph, model: setattr(graph, "outputs", np.array([], "i4")), "the file has no outputs"),
    "an output that is an input twice": (
        lambda graph, model: setattr(graph, "outputs", np.array([4, 4], "i4")),
        "two outputs are one tensor",
    ),
    "other shape": (
        lambda graph, model: setattr(graph.tensors[3], "shape", np.array([1, 6, 6, 5], "i4")),
        r"CONV_2D 'conv_2d_3': it makes \(1, 6, 6, 4\) .*, and the file says \(1, 6, 6, 5\)",
    ),
    "a cycle": (
        lambda graph, model: setattr(graph.operators[0], "inputs", np.array([4, 1, 2], "i4")),
        "it reads 'add_4' before anything makes it",
    ),
    "no constant": (
        lambda graph, model: setattr(graph.tensors[1], "buffer", 0),
        "its input 'constant_1' is computed while the network runs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_no_graph_holds_is_one_line(tmp_path, name):
    change, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        imported(tmp_path, edited(_network(), _each(change)))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'network.tflite'}: ")


@pytest.mark.parametrize(("begin", "size"), [([0, 1, 2, 0], [1, 6, 2, 2]), ([0, -1, 0, 0], [1, 2, 2, 2])])
def test_a_slice_beyond_one_dimension_is_one_line(tmp_path, begin, size):
    file = TfliteFile()
    x = file.input((1, 6, 6, 4))
    made = file.op("SLICE", [x, file.constant(begin), file.constant(size)], "SliceOptionsT", shape=(1, 6, 2, 2))
    with pytest.raises(InputError, match=r"SLICE .*: its begin \[.*\] and size \[.*\] are not in \[?\(?1, 6, 6, 4"):
        imported(tmp_path, file.bytes(made))


def test_a_missing_and_a_damaged_file_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.tflite is not a file; give a \.tflite file"):
        import_tflite(tmp_path / "none.tflite")
    data = _network()
    for broken in (b"", b"text", data[: len(data) // 2], data[:64]):
        with pytest.raises(InputError, match=r"network\.tflite: "):
            imported(tmp_path, broken)
