"""Lower functions of one number: ops of real values, or of integers a table with an entry for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgecnn.graph.ir import Constant, Node
from edgecnn.graph.oracle import mlas, table_kernels
from edgecnn.graph.oracle.kernels import KERNELS
from edgecnn.graph.oracle.parameters import HIGH, LOW, Call, called
from edgecnn_converters.layout import nchw
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter, Row
from edgecnn_converters.onnx.format import INTEGERS

ENTRIES = HIGH - LOW + 1
WRAPS = 2.0**31  # steps from zero at which ONNX Runtime's kernels wrap around
PAST_HALVES = 1 + 2.0**-18  # of the slope of a leaky_relu: its halves go away from zero, nothing else moves
Real = Callable[[Emitter, str, str, Mapping[str, Any]], None]  # from a tensor, to a tensor, with the op's attributes


# --- of integers ---


def by_table(e: Emitter, node: Node, table: NDArray[Any]) -> None:
    """Look the output's integers up by the input's.

    ``GatherElements`` of a vector takes a fifth of the time of ``Gather``, which copies each entry by itself.

    Args:
        table: int8, one entry for each integer of int8, in order.
    """
    index = _flat_index(e, node, [-1])
    _looked_up(e, node, table, index, axis=0)


def _flat_index(e: Emitter, node: Node, shape: list[int]) -> str:
    name = node.output
    flat, index = part(name, "flat"), part(name, "index")
    e.node("Reshape", [e.stored(node.inputs[0]), e.counts(part(name, "flat_shape"), *shape)], flat)
    e.node("Cast", [flat], index, to=TensorProto.INT32)
    return index


def _looked_up(e: Emitter, node: Node, table: NDArray[Any], index: str, axis: int) -> None:
    """Add the lookup in a table whose last dimension is of entries, and give what it makes the output's shape."""
    name, shape = node.output, nchw(e.graph.tensors[node.output].shape)
    stored = (table.astype(np.int16) + e.shift).astype(e.activations)
    if not e.shift:  # a negative index counts from the end
        stored = np.roll(stored, HIGH + 1, axis=-1)
    found = part(name, "found")
    e.node("GatherElements", [e.initializer(part(name, "table"), stored), index], found, axis=axis)
    e.node("Reshape", [found, e.counts(part(name, "shape"), -1, *shape[1:])], part(name, INTEGERS))
    e.real_values(name)


def _of_integers(e: Emitter, node: Node) -> None:
    """Write what is fastest of the forms that make the oracle's integers of every integer of the input.

    A clip, where the grid is the input's; a product with 1 and a clip; ``QLinearLeakyRelu``; else a table.
    """
    name, call = node.output, called(e.graph, node)
    table = table_kernels.table_of(e.graph, node).astype(np.int64)
    ends = int(table.min()), int(table.max())
    inside = ENTRIES * call.scale(0) / call.scale(-1) < WRAPS
    if e.graph.quant(name).same_as(e.graph.quant(node.inputs[0])) and _equal(table, np.clip(call.every(0), *ends)):
        e.move(node, ("Clip", list(map(e.scalar, ends)), {}))
    elif node.op == "clamp" and inside and _equal(table, np.clip(mlas.rescaled(call), *ends)):
        e.node("Mul", [e.value(node.inputs[0]), e.whole(name, 1)], part(name, "raw"))
        e.clipped(part(name, "raw"), node, ends)
    elif node.op == "leaky_relu" and inside and (slopes := _slopes(call, table)):
        e.node("LeakyRelu", [e.value(node.inputs[0])], part(name, "raw"), alpha=float(slopes[0]))
        e.quantize(part(name, "raw"), node)
    else:
        by_table(e, node, table)


def _slopes(call: Call, table: NDArray[Any]) -> list[np.float32]:
    """Return the slopes with which ``QLinearLeakyRelu`` makes a table: the node's own, and a little more."""
    found = (np.float32(call.attrs["alpha"] * factor) for factor in (1, PAST_HALVES))
    return [slope for slope in found if _equal(table, mlas.leaky_relu(call, slope))]


def _equal(table: NDArray[Any], other: NDArray[Any]) -> bool:
    return bool(np.array_equal(table, other))


