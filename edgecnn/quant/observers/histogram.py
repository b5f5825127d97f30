"""Histogram observer: the float graph runs over images, and the range of every activation is kept in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Graph

BINS = 8192  # on either side of zero; the largest value falls into the outer half of them
LOOKED_AT = 1 << 14  # values of one activation per batch that are counted, evenly over positions and channels
PENDING = 8  # batches whose values are counted together: to count costs as much as to look at 16,384 values


@dataclass(frozen=True, kw_only=True)
class Range:
    """Hold what calibration saw of one activation.

    Attributes:
        low: smallest value.
        high: largest value.
        samples: values, rising, float32 ``(n,)``.
        counts: how often each was seen, float32 ``(n,)``.
        weighted: each was counted with the weight of its channel.
        second: of the network's output, where it is a vector: the largest value but one that an image has; else NaN.
    """

    low: float
    high: float
    samples: NDArray[np.float32]
    counts: NDArray[np.float32]
    weighted: bool = False
    second: float = math.nan


def union(seen: Sequence[Range]) -> Range:
    """Return what several activations showed together."""
    samples, counts = np.concatenate([r.samples for r in seen]), np.concatenate([r.counts for r in seen])
    order = np.argsort(samples, kind="stable")
    low, high = min(r.low for r in seen), max(r.high for r in seen)
    weighted = all(r.weighted for r in seen)
    return Range(low=low, high=high, samples=samples[order], counts=counts[order], weighted=weighted)


class HistogramObserver:
    """Running range and histogram of one activation.

    Bins are a power of two wide, zero in the middle of one: exact zeros stay exact, and where a value falls outside,
    bins are joined. Clipping is decided by the tails: few values among many, which a sample of thousands misses.
    """

    def __init__(self, weights: torch.Tensor | None) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.finite = True
        self.counts = torch.zeros(2 * BINS + 1, dtype=torch.float64)
        self.width = 0.0
        self.seen = 0
        self.weights = weights  # of a value in each channel; None: all alike
        self.pending: list[torch.Tensor] = []  # values that are not counted yet
        self.pending_weights: list[torch.Tensor] = []
        self.spans: list[float] = []  # of the range, after each batch

    def update(self, values: torch.Tensor, channels: int) -> None:
        """Count the values of one batch, channels last, as one row."""
        low, high = (float(v) for v in torch.aminmax(values))  # NaN where one of the values is
        self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.spans.append(self.high - self.low)
        if self.finite:
            stride = -(-values.numel() // LOOKED_AT)
            while math.gcd(stride, channels) > 1:  # it would see some channels only
                stride += 1
            taken = slice(self.seen % stride, None, stride)
            self.pending.append(values[taken].clone())
            if self.weights is not None:
                self.pending_weights.append(self.weights[torch.arange(values.numel())[taken] % channels] * stride)
            if len(self.pending) == PENDING:
                self._count()
        self.seen += 1

    def _count(self) -> None:
        values, largest = torch.cat(self.pending), max(-self.low, self.high)
        self.pending.clear()
        if largest > self.width * BINS:
            width = 2.0 ** math.ceil(math.log2(largest / BINS))
            if self.width:
                factor = round(width / self.width)
                middles = torch.arange(-BINS, BINS + 1, dtype=torch.float64) / factor
                joined = torch.zeros_like(self.counts)
                self.counts = joined.index_add_(0, torch.round(middles).long() + BINS, self.counts)
            self.width = width
        if self.weights is not None:
            weights = torch.cat(self.pending_weights)
            self.pending_weights.clear()
            bins = torch.round(values.double() / (self.width or 1.0)).long() + BINS
            self.counts = self.counts + torch.bincount(bins, weights, 2 * BINS + 1)
        elif self.width:
            edge = (BINS + 0.5) * self.width
            self.counts = self.counts + torch.histc(values, 2 * BINS + 1, -edge, edge)
        else:  # nothing but zeros so far
            self.counts = self.counts.clone()
            self.counts[BINS] += values.numel()

    def range(self) -> Range:
        """Return what was seen."""
        if self.pending:
            self._count()
        (taken,) = torch.nonzero(self.counts, as_tuple=True)
        samples = ((taken - BINS).double() * self.width).float()
        counts, weighted = self.counts[taken].float().numpy(), self.weights is not None
        return Range(low=self.low, high=self.high, samples=samples.numpy(), counts=counts, weighted=weighted)

    @property
    def growth(self) -> float:
        """Return by how much the range grew in the last quarter of the batches, as a share."""
        before = self.spans[(3 * len(self.spans) - 1) // 4]
        return self.spans[-1] / before - 1 if before > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Hold what calibration images showed.

    Attributes:
        ranges: of every activation.
        images: the first ones, (N, H, W, C) float32, for steps that need some at hand.
        growth: by how much each activation's range grew in the last quarter of the images, as a share.
    """

    ranges: Mapping[str, Range]
    images: NDArray[np.float32]
    growth: Mapping[str, float] = field(default_factory=dict)


