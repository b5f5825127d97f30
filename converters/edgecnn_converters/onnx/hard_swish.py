"""Lower hard swish to integer ops of ONNX: products of bytes, or a table, as ``edgecnn/graph/oracle/mlas.py`` says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle import mlas
from edgecnn.graph.oracle.kernels import KERNELS
from edgecnn.graph.oracle.parameters import HIGH, LOW, called
from edgecnn_converters.names import part
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL

if TYPE_CHECKING:
    from edgecnn_converters.onnx.emitter import Emitter


def _narrow_hard_swish(e: Emitter, node: Node, square: np.float32) -> None:
    """Add half of the input and a sixth of its square."""
    source, half, made = node.inputs[0], part(node.output, "half"), part(node.output, "square")
    quant, sixth = e.graph.quant(source), part(made, "sixth")
    e.node("Mul", [e.value(source)] * 2, part(made, "raw"))
    e.node(TO_INTEGERS, [part(made, "raw"), *e.own_grid(made, square, LOW)], part(made, INTEGERS))
    e.node(TO_REAL, [part(made, INTEGERS), *e.own_grid(sixth, square / mlas.SIX, LOW)], sixth)
    half_grid = e.own_grid(half, np.float32(quant.scale[0]) / np.float32(2), int(quant.zero_point[0]))
    e.node(TO_REAL, [e.stored(source), *half_grid], half)
    e.finish(node, "Add", [half, sixth])


def _table(e: Emitter, node: Node) -> None:
    """Look the output's integers up by the input's, in LiteRT's table."""
    name, call = node.output, called(e.graph, node)
    made = KERNELS[node.op](replace(call, values=[call.every(0).astype(np.int8)])).astype(np.int16) + e.shift
    places = made if e.shift else np.roll(made, HIGH + 1)  # a negative index counts from the end
    table = e.initializer(part(name, "table"), places.astype(e.activations))
    e.node("Cast", [e.stored(node.inputs[0])], part(name, "index"), to=TensorProto.INT32)
    e.node("Gather", [table, part(name, "index")], part(name, INTEGERS))
    e.node(TO_REAL, [part(name, INTEGERS), *e.grid(name)], name)


def hard_swish(e: Emitter, node: Node) -> None:
    """Multiply by ``clip(x + 3, 0, 6) / 6``, made in bytes as ``oracle/mlas.py`` says."""
    source, name = node.inputs[0], node.output
    if not e.on_grid(name):
        e.node("HardSwish", [e.value(source)], name)
        return
    if mlas.is_looked_up(e.graph.quant(source), e.graph.tensors[source].shape):
        _table(e, node)
        return
    gate, made = part(name, "gate"), part(name, "shifted")
    scale, zero, lowest = np.float32(e.graph.quant(source).scale[0]), int(e.graph.quant(source).zero_point[0]), LOW
    steps, square = mlas.steps_to_three(scale), mlas.square_scale(e.graph.quant(source))
    if square and not steps:
        _narrow_hard_swish(e, node, square)
        return
    if steps and zero - steps >= LOW and zero + steps <= HIGH:  # the input's integers, its zero point moved by -3
        made, lowest = e.stored(source), zero - steps
    else:
        steps, scale = (steps, scale) if steps else (mlas.STEPS, mlas.GATE)
        e.node("Add", [e.value(source), e.whole(name, 3)], part(name, "sum"))
        e.node(TO_INTEGERS, [part(name, "sum"), *e.own_grid(made, scale, LOW)], made)
    e.node("Clip", [made, e.scalar(lowest), e.scalar(lowest + 2 * steps)], gate)
    e.node(TO_REAL, [gate, *e.own_grid(gate, scale / mlas.SIX, lowest)], part(gate, "real"))
    e.finish(node, "Mul", [e.value(source), part(gate, "real")])
