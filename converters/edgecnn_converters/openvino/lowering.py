"""Lower graph nodes to OpenVINO operations, one row per op.

In an int8 file every activation goes through a FakeQuantize of 256 levels over the real values of its integers; weights
and biases are integer constants behind Convert and Multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset1
from openvino import opset8 as ops

from edgecnn.graph.ir import Constant, Graph, Node, Quantized, QuantizedConstant
from edgecnn.graph.rounding import past_halves
from edgecnn_converters import layout
from edgecnn_converters.layout import OHWI_TO_OIHW, concat_axis, nchw, order_matters, pads
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts

SIDES = {-128: 1, 127: -1}  # of grids on one side of zero: which way is away from it
QUARTER = 0.25  # of a bias's step
Row = Callable[["Emitter", Node], Any]


class Emitter:
    """Builds an ``openvino.Model`` from a graph. Every operation is named: the same graph gives the same bytes."""

    def __init__(self, graph: Graph, precision: str) -> None:
        self.graph, self.precision = graph, precision
        self.values: dict[str, Any] = {}
        self.parts: dict[int, Any] = {}
        self.slope: Any = None
        self.six: Any = None

    def model(self) -> Any:
        """Return the whole network."""
        (source,), (result,) = self.graph.inputs, self.graph.outputs
        fed = ops.parameter(list(nchw(self.graph.tensors[source].shape)), np.float32, name=part(source, "fed"))
        fed.output(0).get_tensor().set_names({source})
        self.values[source] = self._on_grid(source, fed)
        for node in self.graph:
            made = LOWERINGS[node.op](self, node)
            match layout.needed_activation(self.graph, node):
                case "relu":
                    made = ops.relu(made, name=part(node.output, "relu"))
                case "relu6":
                    made = self.relu6(node, made)
            made = self._apart(node, made)
            on_grid = node.op == "concat"  # its operands are on its grid: a FakeQuantize of it would make it float
            self.values[node.output] = made if on_grid else self._on_grid(node.output, made)
        last = self.values[result]
        last.output(0).get_tensor().set_names({result})
        ends = [ops.result(last, name=part(result, "result"))], [fed]
        return openvino.Model(*ends, self.graph.metadata.model or "edgecnn")

    def relu6(self, node: Node, value: Any) -> Any:
        """Return a value held between 0 and 6.

        A clamp merges into the FakeQuantize after it. Only where both become post-operations of a convolution, a
        linear layer or a sum does the plugin then round as it does without.
        """
        if self.precision != "int8" or node.weighted or node.op == "add":
            return ops.clamp(value, 0.0, 6.0, name=part(node.output, "relu6"))
        if self.six is None:  # one constant serves all
            self.six = self.plain(np.float32(6), "relu6/six")
        positive = ops.relu(value, name=part(node.output, "relu"))
        return ops.minimum(positive, self.six, name=part(node.output, "relu6"))

    def _apart(self, node: Node, value: Any) -> Any:
        """Put a PReLU of slope 1 before a FakeQuantize that the plugin would otherwise fuse in a way that is wrong.

        It computes nothing. Of OpenVINO 2026.4's CPU plugin see:

        - A convolution that only an addition reads: its FakeQuantize, the sum and the sum's FakeQuantize become
          post-operations, of which the first is clipped, not rounded ("drop rounding one special residual pattern").
        - A linear layer that another reads: both become one op of snippets, which computes in float.
        - A product with constants of which some are negative: they are folded into a FakeQuantize before it.
        """
        made = self.graph.tensors[node.output]
        if not isinstance(made, Quantized) or made.quant.dtype != "int8":
            return value
        consumers = [n.op for n in self.graph.consumers(node.output)]
        constants = [t.value for t in map(self.graph.tensors.get, node.inputs) if isinstance(t, Constant)]
        fused = {
            "conv2d": consumers == ["add"] and node.output not in self.graph.outputs,
            "fully_connected": "fully_connected" in consumers,
            "mul": any(bool(np.any(constant < 0)) for constant in constants),
        }
        if not fused.get(node.op):
            return value
        if self.slope is None:  # one constant serves all
            self.slope = self.plain(np.ones(1, np.float32), "identity/slope")
        return ops.prelu(value, self.slope, name=part(node.output, "identity"))

    def _on_grid(self, name: str, value: Any) -> Any:
        tensor = self.graph.tensors[name]
        if not isinstance(tensor, Quantized) or tensor.quant.dtype == "int16":  # kept in 16 bits: float here
            return value
        reals = zip((facts.LOW, facts.HIGH), layout.grid_ends(tensor.quant), strict=True)
        ends = [self.plain(np.float32(real), part(name, end)) for end, real in reals]
        return ops.fake_quantize(value, *ends, *ends, facts.LEVELS, name=part(name, facts.QUANTIZED))

    def plain(self, array: Any, name: str) -> Any:
        """Return a constant as it is."""
        return ops.constant(np.array(array, order="C"), name=name)

    def constant(
        self, name: str, shape: tuple[int, ...], axes: tuple[int, ...] | None = None, affine: bool = False
    ) -> Any:
        """Return a constant of the graph in the file's precision, permuted, then reshaped; channels come first.

        ``affine`` ones have a zero point, as activations do.
        """
        tensor = self.graph.constant(name)

        def placed(array: NDArray[Any]) -> NDArray[Any]:
            return (array if axes is None else array.transpose(axes)).reshape(shape)

        if not isinstance(tensor, QuantizedConstant) or tensor.quant.dtype == "int16":
            if self.precision == "fp16" and len(tensor.shape) > 1:
                half = self.plain(placed(tensor.value).astype(np.float16), part(name, "half"))
                return ops.convert(half, "f32", name=name)
            return self.plain(placed(tensor.value), name)
        quant, real = tensor.quant, self._steps(placed(tensor.integers), name)
        if affine:
            zero = self.plain(np.float32(quant.zero_point[0]), part(name, facts.ZERO_POINT))
            real = ops.subtract(real, zero, name=part(name, "centred"))
        scale = quant.scale[0] if quant.axis is None else quant.scale.reshape(_channels_first(shape, quant.scale.size))
        return ops.multiply(real, self.plain(scale, part(name, facts.SCALE)), name=name)

    def _steps(self, integers: NDArray[Any], name: str) -> Any:
        return ops.convert(self.plain(integers, part(name, facts.INTEGERS)), "f32", name=part(name, "float"))

    def bias(self, node: Node, shape: tuple[int, ...]) -> Any:
        """Return the bias of a conv2d or fully_connected.

        Its scale is the input's times the weight's, written as these two: the file then stores the latter once, for the
        writer keeps equal data once.
        """
        source, bias = (self.graph.tensors[node.inputs[i]] for i in (0, 2))
        if not isinstance(source, Quantized) or not isinstance(bias, QuantizedConstant):
            return self.constant(bias.name, shape)
        real = self._led(node, bias.integers.reshape(shape), bias.name)
        weight = self.graph.quant(node.inputs[1])
        factors = weight.scale[0] if weight.axis is None else weight.scale.reshape(shape)
        scales = self.plain(factors, part(bias.name, facts.WEIGHT_SCALE))
        scaled = ops.multiply(real, scales, name=part(bias.name, "scaled"))
        step = self.plain(source.quant.scale[0], part(bias.name, facts.INPUT_SCALE))
        return ops.multiply(scaled, step, name=bias.name)

    def _led(self, node: Node, integers: NDArray[Any], name: str) -> Any:
        """Return a bias in steps of its scale, and a quarter of one more for channels with sums next to halves.

        OpenVINO adds and scales a bias in float32, which may leave such a sum on the wrong side of the half. See
        ``edgecnn.graph.rounding``; the grid of the output says which side is the right one.
        """
        real = self._steps(integers, name)
        source, weight, made = (self.graph.quant(i) for i in (*node.inputs[:2], node.output))
        if node.op != "conv2d" or made.dtype != "int8" or made.zero_point[0] not in SIDES:
            return real
        scales = weight.scale.astype(np.float64) * source.scale / made.scale
        led = np.broadcast_to(past_halves(scales), integers.size)
        if not led.any():
            return real
        side = SIDES[int(made.zero_point[0])]
        if led.all():  # one constant serves all such layers
            if side not in self.parts:
                self.parts[side] = self.plain(np.float32(side * QUARTER), f"{'above' if side > 0 else 'below'}/part")
            return ops.add(real, self.parts[side], name=part(name, "led"))
        quarters = np.where(led, np.float32(side * QUARTER), np.float32(0)).reshape(integers.shape)
        return ops.add(real, self.plain(quarters, part(name, "part")), name=part(name, "led"))

    def operand(self, name: str, rank: int) -> Any:
        """Return an activation, or a constant that broadcasts over it."""
        if name in self.values:
            return self.values[name]
        return self.constant(name, layout.broadcast(self.graph.tensors[name].shape, rank), affine=True)


def _channels_first(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the shape of scales that broadcast over a weight (O, ...), (G, O/G, ...) or a bias (1, O, ...)."""
    kept: list[int] = []
    left = count
    for size in shape:
        taken = size if left > 1 and left % size == 0 else 1
        kept.append(taken)
        left //= taken
    return tuple(kept)


