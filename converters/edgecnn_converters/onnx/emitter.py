"""Write ONNX nodes and the tensors between them: real values, integers, their grids and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecnn.graph.ir import Constant, Graph, Node, QuantizedConstant
from edgecnn.graph.oracle.parameters import HIGH, LOW, called
from edgecnn_converters import layout
from edgecnn_converters.layout import nchw
from edgecnn_converters.names import part
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL

OLDEST = 9  # ONNX 1.4; before its IR version 4, every constant had to be an input of the graph too
SINCE = {
    TO_INTEGERS: 10,
    TO_REAL: 10,
    "Slice": 10,
    "ArgMax": 13,
    "Clip": 11,
    "GatherElements": 11,
    "Pad": 11,
    "Resize": 11,
    "HardSwish": 14,
}
SINCE_OF_INTEGERS = {"Clip": 12, "MaxPool": 12}
"""Opset from which an op has the form that is written here; ``OLDEST`` for the others. See ``_opset`` for more."""
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
        self.turned: dict[str, tuple[str, tuple[int, ...]]] = {}  # a transpose's output to its source and permutation

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

    def model(self, rows: Mapping[str, Row]) -> onnx.ModelProto:
        """Return the whole file; ``rows`` lower each op."""
        for source in self.graph.inputs:
            self._enter(source)
        for node in self.graph:
            rows[node.op](self, node)
        for result in self.graph.outputs:
            self._leave(result)
        self._drop_unread(set(self.graph.outputs))
        name = self.graph.metadata.model or "edgecnn"
        inputs, outputs = ([self._info(each) for each in names] for names in (self.graph.inputs, self.graph.outputs))
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", self._opset())]
        oldest = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, producer_name="edgecnn", ir_version=oldest, opset_imports=opsets)

    def _drop_unread(self, read: set[str]) -> None:
        """Drop nodes whose outputs nothing reads. The grids of integers stay: the file's reader finds them there."""
        kept = []
        for node in reversed(self.nodes):
            if read.intersection(node.output):
                kept.append(node)
                read.update(node.input)
        self.nodes = kept[::-1]

    def _opset(self) -> int:
        """Return the oldest that has what is used: 13 brought scales per channel."""
        per_channel = any(a.name == "axis" for n in self.nodes if n.op_type == TO_REAL for a in n.attribute)
        since = {**SINCE, **SINCE_OF_INTEGERS} if self.integer else SINCE
        return max([OLDEST, 13 * per_channel, *(since.get(n.op_type, OLDEST) for n in self.nodes)])

    def _info(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TYPES[self.io], list(nchw(self.graph.tensors[name].shape)))

    def value(self, name: str) -> str:
        """Name the tensor of a graph tensor's real values: as itself, but for the file's input and a 16-bit twin."""
        name = self.twins.get(name, name)
        return part(name, "real") if name in self.graph.inputs and self.precision in ("int8", "fp16") else name

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
        if self.integer and self.io == self.activations:
            self._rename({result: part(result, "real"), part(result, INTEGERS): result})
        elif self.integer and self.io != "float32":
            self._rename({result: part(result, "real")})
            self.node(TO_INTEGERS, [part(result, "real"), *self.grid(result, self.io)], result)
        elif self.real == "float16":
            self._rename({result: part(result, "half")})
            self.node("Cast", [part(result, "half")], result, to=TYPES["float32"])

    def _rename(self, names: Mapping[str, str]) -> None:
        """Give tensors other names, wherever they are made and read."""
        for node in self.nodes:
            for ends in (node.input, node.output):
                for k, name in enumerate(ends):
                    ends[k] = names.get(name, name)

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

    def quantize(self, source: str, node: Node, activation: str = "none", grid: list[str] | None = None) -> None:
        """Quantize ``source`` as the node's output, clip the integers where its activation ends, and add its values."""
        self.clipped(source, node, called(self.graph, node).limits(activation), grid)

    def clipped(self, source: str, node: Node, ends: tuple[int, int], grid: list[str] | None = None) -> None:
        """Quantize ``source`` as the node's output, clip to integers of int8, and add its values.

        Args:
            grid: scale and zero point that ``source`` is quantized by, where they are not the output's.
        """
        name = node.output
        made = part(name, INTEGERS if ends == (LOW, HIGH) else "unclipped")
        self.node(TO_INTEGERS, [source, *(grid or self.grid(name))], made)
        if ends != (LOW, HIGH):
            self.node("Clip", [made, *map(self.scalar, ends)], part(name, INTEGERS))
        self.real_values(name)

    def number(self, value: float) -> str:
        """Add a real number, in the type that ops compute in."""
        return self.initializer(part("constant", f"{value!r}"), np.array(value, self.real))

    def counts(self, name: str, *values: int, dtype: str = "int64") -> str:
        """Add a vector of whole numbers: a shape, indices."""
        return self.initializer(name, np.array(values, dtype))

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
        fed = name in self.graph.inputs and self.io == self.activations
        return name if fed else part(name, INTEGERS)

    def constant(
        self, name: str, axes: tuple[int, ...] | None = None, shape: tuple[int, ...] | None = None, affine: bool = False
    ) -> str:
        """Add a constant in the file's precision, reshaped and permuted; store ``affine`` ones as activations are."""
        tensor = self.graph.constant(name)

        def placed(array: NDArray[Any]) -> NDArray[Any]:
            shaped = array if shape is None else array.reshape(shape)
            return shaped if axes is None else shaped.transpose(axes)

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
        """Return an activation, or a constant that broadcasts over one of this rank."""
        tensor = self.graph.tensors[name]
        if not isinstance(tensor, Constant):
            return self.value(name)
        full = (1,) * (rank - len(tensor.shape)) + tensor.shape
        return self.constant(name, layout.NHWC_TO_NCHW if rank == 4 else None, full, affine=True)

    def integers_of(self, name: str, rank: int) -> str:
        """Return the integers of an activation, or of a constant that is on an activation's grid."""
        if isinstance(self.graph.tensors[name], Constant):
            self.operand(name, rank)
            return part(name, INTEGERS)
        return self.stored(name)

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
        source, last = self.moved(node)
        for number, (kind, further, attrs) in enumerate(steps, 1):
            made = last if number == len(steps) else part(node.output, f"{kind.lower()}_{number}")
            if kind == "Transpose":
                source = self.turn(source, attrs["perm"], made, named=made == last)
            else:
                self.node(kind, [source, *further], made, **attrs)
                source = made
        if self.on_grid(node.output):
            self.real_values(node.output)

    def moved(self, node: Node) -> tuple[str, str]:
        """Return the tensors that an op reads and makes that only moves elements: of integers, where there are any."""
        if self.on_grid(node.output):
            return self.stored(node.inputs[0]), part(node.output, INTEGERS)
        return self.value(node.inputs[0]), node.output

    def turn(self, source: str, order: Sequence[int], output: str, *, named: bool = True) -> str:
        """Add a transpose; of a transpose's output, the one transpose that both come to, if any.

        Args:
            named: whether a tensor of the name ``output`` is needed, also where it is another as it is.

        Returns:
            The tensor that has it.
        """
        source, first = self.turned.get(source, (source, tuple(range(len(order)))))
        both = tuple(first[k] for k in order)
        if both == tuple(range(len(both))):
            if not named:
                return source
            self.node("Identity", [source], output)
            return output
        self.node("Transpose", [source], output, perm=list(both))
        self.turned[output] = (source, both)
        return output

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
