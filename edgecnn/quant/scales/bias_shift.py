"""Bias shifts: by how much a layer's biases move so that its mean output is the float network's, and never worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.scales.consumers import Nonlinearity, saturating_consumer

NUDGE = 2**-6  # over which a function's slope is taken
FLAT = 1e-3  # a mean slope below which a channel says nothing
HALVINGS = 4  # of a shift that does harm, before it is left out

Pairs = Sequence[tuple[torch.Tensor, torch.Tensor]]


def function_behind(graph: Graph, node: Node) -> Nonlinearity | None:
    """Return the function through which alone the network sees a weighted layer's sums; ``None`` where it sees them."""
    fused = {"relu": F.relu, "relu6": F.relu6}.get(str(node.attrs.get("activation", "none")))
    return fused or saturating_consumer(graph, node.output)


def bias_shift(pairs: Pairs, function: Nonlinearity | None) -> torch.Tensor:
    """Return by how much biases move so that the mean output comes nearer the wanted one: float64 ``(channels,)``.

    The mean error, over images and positions, is shrunk by how uncertain it is: ``1 - s**2 / e**2`` of it is left, with
    ``s`` its standard error over the images, and nothing where that is negative. Behind a function the error is counted
    after it, and the shift is one step of Newton's method: the mean error over the mean slope. A channel whose squared
    error or mean error would grow moves by half, or by half of that, or not at all.

    Args:
        pairs: wanted and made sums, NCHW or NC, chunk by chunk, some images each.
        function: through which the sums are seen.

    Sources: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2
    (the mean error); James and Stein 1961, "Estimation with Quadratic Loss" (the shrinkage, its positive part).
    """
    seen = _as_is if function is None else function
    wanted, found = [seen(w) for w, _ in pairs], [seen(m) for _, m in pairs]
    before = _errors([w - m for w, m in zip(wanted, found, strict=True)])
    left = (1 - before.deviation**2 / before.mean**2).clamp(min=0).nan_to_num(0.0)
    shift = left * before.mean
    if function is None:
        return shift
    rises = torch.cat([_by_image(function(m + NUDGE) - f) for (_, m), f in zip(pairs, found, strict=True)])
    slope = rises.mean(0) / NUDGE
    shift = torch.where(slope > FLAT, shift / slope, 0.0)
    (left_to_try,) = torch.nonzero(shift, as_tuple=True)
    kept = torch.zeros_like(shift)
    for _ in range(HALVINGS if len(left_to_try) else 0):
        by = shift[left_to_try]
        moved = by.float().reshape(1, -1, *[1] * (wanted[0].ndim - 2))
        made = (function(m[:, left_to_try] + moved) for _, m in pairs)
        after = _errors([w[:, left_to_try] - m for w, m in zip(wanted, made, strict=True)])
        worse = after.mean.abs() > before.mean[left_to_try].abs()
        worse |= after.square > before.square[left_to_try]
        kept[left_to_try[~worse]] = by[~worse]
        left_to_try = left_to_try[worse]
        if not len(left_to_try):
            break
        shift = shift / 2
    return kept


def _as_is(x: torch.Tensor) -> torch.Tensor:
    return x


def _by_image(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over positions, ``(images, channels)`` float64."""
    return (x.mean((2, 3)) if x.ndim == 4 else x).double()


@dataclass(frozen=True, kw_only=True)
class _Errors:
    """Hold the errors of each channel, float64 ``(channels,)``.

    Attributes:
        mean: over images and positions.
        deviation: the standard error of that mean, over images.
        square: the mean square.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    square: torch.Tensor


def _errors(chunks: list[torch.Tensor]) -> _Errors:
    means = torch.cat(list(map(_by_image, chunks)))
    squares = torch.cat([_by_image(chunk.square()) for chunk in chunks])
    count = len(means)
    deviation = means.var(0, correction=0).div(max(count - 1, 1)).sqrt()  # of one image nothing is known
    return _Errors(mean=means.mean(0), deviation=deviation, square=squares.mean(0))
