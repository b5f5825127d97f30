"""Integer kernels of the ops that are functions of one number: a table with an entry for each integer there is.

An entry is the exact value on the output's grid, rounded once, halves away from zero; what float64 cannot tell from a
half is one. LiteRT's kernels of some of these functions come to other integers; files hold the table then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.graph.oracle import fixed_point as fp
from edgecnn.graph.oracle.parameters import Call
from edgecnn.graph.unary_functions import FUNCTIONS, evaluate

Integers = NDArray[Any]  # of the activations' type
HALF = 1 + 2.0**-40  # by which halves are more than they come out in float64
LOSS = 8 * 2.0**-24  # of some roundings to float32
LARGEST_BITS = 23  # of an exponential
FURTHEST = 2.0**32  # steps of the output, beyond those of any type


def steps(op: str, source: QParams, made: QParams, attrs: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return a function's values, not rounded, in steps of the output's scale above its zero point.

    Where the function has no value, that of the nearest input which has one stands. None is beyond ``FURTHEST``.

    Args:
        op: of the op table, with ``function``.
        source: parameters of the input, per tensor.
        made: parameters of the output, per tensor.
        attrs: of the node.

    Returns:
        One value for each integer of the input's type, in order.
    """
    low, high = source.limits
    reals = (np.arange(low, high + 1) - source.zero_point[0]) * np.float64(source.scale[0])
    values = evaluate(op, reals, attrs)
    known = np.flatnonzero(~np.isnan(values))
    if not known.size:
        return np.zeros_like(values)
    behind = np.clip(np.searchsorted(known, np.arange(values.size)), 0, known.size - 1)
    before = np.maximum(behind - 1, 0)
    places = np.arange(values.size)
    nearer = np.abs(known[before] - places) <= np.abs(known[behind] - places)
    whole = values[known[np.where(nearer, before, behind)]]
    return np.asarray(np.clip(whole / np.float64(made.scale[0]), -FURTHEST, FURTHEST))


def table(op: str, source: QParams, made: QParams, attrs: Mapping[str, Any]) -> Integers:
    """Return what a function makes of each integer of the input's type, in order; arguments as of ``steps``."""
    low, high = made.limits
    return np.asarray(
        np.clip(fp.round_away(steps(op, source, made, attrs) * HALF) + made.zero_point[0], low, high), made.dtype
    )


def table_of(graph: Graph, node: Node) -> Integers:
    """Return the table of a node that is a function of one number: 256 entries of int8, or 65,536 of int16."""
    return table(node.op, graph.quant(node.inputs[0]), graph.quant(node.output), node.attrs)


def is_near_half(graph: Graph, node: Node) -> NDArray[np.bool_]:
    """Tell of each entry of ``table_of`` whether a kernel that computes in float32 might round it otherwise."""
    source, made = graph.quant(node.inputs[0]), graph.quant(node.output)
    return near_halves(node.op, source, made, node.attrs)


def near_halves(op: str, source: QParams, made: QParams, attrs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Tell of each entry whether a kernel that computes in float32 might round it otherwise; arguments as of ``steps``.

    Kernels lose some roundings of the value, of the input (``gelu`` is a share of it) and of the zero point.
    """
    exact, (low, high) = steps(op, source, made, attrs), source.limits
    inputs = (np.arange(low, high + 1) - source.zero_point[0]) * np.float64(source.scale[0]) / made.scale[0]
    loss = LOSS * (np.abs(exact) + np.abs(inputs) + made.limits[1])
    ends = (np.clip(np.rint(exact + part) + made.zero_point[0], *made.limits) for part in (-loss, loss))
    below, above = ends
    return np.asarray(below != above)


def exponentials(source: QParams, count: int) -> NDArray[np.int32]:
    """Return ``exp`` of 0, -1, … -255 steps of a scale, in a unit of which ``count`` of them are below 2**31.

    The largest is 2**23 at most, which float32 holds.
    """
    powers = np.exp(-np.float64(source.scale[0]) * np.arange(256))
    return np.rint(np.ldexp(powers, min(LARGEST_BITS, 31 - count.bit_length()))).astype(np.int32)


def _looked_up(op: str) -> Callable[[Call], Integers]:
    def kernel(c: Call) -> Integers:
        return c.looked_up(table(op, c.inputs[0].quant, c.output.quant, c.attrs), 0)

    kernel.__doc__ = f"Look up ``{op}`` in its table."
    return kernel


KERNELS: Mapping[str, Callable[[Call], Integers]] = {op: _looked_up(op) for op in FUNCTIONS}
