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

LEARNED, LEARNING = 1.8e-8, 6e-8
"""As above: a value that a block learns from, forth and back on its grid; a weight that may turn, a step."""


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


def block_cost(part: Graph, images: int, *, iterations: int, batch: int) -> float:
    """What a block costs ``Blocks.after``, in the unit of ``layer_cost``.

    Args:
        part: the block.
        images: that go through it.
        iterations: steps of learning; 0 where its integers are known.
        batch: images that each of them looks at.
    """
    through = sum(layer_cost(node, part, images, solved=True) for node in part)
    values = sum(math.prod(t.shape) for t in part.activations())
    macs, weights = 0.0, 0
    for node in (n for n in part if n.op in WEIGHTED):
        size, attrs = part.tensors[node.inputs[1]].shape, node.attrs
        positions = math.prod(part.tensors[node.output].shape) // size[0]
        macs += positions * math.prod(size) * (MAC if attrs.get("groups", 1) == 1 else GROUPED[0])
        weights += math.prod(size)
    return through + iterations * (batch * (3 * macs + values * LEARNED) + weights * LEARNING)
