"""Separate activations whose parameters are given from others that would have to share them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from edgecnn.graph.ir import Constant, Graph, Node, Tensor
from edgecnn.graph.ops import make_node
from edgecnn.quant.scales.qparams import scale_groups

RESCALED = ".rescaled"  # ends the name of a copy


def separated(graph: Graph, given: Collection[str]) -> tuple[Graph, dict[str, str]]:
    """Return a graph in which no activation with given parameters has to share them with one that has its own.

    A sigmoid's scale is fixed, and the input's may be that of pixels. Where an op that only moves integers joins such
    an activation with others, it reads a copy of it: its product with one, which has a scale of its own.

    Args:
        graph: float.
        given: activations whose parameters no range decides.

    Returns:
        The graph, and the activation that each copy is of.
    """
    passed_on = {node.output for node in graph if node.spec.scale == "same"}
    joined = set[str]()
    for group in scale_groups(graph):
        inside = group & set(given)
        if inside and group - inside - passed_on:
            joined |= inside
    if not joined:
        return graph, {}
    copies, nodes, tensors = dict[str, str](), list[Node](), dict(graph.tensors)
    for node in graph:
        renamed = []
        for name in node.inputs:
            if name not in joined or node.spec.scale != "same":
                renamed.append(name)
                continue
            copy, one = f"{name}{RESCALED}", f"{name}.one"
            if copy not in tensors:
                tensors[copy] = Tensor(name=copy, shape=tensors[name].shape)
                tensors[one] = Constant(name=one, value=np.ones((1,) * len(tensors[name].shape), np.float32))
                nodes.append(make_node("mul", (name, one), copy, node.source))
                copies[copy] = name
            renamed.append(copy)
        nodes.append(replace(node, inputs=tuple(renamed)))
    return replace(graph, nodes=tuple(nodes), tensors=tensors), copies