def prelu(e: Emitter, node: Node) -> None:
    """Multiply negative values by a slope for each channel; of integers, look them up in a table for each channel."""
    name, (source, slope) = node.output, node.inputs
    shape, alpha = e.graph.tensors[name].shape, e.graph.tensors[slope]
    if not e.on_grid(name):
        places = (shape[-1], 1, 1) if len(shape) == 4 else None
        e.node("PRelu", [e.value(source), e.constant(slope, shape=places, affine=True)], name)
        return
    assert isinstance(alpha, Constant)
    e.constant(slope, affine=True)  # its integers: the tables are made of them
    call, channels = called(e.graph, node), shape[-1]
    every = np.repeat(np.arange(LOW, HIGH + 1, dtype=np.int8)[:, None], channels, axis=1)
    table = KERNELS[node.op](replace(call, values=[every, call.values[1]])).T
    if len(shape) == 4:
        index = _flat_index(e, node, [shape[0] * channels, shape[1] * shape[2]])
        _looked_up(e, node, np.tile(table, (shape[0], 1)), index, axis=1)
        return
    e.node("Cast", [e.stored(source)], part(name, "byte"), to=TensorProto.INT32)
    first = np.arange(channels) * ENTRIES + (0 if e.shift else -LOW)
    e.node("Add", [part(name, "byte"), e.counts(part(name, "first"), *first, dtype="int32")], part(name, "place"))
    e.node("Reshape", [part(name, "place"), e.counts(part(name, "flat_shape"), -1)], part(name, "index"))
    stored = (table.astype(np.int16) + e.shift).astype(e.activations).reshape(-1)
    e.node("GatherElements", [e.initializer(part(name, "table"), stored), part(name, "index")], part(name, "found"))
    e.node("Reshape", [part(name, "found"), e.counts(part(name, "shape"), -1, *shape[1:])], part(name, INTEGERS))
    e.real_values(name)


# --- of real values ---


def _op(kind: str, *attributes: str) -> Real:
    return lambda e, x, y, a: e.node(kind, [x], y, **{name: float(a[name]) for name in attributes})


def _clamp(e: Emitter, x: str, y: str, a: Mapping[str, Any]) -> None:
    ends = ["" if math.isinf(a[end]) else e.number(float(a[end])) for end in ("low", "high")]
    e.node("Clip", [x, *(ends if ends[1] else ends[:1])], y)


def _gelu(e: Emitter, x: str, y: str, a: Mapping[str, Any]) -> None:
    """By ``Erf`` or ``Tanh``, in the order that ONNX Runtime fuses; ``Gelu`` is of opset 20."""
    p = partial(part, y)
    if a["approximate"]:
        e.node("Mul", [x, x], p("square"))
        e.node("Mul", [p("square"), x], p("cube"))
        e.node("Mul", [p("cube"), e.number(0.044715)], p("part"))
        e.node("Add", [x, p("part")], p("sum"))
        e.node("Mul", [p("sum"), e.number(math.sqrt(2 / math.pi))], p("inner"))
        e.node("Tanh", [p("inner")], p("gate"))
    else:
        e.node("Div", [x, e.number(math.sqrt(2))], p("inner"))
        e.node("Erf", [p("inner")], p("gate"))
    e.node("Add", [p("gate"), e.number(1.0)], p("risen"))
    e.node("Mul", [x, p("risen")], p("twice"))
    e.node("Mul", [p("twice"), e.number(0.5)], y)


def _mish(e: Emitter, x: str, y: str, a: Mapping[str, Any]) -> None:
    e.node("Softplus", [x], part(y, "softplus"))
    e.node("Tanh", [part(y, "softplus")], part(y, "gate"))
    e.node("Mul", [x, part(y, "gate")], y)


def _pow(e: Emitter, x: str, y: str, a: Mapping[str, Any]) -> None:
    """By the op of a root, a square or an inverse, where it is one."""
    exponent = float(a["exponent"])
    if exponent == 2:
        e.node("Mul", [x, x], y)
    elif exponent in (0.5, -1):
        e.node("Sqrt" if exponent > 0 else "Reciprocal", [x], y)
    elif exponent == -0.5:
        e.node("Sqrt", [x], part(y, "root"))
        e.node("Reciprocal", [part(y, "root")], y)
    else:
        e.node("Pow", [x, e.number(exponent)], y)


REALS: Mapping[str, Real] = {
    "leaky_relu": _op("LeakyRelu", "alpha"),
    "clamp": _clamp,
    "tanh": _op("Tanh"),
    "elu": _op("Elu", "alpha"),
    "gelu": _gelu,
    "softplus": _op("Softplus"),
    "mish": _mish,
    "hard_sigmoid": _op("HardSigmoid", "alpha", "beta"),
    "abs": _op("Abs"),
    "exp": _op("Exp"),
    "log": _op("Log"),
    "pow": _pow,
}


def _row(e: Emitter, node: Node) -> None:
    if e.on_grid(node.output):
        _of_integers(e, node)
    else:
        REALS[node.op](e, e.value(node.inputs[0]), node.output, node.attrs)


ROWS: Mapping[str, Row] = dict.fromkeys(REALS, _row)
