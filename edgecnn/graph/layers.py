"""Layers of a source in ops of the graph: convolutions of any kind, linear layers, pools, resizing.

Weights are OHWI, ``(out_channels, height, width, in_channels / groups)``, or ``(out_features, in_features)``. A value
of three dimensions is an image of one row.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.builder import Builder
from edgecnn.graph.ir import Constant, Node
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right
NO_PADDING = (0, 0, 0, 0)


def as_image(b: Builder, x: Value) -> Value:
    """Return the value as (N, H, W, C) in the graph; one of three dimensions has one row."""
    shape = b.shape(x)
    need(len(shape) in (3, 4), f"input of {len(shape)} dimensions where an image, or a row, with a batch is needed")
    if len(shape) == 3:
        wide = (shape[0], 1, *shape[1:]) if b.channels_last else (*shape[:2], 1, shape[2])
        x = b.reshape(x, wide)
    return b.image(x)


def _back(b: Builder, made: Value, rank: int) -> Value:
    """Undo what ``as_image`` does with a row."""
    if rank == 4:
        return made
    shape = b.shape(made)
    b.rows.add(made.name)
    return b.reshape(made, (shape[0], *shape[2:]) if b.channels_last else (*shape[:2], shape[3]))


def conv(
    b: Builder, x: Value, weight: Array, bias: Array | None, *,
    stride: Pair = (1, 1), padding: Padding = NO_PADDING, dilation: Pair = (1, 1), groups: int = 1,
) -> Value:  # fmt: skip
    """Return a convolution. ``weight``: OHWI; of a row, its height is 1."""
    if len(b.shape(x)) == 4 and b.shape(x)[0] > 1:
        return _conv_of_several(b, x, weight, bias, stride, padding, dilation, groups)
    rank, image = len(b.shape(x)), as_image(b, x)
    attrs: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _back(b, b.weighted("conv2d", image, weight, bias, image.axes, **attrs), rank)


def _conv_of_several(
    b: Builder, x: Value, weight: Array, bias: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Value:
    """Return a convolution of a batch made inside the network, such as windows: its images stand one below the other.

    Each gets its rows of padding, and as many more as let the next begin at a multiple of the stride.
    """
    order = (0, 3, 1, 2) if b.channels_last else (0, 1, 2, 3)
    back = (0, 2, 3, 1) if b.channels_last else (0, 1, 2, 3)
    top, bottom, left, right = padding
    x = b.transpose(x, order)
    count, channels, height, width = b.shape(x)
    more = -(top + height + bottom) % stride[0]
    made = (top + height + bottom - dilation[0] * (weight.shape[1] - 1) - 1) // stride[0] + 1
    x = b.pad(x, [(0, 0), (0, 0), (top, bottom + more), (0, 0)])
    rows = b.shape(x)[2]
    column = b.reshape(b.transpose(x, (1, 0, 2, 3)), (1, channels, count * rows, width))
    attrs: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    column = b.transpose(column, back)
    column = conv(b, column, weight, bias, padding=(0, 0, left, right), **attrs)
    column = b.transpose(column, order)
    each = rows // stride[0]
    column = b.pad(column, [(0, 0), (0, 0), (0, count * each - b.shape(column)[2]), (0, 0)])
    apart = b.reshape(column, (len(weight), count, each, b.shape(column)[3]))
    return b.transpose(b.slice(b.transpose(apart, (1, 0, 2, 3)), 2, 0, made), back)


def conv_transpose(
    b: Builder, x: Value, weight: Array, bias: Array | None, *,
    stride: Pair = (1, 1), padding: Padding = NO_PADDING, dilation: Pair = (1, 1), groups: int = 1,
    extra: Pair = (0, 0),
) -> Value:  # fmt: skip
    """Return a transposed convolution, as a convolution that makes each of ``stride`` phases, interleaved.

    Output pixel ``s q + p`` (padding not yet cropped) is ``sum_j x[q - j] w[s j + p]``: of one phase ``p``, a
    convolution with every ``s``-th tap of the kernel, turned around.
    Source: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", section 4.

    Args:
        weight: ``(out_channels / groups, height, width, in_channels)``.
        padding: top, bottom, left, right; cropped.
        extra: rows and columns more at the end, ``output_padding``.
    """
    rank, image = len(b.shape(x)), as_image(b, x)
    weight = _dilated(weight, dilation)
    made, height, width, channels = weight.shape
    sizes = b.held(image)[1:3]
    spans = [
        _phases(size, kernel, s, before, after, more)
        for size, kernel, s, before, after, more in zip(
            sizes, (height, width), stride, padding[::2], padding[1::2], extra, strict=True
        )
    ]
    (row_taps, pad_rows, rows), (column_taps, pad_columns, columns) = spans
    taps = np.zeros((stride[0], stride[1], made, row_taps, column_taps, channels), np.float32)
    for kh in range(height):
        for kw in range(width):
            (j, p), (k, q) = divmod(kh, stride[0]), divmod(kw, stride[1])
            taps[p, q, :, row_taps - 1 - j, column_taps - 1 - k] = weight[:, kh, kw]
    inside = channels // groups
    # (groups, phases, channels of a group): the order that a grouped convolution makes
    by_group = taps.reshape(-1, made, row_taps, column_taps, groups, inside).transpose(4, 0, 1, 2, 3, 5)
    kernel = by_group.reshape(-1, row_taps, column_taps, inside)
    phases = stride[0] * stride[1]
    shift = None
    if bias is not None:
        shift = np.repeat(bias.reshape(groups, 1, made), phases, axis=1).reshape(-1)
    source = _cropped(b, image, (*pad_rows, *pad_columns))
    outer = tuple(max(p, 0) for p in (*pad_rows, *pad_columns))
    result = b.weighted("conv2d", source, kernel, shift, source.axes, padding=outer, groups=groups)
    if phases > 1:
        if groups > 1:
            channel = 3 if b.channels_last else 1
            order = np.arange(groups * phases * made).reshape(groups, phases, made).transpose(1, 0, 2).reshape(-1)
            result = b.gather(result, channel, order.tolist())
        result = interleave(b, result, stride)
    for dim, (first, size) in zip((1, 2) if b.channels_last else (2, 3), (rows, columns), strict=True):
        result = b.slice(result, dim, first, first + size)
    return _back(b, result, rank)


def _dilated(weight: Array, dilation: Pair) -> Array:
    made, height, width, channels = weight.shape
    spread = np.zeros((made, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1, channels), np.float32)
    spread[:, :: dilation[0], :: dilation[1]] = weight
    return spread


def _phases(size: int, kernel: int, stride: int, before: int, after: int, extra: int) -> tuple[int, Pair, Pair]:
    """Return, of one side: taps per phase, the padding of the convolution, and (first, count) of what is kept."""
    out = (size - 1) * stride + kernel - before - after + extra
    need(out >= 1, f"a transposed convolution of {size} pixels that makes {out}")
    taps = -(-kernel // stride)
    first, last = before // stride, (before + out - 1) // stride
    return taps, (taps - 1 - first, last - size + 1), (before - first * stride, out)


def _cropped(b: Builder, image: Value, padding: Padding) -> Value:
    """Crop where a padding is negative."""
    height, width = b.held(image)[1:3]
    rows, columns = (1, 2) if b.channels_last else (2, 3)
    top, bottom, left, right = (max(-p, 0) for p in padding)
    image = b.slice(image, rows, top, height - bottom)
    return b.slice(image, columns, left, width - right)


def interleave(b: Builder, x: Value, block: Pair) -> Value:
    """Return an image whose channels (row in the block, column in the block, channel) became pixels."""
    x = b.image(x)
    if block[0] == block[1]:
        return b.add("depth_to_space", x, axes=x.axes, block=block[0])
    n, height, width, channels = b.held(x)
    (bh, bw), deep = block, channels // math.prod(block)
    axes = tuple(range(6))
    split = b.add("reshape", x, axes=axes, shape=(n, height, width, bh, bw, deep))
    moved = b.add("transpose", split, axes=axes, perm=(0, 1, 3, 2, 4, 5))
    return b.add("reshape", moved, axes=x.axes, shape=(n, height * bh, width * bw, deep))


def pixel_shuffle(b: Builder, x: Value, block: int) -> Value:
    """Return an image whose channels (channel, row in the block, column in the block), torch's order, became pixels."""
    x = b.image(x)
    channels = b.held(x)[3]
    order = np.arange(channels).reshape(-1, block * block).T.reshape(-1)
    return interleave(b, b.gather(x, 3 if b.channels_last else 1, order.tolist()), (block, block))


