"""Calibration: the float graph runs over images, and the range of every activation is kept, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Graph
from edgecnn.quant.readers import SWISHES, Reader

SAMPLES_PER_BATCH = 512
CHUNKS = 96  # at most this many batches' samples are kept per tensor; older ones are thinned evenly


@dataclass(frozen=True, kw_only=True)
class Range:
    """What calibration saw of one activation.

    Attributes:
        low: smallest value.
        high: largest value.
        samples: some of the values, evenly over the batches, float32 ``(n,)``.
    """

    low: float
    high: float
    samples: NDArray[np.float32]


class _Watch:
    """Running range and bounded sample of one activation."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")
        self.finite = True
        self.chunks: list[torch.Tensor] = []
        self.every, self.seen = 1, 0
        self.spans: list[float] = []  # of the range, after each batch

    def see(self, values: torch.Tensor, generator: torch.Generator) -> None:
        low, high = (float(v) for v in torch.aminmax(values))  # NaN where one of the values is
        self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.spans.append(self.high - self.low)
        if self.seen % self.every == 0:
            if len(self.chunks) == CHUNKS:
                self.chunks, self.every = self.chunks[::2], self.every * 2
            if self.seen % self.every == 0:
                self.chunks.append(values[torch.randint(values.numel(), (SAMPLES_PER_BATCH,), generator=generator)])
        self.seen += 1

    @property
    def growth(self) -> float:
        """By how much the range grew in the last quarter of the batches, as a share."""
        before = self.spans[(3 * len(self.spans) - 1) // 4]
        return self.spans[-1] / before - 1 if before > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the images showed.

    Attributes:
        ranges: of every activation.
        images: the first ones, (N, H, W, C) float32, for steps that need some at hand.
        growth: by how much each activation's range grew in the last quarter of the images, as a share.
    """

    ranges: Mapping[str, Range]
    images: NDArray[np.float32]
    growth: Mapping[str, float] = field(default_factory=dict)


def calibrate(graph: Graph, batches: Iterable[NDArray[np.float32]], *, keep: int = 0, seed: int = 0) -> Calibration:
    """The range of every activation over the batches.

    Args:
        graph: float.
        batches: (N, H, W, C) float32 network inputs, streamed once; memory does not grow with their number.
        keep: how many of the first images to keep.
        seed: of the sample that ``mse`` ranges look at.

    Raises:
        InputError: no images, or an activation that is NaN or infinite; names the layer.
    """
    run = TorchGraph(graph)
    watches = {t.name: _Watch() for t in graph.activations()}
    generator = torch.Generator().manual_seed(seed)

    def observe(name: str, value: torch.Tensor) -> None:
        flat = (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).reshape(-1)
        watches[name].see(flat, generator)

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
    for name, watch in watches.items():
        if not watch.finite:
            raise InputError(
                f"activation {name!r} is not finite on the calibration images; check weights and preprocessing"
            )
    ranges = {name: Range(low=w.low, high=w.high, samples=torch.cat(w.chunks).numpy()) for name, w in watches.items()}
    growth = {name: watch.growth for name, watch in watches.items()}
    images = np.concatenate(kept) if kept else np.zeros((0,), np.float32)
    return Calibration(ranges=ranges, images=images, growth=growth)


def peeked(
    batches: Iterator[NDArray[np.float32]], count: int
) -> tuple[NDArray[np.float32], Iterator[NDArray[np.float32]]]:
    """The first ``count`` images (fewer where there are fewer), and a stream of all of them, from the first."""
    taken: list[NDArray[np.float32]] = []
    while sum(map(len, taken)) < count and (batch := next(batches, None)) is not None:
        taken.append(batch)
    first = np.concatenate(taken)[:count] if taken else np.zeros((0,), np.float32)
    return first, chain(taken, batches)


def mse_range(seen: Range, reader: Reader | None = None) -> tuple[float, float]:
    """The sub-range whose 8-bit grid has the least squared error on the samples.

    First both ends shrink together, then each alone. Source: the MSE criterion of Krishnamoorthi 2018 and of
    Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1.

    Args:
        seen: of the activation.
        reader: the error is counted after this function, and only ends where it saturates are clipped.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if high <= low:
        return low, high
    x = torch.from_numpy(seen.samples)
    shares = torch.linspace(1.0, 0.3, 36)

    def best(lows: torch.Tensor, highs: torch.Tensor) -> tuple[float, float]:
        errors = [_squared_error(x, float(a), float(b), reader) for a, b in zip(lows, highs, strict=True)]
        k = int(np.argmin(errors))
        return float(lows[k]), float(highs[k])

    if reader is None:
        low, high = best(low * shares, high * shares)
    fine = torch.linspace(1.15, 0.7, 19) if reader is None else torch.linspace(1, 0.025, 40)
    if low < 0:
        low, high = best((low * fine).clamp(min=seen.low), torch.full_like(fine, high))
    if high > 0 and reader not in SWISHES:
        low, high = best(torch.full_like(fine, low), (high * fine).clamp(max=max(seen.high, 0.0)))
    return low, high


def percentile_range(seen: Range, percentile: float) -> tuple[float, float]:
    """The sub-range that leaves out ``100 - percentile`` per cent of the samples at either end.

    Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 3.2 (percentile calibration).
    """
    low, high = np.percentile(seen.samples, [100 - percentile, percentile])
    return float(low), float(high)


def _squared_error(x: torch.Tensor, low: float, high: float, reader: Reader | None) -> float:
    scale = max((high - low) / 255, 1e-30)
    zero = round(-128 - low / scale)
    real = (torch.clamp(torch.round(x / scale) + zero, -128, 127) - zero) * scale
    if reader is not None:
        real, x = reader(real), reader(x)
    return float(torch.mean((real - x) ** 2))
