"""Lower functions of one number, and slopes per channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset8 as ops

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle.table_kernels import exponentials, steps, table_of
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.emitter import Emitter, rounded
from edgecnn_converters.openvino.moves import order_of

LOST = 2.0**-20  # of an output, its input and its zero point, in steps: some roundings to float32
MOST_DIMENSIONS = 5  # of the plugin's softmax, which takes others apart
PLACES = 256  # of an argmax in 8 bits
TERMS = 14  # of the series of atanh: at 1/3, what is left out is below 1e-8
Make = Callable[[Emitter, Node, Any, str], Any]
"""Takes the emitter, the node, the input and the name of the operation to make; returns the operation."""


def function(e: Emitter, node: Node) -> Any:
    """Return a function of every element, in the order of dimensions of its input.

    Of 8 bits, the plugin computes it in float32; where that may round an entry of the oracle's table otherwise, the
    file holds the table.
    """
    value, name = e.element(node, node.inputs[0], order_of(e, node)), part(node.output, "op")
    if node.spec.function and _narrow(e, node) and _near_half(e, node):
        return _by_table(e, node, value, name)
    return FUNCTIONS[node.op](e, node, value, name)


def _narrow(e: Emitter, node: Node) -> bool:
    """Tell whether a node computes in 8 bits."""
    return e.precision == "int8" and facts.is_narrow(e.graph, node)


def _near_half(e: Emitter, node: Node) -> bool:
    """Tell whether an output lies so near a half that float32 might take it across."""
    source, made = e.graph.quant(node.inputs[0]), e.graph.quant(node.output)
    low, high = source.limits
    exact = steps(node.op, source, made, node.attrs)
    read = (np.arange(low, high + 1) - source.zero_point[0]) * np.float64(source.scale[0] / made.scale[0])
    lost = LOST * (np.abs(exact) + np.abs(read) - made.limits[0])
    below, above = (np.clip(np.rint(exact + part) + made.zero_point[0], *made.limits) for part in (-lost, lost))
    return bool(np.any(below != above))


def prelu(e: Emitter, node: Node) -> Any:
    """Return the input, times a slope per channel below zero."""
    order, (count,) = order_of(e, node), e.graph.tensors[node.inputs[1]].shape
    shape = [1] * len(order)
    shape[order.index(len(order) - 1)] = count
    slope = e.constant(node.inputs[1], tuple(shape), affine=True)
    return ops.prelu(e.element(node, node.inputs[0], order), slope, name=part(node.output, "op"))


def _plain(kind: Callable[..., Any]) -> Make:
    return lambda e, node, value, name: kind(value, name=name)


def _scalar(e: Emitter, node: Node, key: str) -> Any:
    number: Any = node.attrs[key]
    return e.plain(np.float32(number), part(node.output, key))


def _leaky_relu(e: Emitter, node: Node, value: Any, name: str) -> Any:
    alpha: Any = node.attrs["alpha"]
    return ops.prelu(value, e.plain(np.array([alpha], np.float32), part(node.output, "alpha")), name=name)


def _clamp(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return a value between two numbers."""
    if not _narrow(e, node):
        return ops.clamp(value, node.attrs["low"], node.attrs["high"], name=name)
    return _between(e, node, value, (_scalar(e, node, "low"), _scalar(e, node, "high")), name)


def _between(e: Emitter, node: Node, value: Any, ends: tuple[Any, Any], name: str) -> Any:
    """Return a value between two constants, by operations that do not become a Clamp.

    That merges into the FakeQuantize after it, which then rounds otherwise.
    """
    held = e.identity(node, ops.maximum(value, ends[0], name=f"{name}_low"))
    return ops.minimum(held, ends[1], name=name)


def _gelu(e: Emitter, node: Node, value: Any, name: str) -> Any:
    return ops.gelu(value, "tanh" if node.attrs["approximate"] else "erf", name=name)


def _hard_sigmoid(e: Emitter, node: Node, value: Any, name: str) -> Any:
    alpha, beta = (_scalar(e, node, key) for key in ("alpha", "beta"))
    if not _narrow(e, node):
        return ops.hard_sigmoid(value, alpha, beta, name=name)
    line = ops.add(ops.multiply(value, alpha, name=f"{name}_slope"), beta, name=f"{name}_line")
    zero, one = (e.plain(np.float32(end), f"{name}_{end}") for end in (0, 1))
    return _between(e, node, line, (zero, one), name)


