"""Make graph nodes of the aten ops that only move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecnn.graph import layers
from edgecnn.graph.aten.arguments import Handler, arguments, dims_of, shape_of
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.meta_kernels import pair, windows
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need
from edgecnn.graph.traced import Call, Traced

PADS = {"reflection": "reflect", "replication": "replicate"}


def _same(t: Translation, call: Call) -> Value:
    """An op that changes nothing at inference."""
    return t.value(call.args[0])


def _to(t: Translation, call: Call) -> Value:
    """Another memory format, device or layout is the same value; another type is not."""
    kind = call.output.dtype
    need(kind.is_floating_point and kind.itemsize >= 4, f"a tensor that becomes {str(kind).removeprefix('torch.')}")
    return t.value(call.args[0])


def _reshape(t: Translation, call: Call) -> Value:
    """flatten, view, reshape, squeeze, unsqueeze."""
    return t.reshape(t.value(call.args[0]), call.output.shape)


def _expand(t: Translation, call: Call) -> Value:
    """Also ``copy_`` into all of a tensor: its argument in the tensor's shape."""
    source = call.args[1] if call.name == "copy" else call.args[0]
    need(isinstance(source, Traced) and source.constant is None, "a tensor that is overwritten by constants")
    return t.broadcast(t.value(source), call.output.shape)


def _permute(t: Translation, call: Call) -> Value:
    rank = len(call.args[0].shape)
    if call.name == "permute":
        return t.transpose(t.value(call.args[0]), dims_of(call.args[1], rank))
    first, second = (int(d) % rank for d in (*call.args[1:], 0, 1)[:2]) if rank > 1 else (0, 0)
    perm = list(range(rank))
    perm[first], perm[second] = second, first
    return t.transpose(t.value(call.args[0]), perm)


def _slice(t: Translation, call: Call) -> Value:
    x, dim, start, end, step = arguments(call, self=None, dim=0, start=None, end=None, step=1)
    dim %= len(x.shape)
    first, last, _ = slice(start, end, step).indices(x.shape[dim])
    return t.slice(t.value(x), dim, first, last, int(step))


def _select(t: Translation, call: Call) -> Value:
    x, dim, index = arguments(call, self=None, dim=0, index=0)
    return t.select(t.value(x), dim % len(x.shape), int(index))


def _split(t: Translation, call: Call) -> list[Value]:
    """split, chunk, tensor_split: the sizes are those of the outputs."""
    x, _, dim = arguments(call, self=None, split_size=0, dim=0)
    value, dim, first, parts = t.value(x), dim % len(x.shape), 0, []
    for output in call.outputs:
        parts.append(t.slice(value, dim, first, first + output.shape[dim]))
        first += output.shape[dim]
    return parts


def _unbind(t: Translation, call: Call) -> list[Value]:
    x, dim = arguments(call, self=None, dim=0)
    value, dim = t.value(x), dim % len(x.shape)
    return [t.select(value, dim, k) for k in range(len(call.outputs))]


def _concat(t: Translation, call: Call) -> Value:
    """Constants are added where they stand, to zeros."""
    tensors, dim = arguments(call, tensors=None, dim=0)
    parts = [p for p in tensors if p.shape != (0,)]
    rank = len(call.output.shape)
    dim %= rank
    if call.name == "stack":
        shape = (*call.output.shape[:dim], 1, *call.output.shape[dim + 1 :])
        return t.side_by_side([_reshaped(t, p, shape) for p in parts], dim)
    return t.side_by_side([t.array(p) if p.constant is not None else t.value(p) for p in parts], dim)


def _reshaped(t: Translation, part: Traced, shape: tuple[int, ...]) -> Value | Array:
    return t.array(part).reshape(shape) if part.constant is not None else t.reshape(t.value(part), shape)


def _pad(t: Translation, call: Call) -> Value:
    x, widths, fill = arguments(call, input=None, pad=None, value=0)
    mode = PADS.get(call.name.partition("_")[0], "constant")
    pairs = [(int(a), int(b)) for a, b in zip(widths[::2], widths[1::2], strict=True)]
    if call.layer == "Conv2d":
        # Conv2d(padding="same") pads first where two sides differ; its name is the convolution's
        t.scope, t.named = ".".join(filter(None, (call.path, "pad"))), True
    every = [*[(0, 0)] * (len(x.shape) - len(pairs)), *reversed(pairs)]
    if mode == "constant" and fill == -math.inf:
        need(t.readers.get(call.output) == {"max_pool2d"}, "a padding by minus infinity that is not of a max pool")
        t.unpadded[call.output] = t.value(x), every
        return t.pad(t.value(x), every, "replicate")  # which nothing reads: the pool has the padding
    return t.pad(t.value(x), every, mode, fill=float(fill or 0) if mode == "constant" else 0.0)