def pixel_unshuffle(b: Builder, x: Value, block: int) -> Value:
    """Undo ``pixel_shuffle``."""
    x = b.image(x)
    made = b.add("space_to_depth", x, axes=x.axes, block=block)
    order = np.arange(b.held(made)[3]).reshape(block * block, -1).T.reshape(-1)
    return b.gather(made, 3 if b.channels_last else 1, order.tolist())


def linear(b: Builder, x: Value, weight: Array, bias: Array | None) -> Value:
    """Return a linear layer over the last dimension of the source; of more than two, a 1x1 convolution."""
    shape = b.shape(x)
    last = len(shape) - 1
    need(last > 0 or x.axes[0] == -1, f"a linear layer over the batch, {shape}")
    if x.axes[0] == last:
        x = b.unbatched(x)
    x = b.arranged(x, (*(a for a in x.axes if a != last), last))
    held = b.held(x)
    if len(held) == 2:
        return b.weighted("fully_connected", x, weight, bias, x.axes)
    kernel = weight[:, None, None, :]
    if len(held) == 4:
        return b.weighted("conv2d", x, kernel, bias, x.axes)
    flat = (held[0], 1, math.prod(held[1:-1]), held[-1])
    image = b.add("reshape", x, axes=tuple(range(4)), shape=flat)
    made = b.weighted("conv2d", image, kernel, bias, image.axes)
    return b.add("reshape", made, axes=x.axes, shape=(*held[:-1], weight.shape[0]))


