"""Lower graph nodes to calls of C kernels, one row per op: its kernel, constants, numbers and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.oracle import parameters
from edgecnn.graph.oracle.kernels import KERNELS, exponentials
from edgecnn.graph.oracle.parameters import HIGH, LOW, Call, Multiplier, called
from edgecnn.graph.unary_functions import FUNCTIONS
from edgecnn_converters.c import bounds, moves
from edgecnn_converters.c.format import array, braces, record
from edgecnn_converters.c.planner import window_lead
from edgecnn_converters.layout import is_depthwise, kernel_of

NEEDS: Mapping[str, tuple[str, ...]] = {
    "rescale": ("fixed_point",),
    "filter": ("rescale", "outputs"),
    "conv2d": ("window", "filter"),
    "depthwise": ("window", "taps", "rescale", "outputs"),
    "fully_connected": ("filter",),
    "add": ("rescale", "pairs"),
    "mul": ("rescale", "pairs"),
    "max_pool2d": ("window", "taps"),
    "avg_pool2d": ("window", "taps"),
    "mean": ("rescale",),
    "pad": ("window",),
    "softmax": ("fixed_point",),
    "resize_bilinear": ("fixed_point",),
    "batch_matmul": ("rescale",),
    "prelu": ("rescale",),
}
"""Kernel, or part of one, to the parts it builds on: files of ``kernels/``."""

OHWI_TO_HWO = (1, 2, 0, 3)  # a depthwise weight is OHW1


class Emitter:
    """Gathers the constants, the structs and the calls of a graph's nodes, and which kernels they use.

    ``places`` and ``scratch`` say where activations and the scratch memory of nodes lie, as C.
    """

    def __init__(self, graph: Graph, places: Mapping[str, str], scratch: Mapping[str, str]) -> None:
        self.graph, self.places, self.scratch = graph, places, scratch
        self.constants: list[str] = []
        self.structs: list[str] = []
        self.calls: list[str] = []
        self.kernels: list[str] = []
        self.constant_bytes = 0
        self._index = -1
        self._operands: dict[str, str] = {}

    def begin(self, layer: Mapping[str, Any]) -> None:
        """Begin the next node, with what is noted of it."""
        self._index += 1
        self.calls.append(record(layer))

    def call(self, kernel: str, *arguments: str | int) -> None:
        """Add a call of a kernel."""
        self._use(kernel)
        self.calls.append(f"{kernel}({', '.join(map(str, arguments))});")

    def _use(self, part: str) -> None:
        for needed in NEEDS.get(part, ()):
            self._use(needed)
        if part not in self.kernels:
            self.kernels.append(part)

    def struct(self, kind: str, fields: Mapping[str, Any]) -> str:
        """Add a constant struct of the node; return its address."""
        name = f"{kind}_{self._index}"
        self.structs.append(f"static const struct {kind} {name} = {braces(fields)};")
        return f"&{name}"

    def constant(self, kind: str, ctype: str, values: NDArray[Any], note: str = "") -> str:
        """Add a constant array of the node; return its name."""
        name = f"{kind}_{self._index}"
        self.constants.append((f"{note}\n" if note else "") + array(name, ctype, values))
        self.constant_bytes += values.size * (1 if ctype == "int8_t" else 4)
        return name

    def operand(self, name: str) -> str:
        """Return an activation, or a constant that an op takes as it is."""
        tensor = self.graph.tensors[name]
        if not isinstance(tensor, QuantizedConstant):
            return self.places[name]
        if name not in self._operands:
            note = record({**_about(tensor), "zero_point": tensor.quant.zero_point.tolist()})
            self._operands[name] = self.constant(f"constant{len(self._operands)}", "int8_t", tensor.integers, note)
        return self._operands[name]


def _about(tensor: Quantized) -> dict[str, Any]:
    quant = tensor.quant
    return {"name": tensor.name, "shape": tensor.shape, "scale": quant.scale.tolist(), "axis": quant.axis}


def _window(graph: Graph, node: Node) -> dict[str, int]:
    a: Mapping[str, Any] = node.attrs
    x, y, kernel = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape, kernel_of(graph, node)
    stride, dilation, padding = a.get("stride", (1, 1)), a.get("dilation", (1, 1)), a["padding"]
    values = (*x[1:], *y[1:3], *kernel, *stride, *dilation, padding[0], padding[2])
    names = "in_height in_width channels out_height out_width kernel_y kernel_x stride_y stride_x dilation_y dilation_x"
    return dict(zip((*names.split(), "top", "left"), values, strict=True))


def _weighted(e: Emitter, node: Node, axes: tuple[int, ...], *, folded: bool) -> dict[str, Any]:
    """Return weights and outputs of a weighted node. ``folded``: the bias takes the input's zero point in."""
    c = called(e.graph, node)
    weight, bias = (Quantized.of(e.graph.tensors[name]) for name in node.inputs[1:3])
    noted = record({**_about(weight), "stored": axes})
    weights = e.constant("weights", "int8_t", c.values[1].transpose(axes), noted)
    sums, multiplier = bounds.start(c, folded=folded), parameters.weighted(c)
    about = _about(bias)
    if folded:
        about["folded"] = [node.inputs[1], c.zero(0)]
    outputs = {
        "bias": e.constant("bias", "int32_t", sums, record(about)),
        "multiplier": e.constant("multiplier", "int32_t", multiplier[0]),
        "shift": e.constant("shift", "int8_t", multiplier[1]),
    }
    return {"weights": weights, "outputs": outputs | _ends(c)}


