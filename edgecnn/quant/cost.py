"""What each step of a reconstruction costs, for the time that is left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.readers import activation_of

VALUE, SUM = 6.5e-9, 2.4e-9
"""Seconds on one core, fitted to two MobileNetV2: a value of both networks, made and rounded; one that moments read."""
MAC, INPUT, MOMENT = 4e-11, 4e-9, 2.7e-11
"""As above, of a layer without groups: a multiply-accumulate of a network, an input that moments read, a product."""
GROUPED = 1.9e-10, 1.4e-9, 1.5e-10
"""As above, of a layer in groups."""
UPDATE, COLUMN = 5.5e-9, 2e-4
"""As above: a number of the moments that is changed for every input of a layer that is rounded, and such an input."""


def layer_cost(node: Node, graph: Graph, images: int, *, solved: bool) -> float:
    """What a node costs ``reconstruct``, roughly in seconds of one core: how such costs relate is what matters.

    Args:
        node: of the graph.
        graph: with the shapes of its tensors.
        images: that go through it.
        solved: whether its integers are known, so that images only go through it.
    """
    values = images * math.prod(graph.tensors[node.output].shape)
    if node.op not in WEIGHTED:
        return values * VALUE
    rows, *window = graph.tensors[node.inputs[1]].shape
    attrs: Mapping[str, Any] = node.attrs
    groups: int = attrs.get("groups", 1)
    taps = math.prod(window)
    mac, given, moment = (MAC, INPUT, MOMENT) if groups == 1 else GROUPED
    through = values * (VALUE + 2 * taps * mac)
    if solved:
        return through
    read = values // rows * groups * taps
    moments = values * (SUM + taps * mac) + read * (given + (taps + rows // groups) * moment)
    again = through if activation_of(node) is not None else 0.0  # the bias, by what comes of the integers
    return through + moments + again + rows * taps * taps * UPDATE + taps * COLUMN