def _conv2d(e: Emitter, node: Node) -> Any:
    a: Mapping[str, Any] = node.attrs
    before, after = pads(a)
    out, height, width, depth = e.graph.tensors[node.inputs[1]].shape
    groups, value = a["groups"], e.values[node.inputs[0]]
    if depth == 1 and 1 < groups < out:
        value, groups = _repeated(e, node, out // groups), out
    shape = (out, depth, height, width) if groups == 1 else (groups, out // groups, depth, height, width)
    weight = e.constant(node.inputs[1], shape, OHWI_TO_OIHW)
    kind = ops.convolution if groups == 1 else ops.group_convolution
    made = kind(value, weight, list(a["stride"]), before, after, list(a["dilation"]), name=part(node.output, "conv"))
    return ops.add(made, e.bias(node, (1, out, 1, 1)), name=part(node.output, "bias_add"))


def _fully_connected(e: Emitter, node: Node) -> Any:
    shape = e.graph.tensors[node.inputs[1]].shape
    weight = e.constant(node.inputs[1], shape)
    made = ops.matmul(e.values[node.inputs[0]], weight, False, True, name=part(node.output, "matmul"))
    return ops.add(made, e.bias(node, (1, shape[0])), name=part(node.output, "bias_add"))


def _operands(e: Emitter, node: Node) -> list[Any]:
    rank = len(e.graph.tensors[node.output].shape)
    return [e.operand(i, rank) for i in node.inputs]


def _binary(kind: Callable[..., Any]) -> Row:
    return lambda e, node: kind(*_operands(e, node), name=part(node.output, "op"))


def _pool(e: Emitter, node: Node) -> Any:
    a: Mapping[str, Any] = node.attrs
    kind, last = (opset1.max_pool, "floor") if node.op == "max_pool2d" else (ops.avg_pool, True)
    where = (list(a["stride"]), *pads(a), list(a["kernel"]))
    return kind(e.values[node.inputs[0]], *where, last, name=part(node.output, "op"))


def _mean(e: Emitter, node: Node) -> Any:
    axes = e.plain(np.array([2, 3], np.int64), part(node.output, "axes"))
    return ops.reduce_mean(e.values[node.inputs[0]], axes, bool(node.attrs["keepdims"]), name=part(node.output, "op"))


def _concat(e: Emitter, node: Node) -> Any:
    return ops.concat(_operands(e, node), concat_axis(e.graph, node), name=part(node.output, facts.JOINED))


def _repeated(e: Emitter, node: Node, times: int) -> Any:
    """Return the input with every channel repeated, so that a depthwise convolution with a multiplier is a plain one.

    On one thread OpenVINO 2026.4 runs the former with oneDNN's jit_gemm_I8, which takes the zero point for padding on
    the right: outputs were off by up to 29 LSB where the input's zero point is not its lowest integer.
    """
    channels = np.repeat(np.arange(e.graph.tensors[node.inputs[0]].shape[3]), times)
    indices = e.plain(channels.astype(np.int64), part(node.output, "channels"))
    axis = e.plain(np.int64(1), part(node.output, "axis"))
    return ops.gather(e.values[node.inputs[0]], indices, axis, name=part(node.output, "repeated"))


def _pad(e: Emitter, node: Node) -> Any:
    a: Mapping[str, Any] = node.attrs
    sides = zip(("begin", "end"), a["channels"], pads(a), strict=True)
    amounts = [e.plain(np.array([0, channels, *ends], np.int64), part(node.output, k)) for k, channels, ends in sides]
    zero = e.plain(np.float32(0), part(node.output, "zero"))
    return ops.pad(e.values[node.inputs[0]], *amounts, "constant", zero, name=part(node.output, "op"))


def _reshape(e: Emitter, node: Node) -> Any:
    value, made = e.values[node.inputs[0]], e.graph.tensors[node.output].shape

    def transposed(value: Any, order: list[int], name: str) -> Any:
        axes = e.plain(np.array(order, np.int64), part(node.output, f"{name}_order"))
        return ops.transpose(value, axes, name=part(node.output, name))

    if order_matters(e.graph.tensors[node.inputs[0]].shape):
        value = transposed(value, [0, 2, 3, 1], "nhwc")
    back = order_matters(made)
    shape = e.plain(np.array([-1, *(made if back else nchw(made))[1:]], np.int64), part(node.output, "shape"))
    value = ops.reshape(value, shape, False, name=part(node.output, "op"))
    return transposed(value, [0, 3, 1, 2], "nchw") if back else value


def _unary(kind: Callable[..., Any]) -> Row:
    return lambda e, node: kind(e.values[node.inputs[0]], name=part(node.output, "op"))


LOWERINGS: Mapping[str, Row] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _binary(ops.add),
    "mul": _binary(ops.multiply),
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "requantize": lambda e, node: e.values[node.inputs[0]],
    "relu": _unary(ops.relu),
    "relu6": lambda e, node: e.relu6(node, e.values[node.inputs[0]]),
    "hard_swish": _unary(ops.hswish),
    "sigmoid": _unary(ops.sigmoid),
    "softmax": lambda e, node: ops.softmax(e.values[node.inputs[0]], 1, name=part(node.output, "op")),
}
