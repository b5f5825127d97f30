"""Lower graph nodes to OpenVINO operations, one row per op.

In an int8 file every activation goes through a FakeQuantize of 256 levels; weights and biases are integer constants
behind Convert and Multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
from openvino import opset1
from openvino import opset8 as ops

from edgecnn.graph.ir import Constant, Graph, Node
from edgecnn_converters import layout
from edgecnn_converters.layout import concat_axis, nchw, order_matters, pads
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.convolution import convolution, whole_convolution
from edgecnn_converters.openvino.emitter import Emitter, between_zeros, gathered, repeated, rounded

PAST_HALVES = 6e-5  # of an average: more than float32 loses at 1/2, and at 127 1/2 less than 1 / 128 of a step
FEWEST = 4  # channels of an average pool
Row = Callable[[Emitter, Node], Any]


def model(graph: Graph, precision: str) -> Any:
    """Return the whole network, an ``openvino.Model``."""
    e = Emitter(graph, precision)
    (source,), (result,) = graph.inputs, graph.outputs
    fed = ops.parameter(list(nchw(graph.tensors[source].shape)), np.float32, name=part(source, "fed"))
    fed.output(0).get_tensor().set_names({source})
    e.values[source] = e.on_grid(source, fed)
    for node in graph:
        made = LOWERINGS[node.op](e, node)
        e.values[node.output] = (
            made if facts.is_whole(graph, node) or _is_product(graph, node) else _finished(e, node, made)
        )
    last = e.values[result]
    last.output(0).get_tensor().set_names({result})
    ends = [ops.result(last, name=part(result, "result"))], [fed]
    return openvino.Model(*ends, graph.metadata.model or "edgecnn")


def _is_product(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a product of two 8-bit activations, to 8 bits."""
    constants = any(isinstance(graph.tensors[name], Constant) for name in node.inputs)
    return node.op == "mul" and not constants and facts.is_narrow(graph, node)


def _finished(e: Emitter, node: Node, made: Any) -> Any:
    """Return what a row made, after the node's activation, on the grid of its output."""
    match layout.needed_activation(e.graph, node):
        case "relu":
            made = ops.relu(made, name=part(node.output, "relu"))
        case "relu6":
            made = e.relu6(node, made)
    made = e.apart(node, made)
    # joined tensors are on its grid, and a FakeQuantize of it would make it float where it is read again
    attrs: Mapping[str, Any] = node.attrs
    joined = node.op == "concat" or (node.op == "pad" and any(attrs["channels"]) and not any(attrs["padding"]))
    share = PAST_HALVES if node.op == "avg_pool2d" and _has_halves(e.graph, node) else 0
    return made if joined else e.on_grid(node.output, made, past_halves=share)


def _fully_connected(e: Emitter, node: Node) -> Any:
    shape = e.graph.tensors[node.inputs[1]].shape
    weight = e.constant(node.inputs[1], shape)
    made = ops.matmul(e.values[node.inputs[0]], weight, False, True, name=part(node.output, "matmul"))
    return ops.add(made, e.bias(node, (1, shape[0])), name=part(node.output, facts.WITH_BIAS))


def _operands(e: Emitter, node: Node) -> list[Any]:
    rank = len(e.graph.tensors[node.output].shape)
    return [e.operand(i, rank) for i in node.inputs]


def _binary(kind: Callable[..., Any]) -> Row:
    return lambda e, node: kind(*_operands(e, node), name=part(node.output, "op"))


def _mul(e: Emitter, node: Node) -> Any:
    """Return a product; of two activations on the grid of its output.

    The plugin adds zero points in float32, of the operands too. So an operand that has one inside its range is rounded
    to the whole numbers that it is, and the product, multiplied once, before its zero point is added.
    """
    if not _is_product(e.graph, node):
        return ops.multiply(*_operands(e, node), name=part(node.output, "op"))
    name, factor, values = node.output, np.float32(1), []
    for place, source in enumerate(node.inputs):
        quant, value = e.graph.quant(source), e.values[source]
        if quant.zero_point[0] != quant.limits[0]:
            inverse = e.plain(1 / quant.scale[0], part(name, f"unit_{place}"))
            whole = ops.multiply(value, inverse, name=part(name, f"{facts.SCALED}_{place}"))
            value, factor = rounded(whole, part(name, f"{facts.WHOLE}_{place}")), factor * quant.scale[0]
        values.append(value)
    value = ops.multiply(*values, name=part(name, "op"))
    activation, made = layout.needed_activation(e.graph, node), e.graph.quant(name)
    if activation != "none":
        value = ops.relu(value, name=part(name, "relu"))
    value = ops.multiply(value, e.plain(factor / made.scale[0], part(name, "steps")), name=part(name, facts.SCALED))
    if made.zero_point[0] != made.limits[0]:
        value = rounded(value, part(name, facts.ROUNDED))
    return e.on_grid(name, e.at_most_six(node, value) if activation == "relu6" else value, in_steps=True)


