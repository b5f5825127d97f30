"""Find what ONNX Runtime's integer kernels cannot compute, before a file is written.

They convert float32 to int32 before they clip, so a value of 2**31 steps of the output wraps around. Convolutions and
linear layers clip first. ``QLinearGlobalAveragePool`` refuses multipliers out of a range (``mlas/lib/qlgavgpool.cpp``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgecnn.graph.ir import Graph, Node
from edgecnn.graph.oracle.mlas import steps_to_three
from edgecnn.graph.oracle.parameters import Call, called
from edgecnn_converters.preconditions import Fault, KernelLimits, beyond_float16, beyond_kernels

BYTE = 255  # steps from one end of 8 bits to the other
STEPS = 2.0**31
LIMITS = KernelLimits(runtime="ONNX Runtime", multipliers={"mean": (2.0**-32, 2.0**8)})
FURTHEST: Mapping[str, Callable[[Call], Any]] = {
    "add": lambda c: BYTE * (c.scale(0) + c.scale(1)) / c.scale(-1),
    "mul": lambda c: BYTE * BYTE * c.scale(0) * c.scale(1) / c.scale(-1),
    "relu": lambda c: BYTE * c.scale(0) / c.scale(-1),
    "relu6": lambda c: BYTE * c.scale(0) / c.scale(-1),
    "hard_swish": lambda c: BYTE * c.scale(0) / c.scale(-1) if steps_to_three(c.scale(0)) else 0,  # a table
}
"""How many steps of its output an op's largest value is from 0, at most."""


def unsupported(graph: Graph, precision: str) -> list[Fault]:
    """List what ONNX files cannot hold, or ONNX Runtime cannot compute as integers; see ``registry.Converter``."""
    integer = [n for n in graph if precision == graph.precision == "int8" and not graph.is_wide(n.output)]
    own = [(n.output, why) for n in integer if (why := _fault(graph, n))]
    return [*beyond_float16(graph, precision), *(beyond_kernels(graph, LIMITS) if integer else ()), *own]


def _fault(graph: Graph, node: Node) -> str:
    depth = graph.tensors[node.inputs[0]].shape[-1]
    if node.op == "batch_matmul" and BYTE * BYTE * depth >= STEPS:
        return (
            f"sums of {depth} products; ONNX Runtime adds up to {int(STEPS) // BYTE**2} in 32 bits; split the product"
        )
    if node.op in FURTHEST and (steps := FURTHEST[node.op](called(graph, node))) >= STEPS:
        return f"its largest value is {steps:.3g} steps of its output; ONNX Runtime wraps around at 2**31"
    return ""
