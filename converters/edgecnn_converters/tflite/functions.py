"""Rows of the ops that are functions of one number.

In integers, LiteRT's kernels of some functions are tables that it makes in float32. Where no entry lies so near a half
that this matters, they are the graph's. Lines are products (``products.py``), where those are the graph's. All
others are tables in the file: the integers, as indices, gather from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecnn.graph.contract import TANH
from edgecnn.graph.ir import Graph, Node, Quantized
from edgecnn.graph.oracle.table_kernels import is_near_half, table_of
from edgecnn_converters.names import part
from edgecnn_converters.tflite.emitter import Emitter
from edgecnn_converters.tflite.format import write_function
from edgecnn_converters.tflite.products import clamp, leaky

MADE_IN_FLOAT32: Mapping[str, str] = {"tanh": "TANH", "elu": "ELU", "gelu": "GELU", "exp": "EXP", "log": "LOG"}
"""Ops to operators that look int8 up in a table, which LiteRT makes in float32."""


class Composer:
    """Writes a float function of a node as several operators; the last one makes the node's output."""

    def __init__(self, e: Emitter, node: Node) -> None:
        self.e, self.node = e, node
        self.x = e.operand(node.inputs[0])
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return part(self.node.output, f"step{self._count}")

    def constant(self, value: float) -> int:
        """Return a number as a tensor."""
        return self.e.model.tensor(self._name(), (1,), "float32", data=np.array([value], np.float32))

    def __call__(self, builtin: str, *inputs: int, options: Any = None, last: bool = False) -> int:
        """Add an operator and return what it makes; ``last``: the node's output."""
        shape = self.e.graph.tensors[self.node.output].shape
        made = self.e.activation(self.node.output) if last else self.e.model.tensor(self._name(), shape, "float32")
        self.e.operator(builtin, None, list(inputs), made, options)
        return made

    def add(self, a: int, b: int, *, activation: str = "NONE", last: bool = False) -> int:
        """Add ``a + b``."""
        code = getattr(self.e.schema.ActivationFunctionType, activation)
        options = self.e.schema.AddOptionsT(fusedActivationFunction=code, potScaleInt16=False)
        return self("ADD", a, b, options=options, last=last)

    def mul(self, a: int, b: int, *, last: bool = False) -> int:
        """Add ``a * b``."""
        return self("MUL", a, b, options=self.e.schema.MulOptionsT(), last=last)

    def end(self, kind: str, a: int, bound: float, *, last: bool = False) -> int:
        """Add ``MAXIMUM`` or ``MINIMUM`` of a value and a number."""
        return self(kind, a, self.constant(bound), options=self.e.schema.MaximumMinimumOptionsT(), last=last)


def _plain(builtin: str, options: Callable[[Any, Mapping[str, Any]], Any] = lambda schema, a: None) -> Any:
    def row(c: Composer, a: Mapping[str, Any]) -> None:
        c(builtin, c.x, options=options(c.e.schema, a), last=True)

    return row


def _clamp(c: Composer, a: Mapping[str, Any]) -> None:
    low, high = float(a["low"]), float(a["high"])
    alone = {(-1.0, 1.0): "RELU_N1_TO_1", (0.0, 6.0): "RELU6", (0.0, math.inf): "RELU"}.get((low, high))
    if alone is not None:
        c(alone, c.x, last=True)
    elif math.isinf(high):
        c.end("MAXIMUM", c.x, low, last=True)
    else:
        c.end("MINIMUM", c.x if math.isinf(low) else c.end("MAXIMUM", c.x, low), high, last=True)


def _elu(c: Composer, a: Mapping[str, Any]) -> None:
    if a["alpha"] == 1:
        c("ELU", c.x, last=True)
        return
    below = c.mul(c("ELU", c.end("MINIMUM", c.x, 0.0)), c.constant(a["alpha"]))
    c.add(c("RELU", c.x), below, last=True)


def _log_of_one_plus_exp(c: Composer, *, last: bool) -> int:
    """``max(x, 0) + log(1 + exp(-|x|))``, in which nothing overflows."""
    power = c("EXP", c.mul(c("ABS", c.x), c.constant(-1.0)))
    return c.add(c("RELU", c.x), c("LOG", c.add(power, c.constant(1.0))), last=last)


