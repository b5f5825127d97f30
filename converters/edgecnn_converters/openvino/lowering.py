"""Lower graph nodes to OpenVINO operations, one row per op.

In an int8 file every activation goes through a FakeQuantize of 256 levels; weights and biases are integer constants
behind Convert and Multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
from openvino import opset1
from openvino import opset8 as ops

from edgecnn.graph.ir import Graph, Node
from edgecnn_converters import layout
from edgecnn_converters.layout import nchw, pads
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino import functions, moves, products
from edgecnn_converters.openvino.convolution import convolution, convolution_in_steps
from edgecnn_converters.openvino.emitter import Emitter, channels_first, gathered, repeated
from edgecnn_converters.openvino.resizing import resize

PAST_HALVES = 6e-5  # of an average of many pixels: at 127 1/2 it is less than 1 / 128 of a step
FEWEST = 4  # channels of an average pool
Row = Callable[[Emitter, Node], Any]


def model(graph: Graph, precision: str) -> Any:
    """Return the whole network, an ``openvino.Model``."""
    e = Emitter(graph, precision)
    fed = []
    for source in graph.inputs:
        shape = graph.tensors[source].shape
        fed.append(ops.parameter(list(nchw(shape)), np.float32, name=part(source, "fed")))
        fed[-1].output(0).get_tensor().set_names({source})
        e.held[source] = {channels_first(len(shape)): e.on_grid(source, fed[-1])}
    for node in graph:
        made = LOWERINGS[node.op](e, node)
        e.held[node.output] = {moves.order_of(e, node): made if _on_grid(graph, node) else _finished(e, node, made)}
    results = []
    for result in graph.outputs:
        last = e.value(result)
        last.output(0).get_tensor().add_names({result})
        results.append(ops.result(last, name=part(result, "result")))
    return openvino.Model(results, fed, graph.metadata.model or "edgecnn")


def _on_grid(graph: Graph, node: Node) -> bool:
    """Tell whether the row of a node returns its output on the output's grid."""
    if node.op == "resize" or moves.is_move(node) or facts.in_steps(graph, node):
        return True
    return node.op in ("mul", "batch_matmul") and products.of_activations(graph, node)


def _finished(e: Emitter, node: Node, made: Any) -> Any:
    """Return what a row made, after the node's activation, on the grid of its output."""
    match layout.needed_activation(e.graph, node):
        case "relu":
            made = ops.relu(made, name=part(node.output, "relu"))
        case "relu6":
            made = e.relu6(node, made)
    made = e.apart(node, made)
    share = _past_halves(node) if node.op == "avg_pool2d" and _has_halves(e.graph, node) else 0
    return e.on_grid(node.output, made, moves.order_of(e, node), past_halves=share)


def _fully_connected(e: Emitter, node: Node) -> Any:
    shape = e.graph.tensors[node.inputs[1]].shape
    weight = e.constant(node.inputs[1], shape)
    made = ops.matmul(e.value(node.inputs[0]), weight, False, True, name=part(node.output, "matmul"))
    return ops.add(made, e.bias(node, (1, shape[0])), name=part(node.output, facts.WITH_BIAS))


def _max_pool(e: Emitter, node: Node) -> Any:
    return opset1.max_pool(e.value(node.inputs[0]), *_window(node), "floor", name=part(node.output, "op"))


def _avg_pool(e: Emitter, node: Node) -> Any:
    """Return an average pool of at least four channels: of fewer, kernels for AVX2 are wrong or missing."""
    channels = e.graph.tensors[node.output].shape[3]
    value, times = e.value(node.inputs[0]), -(-FEWEST // channels) if e.precision == "int8" else 1
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


def _past_halves(node: Node) -> float:
    """Return the share of an average that takes halves away from zero: of few pixels, far more than float32 loses.

    At 127 1/2 it is a quarter of what lies between two averages, so that no other crosses a half.
    """
    kernel: Any = node.attrs["kernel"]
    return max(PAST_HALVES, 1 / (512 * float(math.prod(kernel))))


def _window(node: Node) -> tuple[list[int], ...]:
    a: Mapping[str, Any] = node.attrs
    return list(a["stride"]), *pads(a), list(a["kernel"])


def _mean(e: Emitter, node: Node) -> Any:
    axes = e.plain(np.array([2, 3], np.int64), part(node.output, "axes"))
    return ops.reduce_mean(e.value(node.inputs[0]), axes, bool(node.attrs["keepdims"]), name=part(node.output, "op"))


LOWERINGS: Mapping[str, Row] = {
    **moves.MOVES,
    **dict.fromkeys(functions.FUNCTIONS, functions.function),
    "conv2d": lambda e, node: (convolution_in_steps if facts.in_steps(e.graph, node) else convolution)(e, node),
    "fully_connected": _fully_connected,
    "add": products.add,
    "mul": products.mul,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "mean": _mean,
    "pad": moves.pad,
    "resize": resize,
    "requantize": lambda e, node: e.value(node.inputs[0], moves.order_of(e, node)),
    "batch_matmul": products.batch_matmul,
    "prelu": functions.prelu,
    "softmax": functions.softmax,
    "argmax": functions.argmax,
}
