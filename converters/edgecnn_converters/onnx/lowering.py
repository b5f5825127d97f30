"""Lower graph nodes to ONNX nodes, one row per op.

In an int8 file every activation goes through QuantizeLinear and DequantizeLinear, or is moved, compared or clipped as
integers; weights and biases are integer initializers behind a DequantizeLinear. ONNX Runtime fuses an op between them
into one of integers, where there is one. What the network keeps in 16 bits is float in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecnn.graph.ir import Constant, Graph, Node, QuantizedConstant
from edgecnn.graph.oracle import mlas
from edgecnn.graph.oracle.parameters import HIGH, LOW, called
from edgecnn_converters import layout
from edgecnn_converters.layout import OHWI_TO_OIHW, concat_axis, kernel_of, nchw, order_matters, pads
from edgecnn_converters.names import part
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL
from edgecnn_converters.onnx.hard_swish import hard_swish

OLDEST = 9  # ONNX 1.4; before its IR version 4, every constant had to be an input of the graph too
SINCE = {TO_INTEGERS: 10, TO_REAL: 10, "Clip": 11, "Pad": 11, "HardSwish": 14}
SINCE_OF_INTEGERS = {"Clip": 12, "MaxPool": 12}
"""Opset from which an op has the form that is written here; ``OLDEST`` for the others. See ``_opset`` for more."""
PAST_HALVES = 2.0**-18  # of an average
TYPES = {name: getattr(TensorProto, name.upper()) for name in ("float16", "uint8", "int8")}
TYPES["float32"] = TensorProto.FLOAT
Row = Callable[["Emitter", Node], None]
Step = tuple[str, list[str], dict[str, Any]]  # kind, inputs after the first, attributes


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
    def shift(self) -> int:
        """Return by how much the file's integers are higher than the graph's."""
        return layout.UINT8_OFFSET if self.activations == "uint8" else 0

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
        kept = [n for n in self.nodes if read.intersection(n.output) or source in n.input]  # the latter has its scale
        self.nodes = kept  # without real values that nothing reads
        name, ends = self.graph.metadata.model or "edgecnn", ([self._info(source)], [self._info(result)])
        graph = helper.make_graph(self.nodes, name, *ends, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", self._opset())]
        oldest = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, producer_name="edgecnn", ir_version=oldest, opset_imports=opsets)

    def _opset(self) -> int:
        """Return the oldest that has what is used: 13 brought scales per channel, and softmax over one dimension."""
        per_channel = any(a.name == "axis" for n in self.nodes if n.op_type == TO_REAL for a in n.attribute)
        wide = any(n.op == "softmax" and len(self.graph.tensors[n.output].shape) == 4 for n in self.graph)
        since = {**SINCE, **SINCE_OF_INTEGERS} if self.integer else SINCE
        return max([OLDEST, 13 * (per_channel or wide), *(since.get(n.op_type, OLDEST) for n in self.nodes)])

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

    def quantize(self, source: str, node: Node, activation: str = "none") -> None:
        """Quantize ``source`` as the node's output, clip the integers where its activation ends, and add its values."""
        name, ends = node.output, called(self.graph, node).limits(activation)
        made = part(name, INTEGERS if ends == (LOW, HIGH) else "unclipped")
        self.node(TO_INTEGERS, [source, *self.grid(name)], made)
        if ends != (LOW, HIGH):
            self.node("Clip", [made, *map(self.scalar, ends)], part(name, INTEGERS))
        self.real_values(name)

    def real_values(self, name: str) -> None:
        """Add the values that the integers of ``name`` stand for."""
        self.node(TO_REAL, [part(name, INTEGERS), *self.grid(name)], name)

    def scalar(self, value: int, name: str = "") -> str:
        """Add an integer of int8, in the type of the file's activations; one in the file, unless it has a name."""
        stored = np.array(value + self.shift, self.activations)
        return self.initializer(name or part("constant", str(stored)), stored)

    def own_grid(self, name: str, scale: NDArray[Any] | np.float32, zero: int) -> list[str]:
        """Return scale and zero point of a tensor of the file that is none of the graph; a zero point of int8."""
        return [self.initializer(part(name, "scale"), np.array(scale)), self.scalar(zero, part(name, "zero_point"))]

    def stored(self, name: str) -> str:
        """Name the tensor of an activation's integers."""
        fed = name == self.graph.inputs[0] and self.io == self.activations
        return name if fed else part(name, INTEGERS)

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
                stored, grid = (stored.astype(np.int16) + self.shift).astype(self.activations), self.grid(name)
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
        """Add the node's op, its activation, and the quantization of its output."""
        name, activation = node.output, str(node.attrs.get("activation", "none"))
        raw = name if activation == "none" and not self.on_grid(name) else part(name, "raw")
        self.node(kind, inputs, raw, **attrs)
        if self.on_grid(name):
            self.quantize(raw, node, activation)
        elif activation != "none":
            self.activate(activation, raw, name)

    def activate(self, activation: str, source: str, name: str) -> None:
        """Add an activation of real values."""
        self.node(*(("Relu", [source]) if activation == "relu" else ("Clip", [source, *self.six()])), name)

    def move(self, node: Node, *steps: Step) -> None:
        """Add ops that move or compare elements: of the integers, where the output has them.

        ONNX Runtime would compute some of them in float between QuantizeLinear and DequantizeLinear.
        """
        integer = self.on_grid(node.output)
        source = self.stored(node.inputs[0]) if integer else self.value(node.inputs[0])
        last = part(node.output, INTEGERS) if integer else node.output
        for number, (kind, further, attrs) in enumerate(steps, 1):
            made = last if number == len(steps) else part(node.output, kind.lower())
            self.node(kind, [source, *further], made, **attrs)
            source = made
        if integer:
            self.real_values(node.output)

    def on_grid(self, name: str) -> bool:
        """Whether an activation is quantized in the file; in 16 bits it stays float."""
        return self.integer and not self.graph.is_wide(name)

    def whole(self, name: str, value: int) -> str:
        """Return a real value that is whole, stored as 1 of that scale above the lowest integer.

        Each node has its own: ONNX Runtime's ``session.x64quantprecision`` refuses int8 files that share one.
        """
        made = part(name, "constant")
        grid = self.own_grid(made, np.float32(value), LOW)
        self.node(TO_REAL, [self.scalar(LOW + 1, part(made, INTEGERS)), *grid], made)
        return made

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


