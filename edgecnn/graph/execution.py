"""Execution of a graph's nodes in order, with liveness in one place. Knows no array library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from edgecnn.graph.ir import Graph, Node

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
