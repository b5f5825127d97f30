"""Channel statistics of every activation over some images: equalization and diagnosis go by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Graph
from edgecnn.quant.executor import CHUNK, affordable

EACH, MEMORY = 32, 2 << 30  # bytes: of a value with its square and copies, and of all that is alive at once


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Describe one activation, channel by channel; every field is float64 of shape ``(channels,)``.

    Attributes:
        low, high: smallest and largest value.
        square: mean of the values' squares.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    square: NDArray[np.float64]


def channel_statistics(graph: Graph, images: NDArray[np.float32]) -> Mapping[str, Channels]:
    """Return the statistics of every activation, of the float values.

    Args:
        graph: float, or quantized: then its float values are used.
        images: (N, H, W, C) network inputs, at least one.
    """
    sums: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = {}

    def observer(name: str, value: torch.Tensor) -> None:
        over = (0, 2, 3) if value.ndim == 4 else (0,)
        low, high, squares = value.amin(over), value.amax(over), value.square().sum(over).double()
        count = value.numel() / value.shape[1]
        if name in sums:
            old = sums[name]
            low, high, squares = torch.minimum(old[0], low), torch.maximum(old[1], high), old[2] + squares
            count += old[3]
        sums[name] = (low, high, squares, count)

    run, together = TorchGraph(graph), affordable(graph, CHUNK, lambda _: EACH, MEMORY)
    for start in range(0, len(images), together):
        run(torch.from_numpy(images[start : start + together]), observer)
    return {
        name: Channels(low=low.double().numpy(), high=high.double().numpy(), square=(squares / count).numpy())
        for name, (low, high, squares, count) in sums.items()
    }