def calibrate(
    graph: Graph,
    batches: Iterable[NDArray[np.float32]],
    *,
    keep: int = 0,
    weights: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
) -> Calibration:
    """Observe the range of every activation over the batches.

    Args:
        graph: float.
        batches: (N, H, W, C) float32 network inputs, streamed once; memory does not grow with their number.
        keep: how many of the first images to keep.
        weights: of activations whose channels do not count alike, what a value of each counts: ``(channels,)``.

    Raises:
        InputError: no images, or an activation that is NaN or infinite; names the layer.
    """
    run = TorchGraph(graph)
    names = [t.name for t in graph.activations()]
    observers = {n: HistogramObserver(torch.from_numpy(weights[n]) if n in weights else None) for n in names}
    second: dict[str, float] = {}

    def observe(name: str, value: torch.Tensor) -> None:
        flat = (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).reshape(-1)
        observers[name].update(flat, value.shape[1])
        if name in graph.outputs and value.ndim == 2 and value.shape[1] > 1:
            largest = float(value.topk(2).values[:, 1].max())
            second[name] = max(second.get(name, largest), largest)

    kept: list[NDArray[np.float32]] = []
    missing, count = keep, 0
    for batch in batches:
        if missing > 0:
            kept.append(batch[:missing])
            missing -= len(kept[-1])
        run(torch.from_numpy(batch), observe)
        count += len(batch)
    if count == 0:
        raise InputError("there are no calibration images; give a folder with some")
    for name, observer in observers.items():
        if not observer.finite:
            raise InputError(
                f"activation {name!r} is not finite on the calibration images; check weights and preprocessing"
            )
    ranges = {name: replace(seen.range(), second=second.get(name, math.nan)) for name, seen in observers.items()}
    growth = {name: observer.growth for name, observer in observers.items()}
    images = np.concatenate(kept) if kept else np.zeros((0,), np.float32)
    return Calibration(ranges=ranges, images=images, growth=growth)


def peek(
    batches: Iterator[NDArray[np.float32]], count: int
) -> tuple[NDArray[np.float32], Iterator[NDArray[np.float32]]]:
    """Return the first ``count`` images (fewer where there are fewer), and a stream of all of them, from the first."""
    taken: list[NDArray[np.float32]] = []
    while sum(map(len, taken)) < count and (batch := next(batches, None)) is not None:
        taken.append(batch)
    first = np.concatenate(taken)[:count] if taken else np.zeros((0,), np.float32)
    return first, chain(taken, batches)


def extend(seen: Calibration, names: Iterable[str], factor: float) -> Calibration:
    """Return the calibration as if the named activations went ``factor`` times as far as seen."""
    ranges = dict(seen.ranges)
    for name in names:
        old = ranges[name]
        ends = {key: getattr(old, key) * factor for key in ("low", "high", "second")}
        ranges[name] = replace(old, samples=old.samples * np.float32(factor), **ends)
    return replace(seen, ranges=ranges)
