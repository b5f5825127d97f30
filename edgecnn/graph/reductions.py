"""Reductions over dimensions, in ops of the graph: means, maxima, norms, softmax, products of matrices.

The graph has a mean over height and width, and a maximum over windows. Every other reduction is one of these on another
shape, or a 1x1 convolution of equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgecnn.graph.builder import Builder
from edgecnn.graph.layers import conv, linear
from edgecnn.graph.node_builder import BATCH, Array, Value
from edgecnn.graph.ops import need


def mean(b: Builder, x: Value, dims: Sequence[int], *, keepdims: bool) -> Value:
    """Return the mean over dimensions of the source; of a mean, that of what it is a mean of."""
    shape = b.shape(x)
    dims = sorted(d % len(shape) for d in dims)
    if x in b.means:
        first, before, kept = b.means[x]
        left = list(range(len(shape))) if kept else [k for k in range(len(b.shape(first))) if k not in before]
        both = sorted({*before, *(left[d] for d in dims)})
        made = mean(b, first, both, keepdims=True)
        ends = [1 if k in before or left.index(k) in dims else d for k, d in enumerate(b.shape(first))]
        if not keepdims:
            gone = {left[d] for d in dims} | (set() if kept else set(before))
            ends = [d for k, d in enumerate(ends) if k not in gone]
        elif not kept:
            ends = [d for k, d in enumerate(ends) if k not in before]
        return b.reshape(made, ends)
    made = _mean(b, x, dims, keepdims=keepdims)
    if made.name != x.name:
        b.means[made] = x, tuple(dims), keepdims
    return made


def _mean(b: Builder, x: Value, dims: list[int], *, keepdims: bool) -> Value:
    shape = b.shape(x)
    kept = tuple(1 if k in dims else d for k, d in enumerate(shape))
    final = kept if keepdims else tuple(d for k, d in enumerate(shape) if k not in dims)
    large = [d for d in dims if shape[d] > 1]
    if large and x.axes == b.image_axes(4) and tuple(dims) == b.image_axes(4)[1:3]:
        return b.add("mean", x, axes=x.axes if keepdims else (0, 1), keepdims=keepdims)
    x, reduced = _together(b, x, large)
    if reduced is None:
        return b.reshape(x, final)
    held, (first, end) = b.held(x), reduced
    before, inside, after = (math.prod(part) for part in (held[1:first], held[first:end], held[end:]))
    out = tuple(1 if first <= k < end else d for k, d in enumerate(held))
    if (first, end) == (1, 3) and len(held) == 4:
        made = b.add("mean", x, axes=x.axes, keepdims=True)
    elif before == 1:
        flat = b.add("reshape", x, axes=tuple(range(4)), shape=(held[0], inside, 1, after))
        pooled = b.add("mean", flat, axes=flat.axes, keepdims=True)
        made = b.add("reshape", pooled, axes=x.axes, shape=out)
    elif len(held) == 4 and first == 3:
        made = b.weighted("conv2d", x, np.full((1, 1, 1, inside), 1 / inside, np.float32), None, x.axes)
    else:
        flat = b.add("reshape", x, axes=(BATCH, 0, 1), shape=(held[0], before, inside))
        weight = np.full((1, inside), 1 / inside, np.float32)
        made = b.add("reshape", linear(b, flat, weight, None), axes=x.axes, shape=out)
    return b.reshape(made, final)


def _together(b: Builder, x: Value, dims: list[int]) -> tuple[Value, tuple[int, int] | None]:
    """Return the value with these dimensions side by side in the graph, and where: all before them of size 1, or all
    behind them, where that costs no transpose; else they come last."""
    if not dims:
        return x, None
    if x.axes[0] in dims:
        x = b.unbatched(x)
    held, places = b.held(x), sorted(x.axes.index(d) for d in dims)
    first, end = places[0], places[-1] + 1
    dense = all(held[k] == 1 for k in range(first, end) if k not in places)
    if dense and (math.prod(held[1:first]) == 1 or math.prod(held[end:]) == 1):
        return x, (first, end)
    rest = [a for a in x.axes[1:] if a not in dims]
    moved = b.arranged(x, (x.axes[0], *rest, *dims))
    return moved, (1 + len(rest), len(held))


def total(b: Builder, x: Value, dims: Sequence[int], *, keepdims: bool) -> Value:
    """Return the sum over dimensions of the source: the mean times their count."""
    shape = b.shape(x)
    count = math.prod(shape[d] for d in dims)
    return b.binary("mul", mean(b, x, dims, keepdims=keepdims), float(count))


def largest(b: Builder, x: Value, dims: Sequence[int], *, keepdims: bool) -> Value:
    """Return the maximum over dimensions of the source, as a pool of one window."""
    shape = b.shape(x)
    dims = sorted(d % len(shape) for d in dims)
    kept = tuple(1 if k in dims else d for k, d in enumerate(shape))
    final = kept if keepdims else tuple(d for k, d in enumerate(shape) if k not in dims)
    x, reduced = _together(b, x, [d for d in dims if shape[d] > 1])
    if reduced is None:
        return b.reshape(x, final)
    held, (first, end) = b.held(x), reduced
    before, inside, after = (math.prod(part) for part in (held[1:first], held[first:end], held[end:]))
    flat = b.add("reshape", x, axes=tuple(range(4)), shape=(held[0], before, inside, after))
    made = b.add("max_pool2d", flat, axes=flat.axes, kernel=(1, inside), stride=(1, inside))
    out = tuple(1 if first <= k < end else d for k, d in enumerate(held))
    return b.reshape(b.add("reshape", made, axes=x.axes, shape=out), final)


def softmax(b: Builder, x: Value, dim: int) -> Value:
    """Return the softmax over a dimension of the source."""
    dim %= len(b.shape(x))
    if x.axes[0] == dim:
        x = b.unbatched(x)
    return b.unary("softmax", b.arranged(x, (*(a for a in x.axes if a != dim), dim)))


def argmax(b: Builder, x: Value, dim: int, *, keepdims: bool) -> Value:
    """Return the first place of the largest number of a dimension of the source."""
    shape = b.shape(x)
    dim %= len(shape)
    if x.axes[0] == dim:
        x = b.unbatched(x)
    made = b.unary("argmax", b.arranged(x, (*(a for a in x.axes if a != dim), dim)))
    return made if keepdims else b.reshape(made, (*shape[:dim], *shape[dim + 1 :]))


def matmul(b: Builder, left: Value, right: Value | Array) -> Value:
    """Return the product of the last two dimensions, over all before them, which are equal or 1 in one of them."""
    if not isinstance(right, Value):
        need(right.ndim == 2, f"a product with a constant of shape {right.shape}; two dimensions are supported")
        return linear(b, left, np.ascontiguousarray(right.T), None)
    rank = max(len(b.shape(left)), len(b.shape(right)))
    left, right = (_matrices(b, v, rank) for v in (left, right))
    heads = b.shape(left)[:-2]
    need(
        heads == b.shape(right)[:-2],
        f"a product of {b.shape(left)} and {b.shape(right)}, which are not equal before their matrices",
    )
    outer = (BATCH, *range(rank - 2)) if left.axes[0] == BATCH else tuple(range(rank - 2))
    left = b.arranged(left, (*outer, rank - 2, rank - 1))
    turned = right.axes.index(rank - 1) < right.axes.index(rank - 2)
    right = b.arranged(right, (*outer, *((rank - 1, rank - 2) if turned else (rank - 2, rank - 1))))
    return b.add("batch_matmul", left, right, axes=left.axes, transpose_b=turned)


def _matrices(b: Builder, x: Value, rank: int) -> Value:
    """Return the value with ``rank`` dimensions, the batch before them or the first of three or more."""
    shape = b.shape(x)
    x = b.reshape(x, (1,) * (rank - len(shape)) + shape)
    if rank > 2 and (x.axes[0] == 0 or b.shape(x)[0] == 1):
        return b.batched(x)
    return b.unbatched(x)


def layer_norm(
    b: Builder, x: Value, dims: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> Value:
    """Return ``(x - m) / sqrt(v + eps) weight + bias`` with mean and variance over dimensions of the source.

    Source: Ba et al. 2016, "Layer Normalization", eq. 4.
    """
    centred = b.binary("sub", x, mean(b, x, dims, keepdims=True))
    variance = mean(b, b.binary("mul", centred, centred), dims, keepdims=True)
    made = b.binary("mul", centred, _one_over_root(b, variance, eps))
    made = made if weight is None else b.binary("mul", made, weight)
    return made if bias is None else b.binary("add", made, bias)


def _one_over_root(b: Builder, variance: Value, eps: float) -> Value:
    return b.unary("pow", b.binary("add", variance, float(eps)), exponent=-0.5)


def group_norm(b: Builder, x: Value, groups: int, weight: Array | None, bias: Array | None, eps: float) -> Value:
    """Return the norm over each group of channels, (N, C, ...), with all positions; as many groups as channels are an
    instance norm. Source: Wu and He 2018, "Group Normalization", eq. 1 to 5.
    """
    shape = b.shape(x)
    channel = len(shape) - 1 if b.channels_last else 1
    channels, rank = shape[channel], len(shape)
    spatial = [k for k in range(1, rank) if k != channel]

    def average(value: Value) -> Value:
        by_channel = mean(b, value, spatial, keepdims=True) if spatial else value
        kept = b.shape(by_channel)
        if groups == channels:
            return by_channel
        by_group = mean(b, b.reshape(by_channel, (1, groups, channels // groups)), [2], keepdims=False)
        places = [k // (channels // groups) for k in range(channels)]
        return b.reshape(b.gather(by_group, 1, places), kept)

    centred = b.binary("sub", x, average(x))
    made = b.binary("mul", centred, _one_over_root(b, average(b.binary("mul", centred, centred)), eps))
    along = [-1 if k == channel else 1 for k in range(rank)]
    made = made if weight is None else b.binary("mul", made, weight.reshape(along))
    return made if bias is None else b.binary("add", made, bias.reshape(along))


def l2_normalize(b: Builder, x: Value, dims: Sequence[int], eps: float) -> Value:
    """Return ``x / max(|x|, eps)`` with the norm over dimensions of the source."""
    square = total(b, b.binary("mul", x, x), dims, keepdims=True)
    held = b.clamp(square, max(eps, 1e-12) ** 2, float("inf"))
    return b.binary("mul", x, b.unary("pow", held, exponent=-0.5))


def local_response_norm(b: Builder, x: Value, size: int, alpha: float, beta: float, bias: float) -> Value:
    """Return ``x / (bias + alpha s / size) ** beta``; ``s`` sums squares of ``size`` neighbouring channels of an image.

    Sources: Krizhevsky et al. 2012, "ImageNet Classification", section 3.3; ONNX, "LRN", for the window, which begins
    ``(size - 1) // 2`` channels before. The sum is a 1x1 convolution.
    """
    channels = b.shape(x)[-1 if b.channels_last else 1]
    apart = np.arange(channels)[None] - np.arange(channels)[:, None]  # of the channel read from the one made
    inside = (apart >= -((size - 1) // 2)) & (apart <= size // 2)
    weight = np.where(inside, alpha / size, 0).astype(np.float32)[:, None, None]
    total = conv(b, b.binary("mul", x, x), weight, np.full(channels, bias, np.float32))
    return b.binary("mul", x, b.unary("pow", total, exponent=-beta))
