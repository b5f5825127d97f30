"""Lower graph nodes to ONNX nodes, one row per op.

In an int8 file every activation goes through QuantizeLinear and DequantizeLinear, or is moved, compared or clipped as
integers; weights and biases are integer initializers behind a DequantizeLinear. ONNX Runtime fuses an op between them
into one of integers, where there is one. What the network keeps in 16 bits is float in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle import mlas
from edgecnn.graph.oracle.parameters import LOW, called
from edgecnn_converters.layout import OHWI_TO_OIHW, kernel_of, nchw, pads, placed_axis
from edgecnn_converters.names import part
from edgecnn_converters.onnx import functions, moves, pooling, products, resize
from edgecnn_converters.onnx.emitter import TYPES, Emitter, Row
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL
from edgecnn_converters.onnx.hard_swish import hard_swish


def _window(node: Node, kernel: tuple[int, ...]) -> dict[str, Any]:
    a: Mapping[str, Any] = node.attrs
    before, after = pads(a)
    return {"kernel_shape": list(kernel), "strides": list(a["stride"]), "pads": before + after}


def _conv2d(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    if products.is_of_rows(e, node):
        products.of_rows(e, node)
        return
    inputs = [e.value(node.inputs[0]), e.constant(node.inputs[1], OHWI_TO_OIHW), e.constant(node.inputs[2])]
    window = _window(node, e.graph.tensors[node.inputs[1]].shape[1:3])
    e.finish(node, "Conv", inputs, **window, dilations=list(a["dilation"]), group=a["groups"])


def _fully_connected(e: Emitter, node: Node) -> None:
    e.finish(node, "Gemm", [e.value(node.inputs[0]), *(e.constant(i) for i in node.inputs[1:])], transB=1)


def _mul(e: Emitter, node: Node) -> None:
    """Multiply; onto a scale that is smaller by a few millionths where ``QLinearMul`` needs it: see ``mlas.mul``."""
    inputs, name = [e.operand(i, _rank(e, node)) for i in node.inputs], node.output
    if not e.on_grid(name):
        e.finish(node, "Mul", inputs)
        return
    call, grid = called(e.graph, node), None
    scale, zero = mlas.product_scale(call), call.zero(-1)
    if scale != call.scale(-1):
        grid = e.own_grid(part(name, "product"), scale, zero)
    e.node("Mul", inputs, part(name, "raw"))
    e.quantize(part(name, "raw"), node, str(node.attrs.get("activation", "none")), grid)


def _rank(e: Emitter, node: Node) -> int:
    return len(e.graph.tensors[node.output].shape)


def _add(e: Emitter, node: Node) -> None:
    """Add; of integers, an operand that is broadcast comes second, and only one is: see ``mlas.addends``."""
    name, made = node.output, e.graph.tensors[node.output].shape
    shapes = [e.graph.tensors[i].shape for i in node.inputs]
    inputs = [e.operand(node.inputs[k], len(made)) for k in mlas.addends(shapes, made)]
    if e.on_grid(name) and made not in shapes:
        source, whole = node.inputs[0], part(name, "whole")
        wanted = e.counts(part(name, "shape"), *nchw(made))
        e.node("Expand", [e.integers_of(source, len(made)), wanted], part(whole, INTEGERS))
        e.node(TO_REAL, [part(whole, INTEGERS), *e.grid(source)], whole)
        inputs[0] = whole
    e.finish(node, "Add", inputs)


def _max_pool(e: Emitter, node: Node) -> None:
    e.move(node, ("MaxPool", [], _window(node, kernel_of(e.graph, node))))


def _avg_pool(e: Emitter, node: Node) -> None:
    if e.on_grid(node.output):
        pooling.average(e, node)
        return
    e.finish(node, "AveragePool", [e.value(node.inputs[0])], **_window(node, kernel_of(e.graph, node)))


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


def _softmax(e: Emitter, node: Node) -> None:
    """Compute over the last dimension of the graph, in its own order of dimensions."""
    name, rank = node.output, _rank(e, node)
    if rank != 4:
        e.finish(node, "Softmax", [e.value(node.inputs[0])], axis=rank - 1)
        return
    products.in_graph_order(e, node, "Softmax", [products.plain(e, node.inputs[0], part(name, "plain"))], axis=3)


def _argmax(e: Emitter, node: Node) -> None:
    """Make int64 indices, and of these bytes, or real values."""
    name, rank = node.output, _rank(e, node)
    index, integer = part(name, "index"), e.on_grid(name)
    source = e.stored(node.inputs[0]) if integer else e.value(node.inputs[0])
    e.node("ArgMax", [source], index, axis=placed_axis(rank - 1, rank), keepdims=1)
    if not integer:
        e.node("Cast", [index], name, to=TYPES[e.real])
        return
    if not e.shift:
        lowest = e.initializer(part(name, "lowest"), np.array(LOW, np.int64))
        e.node("Add", [index, lowest], part(name, "above_lowest"))
        index = part(name, "above_lowest")
    e.node("Cast", [index], part(name, INTEGERS), to=TYPES[e.activations])
    e.real_values(name)


LOWERINGS: Mapping[str, Row] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _add,
    "mul": _mul,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "mean": _mean,
    **moves.ROWS,
    "requantize": _requantize,
    "relu": _relu,
    "relu6": _relu,
    "hard_swish": hard_swish,
    "sigmoid": _unary("Sigmoid"),
    "softmax": _softmax,
    "argmax": _argmax,
    "resize": resize.resize,
    "batch_matmul": products.batch_matmul,
    "prelu": functions.prelu,
    **functions.ROWS,
}