def batch_norm(b: Builder, x: Value, scale: NDArray[np.float64], shift: NDArray[np.float64], *, alone: bool) -> Value:
    """Return ``scale x + shift`` per channel, folded into the layer before where the norm ``alone`` reads it."""
    rank = len(b.shape(x))
    last = _layer_of(b, x) if alone and x.axes[-1] == (rank - 1 if b.channels_last else 1) else None
    if last is not None:
        w, c = (Constant.of(b.tensors[last.inputs[i]]) for i in (1, 2))
        folded = w.value.astype(np.float64) * scale.reshape(-1, *[1] * (len(w.shape) - 1))
        b.tensors[w.name] = replace(w, value=folded.astype(np.float32))
        b.tensors[c.name] = replace(c, value=(c.value.astype(np.float64) * scale + shift).astype(np.float32))
        return x
    if rank not in (3, 4):
        times, plus = scale.astype(np.float32), shift.astype(np.float32)
        return b.binary("add", b.binary("mul", x, times), plus)
    kernel = scale.reshape(-1, 1, 1, 1).astype(np.float32)
    return conv(b, x, kernel, shift.astype(np.float32), groups=len(scale))


def _layer_of(b: Builder, x: Value) -> Node | None:
    """Return the layer that makes a value, whose last dimension in the graph is its channels, if it is one."""
    makers = {node.output: node for node in b.nodes}
    last = makers.get(x.name)
    if last is not None and last.op == "reshape" and last.inputs[0] in b.rows:  # of a row, see ``_back``
        last = makers.get(last.inputs[0])
    plain = last is not None and last.weighted and last.attrs["activation"] == "none"
    return last if plain else None


