"""Say, per op, why the kernels cannot compute a node of it; ``None`` where they can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node
from edgecnn.graph.oracle import parameters
from edgecnn.graph.oracle.parameters import Call, Multiplier, called
from edgecnn_converters.layout import is_depthwise

MAX_CLASSES = 4096  # of softmax: its sum of exponentials is in Q12.19
PAIRED = 4  # dimensions of two operands that broadcast
INT32 = 2**31 - 1


def start(c: Call, *, folded: bool) -> NDArray[np.int64]:
    """Return the bias, less what the input's zero point adds to the sums."""
    bias = c.values[2].astype(np.int64)
    return bias - c.zero(0) * c.values[1].reshape(len(bias), -1).sum(axis=1, dtype=np.int64) if folded else bias


def sums_fit(graph: Graph, node: Node) -> str | None:
    c = called(graph, node)
    depthwise = node.op == "conv2d" and is_depthwise(graph, node)
    first = start(c, folded=not depthwise)
    reach = np.abs(c.values[1].reshape(len(first), -1).astype(np.int64)).sum(axis=1) * (255 if depthwise else 128)
    _, shift = parameters.weighted(c)
    lifted = np.maximum(shift, 0) if node.op == "conv2d" else 0
    return _fits(int(((np.abs(first) + reach) << lifted).max()))


def _fits(largest: int) -> str | None:
    return None if largest <= INT32 else f"its sums may reach {largest:.3g}, beyond 32 bits"


def _lifted(largest: int, multiplier: Multiplier) -> str | None:
    return _fits(largest << max(int(multiplier[1]), 0))


def _pairs_fit(graph: Graph, node: Node) -> str | None:
    """Ones and runs of dimensions along which both operands move alike are no dimensions of the kernel."""
    made = graph.tensors[node.output].shape
    shapes = [(1,) * (len(made) - len(s)) + s for s in (graph.tensors[name].shape for name in node.inputs)]
    alike = [tuple(s[d] > 1 for s in shapes) for d in range(len(made)) if made[d] > 1]
    count = sum(first != second for first, second in pairwise(alike)) + 1
    return None if count <= PAIRED else f"operands that broadcast over {count} dimensions; at most {PAIRED}"


def matrix_sums_fit(graph: Graph, node: Node) -> str | None:
    c = called(graph, node)
    return _lifted(255**2 * c.inputs[0].shape[-1], parameters.batch_matmul(c))


def prelu_fits(graph: Graph, node: Node) -> str | None:
    above, below = parameters.prelu(called(graph, node))
    return _lifted(255, above) or _lifted(255**2, below)


def add_fits(graph: Graph, node: Node) -> str | None:
    if reason := _pairs_fit(graph, node):
        return reason
    first, second, total = parameters.add(called(graph, node))
    largest = 255 << parameters.ADD_SHIFT
    return _lifted(largest, first) or _lifted(largest, second) or _lifted(2 * largest, total)


def mul_fits(graph: Graph, node: Node) -> str | None:
    return _pairs_fit(graph, node) or _lifted(255**2, parameters.mul(called(graph, node)))


def mean_fits(graph: Graph, node: Node) -> str | None:
    c = called(graph, node)
    return _lifted(255 * math.prod(c.inputs[0].shape[1:3]), parameters.mean(c))


def window_not_empty(graph: Graph, node: Node) -> str | None:
    a: Mapping[str, Any] = node.attrs
    if any(a["padding"][2 * k] >= a["kernel"][k] or a["padding"][2 * k + 1] >= a["kernel"][k] for k in (0, 1)):
        return f"padding {a['padding']} leaves a window of {a['kernel']} without a pixel to average"
    return None


def output_scale(graph: Graph, node: Node) -> str | None:
    c = called(graph, node)
    return None if c.scale(0) < 128 * c.scale(-1) else "hard_swish needs an output scale above 1/128 of its input's"


def few_classes(graph: Graph, node: Node) -> str | None:
    classes = graph.tensors[node.output].shape[-1]
    return None if classes <= MAX_CLASSES else f"softmax over {classes} classes; at most {MAX_CLASSES}"
