"""Lower hard swish to integer ops of ONNX: a product of bytes, or a table, as ``edgecnn/graph/oracle/mlas.py`` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle import mlas
from edgecnn.graph.oracle.kernels import KERNELS
from edgecnn.graph.oracle.parameters import HIGH, LOW, called
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter
from edgecnn_converters.onnx.format import TO_INTEGERS, TO_REAL
from edgecnn_converters.onnx.functions import by_table


def hard_swish(e: Emitter, node: Node) -> None:
    """Multiply by ``clip(x + 3, 0, 6) / 6``, where bytes hold it exactly; else look up LiteRT's table."""
    source, name = node.inputs[0], node.output
    if not e.on_grid(name):
        e.node("HardSwish", [e.value(source)], name)
        return
    scale, zero = np.float32(e.graph.quant(source).scale[0]), int(e.graph.quant(source).zero_point[0])
    steps, call = mlas.steps_to_three(scale), called(e.graph, node)
    if not steps:
        by_table(e, node, KERNELS[node.op](replace(call, values=[call.every(0).astype(np.int8)])))
        return
    gate, made, lowest = part(name, "gate"), e.stored(source), zero - steps
    if lowest < LOW or zero + steps > HIGH:  # else the input's integers, their zero point moved by -3
        made, lowest = part(name, "shifted"), LOW
        e.node("Add", [e.value(source), e.whole(name, 3)], part(name, "sum"))
        e.node(TO_INTEGERS, [part(name, "sum"), *e.own_grid(made, scale, LOW)], made)
    e.node("Clip", [made, e.scalar(lowest), e.scalar(lowest + 2 * steps)], gate)
    e.node(TO_REAL, [gate, *e.own_grid(gate, scale / mlas.SIX, lowest)], part(gate, "real"))
    e.finish(node, "Mul", [e.value(source), part(gate, "real")])