def _power(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return a power. In 8 bits, a number below 0 that has none becomes that of 0."""
    exponent: Any = node.attrs["exponent"]
    if _narrow(e, node) and exponent < 0:  # of 0: the plugin's 0 may be -0
        return _by_table(e, node, value, name)
    if _narrow(e, node) and float(exponent) != int(exponent):
        value = ops.relu(value, name=f"{name}_positive")
    return ops.power(value, _scalar(e, node, "exponent"), name=name)


def _is_fused(e: Emitter, node: Node) -> bool:
    """Tell whether the plugin makes one kernel of a node and the convolution or linear layer that it reads."""
    made_by, source = e.graph.producer(node.inputs[0]), node.inputs[0]
    alone = len(e.graph.consumers(source)) == 1 and source not in e.graph.outputs
    return alone and made_by is not None and made_by.weighted


def _mish(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return ``x tanh(ln(1 + exp x))``; where Mish would compute in float between others, by ``n / (n + 2)`` with
    ``n = exp x (exp x + 2)``, which is the tanh."""
    if not _narrow(e, node) or _is_fused(e, node):
        return ops.mish(value, name=name)
    two, most = (e.plain(np.float32(number), f"{name}_{number}") for number in (2, 20))
    power = ops.exp(ops.minimum(value, most, name=f"{name}_most"), name=f"{name}_exp")
    top = ops.multiply(power, ops.add(power, two, name=f"{name}_more"), name=f"{name}_top")
    tanh = ops.divide(top, ops.add(top, two, name=f"{name}_bottom"), name=f"{name}_tanh")
    return ops.multiply(value, tanh, name=name)


def _softplus(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return ``ln(1 + exp x)``; where SoftPlus would compute in float between others, ``max(x, 0) + ln(1 + t)`` with
    ``t = exp(-|x|)``, by the series of ``2 atanh(t / (t + 2))``."""
    if not _narrow(e, node) or _is_fused(e, node):
        return ops.softplus(value, name=name)
    two = e.plain(np.float32(2), f"{name}_2")
    negative = ops.negative(ops.absolute(value, name=f"{name}_abs"), name=f"{name}_below")
    power = ops.exp(negative, name=f"{name}_exp")
    z = ops.divide(power, ops.add(power, two, name=f"{name}_more"), name=f"{name}_z")
    square = ops.multiply(z, z, name=f"{name}_square")
    terms = [e.plain(np.float32(2 / k), f"{name}_term_{k}") for k in range(1, TERMS, 2)]
    series = terms[-1]
    for k, term in reversed(list(enumerate(terms[:-1]))):
        series = ops.add(ops.multiply(series, square, name=f"{name}_times_{k}"), term, name=f"{name}_plus_{k}")
    log = ops.multiply(series, z, name=f"{name}_log")
    return ops.add(ops.relu(value, name=f"{name}_positive"), log, name=name)


def _by_table(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return the entry of the oracle's table for each integer of a value, as a real number."""
    made, table = e.graph.quant(node.output), table_of(e.graph, node)
    entries = (table - np.int16(made.limits[0])).astype(np.uint8)
    places = ops.convert(_places(e, node, value, name), "i32", name=f"{name}_in_32_bits")
    integers = _entries(e, entries, places, name)
    above = e.plain(np.float32(made.zero_point[0] - made.limits[0]), f"{name}_made_zero")
    centred = ops.subtract(ops.convert(integers, "f32", name=f"{name}_float"), above, name=f"{name}_centred")
    return ops.multiply(centred, e.plain(made.scale[0], f"{name}_scale"), name=name)


def _places(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return the integers of a node's input above the lowest one, in 8 bits."""
    source = e.graph.quant(node.inputs[0])
    whole = ops.multiply(value, e.plain(1 / source.scale[0], f"{name}_unit"), name=f"{name}_steps")
    zero = e.plain(np.float32(source.zero_point[0] - source.limits[0]), f"{name}_zero")
    places = rounded(ops.add(whole, zero, name=f"{name}_places"), f"{name}_whole")
    return ops.convert(places, "u8", name=f"{name}_in_8_bits")


def _entries(e: Emitter, table: NDArray[Any], places: Any, name: str) -> Any:
    """Return the entries of a table at some places."""
    axis, entries = e.plain(np.int64(0), f"{name}_axis"), e.plain(table, f"{name}_table")
    return ops.gather(entries, places, axis, name=f"{name}_taken")


def softmax(e: Emitter, node: Node) -> Any:
    """Return a softmax. The plugin's own computes in float; in float, one of more than five dimensions is of rows."""
    order, name, shape = order_of(e, node), part(node.output, "op"), e.graph.tensors[node.output].shape
    value, axis = e.value(node.inputs[0], order), order.index(len(shape) - 1)
    if _narrow(e, node):
        return _integer_softmax(e, node, value, axis, name)
    if len(shape) <= MOST_DIMENSIONS:
        return ops.softmax(value, axis, name=name)
    rows = e.reshaped(value, [shape[0], math.prod(shape[1:-1]), shape[-1]], part(node.output, "rows"))
    return e.reshaped(ops.softmax(rows, 2, name=name), shape, part(node.output, "softmax"))


def _integer_softmax(e: Emitter, node: Node, value: Any, axis: int, name: str) -> Any:
    """Return a softmax as the oracle has it, by a table of exponentials; sums of integers do not depend on an order."""
    along = e.plain(np.array([axis], np.int64), f"{name}_along")
    places = _places(e, node, value, name)
    largest = ops.reduce_max(places, along, True, name=f"{name}_largest")
    most, own = (ops.convert(value, "i32", name=f"{name}_{k}_in_32_bits") for k, value in enumerate((largest, places)))
    table = exponentials(e.graph.quant(node.inputs[0]), e.graph.tensors[node.output].shape[-1])
    powers = _entries(e, table, ops.subtract(most, own, name=f"{name}_below"), name)
    total = ops.reduce_sum(powers, along, True, name=f"{name}_total")
    power, whole = (ops.convert(value, "f32", name=f"{name}_{k}_in_float") for k, value in enumerate((powers, total)))
    return ops.divide(power, whole, name=name)


def argmax(e: Emitter, node: Node) -> Any:
    """Return the first place of the largest number, by the largest of keys: ``256 integer + 255 - place``.

    The plugin's TopK does not say which of equals is first. Keys of real values are none: there TopK finds places.
    """
    order, name, count = order_of(e, node), part(node.output, "op"), e.graph.tensors[node.inputs[0]].shape[-1]
    value, axis = e.value(node.inputs[0], order), order.index(len(order) - 1)
    if not _narrow(e, node):
        found = ops.topk(value, e.plain(np.int64(1), f"{name}_k"), axis, "max", "index", "i32", name=f"{name}_top")
        return ops.convert(found.output(1), "f32", name=name)
    shape = [count if k == axis else 1 for k in range(len(order))]
    base, below = (e.plain(np.int32(number), f"{name}_{number}") for number in (PLACES, PLACES - 1))
    back = e.plain((PLACES - 1 - np.arange(count, dtype=np.int32)).reshape(shape), f"{name}_back")
    own = ops.convert(_places(e, node, value, name), "i32", name=f"{name}_in_32_bits")
    keys = ops.add(ops.multiply(own, base, name=f"{name}_times"), back, name=f"{name}_keys")
    largest = ops.reduce_max(keys, e.plain(np.array([axis], np.int64), f"{name}_along"), True, name=f"{name}_largest")
    rest = ops.floor_mod(largest, base, name=f"{name}_rest")
    return ops.convert(ops.subtract(below, rest, name=f"{name}_place"), "f32", name=name)


def _log(e: Emitter, node: Node, value: Any, name: str) -> Any:
    """Return a logarithm; in 8 bits by a table, since the plugin's kernel of it computes in float between others."""
    return _by_table(e, node, value, name) if _narrow(e, node) else ops.log(value, name=name)


FUNCTIONS: Mapping[str, Make] = {
    "relu": _plain(ops.relu),
    "relu6": lambda e, node, value, name: e.relu6(node, value),
    "hard_swish": _plain(ops.hswish),
    "sigmoid": _plain(ops.sigmoid),
    "leaky_relu": _leaky_relu,
    "clamp": _clamp,
    "tanh": _plain(ops.tanh),
    "elu": lambda e, node, value, name: ops.elu(value, node.attrs["alpha"], name=name),
    "gelu": _gelu,
    "softplus": _softplus,
    "mish": _mish,
    "hard_sigmoid": _hard_sigmoid,
    "abs": _plain(ops.absolute),
    "exp": _plain(ops.exp),
    "log": _log,
    "pow": _power,
}
