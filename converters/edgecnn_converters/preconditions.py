"""Check what every converter needs of a graph before it writes a byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS, PRECISIONS
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Constant, Graph, Node, Quantized

FROM: Mapping[str, str] = {**{p: p for p in PRECISIONS}, "fp16": "fp32"}  # of the file: of the graph
FLOAT16_MAX = float(np.finfo(np.float16).max)
Fault = tuple[str, str]  # node, reason


@dataclass(frozen=True, kw_only=True)
class KernelLimits:
    """Hold what a runtime's kernels of 8-bit activations can work with.

    Attributes:
        runtime: its name, for messages.
        multipliers: op to the smallest multiplier that its kernels take, and the first that they do not.
        scale: the largest of an activation.
    """

    runtime: str
    multipliers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scale: float = math.inf


def check(
    target: str,
    unsupported: Callable[[Graph, str], Collection[Fault]],
    graph: Graph,
    precision: str,
    io: str,
    io_types: Collection[str],
) -> None:
    """Check that a graph can be written in a precision, with an input and output type.

    Raises:
        InputError: the precision or the type is not known, the graph is not of the precision, or breaks the contract.
        UnsupportedError: an output is an input or a constant, or it holds what is ``unsupported``; lists all of it.
    """
    if precision not in FROM:
        raise InputError(unknown("precision", precision, FROM))
    if io not in io_types:
        raise InputError(unknown("input and output type", io, io_types))
    if graph.precision != FROM[precision]:
        raise InputError(f"{precision} is written from a graph in {FROM[precision]}; this one is in {graph.precision}")
    if idle := [name for name in graph.outputs if graph.producer(name) is None]:
        raise UnsupportedError(
            f"nothing computes the outputs {', '.join(idle)}; leave them out: they are as they are fed"
        )
    if precision in INTEGER_PRECISIONS:
        check_integers(graph)
    if faults := unsupported(graph, precision):
        raise UnsupportedError(f"{target} cannot hold " + "; ".join(f"{node}: {reason}" for node, reason in faults))


def beyond_float16(graph: Graph, precision: str) -> list[Fault]:
    """List the nodes whose weights float16 cannot hold, where the precision stores them so."""
    found = []
    for node in graph if precision == "fp16" else ():
        for tensor in (graph.tensors[i] for i in node.inputs):
            if isinstance(tensor, Constant) and np.abs(tensor.value).max(initial=0) > FLOAT16_MAX:
                found.append((node.output, f"{tensor.name!r} is larger than float16's {FLOAT16_MAX:g}; use fp32"))
    return found


def beyond_kernels(graph: Graph, limits: KernelLimits) -> list[Fault]:
    """List the nodes of 8 bits whose scales a runtime's kernels refuse, or compute wrongly, and what is allowed."""
    found = []
    for node in graph:
        made = graph.tensors[node.output]
        if not isinstance(made, Quantized) or made.quant.dtype != "int8":
            continue
        low, high = limits.multipliers.get(node.op, (0.0, math.inf))
        for multiplier in multipliers(graph, node):
            if not low <= multiplier < high:
                allowed = f"{limits.runtime}'s kernels take {low:.3g} to {high:.3g}; choose another scale of its output"
                found.append((node.output, f"a multiplier of {multiplier:.3g} brings its sums to 8 bits; {allowed}"))
                break
        names = [name for name in (*node.inputs, node.output) if name in (*graph.inputs, node.output)]
        if (scale := max(float(graph.quant(name).scale[0]) for name in names)) > limits.scale:
            allowed = f"{limits.runtime}'s kernels are exact up to {limits.scale:g}; divide what makes it by a constant"
            found.append((node.output, f"a scale of {scale:.3g}; {allowed}"))
    return found


def multipliers(graph: Graph, node: Node) -> NDArray[np.float64]:
    """Return the multipliers that bring an op's integer sums, or inputs, to its output's scale: each one apart."""
    scales = [graph.quant(name).scale.astype(np.float64) for name in node.inputs[: 1 if node.op == "concat" else 2]]
    over = np.float64(graph.quant(node.output).scale[0])
    if node.weighted or node.op == "mul":
        return np.asarray(scales[0] * scales[1] / over)
    if node.op == "mean":
        over *= math.prod(graph.tensors[node.inputs[0]].shape[1:3])
    return np.concatenate(scales) / over
