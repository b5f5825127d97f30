"""Channel statistics of every activation over some images: equalization and diagnosis go by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph
from edgecnn.quant.executor import observe


@dataclass(frozen=True, kw_only=True)
class Channels:
    """One activation, channel by channel; every field is float64 of shape ``(channels,)``.

    Attributes:
        low, high: smallest and largest value.
        mean, square: of the values, and of their squares.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation."""
        return np.sqrt(np.maximum(self.square - self.mean**2, 0))


def channel_statistics(graph: Graph, images: NDArray[np.float32]) -> Mapping[str, Channels]:
    """Return the statistics of every activation, of the float values.

    Args:
        graph: float, or quantized: then its float values are used.
        images: (N, H, W, C) network inputs, at least one.
    """
    sums: dict[str, list[torch.Tensor]] = {}

    def observer(name: str, value: torch.Tensor) -> None:
        over = (0, 2, 3) if value.ndim == 4 else (0,)
        count = value.numel() / value.shape[1]
        found = [value.amin(over), value.amax(over), value.sum(over).double(), value.square().sum(over).double()]
        found.append(torch.full_like(found[2], count))
        if name in sums:
            old = sums[name]
            sums[name] = [torch.minimum(old[0], found[0]), torch.maximum(old[1], found[1])]
            sums[name] += [a + b for a, b in zip(old[2:], found[2:], strict=True)]
        else:
            sums[name] = found

    observe(graph, images, observer)
    made = {}
    for name, (low, high, total, squares, count) in sums.items():
        arrays = (low.double(), high.double(), total / count, squares / count)
        made[name] = Channels(**dict(zip(("low", "high", "mean", "square"), (a.numpy() for a in arrays), strict=True)))
    return made