def _roll(t: Translation, call: Call) -> Value:
    x, shifts, dims = arguments(call, self=None, shifts=(), dims=())
    value, rank = t.value(x), len(x.shape)
    shifts = [shifts] if isinstance(shifts, int) else shifts
    if not dims:
        flat = t.reshape(value, (t.size(value),))
        return t.reshape(_rolled(t, flat, 0, int(shifts[0])), x.shape)
    for shift, dim in zip(shifts, dims_of(dims, rank), strict=True):
        value = _rolled(t, value, dim, int(shift))
    return value


def _rolled(t: Translation, x: Value, dim: int, shift: int) -> Value:
    """Return two slices in the other order."""
    size = t.shape(x)[dim]
    if not shift % size:
        return x
    cut = size - shift % size
    return t.concat([t.slice(x, dim, cut, size), t.slice(x, dim, 0, cut)], dim)


def _flip(t: Translation, call: Call) -> Value:
    x, dims = arguments(call, self=None, dims=())
    value = t.value(x)
    for dim in dims_of(dims, len(x.shape)):
        value = t.gather(value, dim, range(x.shape[dim] - 1, -1, -1))
    return value


def _index(t: Translation, call: Call) -> Value:
    """Take constant indices in one dimension, or in several side by side."""
    x, *rest = call.args
    if call.name == "index_select":
        dims, places = [int(rest[0]) % len(x.shape)], [t.whole(rest[1])]
    else:
        dims = [k for k, place in enumerate(rest[0]) if place is not None]
        places = [t.whole(rest[0][k]) for k in dims]
    need(dims == list(range(dims[0], dims[-1] + 1)), "indices in dimensions that are not side by side")
    if places[0].dtype == bool:
        need(len(places) == 1, "a mask beside other indices")
        dims = list(range(dims[0], dims[0] + places[0].ndim))
        places = list(np.nonzero(places[0]))
    sizes = [x.shape[d] for d in dims]
    wrapped = np.broadcast_arrays(*(np.where(p < 0, p + n, p) for p, n in zip(places, sizes, strict=True)))
    flat = np.ravel_multi_index(tuple(wrapped), tuple(sizes)).reshape(-1)
    value = t.value(x)
    if len(dims) > 1:
        value = t.reshape(value, (*x.shape[: dims[0]], int(np.prod(sizes)), *x.shape[dims[-1] + 1 :]))
    return t.reshape(t.gather(value, dims[0], flat.tolist()), call.output.shape)


def _repeat(t: Translation, call: Call) -> Value:
    x, counts = call.args[0], [int(c) for c in call.args[1]]
    value = t.reshape(t.value(x), (1,) * (len(counts) - len(x.shape)) + x.shape)
    for dim, count in enumerate(counts):
        size = t.shape(value)[dim]
        if count > 1:
            value = t.gather(t.spread(value, dim), dim, list(range(size)) * count)
    return value


def _pixel_shuffle(t: Translation, call: Call) -> Value:
    make = layers.pixel_shuffle if call.name == "pixel_shuffle" else layers.pixel_unshuffle
    need(len(call.args[0].shape) == 4, f"{call.name} of {len(call.args[0].shape)} dimensions; 4 are supported")
    return make(t, t.value(call.args[0]), int(call.args[1]))


def _channel_shuffle(t: Translation, call: Call) -> Value:
    x, groups = call.args[0], int(call.args[1])
    order = np.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
    return t.gather(t.value(x), 1, order.tolist())


def _unfold(t: Translation, call: Call) -> Value:
    """``Tensor.unfold(dim, size, step)``: windows of one dimension, their elements last."""
    x, dim, size, step = call.args
    dim %= len(x.shape)
    count = call.output.shape[dim]
    places = (np.arange(count)[:, None] * step + np.arange(size)).reshape(-1)
    windows = t.gather(t.value(x), dim, places.tolist())
    windows = t.reshape(windows, (*x.shape[:dim], count, size, *x.shape[dim + 1 :]))
    rank = len(x.shape) + 1
    return t.transpose(windows, [*(k for k in range(rank) if k != dim + 1), dim + 1])