def _max_pool(e: Emitter, node: Node) -> Any:
    return opset1.max_pool(e.values[node.inputs[0]], *_window(node), "floor", name=part(node.output, "op"))


def _avg_pool(e: Emitter, node: Node) -> Any:
    """Return an average pool of at least four channels: of fewer, kernels for AVX2 are wrong or missing."""
    channels = e.graph.tensors[node.output].shape[3]
    value, times = e.values[node.inputs[0]], -(-FEWEST // channels) if e.precision == "int8" else 1
    if times > 1:
        value = repeated(e, node, value, times)
    value = ops.avg_pool(value, *_window(node), True, name=part(node.output, "op"))
    return value if times == 1 else gathered(e, node, value, np.arange(channels) * times, "once")


def _has_halves(graph: Graph, node: Node) -> bool:
    """Whether an average pool has windows of an even number of pixels inside the image."""
    a: Any = node.attrs
    (top, bottom, left, right), shape = a["padding"], graph.tensors[node.inputs[0]].shape
    even = []
    for axis, start, end in ((0, top, bottom), (1, left, right)):
        size, kernel = shape[1 + axis], a["kernel"][axis]
        starts = range(-start, size + end - kernel + 1, a["stride"][axis])
        even.append(any((min(first + kernel, size) - max(first, 0)) % 2 == 0 for first in starts))
    return any(even)


def _window(node: Node) -> tuple[list[int], ...]:
    a: Mapping[str, Any] = node.attrs
    return list(a["stride"]), *pads(a), list(a["kernel"])


def _mean(e: Emitter, node: Node) -> Any:
    axes = e.plain(np.array([2, 3], np.int64), part(node.output, "axes"))
    return ops.reduce_mean(e.values[node.inputs[0]], axes, bool(node.attrs["keepdims"]), name=part(node.output, "op"))


def _concat(e: Emitter, node: Node) -> Any:
    return ops.concat(_operands(e, node), concat_axis(e.graph, node), name=part(node.output, facts.JOINED))


def _pad(e: Emitter, node: Node) -> Any:
    """Return the input between zeros. In integers, so an int8 file has other ops than Pad, which computes in float.

    Of channels it is a concatenation; of height and width, a depthwise convolution whose kernel holds one 1.
    """
    value, (before, after) = e.values[node.inputs[0]], pads(node.attrs)
    sides: Any = node.attrs["channels"]
    if e.precision != "int8":
        begin, end = (
            e.plain(np.array([0, more, *ends], np.int64), part(node.output, key))
            for key, more, ends in zip(("begin", "end"), sides, (before, after), strict=True)
        )
        zero = e.plain(np.float32(0), part(node.output, "zero"))
        return ops.pad(value, begin, end, "constant", zero, name=part(node.output, "op"))
    if any(sides):
        value = between_zeros(e, node, sides, 1, facts.JOINED)
    channels, left = e.graph.tensors[node.output].shape[3], [*before, *after]
    for k in range(-(-max(left) * 2 // (facts.WIDEST - 1))):
        now = [min(amount, (facts.WIDEST - 1) // 2) for amount in left]
        left = [amount - taken for amount, taken in zip(left, now, strict=True)]
        amounts = [now[0] + now[2], now[1] + now[3]]
        kernel = np.zeros((channels, 1, 1, *(amount + 1 for amount in amounts)), np.int8)
        kernel[..., now[2], now[3]] = 1
        weight = e.dequantized(kernel, 1, part(node.output, f"kernel_{k}"))
        name = part(node.output, f"op_{k}")
        value = ops.group_convolution(value, weight, [1, 1], amounts, amounts, [1, 1], name=name)
        if any(left):  # 8 bits between steps
            ends = layout.grid_ends(e.graph.quant(node.output))
            held = [e.plain(np.float32(end), f"{name}_end_{place}") for place, end in enumerate(ends)]
            value = ops.fake_quantize(value, *held, *held, facts.LEVELS, name=f"{name}_grid")
    return value


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
    "conv2d": lambda e, node: (whole_convolution if facts.is_whole(e.graph, node) else convolution)(e, node),
    "fully_connected": _fully_connected,
    "add": _binary(ops.add),
    "mul": _mul,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
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