def _conv2d(e: Emitter, node: Node) -> None:
    x, y = e.operand(node.inputs[0]), e.places[node.output]
    window, in_zero = _window(e.graph, node), called(e.graph, node).zero(0)
    out_channels = e.graph.tensors[node.output].shape[3]
    if is_depthwise(e.graph, node):
        fields = {"window": window, "per_channel": out_channels // window["channels"], "in_zero": in_zero}
        fields |= _weighted(e, node, OHWI_TO_HWO, folded=False)
        e.call("depthwise", e.struct("depthwise", fields), x, y)
        return
    fields = {"window": window, "out_channels": out_channels, "groups": node.attrs["groups"], "in_zero": in_zero}
    fields |= _weighted(e, node, (0, 1, 2, 3), folded=True)
    e.call("conv2d", e.struct("conv2d", fields), x, y, e.scratch.get(node.output, "0"))


def _fully_connected(e: Emitter, node: Node) -> None:
    count, inputs = e.graph.tensors[node.inputs[1]].shape
    fields = {"inputs": inputs, "count": count, **_weighted(e, node, (0, 1), folded=True)}
    e.call("fully_connected", e.struct("fully_connected", fields), e.operand(node.inputs[0]), e.places[node.output])


def _scaling(multiplier: Multiplier, suffix: str = "") -> dict[str, int]:
    return {f"multiplier{suffix}": int(multiplier[0]), f"shift{suffix}": int(multiplier[1])}


def _ends(c: Call) -> dict[str, int]:
    low, high = c.limits(c.attrs["activation"])
    return {"zero": c.zero(-1), "low": low, "high": high}


def _pairs(graph: Graph, node: Node) -> dict[str, list[int]]:
    """Return sizes and steps of a broadcast, over as few dimensions as there are, in front of which stand ones."""
    y = graph.tensors[node.output].shape
    shapes = [(1,) * (len(y) - len(s)) + s for s in (graph.tensors[name].shape for name in node.inputs)]
    rows: list[list[int]] = []  # size, step of a, step of b
    for d in range(len(y)):
        steps = [math.prod(s[d + 1 :]) if s[d] > 1 else 0 for s in shapes]
        if y[d] == 1:
            continue
        if rows and all(rows[-1][1 + k] == steps[k] * y[d] for k in (0, 1)):
            rows[-1] = [rows[-1][0] * y[d], *steps]
        else:
            rows.append([y[d], *steps])
    rows = [[1, 0, 0]] * (4 - len(rows)) + rows
    return dict(zip(("size", "step_a", "step_b"), ([row[k] for row in rows] for k in range(3)), strict=True))


def _add(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    first, second, total = parameters.add(c)
    fields = {"pairs": _pairs(e.graph, node), "zero_a": c.zero(0), **_scaling(first, "_a"), "zero_b": c.zero(1)}
    fields |= {**_scaling(second, "_b"), **_scaling(total), **_ends(c)}
    e.call("add", e.struct("add", fields), *map(e.operand, node.inputs), e.places[node.output])


def _mul(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    fields = {"pairs": _pairs(e.graph, node), "zero_a": c.zero(0), "zero_b": c.zero(1)}
    fields |= {**_scaling(parameters.mul(c)), **_ends(c)}
    e.call("mul", e.struct("mul", fields), *map(e.operand, node.inputs), e.places[node.output])


def _pool(e: Emitter, node: Node) -> None:
    window = e.struct("window", _window(e.graph, node))
    e.call(node.op, window, e.operand(node.inputs[0]), e.places[node.output])


def _pad(e: Emitter, node: Node) -> None:
    channels: Any = node.attrs["channels"]
    fields = {"window": _window(e.graph, node), "front": channels[0], "back": channels[1]}
    fields["zero"] = called(e.graph, node).zero(0)
    e.call("pad", e.struct("pad", fields), e.operand(node.inputs[0]), e.places[node.output])


def _mean(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    _, height, width, channels = c.inputs[0].shape
    fields = {"pixels": height * width, "channels": channels, "in_zero": c.zero(0)}
    fields |= {**_scaling(parameters.mean(c)), "zero": c.zero(-1)}
    e.call("mean", e.struct("mean", fields), e.operand(node.inputs[0]), e.places[node.output])


def _table(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    every = np.arange(LOW, HIGH + 1).astype(np.int8)
    values = KERNELS[node.op](Call(attrs=c.attrs, inputs=c.inputs, output=c.output, values=[every]))
    name = e.constant("table", "int8_t", values)
    e.call("table", name, math.prod(c.output.shape), e.operand(node.inputs[0]), e.places[node.output])


def _batch_matmul(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    *outer, rows, depth = c.inputs[0].shape
    columns = c.output.shape[-1]
    fields = {"count": math.prod(outer), "rows": rows, "depth": depth, "columns": columns}
    down, across = (1, depth) if node.attrs["transpose_b"] else (columns, 1)
    fields |= {"down": down, "across": across, "zero_a": c.zero(0), "zero_b": c.zero(1)}
    fields |= {**_scaling(parameters.batch_matmul(c)), "zero": c.zero(-1)}
    operands = map(e.operand, node.inputs)
    e.call("batch_matmul", e.struct("batch_matmul", fields), *operands, e.places[node.output])


def _prelu(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    above, below = parameters.prelu(c)
    *outer, channels = c.output.shape
    fields = {"pixels": math.prod(outer), "channels": channels, "zero_x": c.zero(0), "zero_slope": c.zero(1)}
    fields |= {**_scaling(above, "_above"), **_scaling(below, "_below"), "zero": c.zero(-1)}
    e.call("prelu", e.struct("prelu", fields), *map(e.operand, node.inputs), e.places[node.output])


def _softmax(e: Emitter, node: Node) -> None:
    c = called(e.graph, node)
    *rows, classes = c.output.shape
    powers = e.constant("powers", "int32_t", exponentials(c))
    fields = {"rows": math.prod(rows), "classes": classes, "powers": powers}
    e.call("softmax", e.struct("softmax", fields), e.operand(node.inputs[0]), e.places[node.output])


def _argmax(e: Emitter, node: Node) -> None:
    *rows, classes = e.graph.tensors[node.inputs[0]].shape
    fields = {"rows": math.prod(rows), "classes": classes}
    e.call("argmax", e.struct("argmax", fields), e.operand(node.inputs[0]), e.places[node.output])


# --- how far an output must stay before an input that it may overwrite; None where they must be apart ---


def _behind_window(graph: Graph, node: Node, tensor: Tensor) -> int:
    a: Mapping[str, Any] = node.attrs
    (height, width), dilation, stride = kernel_of(graph, node), a.get("dilation", (1, 1)), a.get("stride", (1, 1))
    kernel, made = ((height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1), graph.tensors[node.output].shape
    return window_lead(tensor.shape, made, kernel=kernel, stride=stride, padding=a["padding"])


def _in_place(graph: Graph, node: Node, tensor: Tensor) -> int | None:
    return 0 if math.prod(tensor.shape) == math.prod(graph.tensors[node.output].shape) else None


def _patch(graph: Graph, node: Node) -> int:
    """Return the bytes of the patch that ``conv2d`` copies: none where it can never need one."""
    kernel, depth = kernel_of(graph, node), graph.tensors[node.inputs[1]].shape[3]
    if is_depthwise(graph, node) or (kernel == (1, 1) and node.attrs["padding"] == (0, 0, 0, 0)):
        return 0
    return math.prod(kernel) * depth


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one op is written: ``write`` adds the node's constants, structs and calls.

    ``lead`` is the bytes by which the output must start before an input (a lone one, read for the last time) to be
    written over it; ``None`` where both must be apart. See ``planner.window_lead``.
    """

    write: Callable[[Emitter, Node], None]
    lead: Callable[[Graph, Node, Tensor], int | None] = lambda graph, node, tensor: None
    scratch: Callable[[Graph, Node], int] = lambda graph, node: 0  # bytes of memory that it needs while it runs
    unsupported: Callable[[Graph, Node], str | None] = lambda graph, node: None  # why the kernel cannot compute it
    moves: bool = False  # whether the output is the input, under another shape


LOWERINGS: Mapping[str, Row] = {
    "conv2d": Row(write=_conv2d, lead=_behind_window, scratch=_patch, unsupported=bounds.sums_fit),
    "fully_connected": Row(write=_fully_connected, unsupported=bounds.sums_fit),
    "add": Row(write=_add, lead=_in_place, unsupported=bounds.add_fits),
    "mul": Row(write=_mul, lead=_in_place, unsupported=bounds.mul_fits),
    "max_pool2d": Row(write=_pool, lead=_behind_window),
    "avg_pool2d": Row(write=_pool, lead=_behind_window, unsupported=bounds.window_not_empty),
    "mean": Row(write=_mean, unsupported=bounds.mean_fits),
    "concat": Row(write=moves.concat),
    "pad": Row(write=_pad, lead=_behind_window),
    "reshape": Row(write=moves.reshape, lead=_in_place, moves=True),
    "transpose": Row(write=moves.transpose),
    "slice": Row(write=moves.slice_),
    "gather": Row(write=moves.gather),
    "resize": Row(write=moves.resize),
    "depth_to_space": Row(write=moves.depth_to_space),
    "space_to_depth": Row(write=moves.space_to_depth),
    "batch_matmul": Row(write=_batch_matmul, unsupported=bounds.matrix_sums_fit),
    "prelu": Row(write=_prelu, lead=_in_place, unsupported=bounds.prelu_fits),
    "requantize": Row(write=_table, lead=_in_place),
    "relu": Row(write=_table, lead=_in_place),
    "relu6": Row(write=_table, lead=_in_place),
    "hard_swish": Row(write=_table, lead=_in_place, unsupported=bounds.output_scale),
    "sigmoid": Row(write=_table, lead=_in_place),
    "argmax": Row(write=_argmax),
    "softmax": Row(write=_softmax, lead=_in_place, unsupported=bounds.few_classes),
    **{op: Row(write=_table, lead=_in_place) for op in FUNCTIONS},
}
