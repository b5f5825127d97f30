"""An op costs a row in each table. The tables agree, and ``sine``, added here as CONTRIBUTING.md says, works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from int8_builder import Int8Builder, random_images
from runtimes import assert_integers_are_the_graphs, distances, opened, unsaturated
from torch import nn
from user_modules import GOOD
from wide_modules import WIDE

import edgecnn_converters.c.lowering as to_c
import edgecnn_converters.onnx.functions as onnx_functions
import edgecnn_converters.onnx.lowering as to_onnx
import edgecnn_converters.openvino.functions as openvino_functions
import edgecnn_converters.openvino.lowering as to_openvino
import edgecnn_converters.tflite.functions as tflite_functions
import edgecnn_converters.tflite.lowering as to_tflite
from edgecnn.graph import interpreter, unary_functions
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.graph.ops import OPS, OpSpec
from edgecnn.graph.oracle import kernels, table_kernels
from edgecnn_converters.registry import converter, converters
from edgecnn_converters.tflite.format import VERSIONS
from edgecnn_targets.runtimes.c import host_compiler

LOWERINGS = [room.LOWERINGS for room in (to_tflite, to_onnx, to_openvino, to_c)]
NOT_OF_TORCH = {"requantize", "hard_sigmoid"}  # quantization makes the one, files of ONNX and Keras the other


def test_every_table_has_the_rows_of_the_op_table():
    lasting = {name for name, spec in OPS.items() if not spec.interim}
    for table in (interpreter.KERNELS, kernels.KERNELS, *LOWERINGS):
        assert lasting <= set(table) <= set(OPS)


def test_torch_modules_make_every_op():
    made = {
        node.op for factory in {**GOOD, **WIDE}.values() for node in capture(factory().eval(), (3, 12, 10), Metadata())
    }
    assert made == {name for name, spec in OPS.items() if not spec.interim} - NOT_OF_TORCH


@pytest.fixture
def with_sine(monkeypatch):
    """All that a new function of one number needs: in 8 bits it is a table, which every converter can write."""
    spec = OpSpec(inputs=("x",), attrs={}, shape=lambda shapes, attrs: shapes[0], aten=("sin",), function=True)
    rows = [
        (OPS, spec),
        (unary_functions.FUNCTIONS, lambda x, attrs: np.sin(x)),
        (interpreter.KERNELS, lambda attrs, x: x[0].sin()),
        (kernels.KERNELS, table_kernels._looked_up("sine")),
        (tflite_functions.FLOAT, tflite_functions._plain("SIN")),
        (to_tflite.LOWERINGS, tflite_functions._write),
        (onnx_functions.REALS, onnx_functions._op("Sin")),
        (to_onnx.LOWERINGS, onnx_functions._row),
        (openvino_functions.FUNCTIONS, openvino_functions._plain(to_openvino.ops.sin)),
        (to_openvino.LOWERINGS, openvino_functions.function),
        (to_c.LOWERINGS, to_c.Row(write=to_c._table, lead=to_c._in_place)),
    ]
    for table, row in rows:
        monkeypatch.setitem(table, "sine", row)
    monkeypatch.setitem(VERSIONS, "SIN", {"float": (1, "1.9.0")})


class Sine(nn.Module):
    def forward(self, x):
        return x.sin().mean((2, 3))


@pytest.mark.usefixtures("with_sine")
def test_a_new_op_is_captured_and_computed_in_float():
    graph = capture(Sine(), (3, 5, 4), Metadata())
    x = torch.randn(2, 5, 4, 3)
    assert [node.op for node in graph] == ["sine", "mean"]
    torch.testing.assert_close(interpreter.TorchGraph(graph)(x), x.sin().mean((1, 2)))


@pytest.mark.usefixtures("with_sine")
@pytest.mark.parametrize("target", list(converters()))
def test_a_new_op_is_written_and_computed_in_integers(target, tmp_path):
    if target == "c" and host_compiler() is None:
        pytest.skip("no C compiler here")
    builder = Int8Builder((1, 6, 5, 3), 0)
    conv = builder.weighted("conv2d", builder.input, (4, 3, 3, 3), padding=(1, 1, 1, 1))
    graph = unsaturated(builder.graph(builder.op("sine", conv, out=builder.grid(2 / 255))))
    converted = converter(target).convert(graph, precision="int8", **({"name": "net"} if target == "c" else {}))
    assert_integers_are_the_graphs(graph, target, converted)
    exact = {"tflite": "reference", "onnx": "exact"}.get(target)
    apart = distances(graph, opened(target, converted, tmp_path, exact), random_images(graph, 8))
    assert apart.max() <= (0 if target in ("tflite", "c") else 1)
