"""Write functions of straight lines in integers: products on the output's grid, and the larger or smaller of two.

LiteRT's own PRELU, LEAKY_RELU and ABS of int8 take some ten nanoseconds for each value, and XNNPACK has none that makes
the graph's integers. Its products take a tenth of a nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Node, QParams, Quantized
from edgecnn.graph.oracle import ARITHMETICS
from edgecnn.graph.oracle.parameters import HIGH, LOW, Call, called
from edgecnn.graph.oracle.product_kernels import LARGEST_PRODUCT, SMALLEST_PRODUCT, combined
from edgecnn.graph.oracle.table_kernels import table_of
from edgecnn_converters.names import part
from edgecnn_converters.tflite.emitter import Emitter
from edgecnn_converters.tflite.format import ABOVE, BELOW, write_function

EVERY = np.arange(LOW, HIGH + 1, dtype=np.int8)
GROWN = (0.0, *(2.0**-k for k in range(22, 11, -2)))  # shares by which a slope may grow: then halves are more than that
MUL = [ARITHMETICS[name]["mul"] for name in ("litert", "xnnpack")]
Factor = tuple[int, float]  # a constant's one integer, and its scale


def prelu(e: Emitter, node: Node) -> None:
    """Write two products, where they are the graph's integers; else PRELU."""
    made = combined(called(e.graph, node)) if e.integer else None
    if made is None:
        e.operator("PRELU", None, [e.operand(i) for i in node.inputs], e.activation(node.output))
    else:
        scale = float(e.graph.quant(node.inputs[1]).scale[0])
        _write(e, node, made, (1, 1.0), e.constant(node.inputs[1]), scale)


def leaky(e: Emitter, node: Node) -> bool:
    """Write a leaky_relu or abs as two products, if they make its table in every arithmetic; tell whether they do."""
    alpha: Any = node.attrs.get("alpha", -1.0)
    wanted = table_of(e.graph, node)
    positive = int(e.graph.quant(node.inputs[0]).zero_point[0]) <= EVERY
    above, below = (_fitting(e, node, *each) for each in ((1.0, wanted, positive), (float(alpha), wanted, ~positive)))
    made = np.maximum if alpha <= 1 else np.minimum
    if above is None or below is None:
        return False
    pairs = zip(_made(e, node, above), _made(e, node, below), strict=True)
    if not all(np.array_equal(made(*pair), wanted) for pair in pairs):
        return False
    _write(e, node, made, above, _constant(e, node, "slope", below), below[1])
    return True


def clamp(e: Emitter, node: Node) -> bool:
    """Write a clamp as a product with one, held by its ends, if that makes its table; tell whether it does."""
    wanted, y = table_of(e.graph, node), e.graph.quant(node.output)
    low, high = int(wanted.min()), int(wanted.max())
    same = e.graph.quant(node.inputs[0]).same_as(y)
    factor = _fitting(e, node, 1.0, wanted, (wanted > low) & (wanted < high))
    if factor is None:
        return False
    if not same and not all(np.array_equal(each.clip(low, high), wanted) for each in _made(e, node, factor)):
        return False
    if same and not np.array_equal(EVERY.clip(low, high), wanted):
        return False
    source, shape = e.operand(node.inputs[0]), e.graph.tensors[node.output].shape
    ends = [("MAXIMUM", low)] * (low > LOW) + [("MINIMUM", high)] * (high < HIGH)
    if same and not ends:
        ends = [("MAXIMUM", LOW)]
    steps = len(ends) + (not same)

    def made() -> int:
        nonlocal steps
        steps -= 1
        name = part(node.output, f"before{steps}")
        return e.model.tensor(name, shape, "int8", y) if steps else e.activation(node.output)

    if not same:
        source = _product(e, node, source, _constant(e, node, "one", factor), factor[1], made())
    for kind, end in ends:
        bound = e.model.tensor(part(node.output, kind.lower()), (1,), "int8", y, np.array([end], np.int8))
        held = made()
        e.operator(kind, None, [source, bound], held, e.schema.MaximumMinimumOptionsT())
        source = held
    return True


def _fitting(e: Emitter, node: Node, slope: float, wanted: NDArray[Any], where: NDArray[np.bool_]) -> Factor | None:
    """Return a factor whose product with the input is as wanted on one side of zero, in every arithmetic."""
    for factor in _factors(slope):
        source, made = (float(e.graph.quant(name).scale[0]) for name in (node.inputs[0], node.output))
        ratio = source * factor[1] / made
        if not SMALLEST_PRODUCT <= ratio < LARGEST_PRODUCT:
            continue
        if all(np.array_equal(each[where], wanted[where]) for each in _made(e, node, factor)):
            return factor
    return None


def _factors(slope: float) -> Iterator[Factor]:
    sign = 1 if slope > 0 else -1
    for grown in GROWN:
        for integer in (1, HIGH):
            yield sign * integer, abs(slope) / integer * (1 + grown)


def _made(e: Emitter, node: Node, factor: Factor) -> list[NDArray[Any]]:
    """Return what a product with a factor makes of every integer, in each arithmetic."""
    x, y = (Quantized.of(e.graph.tensors[name]) for name in (node.inputs[0], node.output))
    constant = Quantized(name="factor", shape=(1,), quant=_grid(factor[1]))
    values = [EVERY[:, None], np.array([[factor[0]]], np.int8)]
    call = Call(attrs={"activation": "none"}, inputs=[x, constant], output=y, values=values)
    return [kernel(call).ravel() for kernel in MUL]


def _grid(scale: float) -> QParams:
    return QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype="int8")


def _constant(e: Emitter, node: Node, name: str, factor: Factor) -> int:
    return e.model.tensor(part(node.output, name), (1,), "int8", _grid(factor[1]), np.array([factor[0]], np.int8))


def _product(e: Emitter, node: Node, source: int, constant: int, scale: float, made: int) -> int:
    """Write a product of a node's input with a constant of some scale, and return ``made``."""
    x, y = (float(e.graph.quant(name).scale[0]) for name in (node.inputs[0], node.output))
    e.operator(
        "MUL", "int8 enlarging" if x * scale / y >= 1 else None, [source, constant], made, e.schema.MulOptionsT()
    )
    return made


def _write(e: Emitter, node: Node, made: np.ufunc, above: Factor, below: int, scale: float) -> None:
    """Write both products; the input itself is the first where it is on the output's grid.

    Args:
        e: the emitter.
        node: to write.
        made: ``np.maximum`` or ``np.minimum``.
        above: the factor above zero.
        below: the tensor of the factors below zero.
        scale: of that.
    """
    x, y = (e.graph.quant(name) for name in (node.inputs[0], node.output))
    source, shape = e.operand(node.inputs[0]), e.graph.tensors[node.output].shape
    factors = [(below, scale, BELOW)]
    if not x.same_as(y):
        factors.insert(0, (_constant(e, node, "one", above), above[1], ABOVE))
    products = [source] if x.same_as(y) else []
    for constant, of_factor, name in factors:
        made_here = e.model.tensor(part(node.output, name), shape, "int8", y)
        products.append(_product(e, node, source, constant, of_factor, made_here))
    kind = "MAXIMUM" if made is np.maximum else "MINIMUM"
    e.operator(kind, None, products, e.activation(node.output), e.schema.MaximumMinimumOptionsT())
    e.functions[node.output] = write_function(node)
