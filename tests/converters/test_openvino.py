"""OpenVINO's CPU plugin computes what the files say: one small graph for each op that it computes otherwise as it is."""

from __future__ import annotations

import pytest
from graphs import Int8Builder, random_images
from runtimes import WRITERS, assert_integers_are_the_graphs, distances, opened, unsaturated

from edgecnn_converters.openvino import reader
from edgecnn_targets.registry import activations


@pytest.fixture
def hold(tmp_path):
    """Assert that the plugin computes a graph in integers, 0 LSB from the oracle; returns the session."""

    def check(graph, images=8):
        used = unsaturated(graph)
        converted = WRITERS["openvino"].convert(used, precision="int8")
        assert_integers_are_the_graphs(used, "openvino", converted)
        session = opened("openvino", converted, tmp_path)
        assert int(distances(used, session, random_images(used, images)).max()) == 0
        assert [str(op) for op in session.ops if op.is_float] == []
        return session

    return check


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