# --- pools ---


def max_pool(b: Builder, x: Value, kernel: Pair, stride: Pair, padding: Padding = NO_PADDING) -> Value:
    """Return the maximum of each window; what lies outside is not looked at."""
    return _pool(b, "max_pool2d", x, kernel, stride, padding)


def avg_pool(
    b: Builder, x: Value, kernel: Pair, stride: Pair, padding: Padding = NO_PADDING, *, outside_counts: bool = False
) -> Value:
    """Return the average of each window, of the pixels inside the image, or of them and zeros outside."""
    if outside_counts and any(padding):
        rank, image = len(b.shape(x)), as_image(b, x)
        padded = b.add("pad", image, axes=image.axes, padding=padding)
        return _back(b, _pool(b, "avg_pool2d", padded, kernel, stride, NO_PADDING), rank)
    return _pool(b, "avg_pool2d", x, kernel, stride, padding)


def _pool(b: Builder, op: str, x: Value, kernel: Pair, stride: Pair, padding: Padding) -> Value:
    if kernel == stride == (1, 1) and not any(padding):
        return x
    rank, image = len(b.shape(x)), as_image(b, x)
    made = b.add(op, image, axes=image.axes, kernel=kernel, stride=stride, padding=padding)
    return _back(b, made, rank)


def adaptive_pool(b: Builder, x: Value, size: Pair, *, largest: bool = False) -> Value:
    """Return the average (or maximum) of ``size`` windows: window ``k`` of ``n`` is from ``floor(k s / n)`` to
    ``ceil((k + 1) s / n)``. Source: PyTorch ``AdaptiveAveragePooling.cpp``.

    Where the windows are not alike, pixels are repeated, or windows are computed one by one.
    """
    rank, image = len(b.shape(x)), as_image(b, x)
    height, width = b.held(image)[1:3]
    pool = max_pool if largest else avg_pool
    for axis, (have, want) in enumerate(((height, size[0]), (width, size[1]))):
        if have % want == 0:
            factor = have // want
            if factor > 1:
                window = (factor, 1) if axis == 0 else (1, factor)
                image = pool(b, image, window, window)
            continue
        dim = ((1, 2) if b.channels_last else (2, 3))[axis]
        if want % have == 0:
            image = b.gather(image, dim, [k * have // want for k in range(want)])
            continue
        parts = []
        for k in range(want):
            first, end = k * have // want, -(-(k + 1) * have // want)
            window = (end - first, 1) if axis == 0 else (1, end - first)
            part = b.slice(image, dim, first, end)
            parts.append(part if end - first == 1 else pool(b, part, window, window))
        image = b.concat(parts, dim)
    return _back(b, image, rank)


def resize(
    b: Builder, x: Value, size: Pair, mode: str, *, align_corners: bool = False, half_pixel: bool = False
) -> Value:
    """Return an image of another size, ``nearest`` or ``bilinear``; places of pixels as the op ``resize`` has them."""
    rank, image = len(b.shape(x)), as_image(b, x)
    if b.held(image)[1:3] == tuple(size):
        return x
    where: dict[str, Any] = {"align_corners": align_corners, "half_pixel": half_pixel}
    made = b.add("resize", image, axes=image.axes, size=tuple(size), mode=mode, **where)
    return _back(b, made, rank)


def prelu(b: Builder, x: Value, slope: Array, dim: int) -> Value:
    """Return ``x`` where it is positive, else ``x`` times the slope of its place in a dimension of the source."""
    if slope.size == 1 or np.all(slope == slope.flat[0]):
        return b.unary("leaky_relu", x, alpha=float(slope.flat[0]))
    x = b.arranged(b.batched(x), (*(a for a in x.axes if a != dim), dim))
    return b.add("prelu", x, b.constant(slope.reshape(-1), "slope"), axes=x.axes)
