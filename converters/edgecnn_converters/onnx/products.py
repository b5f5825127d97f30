"""Lower what works on the graph's own order of dimensions: products of two activations, and sums over the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecnn.graph.ir import Node, QuantizedConstant
from edgecnn_converters.layout import NCHW_TO_NHWC, NHWC_TO_NCHW
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL


def plain(e: Emitter, name: str, made: str, *, turned: bool = False) -> str:
    """Return an activation's real values in the graph's order of dimensions.

    Args:
        made: the name of what is added for it.
        turned: with the last two dimensions exchanged.
    """
    rank = len(e.graph.tensors[name].shape)
    order = NCHW_TO_NHWC if rank == 4 else tuple(range(rank))
    if turned:
        order = (*order[:-2], order[-1], order[-2])
    if order == tuple(range(rank)):
        return e.value(name)
    if not e.on_grid(name):
        return e.turn(e.value(name), order, made, named=False)
    e.node(TO_REAL, [e.turn(e.stored(name), order, part(made, INTEGERS), named=False), *e.grid(name)], made)
    return made


def in_graph_order(e: Emitter, node: Node, kind: str, inputs: list[str], **attrs: Any) -> None:
    """Add an op whose output is in the graph's order of dimensions, of 4; then put the channels first."""
    name, raw = node.output, part(node.output, "raw")
    e.node(kind, inputs, raw, **attrs)
    if not e.on_grid(name):
        e.turn(raw, NHWC_TO_NCHW, name)
        return
    e.node(TO_INTEGERS, [raw, *e.grid(name)], part(raw, INTEGERS))
    e.turn(part(raw, INTEGERS), NHWC_TO_NCHW, part(name, INTEGERS))
    e.real_values(name)


def is_of_rows(e: Emitter, node: Node) -> bool:
    """Tell whether a convolution is of real values, of one pixel each, and of an input that has its channels last.

    Linear layers on tokens are such convolutions: as products of matrices they need no transposes.
    """
    a: Mapping[str, Any] = node.attrs
    weight = e.graph.tensors[node.inputs[1]]
    pixel = weight.shape[1:3] == (1, 1) and a["stride"] == (1, 1) and not any(a["padding"]) and a["groups"] == 1
    _, order = e.turned.get(e.value(node.inputs[0]), ("", ()))
    return pixel and order == NHWC_TO_NCHW and not e.integer and not isinstance(weight, QuantizedConstant)


def of_rows(e: Emitter, node: Node) -> None:
    """Multiply the rows of channels by the weight, and add the bias."""
    name, (source, weight, bias) = node.output, node.inputs
    product, total, rows = (part(name, what) for what in ("product", "sum", "rows"))
    outputs, *_, depth = e.graph.tensors[weight].shape
    e.node("MatMul", [e.turned[e.value(source)][0], e.constant(weight, (1, 0), (outputs, depth))], product)
    activation = str(node.attrs["activation"])
    e.node("Add", [product, e.constant(bias)], rows if activation == "none" else total)
    if activation != "none":
        e.activate(activation, total, rows)
    e.turn(rows, NHWC_TO_NCHW, name)


def batch_matmul(e: Emitter, node: Node) -> None:
    """Multiply matrices; between integers, ONNX Runtime has ``QLinearMatMul``."""
    left = plain(e, node.inputs[0], part(node.output, "left"))
    right = plain(e, node.inputs[1], part(node.output, "right"), turned=bool(node.attrs["transpose_b"]))
    if len(e.graph.tensors[node.output].shape) == 4:
        in_graph_order(e, node, "MatMul", [left, right])
    else:
        e.finish(node, "MatMul", [left, right])
