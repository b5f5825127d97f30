"""Channel histograms: one run of the float graph over the images shows every step all that it needs of an activation.

Every activation has a histogram for each of its channels, in bounded memory. Equalization scales channels afterwards,
and the ranges that result are those of the same images: nothing runs again.

Bins are spaced like floating-point numbers: ``OCTAVES`` powers of two below the largest value, each in ``PARTS`` equal
parts. So small channels are held as finely as large ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.batch import Batch, Fed
from edgecnn.graph.interpreter import TorchGraph, tensors
from edgecnn.graph.ir import Graph

OCTAVES = 16  # below the largest value; what is smaller counts as zero, and is less than a hundredth of a step
PART_BITS = 3
PARTS = 1 << PART_BITS  # of an octave: a bin is at most an eighth of its values wide
SIDE = OCTAVES * PARTS
MANTISSA = 23 - PART_BITS  # bits of a float32 below the exponent and the bits that number the parts
LOOKED_AT = 1 << 13  # values of one activation per batch that are counted, at positions spread over the batch
PENDING = 16  # batches whose values are counted together: to count costs as much as to look at 16,384 values
THIN = 8  # rows of an image to one by which copies are known
WIDE_ROW = 512  # values that torch reduces fast
QUARTERS = np.arange(1, 8, 2) / 8  # where in a bin its values stand when it falls into bins of another spacing

Reals = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Hold what calibration saw of one activation, or of several together.

    Attributes:
        low: smallest value.
        high: largest value.
        lower, upper: edges of bins in which values are spread evenly, ``(n,)``; equal for a single value.
        counts: how much the values in each count, ``(n,)``.
        weighted: each was counted with the weight of its channel.
    """

    low: float
    high: float
    lower: Reals
    upper: Reals
    counts: Reals
    weighted: bool = False

    def within(self, low: float, high: float) -> Range:
        """Return what would have been seen, had values beyond the bounds been at the bounds."""
        lower, upper = (np.clip(edges, low, high) for edges in (self.lower, self.upper))
        first, last = (float(np.clip(end, low, high)) for end in (self.low, self.high))
        return replace(self, low=first, high=last, lower=lower, upper=upper)


def union(seen: Sequence[Range]) -> Range:
    """Return what several activations showed together."""
    parts = {key: np.concatenate([getattr(r, key) for r in seen]) for key in ("lower", "upper", "counts")}
    low, high = min(r.low for r in seen), max(r.high for r in seen)
    return Range(low=low, high=high, weighted=all(r.weighted for r in seen), **parts)


@dataclass(frozen=True, kw_only=True)
class ActivationStatistics:
    """Hold what calibration saw of one activation, channel by channel.

    Attributes:
        low, high: smallest and largest value, float64 ``(channels,)``.
        counts: how many of the values looked at fell into each bin, float32 ``(channels, 1 + 2 * SIDE)``: zeros, then
            positive values, then negative ones, each from small to large.
        exponent: binary, of the first bins: they begin at ``2**exponent`` and ``-2**exponent``.
        support: how many images it was that made the channel's values large: ``(sum p)**2 / sum p**2`` over each
            image's largest magnitude ``p`` (Kish's effective sample size). 0 where all are zero, 1 where one image has
            them all, and the number of images where they are alike. Float64 ``(channels,)``.
        divisor: by which the values were divided since, float64 ``(channels,)``; ``low`` and ``high`` are divided.
        second: of a vector that the network puts out: the largest value but one that an image has; else NaN.
        growth: by how much the range grew in the last quarter of the images, as a share.
    """

    low: Reals
    high: Reals
    counts: NDArray[np.float32]
    exponent: int
    support: Reals
    divisor: Reals
    second: float = math.nan
    growth: float = 0.0

    @property
    def reach(self) -> Reals:
        """Return the largest magnitude of each channel: float64 ``(channels,)``."""
        return np.maximum(self.high, -self.low)

    @property
    def square(self) -> Reals:
        """Return the mean square of each channel: float64 ``(channels,)``."""
        lower, upper = _edges(self.exponent)
        squares = (lower**2 + lower * upper + upper**2) / 3
        mean = self.counts @ squares / np.maximum(self.counts.sum(axis=1), 1)
        return np.asarray(mean / self.divisor**2, np.float64)

    def divided(self, by: Reals) -> ActivationStatistics:
        """Return what would have been seen, had each channel been divided by a number: float64 ``(channels,)``."""
        return replace(self, low=self.low / by, high=self.high / by, divisor=self.divisor * by)

    def range(self, weights: Reals | None = None) -> Range:
        """Return what the channels showed together.

        Args:
            weights: what a value of each channel counts, ``(channels,)``; ``None``: all alike.
        """
        counted = self.counts.astype(np.float64) if weights is None else self.counts * weights[:, None]
        exponent, total = self.exponent, counted.sum(axis=0)
        if not np.all(self.divisor == 1):
            exponent = math.floor(math.log2(max(float(self.reach.max()), 2.0**-126))) - OCTAVES + 1
            total = _shared_out(counted, self.exponent, self.divisor, exponent)
        lower, upper = _edges(exponent)
        taken, (low, high) = total > 0, (float(self.low.min()), float(self.high.max()))
        lower, upper = (np.clip(edges[taken], low, high) for edges in (lower, upper))  # a ReLU6 has its most at 6
        return Range(low=low, high=high, lower=lower, upper=upper, counts=total[taken], weighted=weights is not None)


