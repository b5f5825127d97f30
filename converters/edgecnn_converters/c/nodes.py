"""Describe a node to the kernels: the oracle's view of it, the size of its window, where its sums start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node
from edgecnn.graph.oracle.parameters import Call


def called(graph: Graph, node: Node) -> Call:
    """Return the node as the oracle's functions take it; constants have their integers."""
    inputs = [graph.tensors[name] for name in node.inputs]
    integers = [t.integers if t.integers is not None else np.empty(0, np.int8) for t in inputs]
    return Call(attrs=node.attrs, inputs=inputs, output=graph.tensors[node.output], values=integers)


def kernel_of(graph: Graph, node: Node) -> tuple[int, int]:
    """Return the height and width of its window."""
    a: Mapping[str, Any] = node.attrs
    if node.op == "conv2d":
        _, height, width, _ = graph.tensors[node.inputs[1]].shape
        return height, width
    kernel: tuple[int, int] = a.get("kernel", (1, 1))
    return kernel


def start(c: Call, *, folded: bool) -> NDArray[np.int64]:
    """Return the bias, less what the input's zero point adds to the sums."""
    bias = c.values[2].astype(np.int64)
    return bias - c.zero(0) * c.values[1].reshape(len(bias), -1).sum(axis=1, dtype=np.int64) if folded else bias
