"""Lower what moves integers: shapes, orders, slices, joins and borders.

An activation may be held with its dimensions in the file's order, which is channels first for images, or in the
graph's: a reshape makes the latter, and what computes on every element keeps what it reads. Only what needs another
order makes a Transpose, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset8 as ops

from edgecnn.graph.ir import Node
from edgecnn_converters import layout
from edgecnn_converters.layout import pads
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.emitter import Emitter, Order, between_zeros, channels_first, in_memory_order

ANY_ORDER = (
    "add",
    "mul",
    "concat",
    "slice",
    "gather",
    "softmax",
    "argmax",
    "requantize",
    "relu",
    "relu6",
    "hard_swish",
    "sigmoid",
)
"""Ops that compute in the order of dimensions in which their first input was made, as all functions do."""
CHANNELS_LAST = ("reshape", "batch_matmul")


def order_of(e: Emitter, node: Node) -> Order:
    """Return the order of dimensions in which a node's output is made."""
    shape = e.graph.tensors[node.output].shape
    first, plain = channels_first(len(shape)), tuple(range(len(shape)))
    if node.op == "batch_matmul":
        return plain
    if len(shape) != 4 or in_memory_order(shape, first):
        return first
    if node.op == "reshape" or (node.op == "transpose" and _read_in_order(e, node)):
        return plain
    if node.op in ANY_ORDER or node.spec.function:
        alike = [name for name in node.inputs if name in e.held and len(e.graph.tensors[name].shape) == 4]
        return e.first_order(alike[0]) if alike else plain
    return first


def _read_in_order(e: Emitter, node: Node) -> bool:
    """Tell whether all that reads a node's output, directly or after ops of any order, wants the graph's order."""
    readers = e.graph.consumers(node.output)
    passed = (n for n in readers if n.op not in CHANNELS_LAST)
    return bool(readers) and all((n.op in ANY_ORDER or n.spec.function) and _read_in_order(e, n) for n in passed)


def is_move(node: Node) -> bool:
    """Tell whether what makes a node's output only moves integers, so that it has its inputs' grid."""
    a: Mapping[str, Any] = node.attrs
    if node.op == "pad":
        return any(a["channels"]) and not any(a["padding"])
    return node.op in MOVES or (node.op == "resize" and a["mode"] == "nearest")


def reshape(e: Emitter, node: Node) -> Any:
    """Return the elements in another shape, in the graph's order."""
    source, order = node.inputs[0], order_of(e, node)
    shape, made = e.graph.tensors[source].shape, e.graph.tensors[node.output].shape
    held = e.first_order(source)
    value = e.value(source, held if in_memory_order(shape, held) else tuple(range(len(shape))))
    return e.reshaped(value, [made[d] for d in order], moved(node, order))


def transpose(e: Emitter, node: Node) -> Any:
    """Return the input with its dimensions in another order, from the order in which it was made."""
    perm: Any = node.attrs["perm"]
    order, source = order_of(e, node), e.first_order(node.inputs[0])
    value, places = e.value(node.inputs[0], source), tuple(source.index(perm[d]) for d in order)
    if places == tuple(range(len(places))):
        return e.reshaped(value, [int(d) for d in value.output(0).shape], moved(node, order))
    return e.permuted(value, places, moved(node, order))


def slice_(e: Emitter, node: Node) -> Any:
    """Return the slices of the dimensions that are cut."""
    a: Mapping[str, Any] = node.attrs
    order, shape = order_of(e, node), e.graph.tensors[node.inputs[0]].shape
    cuts = zip(a["begin"], a["end"], a["step"], strict=True)
    cut = [(order.index(1 + k), *c) for k, c in enumerate(cuts) if c != (0, shape[1 + k], 1)]
    cut = cut or [(1, 0, int(shape[order[1]]), 1)]
    axes, *places = np.array(cut, np.int64).T
    held = [
        e.plain(values, part(node.output, key))
        for key, values in zip(("begin", "end", "step", "axes"), (*places, axes), strict=True)
    ]
    return ops.slice(e.value(node.inputs[0], order), *held, name=moved(node, order))