def _im2col(t: Translation, call: Call) -> Value:
    """``nn.Unfold``: (N, C, H, W) to (N, C x taps, windows)."""
    x, kernel, dilation, padding, stride = call.args
    (n, c, height, width), value = x.shape, t.value(x)
    value = t.pad(value, [(0, 0), (0, 0), *((p, p) for p in pair(padding))])
    counts = []
    for dim, size in ((2, height), (3, width)):
        k, d, p, s = (pair(given)[dim - 2] for given in (kernel, dilation, padding, stride))
        counts.append(windows(size, k, s, p, d))
        places = np.arange(counts[-1])[:, None] * s + np.arange(k) * d
        value = t.gather(value, dim, places.reshape(-1).tolist())
    (kh, kw), (rows, columns) = pair(kernel), counts
    value = t.transpose(t.reshape(value, (n, c, rows, kh, columns, kw)), (0, 1, 3, 5, 2, 4))
    return t.reshape(value, call.output.shape)


def _col2im(t: Translation, call: Call) -> Value:
    """``nn.Fold`` of windows side by side."""
    x, _, kernel, dilation, padding, stride = call.args
    aside = pair(kernel) == pair(stride) and pair(dilation) == (1, 1) and pair(padding) == (0, 0)
    need(aside, "fold of windows that overlap, or with gaps or padding; those side by side are supported")
    n, c, height, width = call.output.shape
    kh, kw = pair(kernel)
    need(height % kh == 0 and width % kw == 0, f"fold to {height}x{width} by windows of {kh}x{kw}")
    value = t.reshape(t.value(x), (n, c, kh, kw, height // kh, width // kw))
    return t.reshape(t.transpose(value, (0, 1, 4, 2, 5, 3)), call.output.shape)


def _write_part(t: Translation, call: Call) -> Value:
    """``whole[begin : begin + sizes] = part``: zeros around the part, or the whole cut around it."""
    whole, part, begin, sizes = call.args
    value, shape = t.reshape(t.value(part), sizes), whole.shape
    if whole.constant is not None:
        padded = t.pad(value, [(b, d - b - s) for b, s, d in zip(begin, sizes, shape, strict=True)])
        around = t.array(whole).copy()
        around[tuple(slice(b, b + s) for b, s in zip(begin, sizes, strict=True))] = 0
        return t.binary("add", padded, around) if around.any() else padded
    return _cut_in(t, t.value(whole), value, 0, begin)


def _cut_in(t: Translation, whole: Value, part: Value, dim: int, begin: Sequence[int]) -> Value:
    shape, sizes = t.shape(whole), t.shape(part)
    if dim == len(shape):
        return part
    end = begin[dim] + sizes[dim]
    if sizes[dim] == shape[dim]:
        return _cut_in(t, whole, part, dim + 1, begin)
    middle = _cut_in(t, t.slice(whole, dim, begin[dim], end), part, dim + 1, begin)
    before = [t.slice(whole, dim, 0, begin[dim])] if begin[dim] else []
    after = [t.slice(whole, dim, end, shape[dim])] if end < shape[dim] else []
    return t.concat([*before, middle, *after], dim)


def _where(t: Translation, call: Call) -> Value:
    """Select by a constant condition: ``m a + (1 - m) b``; ``masked_fill`` likewise."""
    if call.name == "where":
        mask, first, second = call.args
    else:
        second, mask, first = call.args
    need(isinstance(mask, Traced) and mask.constant is not None, "a condition that depends on the input")
    share = t.array(mask)
    need(max(len(shape_of(a)) for a in call.args) <= len(call.output.shape), "operands of more dimensions")
    parts: list[Any] = []
    for operand, weight in ((t.operand(first), share), (t.operand(second), 1 - share)):
        if isinstance(operand, Value):
            parts.append(t.binary("mul", operand, weight))
        else:
            need(
                bool(np.all(np.isfinite(operand))), "an infinite number where a mask is; use a finite one such as -100"
            )
            parts.append(operand * weight)
    return t.binary("add", *parts)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("clone", "detach", "alias", "lift_fresh", "lift", "contiguous", "as_strided"), _same),
    "to": _to,
    **dict.fromkeys(("reshape", "squeeze", "unsqueeze", "flatten"), _reshape),
    **dict.fromkeys(("expand", "copy"), _expand),
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "chunk"), _split),
    "unbind": _unbind,
    **dict.fromkeys(("cat", "stack"), _concat),
    **dict.fromkeys(("pad", *(f"{mode}_pad{n}d" for mode in PADS for n in (1, 2))), _pad),
    "roll": _roll,
    "flip": _flip,
    **dict.fromkeys(("index", "index_select"), _index),
    "repeat": _repeat,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _pixel_shuffle),
    "channel_shuffle": _channel_shuffle,
    "unfold": _unfold,
    "write_part": _write_part,
    "im2col": _im2col,
    "col2im": _col2im,
    **dict.fromkeys(("where", "masked_fill"), _where),
}
