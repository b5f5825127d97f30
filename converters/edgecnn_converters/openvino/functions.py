"""Lower functions of one number, and slopes per channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from openvino import opset8 as ops

from edgecnn.graph.ir import Node
from edgecnn_converters.names import part
from edgecnn_converters.openvino.emitter import Emitter
from edgecnn_converters.openvino.moves import order_of

Make = Callable[[Emitter, Node, Any, str], Any]
"""Takes the emitter, the node, the input and the name of the operation to make; returns the operation."""


def function(e: Emitter, node: Node) -> Any:
    """Return a function of every element, in the order of dimensions of its input."""
    return FUNCTIONS[node.op](e, node, e.value(node.inputs[0], order_of(e, node)), part(node.output, "op"))


def prelu(e: Emitter, node: Node) -> Any:
    """Return the input, times a slope per channel below zero."""
    order, (count,) = order_of(e, node), e.graph.tensors[node.inputs[1]].shape
    shape = [1] * len(order)
    shape[order.index(len(order) - 1)] = count
    slope = e.constant(node.inputs[1], tuple(shape), affine=True)
    return ops.prelu(e.value(node.inputs[0], order), slope, name=part(node.output, "op"))


def _plain(kind: Callable[..., Any]) -> Make:
    return lambda e, node, value, name: kind(value, name=name)


def _scalar(e: Emitter, node: Node, key: str) -> Any:
    number: Any = node.attrs[key]
    return e.plain(np.float32(number), part(node.output, key))


def _leaky_relu(e: Emitter, node: Node, value: Any, name: str) -> Any:
    alpha: Any = node.attrs["alpha"]
    return ops.prelu(value, e.plain(np.array([alpha], np.float32), part(node.output, "alpha")), name=name)


def _gelu(e: Emitter, node: Node, value: Any, name: str) -> Any:
    return ops.gelu(value, "tanh" if node.attrs["approximate"] else "erf", name=name)


def _hard_sigmoid(e: Emitter, node: Node, value: Any, name: str) -> Any:
    return ops.hard_sigmoid(value, _scalar(e, node, "alpha"), _scalar(e, node, "beta"), name=name)


FUNCTIONS: Mapping[str, Make] = {
    "relu": _plain(ops.relu),
    "relu6": lambda e, node, value, name: e.relu6(node, value),
    "hard_swish": _plain(ops.hswish),
    "sigmoid": _plain(ops.sigmoid),
    "leaky_relu": _leaky_relu,
    "clamp": lambda e, node, value, name: ops.clamp(value, node.attrs["low"], node.attrs["high"], name=name),
    "tanh": _plain(ops.tanh),
    "elu": lambda e, node, value, name: ops.elu(value, node.attrs["alpha"], name=name),
    "gelu": _gelu,
    "softplus": _plain(ops.softplus),
    "mish": _plain(ops.mish),
    "hard_sigmoid": _hard_sigmoid,
    "abs": _plain(ops.absolute),
    "exp": _plain(ops.exp),
    "log": _plain(ops.log),
    "pow": lambda e, node, value, name: ops.power(value, _scalar(e, node, "exponent"), name=name),
}
