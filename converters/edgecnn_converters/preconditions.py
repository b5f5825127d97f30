"""Check what every converter needs of a graph before it writes a byte."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from edgecnn.artifact import INTEGER_PRECISIONS, PRECISIONS
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Constant, Graph

FROM: Mapping[str, str] = {**{p: p for p in PRECISIONS}, "fp16": "fp32"}  # of the file: of the graph
FLOAT16_MAX = float(np.finfo(np.float16).max)
Fault = tuple[str, str]  # node, reason


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
        UnsupportedError: it has not one input and one output, or holds what is ``unsupported``; lists all of it.
    """
    if precision not in FROM:
        raise InputError(unknown("precision", precision, FROM))
    if io not in io_types:
        raise InputError(unknown("input and output type", io, io_types))
    if graph.precision != FROM[precision]:
        raise InputError(f"{precision} is written from a graph in {FROM[precision]}; this one is in {graph.precision}")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        got = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise UnsupportedError(f"the graph has {got}; one of each can be written")
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
