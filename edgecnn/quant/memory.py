"""How many images two networks can be run on side by side, layer by layer, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgecnn.graph.ir import Graph, Tensor


def affordable(graph: Graph, images: int, each: Callable[[Tensor], int], memory: int) -> int:
    """How many of the images fit into some memory, when every activation is kept until it was read last.

    Args:
        graph: both networks' form.
        images: that there are.
        each: bytes that one value of an activation takes in both networks.
        memory: bytes that the activations of both networks may take.
    """
    last = {i: k for k, node in enumerate(graph.nodes) for i in node.inputs}
    size = {t.name: math.prod(t.shape) * each(t) for t in graph.activations()}
    live, most = {graph.inputs[0]: size[graph.inputs[0]]}, 0
    for k, node in enumerate(graph.nodes):
        live[node.output] = size[node.output]
        most = max(most, sum(live.values()))
        live = {name: kept for name, kept in live.items() if last.get(name, k + 1) > k}
    return max(1, min(images, memory // most))
