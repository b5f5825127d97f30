"""Lower graph nodes to ONNX nodes, one row per op.

In an int8 file every activation goes through QuantizeLinear and DequantizeLinear; weights and biases are integer
initializers behind a DequantizeLinear. What the network keeps in 16 bits is float in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecnn.graph.ir import Constant, Graph, Node, QuantizedConstant
from edgecnn_converters import layout
from edgecnn_converters.layout import OHWI_TO_OIHW, concat_axis, nchw, order_matters, pads
from edgecnn_converters.names import part
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL

OLDEST = 9  # ONNX 1.4; before its IR version 4, every constant had to be an input of the graph too
SINCE = {TO_INTEGERS: 10, TO_REAL: 10, "Clip": 11, "Pad": 11, "HardSwish": 14}
"""Opset from which an op has the form that is written here; ``OLDEST`` for the others. See ``_opset`` for more."""
TYPES = {name: getattr(TensorProto, name.upper()) for name in ("float16", "uint8", "int8")}
TYPES["float32"] = TensorProto.FLOAT
Row = Callable[["Emitter", Node], None]


class Emitter:
    """Writes a graph's nodes; the value of a graph tensor is the ONNX tensor of its name."""

    def __init__(self, graph: Graph, precision: str, io: str, activations: str) -> None:
        self.graph, self.precision, self.io, self.activations = graph, precision, io, activations
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.twins: dict[str, str] = {}  # an activation in 16 bits to the 8-bit one that holds its values

    @property
    def integer(self) -> bool:
        """Whether activations are integers."""
        return self.precision == "int8"

    @property
    def real(self) -> str:
        """Return the float type that ops compute in."""
        return "float16" if self.precision == "fp16" else "float32"

    def model(self) -> onnx.ModelProto:
        """Return the whole file."""
        (source,), (result,) = self.graph.inputs, self.graph.outputs
        self._enter(source)
        for node in self.graph:
            LOWERINGS[node.op](self, node)
        self._leave(result)
        read = {result, *(name for n in self.nodes for name in n.input)}
        self.nodes = [n for n in self.nodes if read.intersection(n.output)]  # real values that nothing reads
        name, ends = self.graph.metadata.model or "edgecnn", ([self._info(source)], [self._info(result)])
        graph = helper.make_graph(self.nodes, name, *ends, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", self._opset())]
        oldest = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, producer_name="edgecnn", ir_version=oldest, opset_imports=opsets)

    def _opset(self) -> int:
        """Return the oldest that has what is used: 13 brought scales per channel, and softmax over one dimension."""
        per_channel = any(a.name == "axis" for n in self.nodes if n.op_type == TO_REAL for a in n.attribute)
        wide = any(n.op == "softmax" and len(self.graph.tensors[n.output].shape) == 4 for n in self.graph)
        return max([OLDEST, 13 * (per_channel or wide), *(SINCE.get(n.op_type, OLDEST) for n in self.nodes)])

    def _info(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TYPES[self.io], list(nchw(self.graph.tensors[name].shape)))

    def value(self, name: str) -> str:
        """Name the tensor of a graph tensor's real values: as itself, but for the file's input and a 16-bit twin."""
        name = self.twins.get(name, name)
        return part(name, "real") if name == self.graph.inputs[0] and self.precision in ("int8", "fp16") else name

    def _enter(self, source: str) -> None:
        """Convert the file's input to real values."""
        if self.real == "float16":
            self.node("Cast", [source], self.value(source), to=TYPES[self.real])
        if not self.integer:
            return
        grid, read, real = self.grid(source), source, source
        if self.io not in ("float32", self.activations):  # a convolution of both kinds of integers would be float
            real = part(source, "fed")
            self.node(TO_REAL, [source, *self.grid(source, self.io)], real)
        if self.io != self.activations:
            read = part(source, INTEGERS)
            self.node(TO_INTEGERS, [real, *grid], read)
        self.node(TO_REAL, [read, *grid], self.value(source))

    def _leave(self, result: str) -> None:
        """Convert the output's real values, or integers, to the file's output, which has the graph tensor's name."""
        last = self.nodes[-1]
        if self.integer and self.io == self.activations:
            self.nodes.pop()
            self.nodes[-1].output[0] = result
        elif self.integer and self.io != "float32":
            last.output[0] = part(result, "real")
            self.node(TO_INTEGERS, [part(result, "real"), *self.grid(result, self.io)], result)
        elif self.real == "float16":
            last.output[0] = part(result, "half")
            self.node("Cast", [part(result, "half")], result, to=TYPES["float32"])

    # --- tensors ---

    def initializer(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant; one of the same name is kept."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def grid(self, name: str, dtype: str | None = None) -> list[str]:
        """Return scale and zero point, of uint8 or int8; what the file's activations are unless told."""
        dtype, quant = dtype or self.activations, self.graph.quant(name)
        zero = int(quant.zero_point[0]) + (layout.UINT8_OFFSET if dtype == "uint8" else 0)
        return [
            self.initializer(part(name, "scale"), quant.scale[0]),
            self.initializer(part(name, f"zero_point_{dtype}"), np.array(zero, dtype)),
        ]

    def quantize(self, source: str, grid: list[str], name: str, real: str) -> None:
        """Quantize ``source`` as the integers of ``name``, and back to values ``real``."""
        self.node(TO_INTEGERS, [source, *grid], part(name, INTEGERS))
        self.node(TO_REAL, [part(name, INTEGERS), *grid], real)

    def constant(
        self, name: str, axes: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None, affine: bool = False
    ) -> str:
        """Add a constant in the file's precision, permuted or reshaped; store ``affine`` ones as activations are."""
        tensor = self.graph.constant(name)

        def placed(array: NDArray[Any]) -> NDArray[Any]:
            moved = array if axes is None else array.transpose(axes)
            return moved if shape is None else moved.reshape(shape)

        if not isinstance(tensor, QuantizedConstant) or (not self.integer and tensor.quant.dtype != "int8"):
            return self.initializer(name, placed(tensor.value).astype(self.real))
        quant = tensor.quant
        if quant.dtype in ("int16", "int64"):  # of a layer that is kept: float here
            return self.initializer(name, placed(quant.dequantize(tensor.integers)))
        if name not in (n.output[0] for n in self.nodes):
            stored, extra = tensor.integers, {} if quant.axis is None else {"axis": 0}
            if affine:
                shift = layout.UINT8_OFFSET if self.activations == "uint8" else 0
                stored, grid = (stored.astype(np.int16) + shift).astype(self.activations), self.grid(name)
            else:
                scales = quant.scale[0] if quant.axis is None else quant.scale
                added = {"scale": scales, "zero_point": np.zeros(scales.shape, stored.dtype)}
                grid = [self.initializer(part(name, what), array) for what, array in added.items()]
            self.node(TO_REAL, [self.initializer(part(name, INTEGERS), placed(stored)), *grid], name, **extra)
        return name

    def operand(self, name: str, rank: int) -> str:
        """Return an activation, or a constant that broadcasts over it."""
        tensor = self.graph.tensors[name]
        if not isinstance(tensor, Constant):
            return self.value(name)
        return self.constant(name, shape=layout.broadcast(tensor.shape, rank), affine=True)

    # --- nodes ---

    def node(self, kind: str, inputs: list[str], output: str, **attrs: Any) -> None:
        """Add an ONNX node, named after its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=part(output, kind), **attrs))

    def finish(self, node: Node, kind: str, inputs: list[str], **attrs: Any) -> None:
        """Add the node's op, the activation that its integers do not imply, and the quantization of its output."""
        name, activation = node.output, layout.needed_activation(self.graph, node)
        raw, made = part(name, "raw"), part(name, "activated")
        self.node(kind, inputs, raw, **attrs)
        if activation == "relu":
            self.node("Relu", [raw], made)
        elif activation == "relu6":
            self.node("Clip", [raw, *self.six()], made)
        if self.on_grid(name):
            self.quantize(raw if activation == "none" else made, self.grid(name), name, name)
        else:
            self.nodes[-1].output[0] = name

    def moved(self, kind: str, inputs: list[str], output: str, grid: str, **attrs: Any) -> str:
        """Add a step of a node that takes several, quantized as the graph tensor ``grid``; return its value."""
        self.node(kind, inputs, output, **attrs)
        if not self.on_grid(grid):
            return output
        self.quantize(output, self.grid(grid), output, part(output, "real"))
        return part(output, "real")

    def on_grid(self, name: str) -> bool:
        """Whether an activation is quantized in the file; in 16 bits it stays float."""
        return self.integer and not self.graph.is_wide(name)

    def between_integers(self, node: Node, kind: str, inputs: list[str]) -> None:
        """Add an op that moves integers, between integers: ONNX Runtime would compute it in float otherwise."""
        grid = self.grid(node.output)
        self.node(kind, [*inputs, grid[1]], part(node.output, INTEGERS))
        self.node(TO_REAL, [part(node.output, INTEGERS), *grid], node.output)

    def six(self) -> list[str]:
        """Return the lower and upper end of ReLU6."""
        ends = (("zero", 0), ("six", 6))
        return [self.initializer(part("constant", name), np.array(value, self.real)) for name, value in ends]


def _window(node: Node, kernel: tuple[int, ...]) -> dict[str, Any]:
    a: Mapping[str, Any] = node.attrs
    before, after = pads(a)
    return {"kernel_shape": list(kernel), "strides": list(a["stride"]), "pads": before + after}


def _conv2d(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    inputs = [e.value(node.inputs[0]), e.constant(node.inputs[1], OHWI_TO_OIHW), e.constant(node.inputs[2])]
    window = _window(node, e.graph.tensors[node.inputs[1]].shape[1:3])
    e.finish(node, "Conv", inputs, **window, dilations=list(a["dilation"]), group=a["groups"])


def _fully_connected(e: Emitter, node: Node) -> None:
    e.finish(node, "Gemm", [e.value(node.inputs[0]), *(e.constant(i) for i in node.inputs[1:])], transB=1)


def _operands(e: Emitter, node: Node) -> list[str]:
    rank = len(e.graph.tensors[node.output].shape)
    return [e.operand(i, rank) for i in node.inputs]


def _binary(kind: str) -> Row:
    return lambda e, node: e.finish(node, kind, _operands(e, node))


def _pool(e: Emitter, node: Node) -> None:
    kernel: Any = node.attrs["kernel"]
    kind = "MaxPool" if node.op == "max_pool2d" else "AveragePool"
    e.finish(node, kind, [e.value(node.inputs[0])], **_window(node, kernel))


def _mean(e: Emitter, node: Node) -> None:
    if node.attrs["keepdims"]:
        e.finish(node, "GlobalAveragePool", [e.value(node.inputs[0])])
        return
    pooled = e.moved("GlobalAveragePool", [e.value(node.inputs[0])], part(node.output, "pooled"), node.output)
    e.finish(node, "Flatten", [pooled])


def _concat(e: Emitter, node: Node) -> None:
    e.finish(node, "Concat", _operands(e, node), axis=concat_axis(e.graph, node))


def _pad(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    (before, after), (front, back) = pads(a), a["channels"]
    amounts = e.initializer(part(node.output, "pads"), np.array([0, front, *before, 0, back, *after], np.int64))
    source = part(node.inputs[0], INTEGERS)
    if e.on_grid(node.output) and any(source in n.output for n in e.nodes):
        e.between_integers(node, "Pad", [source, amounts])
    else:
        e.finish(node, "Pad", [e.value(node.inputs[0]), amounts])


def _reshape(e: Emitter, node: Node) -> None:
    source, made = e.value(node.inputs[0]), e.graph.tensors[node.output].shape
    if order_matters(e.graph.tensors[node.inputs[0]].shape):
        source = e.moved("Transpose", [source], part(node.output, "nhwc"), node.output, perm=[0, 2, 3, 1])
    back = order_matters(made)
    wanted = np.array([-1, *(made if back else nchw(made))[1:]], np.int64)
    shape = e.initializer(part(node.output, "shape"), wanted)
    if back:
        source = e.moved("Reshape", [source, shape], part(node.output, "reshaped"), node.output)
        e.finish(node, "Transpose", [source], perm=[0, 3, 1, 2])
    else:
        e.finish(node, "Reshape", [source, shape])


def _requantize(e: Emitter, node: Node) -> None:
    """Convert to 16 bits: the 8-bit values as they are, which float holds exactly. To 8 bits: onto the grid."""
    if node.attrs["to"] == "int16":
        e.twins[node.output] = node.inputs[0]
    else:
        e.quantize(e.value(node.inputs[0]), e.grid(node.output), node.output, node.output)


def _unary(kind: str, **attrs: int) -> Row:
    return lambda e, node: e.finish(node, kind, [e.value(node.inputs[0])], **attrs)


LOWERINGS: Mapping[str, Row] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "requantize": _requantize,
    "relu": _unary("Relu"),
    "relu6": lambda e, node: e.finish(node, "Clip", [e.value(node.inputs[0]), *e.six()]),
    "hard_swish": _unary("HardSwish"),
    "sigmoid": _unary("Sigmoid"),
    "softmax": _unary("Softmax", axis=1),
}
