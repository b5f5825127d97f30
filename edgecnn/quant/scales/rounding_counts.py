"""Count the outputs that runtimes may round apart, of ops with so few outputs that each can be looked at.

An op of one 8-bit input is a table of 256 integers in every runtime, and a product of two activations one of 65,536.
Some runtimes make it in fixed point, others in float32. All tables are equal where LiteRT's, in fixed point, holds the
nearest integer to each exact output, and no exact output lies so near a half that float32 could take it across.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized
from edgecnn.graph.ops import OPS
from edgecnn.graph.oracle import table_kernels
from edgecnn.graph.oracle.float32_rounding import ARITHMETICS
from edgecnn.graph.oracle.kernels import KERNELS
from edgecnn.graph.oracle.parameters import HIGH, LOW, Call
from edgecnn.quant.scales.kernel_limits import operand_qparams

Reals = NDArray[np.float64]
Trace = tuple[str, NDArray[np.int64]]
EVERY = np.arange(LOW, HIGH + 1)
ELEMENTWISE: Mapping[str, Callable[..., Reals]] = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "prelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-np.maximum(x, -80))),
}
"""Ops to their real values. Those of functions of one number are in ``graph.functions``."""
MARGINS = {"sigmoid": 2.0**-10, "add": 2.0**-11}  # logistic functions are approximated; XNNPACK adds with 21 bits
LOSS = 6 * 2.0**-24  # of some roundings to float32, relative to an output and to the zero point that is added to it
FIRST = 8  # halves on either side of zero


def is_elementwise(op: str) -> bool:
    """Tell whether an output of an op depends on one element of each input, in a way that is known here."""
    return op in ELEMENTWISE or OPS[op].function


def called(
    graph: Graph,
    node: Node,
    chosen: Mapping[str, QParams],
    operand: QParams | None = None,
    traces: dict[str, Trace] | None = None,
) -> Call:
    """Return a node over all that its inputs can hold together: values of shape (N, 1).

    Constants have their own parameters, or ``operand``, or those that they will get by ``operand_qparams``. Inputs that
    are functions of one activation vary together. Of two activations whose product is the same, one pair stands for
    all.
    """
    inputs, every, traced = [], [], []
    traces = {} if traces is None else traces
    for name in node.inputs:
        tensor, values = graph.tensors[name], EVERY
        if isinstance(tensor, Constant):
            others = (chosen[other] for other in node.inputs if other in chosen)
            known = tensor.quant if isinstance(tensor, Quantized) else None
            quant = operand or known or operand_qparams(node.op, tensor.value, chosen[node.output], *others)
            values = np.unique(quant.quantize(tensor.value)).astype(np.int64)
        else:
            quant = chosen[name]
        inputs.append(Quantized(name=name, shape=tensor.shape, quant=quant))
        every.append(values)
        traced.append(_traced(graph, name, chosen, traces))
    together = [table for _, table in traced]
    if len({origin for origin, _ in traced}) > 1:
        together = [values.ravel() for values in np.meshgrid(*every, indexing="ij")]
        if node.op == "mul":
            together = _distinct(together, [int(t.quant.zero_point[0]) for t in inputs])
    output = Quantized(name=node.output, shape=graph.tensors[node.output].shape, quant=chosen[node.output])
    held = [table.astype(np.int8)[:, None] for table in together]
    return Call(attrs=node.attrs, inputs=inputs, output=output, values=list(held))


def _distinct(pairs: list[NDArray[np.int64]], zeros: list[int]) -> list[NDArray[np.int64]]:
    products = np.multiply(*(values - zero for values, zero in zip(pairs, zeros, strict=True)))
    last = np.full(np.ptp(products) + 1, -1)
    last[products - products.min()] = np.arange(products.size)
    return [values[last[last >= 0]] for values in pairs]


def _traced(graph: Graph, name: str, chosen: Mapping[str, QParams], traces: dict[str, Trace]) -> Trace:
    """Return the activation of which another is a function, and what the latter is for each integer of the former.

    What is found is held in ``traces``: in a chain of residual blocks, every block is asked for twice by the next.
    """
    if name not in traces:
        traces[name] = _trace(graph, name, chosen, traces)
    return traces[name]


def _trace(graph: Graph, name: str, chosen: Mapping[str, QParams], traces: dict[str, Trace]) -> Trace:
    node = graph.producer(name)
    if node is None or not is_elementwise(node.op) or chosen[name].dtype != "int8":
        return name, EVERY
    (origin, table), *others = (_traced(graph, i, chosen, traces) for i in node.inputs if i in chosen)
    if any(other != origin for other, _ in others):
        return name, EVERY
    call = called(graph, node, chosen, traces=traces)
    if call.values[0].size != EVERY.size:
        return name, EVERY
    made = KERNELS[node.op](call).ravel().astype(np.int64)
    return origin, made if others else made[table - LOW]


def exact(op: str, call: Call) -> Reals:
    """Return an op's outputs, not rounded, in steps of the output's scale above its zero point."""
    reals = (
        (values.astype(np.int64) - call.zero(k)) * np.float64(call.scale(k)) for k, values in enumerate(call.values)
    )
    made, activation = ELEMENTWISE[op](*reals), str(call.attrs.get("activation", "none"))
    made = made if activation == "none" else ELEMENTWISE[activation](made)
    return np.asarray(made / np.float64(call.scale(-1)))


def apart(op: str, call: Call) -> int:
    """Return how many outputs runtimes may round apart; ``call`` is of ``called``."""
    if OPS[op].function:  # some hold the table, others make it in float32
        near = table_kernels.near_halves(op, call.inputs[0].quant, call.output.quant, call.attrs)
        return int(near[np.unique(call.values[0]).astype(int) - LOW].sum())
    steps = exact(op, call)
    from_half = np.abs(steps - np.floor(steps) - 0.5)
    if op == "mul" and len(steps) > len(EVERY):  # LiteRT's are at most a product's step away
        near = from_half.ravel() < 2 * call.scale(0) * call.scale(1) / call.scale(-1)
        call, steps = replace(call, values=[values[near] for values in call.values]), steps[near]
    low, high = _nearest(op, call, steps)
    return int(((low != high) | (KERNELS[op](call) != low)).sum())


def lost(op: str, call: Call) -> int:
    """Return how many outputs lie so near a half that float32 may take them across, whatever kernel computes it."""
    low, high = _nearest(op, call, exact(op, call))
    return int((low != high).sum())


def _nearest(op: str, call: Call, steps: Reals) -> tuple[Reals, Reals]:
    """Return the integers nearest to an op's outputs, where they are as small, and as large, as float32 makes them."""
    loss = MARGINS.get(op, 0.0) + LOSS * (np.abs(steps) + call.zero(-1) - LOW)
    low, high = (np.clip(np.rint(steps + part) + call.zero(-1), LOW, HIGH) for part in (-loss, loss))
    return low, high


def mean_apart(call: Call, step: float) -> bool:
    """Tell whether runtimes round a sum of a mean apart, of those next to the halves.

    Args:
        call: of a mean; its values are not used.
        step: sums to one step of the output.
    """
    _, height, width, _ = call.inputs[0].shape
    zero, kernels = call.zero(0), {row["mean"] for row in ARITHMETICS.values()}
    low, high = ((end - zero) * height * width for end in (LOW, HIGH))
    for halves in (np.arange(-FIRST, FIRST), np.arange(LOW - HIGH, HIGH - LOW)):  # the first ones mostly tell
        near = np.rint((halves + 0.5) * step)[:, None] + np.arange(-1, 2)
        sums = near[(near >= low) & (near <= high)].astype(np.int64)
        pixels = replace(call, values=[(sums + zero).reshape(-1, 1, 1, 1)])  # one holds the sum of all
        first, *others = (kernel(pixels) for kernel in kernels)
        if any((made != first).any() for made in others):
            return True
    return False