def _max_pool(e: Emitter, node: Node) -> None:
    e.move(node, ("MaxPool", [], _window(node, kernel_of(e.graph, node))))


def _avg_pool(e: Emitter, node: Node) -> None:
    """Average; where halves come up, by a convolution of the integers as they are, which rounds them as LiteRT does.

    Its multiplier takes halves a little away from zero, and nothing else across one.
    """
    if e.on_grid(node.output) and mlas.is_summed(node.attrs):
        _summed(e, node)
        return
    e.finish(node, "AveragePool", [e.value(node.inputs[0])], **_window(node, kernel_of(e.graph, node)))


def _summed(e: Emitter, node: Node) -> None:
    source, name, kernel = node.inputs[0], node.output, kernel_of(e.graph, node)
    channels, plain, ones, made = e.graph.tensors[source].shape[3], *(part(name, p) for p in ("plain", "ones", "made"))
    grid = e.own_grid(plain, e.graph.quant(source).scale[0], 0)
    e.node(TO_REAL, [e.stored(source), *grid], plain)
    weight = e.initializer(part(ones, INTEGERS), np.ones((channels, 1, *kernel), np.int8))
    scale = e.initializer(part(ones, "scale"), np.array((1 + PAST_HALVES) / np.prod(kernel), np.float32))
    zero = e.initializer(part(ones, "zero_point"), np.array(0, np.int8))
    e.node(TO_REAL, [weight, scale, zero], ones)
    e.node("Conv", [plain, ones], part(made, "raw"), **_window(node, kernel), group=channels)
    e.node(TO_INTEGERS, [part(made, "raw"), *grid], made)
    e.node("Identity", [made], part(name, INTEGERS))
    e.real_values(name)


def _mean(e: Emitter, node: Node) -> None:
    source, pooled, name = e.value(node.inputs[0]), part(node.output, "pooled"), node.output
    if node.attrs["keepdims"]:
        e.finish(node, "GlobalAveragePool", [source])
        return
    e.node("GlobalAveragePool", [source], pooled)
    if not e.on_grid(name):
        e.node("Flatten", [pooled], name)
        return
    e.node(TO_INTEGERS, [pooled, *e.grid(name)], part(pooled, INTEGERS))
    e.node("Flatten", [part(pooled, INTEGERS)], part(name, INTEGERS))
    e.real_values(name)


def _concat(e: Emitter, node: Node) -> None:
    e.finish(node, "Concat", _operands(e, node), axis=concat_axis(e.graph, node))


def _pad(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    (before, after), (front, back) = pads(a), a["channels"]
    amounts = e.initializer(part(node.output, "pads"), np.array([0, front, *before, 0, back, *after], np.int64))
    e.move(node, ("Pad", [amounts, *e.grid(node.output)[1:]] if e.on_grid(node.output) else [amounts], {}))


def _reshape(e: Emitter, node: Node) -> None:
    made = e.graph.tensors[node.output].shape
    into, back = order_matters(e.graph.tensors[node.inputs[0]].shape), order_matters(made)
    wanted = np.array([-1, *(made if back else nchw(made))[1:]], np.int64)
    reshape: Step = ("Reshape", [e.initializer(part(node.output, "shape"), wanted)], {})
    steps = [_transpose(0, 2, 3, 1)] * into, [reshape], [_transpose(0, 3, 1, 2)] * back
    e.move(node, *chain.from_iterable(steps))


def _transpose(*order: int) -> Step:
    return "Transpose", [], {"perm": list(order)}


def _requantize(e: Emitter, node: Node) -> None:
    """Convert to 16 bits: the 8-bit values as they are, which float holds exactly. To 8 bits: onto the grid."""
    if node.attrs["to"] == "int16":
        e.twins[node.output] = node.inputs[0]
    else:
        e.quantize(e.value(node.inputs[0]), node)


def _unary(kind: str, **attrs: int) -> Row:
    return lambda e, node: e.finish(node, kind, [e.value(node.inputs[0])], **attrs)


def _relu(e: Emitter, node: Node) -> None:
    """Clip the integers; onto another grid by a product with 1, which ONNX Runtime computes in integers."""
    source, name = node.inputs[0], node.output
    if not e.on_grid(name):
        e.activate(node.op, e.value(source), name)
    elif e.graph.quant(name).same_as(e.graph.quant(source)):
        e.move(node, ("Clip", list(map(e.scalar, called(e.graph, node).limits(node.op))), {}))
    else:
        e.node("Mul", [e.value(source), e.whole(name, 1)], part(name, "raw"))
        e.quantize(part(name, "raw"), node, node.op)


LOWERINGS: Mapping[str, Row] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "requantize": _requantize,
    "relu": _relu,
    "relu6": _relu,
    "hard_swish": hard_swish,
    "sigmoid": _unary("Sigmoid"),
    "softmax": _unary("Softmax", axis=1),
}
