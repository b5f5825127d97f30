"""Quantize a network that ends in argmax without it: only what it compares has ranges, errors and gradients."""

from __future__ import annotations

from dataclasses import replace

from edgecnn.errors import UnsupportedError
from edgecnn.graph.contract import INDEX
from edgecnn.graph.ir import Graph, Node, Quantized
from edgecnn.graph.passes import drop_dead

MOST = 256  # places in 8 bits


def compared(graph: Graph, precision: str = "int8") -> Graph:
    """Return the graph with what an argmax compares in place of each output that is made of its places.

    Args:
        graph: float.
        precision: ``int8`` or ``int16x8``.

    Raises:
        UnsupportedError: places are computed with, there are more than ``MOST``, or activations are not in 8 bits.
    """
    after = set(_after(graph))
    if not after:
        return graph
    if precision != "int8":
        raise UnsupportedError(f"argmax {min(after)!r} has no form in {precision}; leave it out, or use int8")
    for node in graph:
        if node.op == "argmax" and (count := graph.tensors[node.inputs[0]].shape[-1]) > MOST:
            raise UnsupportedError(f"{node} is over {count} numbers; in int8 at most {MOST}: leave it out, or use fp32")
        if node.output in after and node.op != "argmax" and node.spec.scale != "same":
            raise UnsupportedError(f"{node} computes with what an argmax made; argmax is supported as a last op")
    outputs = dict.fromkeys(_source(graph, name) if name in after else name for name in graph.outputs)
    return drop_dead(replace(graph, outputs=tuple(outputs)))


def with_places(graph: Graph, original: Graph) -> Graph:
    """Return an int8 graph of what is compared with the argmax of the original behind it."""
    after = _after(original)
    if not after:
        return graph
    stripped = compared(original)
    renamed = dict(zip(stripped.outputs, graph.outputs, strict=True))
    nodes = tuple(replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs)) for node in after.values())
    made = {name: Quantized(name=name, shape=original.tensors[name].shape, quant=INDEX) for name in after}
    outputs = tuple(renamed.get(name, name) for name in original.outputs)
    return replace(graph, nodes=(*graph.nodes, *nodes), tensors={**graph.tensors, **made}, outputs=outputs)


def _after(graph: Graph) -> dict[str, Node]:
    """Return the nodes that are an argmax, or read one, by their outputs."""
    found: dict[str, Node] = {}
    for node in graph:
        if node.op == "argmax" or any(name in found for name in node.inputs):
            found[node.output] = node
    return found


def _source(graph: Graph, name: str) -> str:
    """Return what the argmax compares of which an output is made."""
    node = graph.producer(name)
    while node is not None and node.op != "argmax":
        node = graph.producer(node.inputs[0])
    assert node is not None
    return node.inputs[0]