def _mish(c: Composer, a: Mapping[str, Any]) -> None:
    c.mul(c.x, c("TANH", _log_of_one_plus_exp(c, last=False)), last=True)


def _hard_sigmoid(c: Composer, a: Mapping[str, Any]) -> None:
    above = c.add(c.mul(c.x, c.constant(a["alpha"])), c.constant(a["beta"]), activation="RELU")
    c.end("MINIMUM", above, 1.0, last=True)


def _pow(c: Composer, a: Mapping[str, Any]) -> None:
    match float(a["exponent"]):
        case 2.0:
            c.mul(c.x, c.x, last=True)
        case 0.5:
            c("SQRT", c.x, last=True)
        case -0.5:
            c("RSQRT", c.x, last=True)
        case -1.0:
            c("DIV", c.constant(1.0), c.x, options=c.e.schema.DivOptionsT(), last=True)
        case exponent:
            c("POW", c.x, c.constant(exponent), options=c.e.schema.PowOptionsT(), last=True)


FLOAT: Mapping[str, Callable[[Composer, Mapping[str, Any]], object]] = {
    "leaky_relu": _plain("LEAKY_RELU", lambda schema, a: schema.LeakyReluOptionsT(alpha=a["alpha"])),
    "clamp": _clamp,
    "tanh": _plain("TANH"),
    "elu": _elu,
    "gelu": _plain("GELU", lambda schema, a: schema.GeluOptionsT(approximate=bool(a["approximate"]))),
    "softplus": lambda c, a: _log_of_one_plus_exp(c, last=True),
    "mish": _mish,
    "hard_sigmoid": _hard_sigmoid,
    "abs": _plain("ABS"),
    "exp": _plain("EXP"),
    "log": _plain("LOG"),
    "pow": _pow,
}


PRODUCTS: Mapping[str, Callable[[Emitter, Node], bool]] = {"leaky_relu": leaky, "abs": leaky, "clamp": clamp}
"""Ops to what writes them as products in integers, if that makes the graph's, and tells whether it does."""


def _looks_up(graph: Graph, node: Node) -> bool:
    """Tell whether LiteRT's own table of a function is the graph's."""
    known = node.op in MADE_IN_FLOAT32 and node.attrs.get("alpha", 1) == 1
    if node.op == "tanh":  # TensorFlow Lite Micro takes any scale for this one
        known = graph.quant(node.output).same_as(TANH)
    return known and not is_near_half(graph, node).any()


def _write(e: Emitter, node: Node) -> None:
    composer = Composer(e, node)
    if not e.integer:
        FLOAT[node.op](composer, node.attrs)
    elif _looks_up(e.graph, node):
        options = e.schema.GeluOptionsT(approximate=bool(node.attrs["approximate"])) if node.op == "gelu" else None
        e.operator(MADE_IN_FLOAT32[node.op], None, [composer.x], e.activation(node.output), options)
    elif node.op not in PRODUCTS or not PRODUCTS[node.op](e, node):
        _gather(e, node)


def _gather(e: Emitter, node: Node) -> None:
    """Write a table, from which the integers, 128 higher, gather."""
    made, types = Quantized.of(e.graph.tensors[node.output]), e.schema.TensorType
    places, indices = (e.model.tensor(part(node.output, name), made.shape, "int32") for name in ("integers", "indices"))
    cast = e.schema.CastOptionsT(inDataType=types.INT8, outDataType=types.INT32)
    e.operator("CAST", "int32", [e.operand(node.inputs[0])], places, cast)
    offset = e.parameters(part(node.output, "offset"), [128])
    e.operator("ADD", "int32", [places, offset], indices, e.schema.AddOptionsT(potScaleInt16=False))
    entries = e.model.tensor(part(node.output, "table"), (256,), "int8", made.quant, table_of(e.graph, node))
    e.functions[node.output] = write_function(node)
    e.operator("GATHER", None, [entries, indices], e.activation(node.output), e.schema.GatherOptionsT())


LOWERINGS: Mapping[str, Callable[[Emitter, Node], None]] = dict.fromkeys(FLOAT, _write)
