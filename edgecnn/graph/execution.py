"""Execution of a graph's nodes in order, with liveness in one place. Knows no array library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from edgecnn.errors import UnsupportedError
from edgecnn.graph.ir import Graph, Node, Tensor

Value = TypeVar("Value")


def released(graph: Graph, keep: Collection[str] = ()) -> list[list[str]]:
    """Return, for each node, the activations that no later node reads; never the outputs, nor those in ``keep``."""
    last = {name: k for k, node in enumerate(graph) for name in (*node.inputs, node.output)}
    free = {t.name for t in graph.activations()} - {*graph.outputs, *keep}
    expired: list[list[str]] = [[] for _ in graph.nodes]
    for name, k in last.items():
        if name in free:
            expired[k].append(name)
    return expired


def with_batch(graph: Graph, size: int) -> Graph:
    """Return the graph for so many samples at a time: the first dimension of every activation is the batch.

    Raises:
        UnsupportedError: an activation's first dimension is more than one sample; names it.
    """
    changed: dict[str, Tensor] = {}
    for tensor in graph.activations():
        if tensor.shape[0] != 1:
            raise UnsupportedError(
                f"{tensor.name!r} of shape {tensor.shape} has no batch in front: leave the batch at 1"
            )
        changed[tensor.name] = replace(tensor, shape=(size, *tensor.shape[1:]))
    nodes = []
    for node in graph:
        shape = node.attrs.get("shape")
        resized = {"shape": (size, *shape[1:])} if node.op == "reshape" and isinstance(shape, tuple) else {}
        nodes.append(replace(node, attrs={**node.attrs, **resized}))
    return replace(graph, nodes=tuple(nodes), tensors={**graph.tensors, **changed})


def execute(
    graph: Graph,
    values: dict[str, Value],
    compute: Callable[[Node, Mapping[str, Value]], Value],
    expired: list[list[str]],
) -> dict[str, Value]:
    """Run every node and return the values that are left.

    Args:
        graph: of any precision.
        values: of the graph's inputs, and of the constants that ``compute`` looks up; it changes.
        compute: makes a node's output from the values at hand.
        expired: what ``released`` says of the graph.
    """
    for node, names in zip(graph, expired, strict=True):
        values[node.output] = compute(node, values)
        for name in names:
            del values[name]
    return values