def _edges(exponent: int) -> tuple[Reals, Reals]:
    """Return the edges of all bins, lower and upper, each ``(1 + 2 * SIDE,)``; those of the zeros are 0."""
    at = np.arange(SIDE + 1)
    edges = np.ldexp(1 + (at % PARTS) / PARTS, exponent + at // PARTS)
    return np.concatenate([[0], edges[:-1], -edges[1:]]), np.concatenate([[0], edges[1:], -edges[:-1]])


def _shared_out(counts: Reals, exponent: int, divisor: Reals, target: int) -> Reals:
    """Return the counts of divided channels in one histogram whose first bins begin at ``2**target``."""
    channel, filled = np.nonzero(counts)
    lower, upper = (edges[filled] / divisor[channel] for edges in _edges(exponent))
    total = np.zeros(1 + 2 * SIDE)
    for part in QUARTERS:
        value = lower + (upper - lower) * part
        mantissa, power = np.frexp(np.abs(value))  # the mantissa is in [0.5, 1)
        at = (power - 1 - target) * PARTS + ((2 * mantissa - 1) * PARTS).astype(np.int64)
        at = np.where(at < 0, 0, 1 + np.minimum(at, SIDE - 1) + SIDE * (value < 0))
        total += np.bincount(np.where(value == 0, 0, at), counts[channel, filled] / len(QUARTERS), len(total))
    return total


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each channel: ``(images, positions, channels)``, contiguous, to (images, channels).

    Positions are taken side by side first where there are few channels, for which torch's kernel is slow.
    """
    images, positions, channels = rows.shape
    beside = math.gcd(positions, 1 << 9)
    while beside > 1 and beside * channels > WIDE_ROW:
        beside //= 2
    return rows.reshape(images, -1, beside * channels).amax(1).view(images, beside, channels).amax(1)


class ChannelObserver:
    """Gather the statistics of one activation, batch by batch."""

    def __init__(self, *, nonnegative: bool) -> None:
        self.finite = True
        self._nonnegative = nonnegative
        self._low = self._high = torch.zeros(0)
        self._peaks = self._squares = torch.zeros(0)
        self._counts = torch.zeros(0)
        self._exponent = 0
        self._pending: list[torch.Tensor] = []
        self._spans: list[float] = []  # of the range, after each batch
        self._second = -math.inf

    def update(self, value: torch.Tensor, *, output: bool) -> None:
        """Take the values of one batch: NCHW (channels last in memory), or of another rank with the channels last.

        Args:
            value: of the activation.
            output: it is the network's, of which vectors are ranked.
        """
        channels_last = value.permute(0, 2, 3, 1) if value.ndim == 4 else value[:, None]
        rows = channels_last.flatten(1, -2)
        highs = _largest(rows)
        lows = None if self._nonnegative else -_largest(-rows)
        low, high = lows.amin(0) if lows is not None else torch.zeros_like(highs[0]), highs.amax(0)
        peaks = highs if lows is None else torch.maximum(highs, -lows)
        peaks = peaks.clamp(min=0).double()
        if not self._spans:
            self._low, self._high, self._peaks, self._squares = low, high, peaks.sum(0), peaks.square().sum(0)
        else:
            self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
            self._peaks, self._squares = self._peaks + peaks.sum(0), self._squares + peaks.square().sum(0)
        first, last = float(self._low.min()), float(self._high.max())
        self.finite = self.finite and math.isfinite(first) and math.isfinite(last)
        self._spans.append(last - first)
        if not self.finite:
            return
        flat = rows.flatten(0, 1)
        stride = -(-len(flat) * flat.shape[1] // LOOKED_AT)
        self._pending.append(flat[len(self._spans) * 7 % stride :: stride].clone())
        if len(self._pending) == PENDING:
            self._count()
        if output and value.ndim == 2 and value.shape[1] > 1:
            self._second = max(self._second, float(value.topk(2).values[:, 1].max()))

    def _count(self) -> None:
        values = torch.cat(self._pending)
        self._pending.clear()
        channels, largest = values.shape[1], max(-float(self._low.min()), float(self._high.max()))
        if largest == 0:  # nothing but zeros so far
            largest = 2.0**-126
        exponent = math.floor(math.log2(largest)) - OCTAVES + 1
        if not len(self._counts):
            self._counts, self._exponent = torch.zeros(channels, 1 + 2 * SIDE), exponent
        elif exponent > self._exponent:
            self._raise(exponent)
        bits = values.contiguous().view(torch.int32)
        at = ((bits & 0x7FFFFFFF) >> MANTISSA) - ((self._exponent + 127) << PART_BITS)
        at = torch.where(at < 0, 0, at + 1 + (bits < 0) * SIDE) + torch.arange(channels) * (1 + 2 * SIDE)
        self._counts = self._counts + torch.bincount(at.flatten(), minlength=self._counts.numel()).view_as(self._counts)

    def _raise(self, exponent: int) -> None:
        """Let the bins begin at a larger number: the smallest become zeros."""
        moved = min((exponent - self._exponent) * PARTS, SIDE)
        zeros, positive, negative = (self._counts[:, a:b] for a, b in ((0, 1), (1, 1 + SIDE), (1 + SIDE, None)))
        small = positive[:, :moved].sum(1, keepdim=True) + negative[:, :moved].sum(1, keepdim=True)
        empty = torch.zeros(len(zeros), moved)
        sides = (torch.cat([side[:, moved:], empty], dim=1) for side in (positive, negative))
        self._counts, self._exponent = torch.cat([zeros + small, *sides], dim=1), exponent

    def statistics(self) -> ActivationStatistics:
        """Return what was seen."""
        if self._pending:
            self._count()
        before = self._spans[(3 * len(self._spans) - 1) // 4]
        return ActivationStatistics(
            low=self._low.double().numpy(),
            high=self._high.double().numpy(),
            counts=self._counts.numpy(),
            exponent=self._exponent,
            support=(self._peaks.square() / self._squares.clamp(min=1e-300)).numpy(),
            divisor=np.ones(len(self._low)),
            second=self._second if math.isfinite(self._second) else math.nan,
            growth=self._spans[-1] / before - 1 if before > 0 else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Hold what calibration images showed.

    Attributes:
        statistics: of every activation.
        images: the first ones, float32, for steps that need some at hand.
        count: how many there were, copies left out.
    """

    statistics: Mapping[str, ActivationStatistics]
    images: Batch = field(default_factory=Batch)
    count: int = 0

    @property
    def growth(self) -> Mapping[str, float]:
        """Return by how much each activation's range grew in the last quarter of the images, as a share."""
        return {name: seen.growth for name, seen in self.statistics.items()}


def calibrate(graph: Graph, batches: Iterable[Fed], *, keep: int = 0) -> Calibration:
    """Observe every activation over the batches. A copy of an image shows nothing new and is left out.

    Args:
        graph: float.
        batches: float32 network inputs, streamed once; memory does not grow with their number.
        keep: how many of the first images to keep.

    Raises:
        InputError: no images, or an activation that is NaN or infinite; names the layer.
    """
    run = TorchGraph(graph)
    positive = {n.output for n in graph if {n.op, n.attrs.get("activation")} & {"relu", "relu6", "sigmoid", "softmax"}}
    observers = {t.name: ChannelObserver(nonnegative=t.name in positive) for t in graph.activations()}

    def observe(name: str, value: torch.Tensor) -> None:
        observers[name].update(value, output=name in graph.outputs)

    kept: list[Batch] = []
    missing, seen, count = keep, set[bytes](), 0
    for each in batches:
        given = Batch.of(graph.inputs, each)
        keys = [_key(sample) for sample in given]
        new = [i for i, key in enumerate(keys) if key not in seen and key not in keys[:i]]
        seen.update(keys)
        if not new:
            continue
        batch = given if len(new) == len(given) else given[np.array(new)]
        if missing > 0:
            kept.append(batch[:missing])
            missing -= len(kept[-1])
        run.run(tensors(batch), observe)
        count += len(batch)
    if count == 0:
        raise InputError("there are no calibration images; give a folder with some")
    for name, observer in observers.items():
        if not observer.finite:
            raise InputError(
                f"activation {name!r} is not finite on the calibration images; check weights and preprocessing"
            )
    statistics = {name: observer.statistics() for name, observer in observers.items()}
    return Calibration(statistics=statistics, images=Batch.joined(kept), count=count)


def _key(sample: Batch) -> bytes:
    """Return what copies of a sample have in common; of an image, some rows will do."""
    made = hashlib.blake2b(digest_size=16)
    for array in sample.arrays.values():
        made.update((array[:, ::THIN] if array.ndim == 4 else array).tobytes())
    return made.digest()


def extend(seen: Calibration, names: Iterable[str], factor: float) -> Calibration:
    """Return the calibration as if the named activations went ``factor`` times as far as seen."""
    statistics = dict(seen.statistics)
    for name in names:
        old = statistics[name]
        statistics[name] = replace(old.divided(np.full(len(old.low), 1 / factor)), second=old.second * factor)
    return replace(seen, statistics=statistics)