def gather(e: Emitter, node: Node) -> Any:
    """Return the input at some indices of a dimension."""
    a: Mapping[str, Any] = node.attrs
    order = order_of(e, node)
    return taken(e, e.value(node.inputs[0], order), a["indices"], order.index(a["axis"]), moved(node, order))


def taken(e: Emitter, value: Any, indices: Any, axis: int, name: str) -> Any:
    """Return a value at some indices of an axis.

    Before a convolution, OpenVINO 2026.4 permutes weights instead of channels, by the permutation where its inverse is
    right. It does not see through a matrix of indices.
    """
    indices = np.asarray(indices, np.int64)
    at = e.plain(np.int64(axis), f"{name}_axis")
    if axis != 1 or not _permutes(indices, int(value.output(0).shape[1])):
        return ops.gather(value, e.plain(indices, f"{name}_indices"), at, name=name)
    row = ops.gather(value, e.plain(indices[None], f"{name}_indices"), at, name=f"{name}_row")
    return e.reshaped(row, [int(d) for d in value.output(0).shape], name)


def _permutes(indices: NDArray[np.int64], count: int) -> bool:
    """Tell whether indices are a permutation of all there are that is not its own inverse."""
    if not np.array_equal(np.sort(indices), np.arange(count)):
        return False
    return not np.array_equal(indices[indices], np.arange(count))


def concat(e: Emitter, node: Node) -> Any:
    """Return the inputs side by side."""
    axis: Any = node.attrs["axis"]
    order = order_of(e, node)
    values = [e.value(name, order) if name in e.held else e.operand(node, name, order) for name in node.inputs]
    return ops.concat(values, order.index(axis), name=moved(node, order))


def depth_to_space(e: Emitter, node: Node) -> Any:
    """Return blocks of channels as pixels."""
    made, block = moved(node, order_of(e, node)), int(str(node.attrs["block"]))
    return ops.depth_to_space(e.value(node.inputs[0]), "blocks_first", block, name=made)


def space_to_depth(e: Emitter, node: Node) -> Any:
    """Return blocks of pixels as channels. In an int8 file by a Transpose: SpaceToDepth computes in float."""
    made, block = moved(node, order_of(e, node)), int(str(node.attrs["block"]))
    if e.precision == "int8":
        n, height, width, channels = e.graph.tensors[node.output].shape
        shape = [n, channels // block**2, height, block, width, block]
        apart = e.reshaped(e.value(node.inputs[0]), shape, part(node.output, "blocks"))
        first = e.permuted(apart, (0, 3, 5, 1, 2, 4), part(node.output, "blocks_first"))
        return e.reshaped(first, [n, channels, height, width], made)
    return ops.space_to_depth(e.value(node.inputs[0]), "blocks_first", block, name=made)


def pad(e: Emitter, node: Node) -> Any:
    """Return the input between zeros. In integers, so an int8 file has other ops than Pad, which computes in float.

    Of channels it is a concatenation; of height and width, a depthwise convolution whose kernel holds one 1.
    """
    value, (before, after) = e.value(node.inputs[0]), pads(node.attrs)
    sides: Any = node.attrs["channels"]
    if e.precision != "int8":
        begin, end = (
            e.plain(np.array([0, more, *ends], np.int64), part(node.output, key))
            for key, more, ends in zip(("begin", "end"), sides, (before, after), strict=True)
        )
        zero = e.plain(np.float32(0), part(node.output, "zero"))
        return ops.pad(value, begin, end, "constant", zero, name=part(node.output, "op"))
    if any(sides):
        name = moved(node, order_of(e, node)) if is_move(node) else part(node.output, "between_channels")
        value = between_zeros(e, node, sides, 1, name)
    channels, left = e.graph.tensors[node.output].shape[3], [*before, *after]
    for k in range(-(-max(left) * 2 // (facts.WIDEST - 1))):
        now = [min(amount, (facts.WIDEST - 1) // 2) for amount in left]
        left = [amount - step for amount, step in zip(left, now, strict=True)]
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


def moved(node: Node, order: Order) -> str:
    """Return the name of the operation that makes a node's output by moving integers."""
    return facts.maker(node.output, facts.MOVED, order)


MOVES = {
    "concat": concat,
    "reshape": reshape,
    "transpose": transpose,
    "slice": slice_,
    "gather": gather,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
}
