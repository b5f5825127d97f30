"""Lower sums and products of two operands, and products of two matrices of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset8 as ops

from edgecnn.graph.ir import Constant, Graph, Node, QParams
from edgecnn_converters import layout
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.emitter import Emitter, rounded
from edgecnn_converters.openvino.moves import order_of


def of_activations(graph: Graph, node: Node) -> bool:
    """Tell whether a node reads 8-bit activations, and no constants, and makes 8 bits."""
    constants = any(isinstance(graph.tensors[name], Constant) for name in node.inputs)
    return not constants and facts.is_narrow(graph, node)


def _operands(e: Emitter, node: Node) -> list[Any]:
    order = order_of(e, node)
    return [e.operand(node, name, order) for name in node.inputs]


def add(e: Emitter, node: Node) -> Any:
    """Return a sum.

    The plugin makes it part of the convolution that made one operand, and hands it the other in float. The last
    operation of a bilinear resize would then compute in float alone, so the convolution is kept apart.
    """
    values, makers = _operands(e, node), [e.graph.producer(name) for name in node.inputs]
    if facts.is_narrow(e.graph, node) and any(made is not None and made.op == "resize" for made in makers):
        values = [
            e.identity(node, value) if made is not None and made.weighted else value
            for value, made in zip(values, makers, strict=True)
        ]
    return ops.add(*values, name=part(node.output, "op"))


def mul(e: Emitter, node: Node) -> Any:
    """Return a product; of two activations on the grid of its output.

    The plugin adds zero points in float32, of the operands too. So an operand that has one inside its range is rounded
    to the whole numbers that it is, and the product, multiplied once, before its zero point is added.
    """
    if not of_activations(e.graph, node):
        return ops.multiply(*_factors(e, node), name=part(node.output, "op"))
    name, factor, values, operands = node.output, np.float32(1), [], _operands(e, node)
    for place, source in enumerate(node.inputs):
        quant, value = e.graph.quant(source), operands[place]
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
    return e.on_grid(
        name, e.at_most_six(node, value) if activation == "relu6" else value, order_of(e, node), in_steps=True
    )


def _factors(e: Emitter, node: Node) -> list[Any]:
    """Return the operands of a product.

    A factor of zeros alone is kept from the FakeQuantize of the other. The plugin would fold both to a constant, and it
    compiles no linear layer of constants.
    """
    constants = [t.value for t in map(e.graph.tensors.get, node.inputs) if isinstance(t, Constant)]
    operands = _operands(e, node)
    if all(bool(np.any(constant)) for constant in constants):
        return operands
    return [e.identity(node, v) if name in e.held else v for name, v in zip(node.inputs, operands, strict=True)]


def batch_matmul(e: Emitter, node: Node) -> Any:
    """Return a product of two matrices; of two activations in 8 bits on the grid of its output.

    The plugin multiplies unsigned bytes by signed ones, both without a zero point. So each operand is shifted, by a
    FakeQuantize that only changes what its integers stand for: the first to its unsigned integers, the second to its
    signed ones. Sums of their rows and columns, times the shifts, take back what that adds:
    ``sum (a - i) (b - k) = sum a b - k sum a - i sum b + n i k``.
    """
    name, transposed = node.output, bool(node.attrs["transpose_b"])
    plain = tuple(range(len(e.graph.tensors[name].shape)))
    left, right = (e.value(operand, plain) for operand in node.inputs)
    if not of_activations(e.graph, node):
        return ops.matmul(left, right, False, transposed, name=part(name, "matmul"))
    quants, made = [e.graph.quant(operand) for operand in node.inputs], e.graph.quant(name)
    shifts = [int(quants[0].zero_point[0]) - quants[0].limits[0], int(quants[1].zero_point[0])]
    left, right = (
        _shifted(e, value, quant, shift, part(name, side))
        for value, quant, shift, side in zip((left, right), quants, shifts, ("left", "right"), strict=True)
    )
    scales = [quant.scale[0] for quant in quants]
    sums = ops.matmul(left, right, False, transposed, name=part(name, "matmul"))
    value = _whole(e, sums, scales[0] * scales[1], part(name, "sums"))
    last, count = plain[-1], e.graph.tensors[node.inputs[0]].shape[-1]
    if shifts[1]:
        value = _less(e, value, _totals(e, left, last, scales[0], part(name, "rows")), shifts[1], part(name, "rows"))
    if shifts[0]:
        columns = part(name, "columns")
        totals = _totals(e, right, last if transposed else last - 1, scales[1], columns)
        if transposed:
            totals = e.permuted(totals, (*plain[:-2], last, last - 1), f"{columns}_across")
        value = _less(e, value, totals, shifts[0], columns)
    if all(shifts):
        more = e.plain(np.float32(count * shifts[0] * shifts[1]), part(name, "more"))
        value = ops.add(value, more, name=part(name, "sums_of_centred"))
    multiplier = e.plain(scales[0] * scales[1] / made.scale[0], part(name, "multiplier"))
    steps = rounded(ops.multiply(value, multiplier, name=part(name, facts.SCALED)), part(name, facts.ROUNDED))
    return e.on_grid(name, steps, order_of(e, node), in_steps=True)


def _shifted(e: Emitter, value: Any, quant: QParams, shift: int, name: str) -> Any:
    """Return an activation of which the zero point is lower by a shift."""
    if not shift:
        return value
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0]) - shift
    ends = [e.plain(np.float32((end - zero) * scale), f"{name}_{k}") for k, end in enumerate(quant.limits)]
    moved = ops.add(value, e.plain(np.float32(shift * scale), f"{name}_shift"), name=f"{name}_shifted")
    return ops.fake_quantize(moved, *ends, *ends, facts.LEVELS, name=f"{name}_grid")


def _whole(e: Emitter, value: Any, unit: np.float32, name: str) -> Any:
    """Return real numbers as the whole multiples of a unit that they are."""
    return rounded(ops.multiply(value, e.plain(1 / unit, f"{name}_unit"), name=f"{name}_in_units"), f"{name}_whole")


def _totals(e: Emitter, value: Any, axis: int, scale: np.float32, name: str) -> Any:
    """Return the sums of an operand's integers along an axis."""
    total = ops.reduce_sum(value, e.plain(np.array([axis], np.int64), f"{name}_axis"), True, name=f"{name}_total")
    return _whole(e, total, scale, name)


def _less(e: Emitter, value: Any, totals: Any, times: int, name: str) -> Any:
    product = ops.multiply(totals, e.plain(np.float32(times), f"{name}_shift"), name=f"{name}_product")
    return ops.subtract(value, product, name=f"{name}_less")
