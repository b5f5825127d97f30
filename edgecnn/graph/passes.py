"""Simplify float graphs by passes: graph in, graph out, the same function computed by fewer nodes.

Every pass needs a valid graph and leaves one (``Graph`` checks itself when it is made).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from edgecnn.graph.ir import Attr, Constant, Graph, Node, Tensor
from edgecnn.graph.ops import ACTIVATIONS, make_node


def simplify(graph: Graph) -> Graph:
    """Run all passes, in the order they need."""
    for run in (drop_empty_pads, flatten_mean, pointwise_to_linear, fuse_padding, fuse_activations, drop_dead):
        graph = run(graph)
    return graph


def _only_consumer(graph: Graph, name: str) -> Node | None:
    """Return the one node that reads a tensor, or ``None`` if there are others or it is an output."""
    consumers = graph.consumers(name)
    return consumers[0] if len(consumers) == 1 and name not in graph.outputs else None


def _merge(graph: Graph, first: Node, second: Node, merged: Node) -> Graph:
    """Replace ``first`` and its only consumer ``second`` by ``merged``, which has the second's output."""
    nodes = tuple(merged if n is second else n for n in graph.nodes if n is not first)
    tensors = {k: t for k, t in graph.tensors.items() if k != first.output}
    return replace(graph, nodes=nodes, tensors=tensors)


def _with(node: Node, **attrs: Attr) -> Node:
    return replace(node, attrs={**node.attrs, **attrs})


def _each_pair(rewrite: Callable[[Graph, Node, Node], Graph | None]) -> Callable[[Graph], Graph]:
    """Make a pass that applies ``rewrite`` to every producer and its only consumer, until none changes."""

    @wraps(rewrite)
    def run(graph: Graph) -> Graph:
        changed: Graph | None = graph
        while changed is not None:
            graph = changed
            pairs = ((node, _only_consumer(graph, node.output)) for node in graph)
            made = (rewrite(graph, first, second) for first, second in pairs if second is not None)
            changed = next((g for g in made if g is not None), None)
        return graph

    return run


def drop_empty_pads(graph: Graph) -> Graph:
    """Drop every ``pad`` that adds nothing."""
    same: dict[str, str] = {}
    for n in graph:
        empty = n.op == "pad" and n.attrs["padding"] == (0, 0, 0, 0) and n.attrs["channels"] == (0, 0)
        if empty and n.output not in graph.outputs:
            same[n.output] = same.get(n.inputs[0], n.inputs[0])
    nodes = [replace(n, inputs=tuple(same.get(i, i) for i in n.inputs)) for n in graph if n.output not in same]
    return replace(graph, nodes=tuple(nodes), tensors={k: t for k, t in graph.tensors.items() if k not in same})


@_each_pair
def fuse_activations(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fuse a relu or relu6 into the node whose output only it reads, as its ``activation``."""
    if first.attrs.get("activation") != "none" or second.op not in ACTIVATIONS:
        return None
    # The fused tensor keeps the producer's name: it is the layer that people know.
    fused, same = _with(first, activation=second.op), {second.output: first.output}
    nodes = tuple(
        fused if n is first else replace(n, inputs=tuple(same.get(i, i) for i in n.inputs))
        for n in g.nodes
        if n is not second
    )
    tensors = {k: t for k, t in g.tensors.items() if k != second.output}
    return replace(g, nodes=nodes, outputs=tuple(same.get(o, o) for o in g.outputs), tensors=tensors)


@_each_pair
def fuse_padding(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fuse a zero ``pad`` into the padding of the convolution that alone reads it."""
    if first.op != "pad" or second.op != "conv2d" or second.inputs[0] != first.output:
        return None
    if first.attrs["channels"] != (0, 0):
        return None
    outer: Any = first.attrs["padding"]
    inner: Any = second.attrs["padding"]
    total = tuple(a + b for a, b in zip(outer, inner, strict=True))
    merged = replace(_with(second, padding=total), inputs=(first.inputs[0], *second.inputs[1:]))
    return _merge(g, first, second, merged)


@_each_pair
def flatten_mean(g: Graph, first: Node, second: Node) -> Graph | None:
    """Merge global average pooling and a flatten into a mean that drops the dimensions itself."""
    if first.op != "mean" or not first.attrs["keepdims"] or second.op != "reshape":
        return None
    if len(g.tensors[second.output].shape) != 2:
        return None
    return _merge(g, first, second, replace(_with(first, keepdims=False), output=second.output))


@_each_pair
def pointwise_to_linear(g: Graph, first: Node, second: Node) -> Graph | None:
    """Turn global average pooling, a 1x1 convolution head and a flatten into a mean and a fully connected layer."""
    last = _only_consumer(g, second.output)
    if first.op != "mean" or second.op != "conv2d" or last is None or last.op != "reshape":
        return None
    weight, padding = g.tensors[second.inputs[1]], second.attrs["padding"]
    plain = weight.shape[1:3] == (1, 1) and second.attrs["groups"] == 1 and padding == (0, 0, 0, 0)
    if not plain or not isinstance(weight, Constant) or len(g.tensors[last.output].shape) != 2:
        return None
    flat = np.ascontiguousarray(weight.value.reshape(weight.shape[0], weight.shape[3]))
    activation, shape = second.attrs["activation"], g.tensors[first.output].shape
    linear = make_node("fully_connected", second.inputs, last.output, second.source, activation=activation)
    tensors = {k: t for k, t in g.tensors.items() if k != second.output}
    tensors[weight.name] = Constant(name=weight.name, value=flat)
    tensors[first.output] = Tensor(name=first.output, shape=(shape[0], shape[-1]))
    swap = {first.output: _with(first, keepdims=False), second.output: linear}
    return replace(g, nodes=tuple(swap.get(n.output, n) for n in g.nodes if n is not last), tensors=tensors)


def drop_dead(graph: Graph) -> Graph:
    """Drop nodes and constants that no output depends on."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    needed.update(graph.inputs)
    tensors = {k: t for k, t in graph.tensors.items() if k in needed}
    return replace(graph, nodes=tuple(reversed(kept)), tensors=tensors)
