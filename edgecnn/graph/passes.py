"""Simplify float graphs by passes: graph in, graph out, the same function computed by fewer nodes.

Every pass needs a valid graph and leaves one (``Graph`` checks itself when it is made).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Attr, Constant, Graph, Node, Tensor
from edgecnn.graph.ops import ACTIVATIONS, make_node


def simplify(graph: Graph) -> Graph:
    """Run all passes, in the order they need."""
    shapes = (drop_empty_pads, flatten_mean, pointwise_to_linear, fuse_padding, fold_transposes)
    for run in (*shapes, fuse_activations, fold_constants, fold_factors_ahead, drop_dead):
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
    nothing = {"padding": (0, 0, 0, 0), "channels": (0, 0)}
    for name in [n.output for n in graph if n.op == "pad" and dict(n.attrs) == nothing]:
        node = graph.producer(name)
        if node is not None and name not in graph.outputs:
            graph = _bypass(graph, name, node.inputs[0])
    return graph


@_each_pair
def fuse_activations(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fuse a relu or relu6 into the node whose output only it reads, as its ``activation``."""
    if first.attrs.get("activation") != "none" or second.op not in ACTIVATIONS:
        return None
    return _absorb(g, second, _with(first, activation=second.op))


@_each_pair
def fold_constants(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fold a sum or product with a constant into the convolution or linear layer before it."""
    term, factor = (_operand(g, second, op, first.output) for op in ("add", "mul"))
    if not first.weighted or first.attrs["activation"] != "none" or (term is None and factor is None):
        return None
    if not all(_alone(g, name) for name in first.inputs[1:]):
        return None
    weight, bias = (g.constant(name) for name in first.inputs[1:])
    added = np.zeros(1, np.float32) if term is None else term
    times = np.ones(1, np.float32) if factor is None else factor
    rows = np.broadcast_to(times, bias.value.shape).reshape(-1, *[1] * (weight.value.ndim - 1))
    changed = {weight.name: weight.value * rows, bias.name: bias.value * times + added}
    g = g.with_tensors(*(Constant(name=name, value=value) for name, value in changed.items()))
    return _absorb(g, second, _with(first, activation=second.attrs["activation"]))


@_each_pair
def fold_factors_ahead(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fold the product with one number into the weights of the layer that reads it, past a product of activations.

    The hard sigmoid of a squeeze-excite ends in such a product.
    """
    factor = _operand(g, first, "mul", first.inputs[0])
    passed = second if second.op == "mul" and second.attrs["activation"] == "none" else None
    last = second if passed is None else _only_consumer(g, second.output)
    if factor is None or factor.size != 1 or first.attrs["activation"] != "none" or last is None or not last.weighted:
        return None
    if passed is not None and (len(set(passed.inputs)) == 1 or _has_constant(g, passed)):  # a square has it twice
        return None
    if last.inputs[0] not in (first.output, second.output) or not _alone(g, last.inputs[1]):
        return None
    weight = g.constant(last.inputs[1])
    g = g.with_tensors(Constant(name=weight.name, value=weight.value * factor))
    return _bypass(g, first.output, first.inputs[0])


def _operand(g: Graph, node: Node, op: str, other: str) -> NDArray[np.float32] | None:
    """Return the constant operand of an ``op`` whose other one is ``other``: one number, or one for each channel."""
    if node.op != op or node.inputs[0] != other or not isinstance(tensor := g.tensors[node.inputs[1]], Constant):
        return None
    alike = tensor.value.size in (1, g.tensors[other].shape[-1]) and tensor.value.shape[-1:] == (tensor.value.size,)
    return tensor.value.reshape(-1) if alike else None


def _has_constant(g: Graph, node: Node) -> bool:
    return any(isinstance(g.tensors[i], Constant) for i in node.inputs)


def _alone(g: Graph, name: str) -> bool:
    """Tell whether one node reads a constant."""
    return len(g.consumers(name)) == 1


def _absorb(g: Graph, second: Node, merged: Node) -> Graph:
    """Replace a node and ``second``, its only consumer, by ``merged``.

    The result keeps the first one's name: it is the layer that people know.
    """
    g = replace(g, nodes=tuple(merged if n.output == merged.output else n for n in g.nodes))
    return _bypass(g, second.output, merged.output)


def _bypass(g: Graph, name: str, by: str) -> Graph:
    """Drop the node that makes ``name``; what reads it reads ``by``."""
    nodes = [replace(n, inputs=tuple(by if i == name else i for i in n.inputs)) for n in g if n.output != name]
    tensors = {k: t for k, t in g.tensors.items() if k != name}
    return replace(g, nodes=tuple(nodes), outputs=tuple(by if o == name else o for o in g.outputs), tensors=tensors)


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


ELEMENTWISE = ("relu", "relu6", "hard_swish", "sigmoid")


@_each_pair
def fold_transposes(g: Graph, first: Node, second: Node) -> Graph | None:
    """Fold a transpose before a flattening into the columns of the linear layer that alone reads it."""
    if first.op != "transpose" or second.op != "reshape" or len(g.tensors[second.output].shape) != 2:
        return None
    last = _only_consumer(g, second.output)
    while last is not None and (last.op in ELEMENTWISE or last.spec.function):
        last = _only_consumer(g, last.output)
    if last is None or last.op != "fully_connected" or not _alone(g, last.inputs[1]):
        return None
    weight, perm = g.constant(last.inputs[1]), first.attrs["perm"]
    shape = g.tensors[first.inputs[0]].shape
    assert isinstance(perm, tuple)
    columns = np.arange(weight.shape[1]).reshape(shape).transpose(perm).reshape(-1)
    value = np.empty_like(weight.value)
    value[:, columns] = weight.value
    g = g.with_tensors(Constant(name=weight.name, value=value))
    return _bypass(g, first.output, first.inputs[0])


def rename(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return the graph with other names for some tensors; one that has such a name already gets a number behind it."""
    wanted = {old: new for old, new in names.items() if old != new}
    for name in set(wanted.values()) & (set(graph.tensors) - set(wanted)):
        wanted[name] = next(n for k in count(1) if (n := f"{name}_{k}") not in graph.tensors)
    nodes = tuple(
        replace(n, inputs=tuple(wanted.get(i, i) for i in n.inputs), output=wanted.get(n.output, n.output))
        for n in graph.nodes
    )
    tensors = {wanted.get(k, k): replace(t, name=wanted.get(k, k)) for k, t in graph.tensors.items()}
    ends = ([wanted.get(name, name) for name in each] for each in (graph.inputs, graph.outputs))
    inputs, outputs = map(tuple, ends)
    return replace(graph, nodes=nodes, tensors=tensors, inputs=inputs, outputs=outputs)


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
