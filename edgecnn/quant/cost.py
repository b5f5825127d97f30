"""What each step of a reconstruction costs, for the time that is left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.ir import Graph, Node

VALUE, MAC, DEPTHWISE_MAC = 3e-9, 3e-11, 5e-10
"""Seconds on one core: a value rounded and kept, a multiply-accumulate, and one of a layer with few taps a group.
Only how they relate matters."""
UPDATE = 6e-10
"""As above: a number of the covariances' rows that one column of a layer changes as it is rounded."""
ROUNDS = 5.0  # of all columns: one pass, and the sweeps after it


def layer_cost(node: Node, graph: Graph, images: int, *, solved: bool) -> float:
    """What a node costs ``reconstruct``, roughly in seconds of one core.

    Args:
        node: of the graph.
        graph: with the shapes of its tensors.
        images: that go through it.
        solved: whether its integers are known, so that images only go through it.
    """
    made = math.prod(graph.tensors[node.output].shape)
    through = 2 * images * made * VALUE
    if node.op not in WEIGHTED:
        return through
    rows, *window = graph.tensors[node.inputs[1]].shape
    attrs: Mapping[str, Any] = node.attrs
    groups: int = attrs.get("groups", 1)
    taps = math.prod(window)
    mac = MAC if groups == 1 else DEPTHWISE_MAC
    through += 2 * images * made * taps * mac
    if solved:
        return through
    positions: int = images * made // rows
    moments = positions * groups * taps * (taps + rows // groups) * mac + images * made * taps * mac
    return through + moments + ROUNDS * rows * taps * taps * UPDATE
