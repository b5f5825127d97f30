"""High-bias absorption: what a channel always holds moves into the next layer's bias, and its range shrinks.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.3. A
channel behind a ReLU that never falls below ``c`` is ``relu(x - c) + c``; ``W2 c`` is a constant for the layer that
reads it. The paper takes ``c = mean - 3 deviations`` of the batch norm before it; here it is also no larger than the
smallest value seen, so that the network computes the same on all images that stay above it.

Only where it is exact at the image's border too: the reading layer would pad with zeros, not with ``c``, so it has no
padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.ir import Graph, Node, Tensor
from edgecnn.quant.statistics import Channels

DEVIATIONS = 3


def absorb_biases(graph: Graph, statistics: Mapping[str, Channels]) -> Graph:
    """A float graph that computes the same on inputs like those of the statistics.

    Args:
        graph: float.
        statistics: of its activations.
    """
    for first, second in _pairs(graph):
        seen = statistics[first.output]
        shift = np.clip(np.minimum(seen.mean - DEVIATIONS * seen.deviation, seen.low), 0, None)
        bias, weight, next_bias = (graph.tensors[i] for i in (first.inputs[2], *second.inputs[1:]))
        assert bias.value is not None
        assert weight.value is not None
        assert next_bias.value is not None
        groups = second.attrs.get("groups", 1)
        assert isinstance(groups, int)
        per_channel = weight.value.astype(np.float64).reshape(groups, weight.shape[0] // groups, -1, weight.shape[-1])
        moved = np.einsum("gotc,gc->go", per_channel, shift.reshape(groups, -1)).reshape(-1)
        graph = graph.with_tensors(_less(bias, shift), _less(next_bias, -moved))
    return graph


def _pairs(graph: Graph) -> list[tuple[Node, Node]]:
    """A layer that ends in a relu, and the unpadded layer that alone reads it."""
    found = []
    for node in graph:
        if node.op in WEIGHTED and node.attrs["activation"] == "relu" and node.output not in graph.outputs:
            readers = graph.consumers(node.output)
            if len(readers) == 1 and readers[0].op in WEIGHTED and not any(readers[0].attrs.get("padding", (0,))):  # type: ignore[arg-type]
                found.append((node, readers[0]))
    return found


def _less(bias: Tensor, shift: NDArray[np.float64]) -> Tensor:
    assert bias.value is not None
    return replace(bias, value=(bias.value - shift).astype(np.float32))
