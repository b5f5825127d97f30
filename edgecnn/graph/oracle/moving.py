"""Integer kernels of ops that move integers, or take the nearest of them: exact, of int8 and int16, any rank and batch.

Names in docstrings are LiteRT's source files under ``kernels/internal/reference`` (``*.h``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.oracle import fixed_point as fp
from edgecnn.graph.oracle.parameters import Call

Integers = NDArray[Any]  # of the activations' type
FRACTION = 10  # bits of a place between two pixels


def concat(c: Call) -> Integers:
    """The integers side by side: all on one grid."""
    n = max(len(v) for v in c.values)  # a constant's is 1
    return np.concatenate([np.broadcast_to(v, (n, *v.shape[1:])) for v in c.values], axis=c.attrs["axis"])


def pad(c: Call) -> Integers:
    """Zeros, which are the zero point."""
    (top, bottom, left, right), channels = c.attrs["padding"], c.attrs["channels"]
    return np.pad(c.values[0], ((0, 0), (top, bottom), (left, right), channels), constant_values=c.zero(0))


def reshape(c: Call) -> Integers:
    """The same integers in the same order."""
    return c.values[0].reshape(-1, *c.attrs["shape"][1:])


def transpose(c: Call) -> Integers:
    """The same integers in another order."""
    return np.ascontiguousarray(c.values[0].transpose(c.attrs["perm"]))


def slice_(c: Call) -> Integers:
    """Some of the integers of every dimension but the batch."""
    places = zip(c.attrs["begin"], c.attrs["end"], c.attrs["step"], strict=True)
    return np.ascontiguousarray(c.values[0][(slice(None), *(slice(*place) for place in places))])


def gather(c: Call) -> Integers:
    """The slices of one dimension at some indices."""
    return np.asarray(np.take(c.values[0], c.attrs["indices"], axis=c.attrs["axis"]))


def depth_to_space(c: Call) -> Integers:
    """``DepthToSpace``: channels are (row in the block, column in the block, channel)."""
    block, (n, height, width, channels) = c.attrs["block"], c.values[0].shape
    split = c.values[0].reshape(n, height, width, block, block, channels // block**2)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * block, width * block, channels // block**2)


def space_to_depth(c: Call) -> Integers:
    """``SpaceToDepth``: the inverse of ``depth_to_space``."""
    block, (n, height, width, channels) = c.attrs["block"], c.values[0].shape
    split = c.values[0].reshape(n, height // block, block, width // block, block, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // block, width // block, channels * block**2)


def resize(c: Call) -> Integers:
    """``ResizeNearestNeighbor`` or ``ResizeBilinearInteger``."""
    if c.attrs["mode"] == "nearest":
        rows, columns = (nearest(size, made, c.attrs) for size, made in _sides(c))
        return c.values[0][:, rows][:, :, columns]
    return bilinear(c, [lines(size, made, c.attrs) for size, made in _sides(c)], FRACTION, fp.divide_by_power)


def _sides(c: Call) -> list[tuple[int, int]]:
    """Return (pixels, pixels wanted) of height and width."""
    return list(zip(c.values[0].shape[1:3], c.attrs["size"], strict=True))


def nearest(size: int, made: int, attrs: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the pixel that each pixel of a resized side is a copy of (``GetNearestNeighbor``, in float32)."""
    aligned = attrs["align_corners"] and made > 1
    scale = np.float32(size - 1) / np.float32(made - 1) if aligned else np.float32(size) / np.float32(made)
    places = (np.arange(made, dtype=np.float32) + np.float32(0.5 if attrs["half_pixel"] else 0)) * scale
    whole = fp.round_away(places) if attrs["align_corners"] else np.floor(places)
    return np.asarray(np.clip(whole, 0, size - 1), np.int64)


Lines = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of each pixel of a resized side: the pixels before and behind it, and the share of the latter in fixed point."""


def lines(size: int, made: int, attrs: Mapping[str, Any]) -> Lines:
    """Return the pixels between which each pixel of a resized side lies (``ComputeInterpolationValuesInteger``)."""
    one = 1 << FRACTION
    scale = (one * size + made // 2) // made
    if attrs["align_corners"] and made > 1:
        scale = (one * (size - 1) + (made - 1) // 2) // (made - 1)
    places = np.arange(made, dtype=np.int64) * scale
    if attrs["half_pixel"]:
        places += scale // 2 - one // 2
    low = np.maximum(places, 0) >> FRACTION
    high = np.minimum((places + one - 1) >> FRACTION, size - 1)
    return low, high, places - (low << FRACTION)


def bilinear(c: Call, sides: list[Lines], bits: int, to_integer: Callable[[Integers, int], Integers]) -> Integers:
    """Return the weighted sums of four pixels each.

    Args:
        c: of a resize.
        sides: of height and width.
        bits: below the point of a share.
        to_integer: takes sums with twice as many bits below the point, and how many those are.
    """
    (above, below, down), (left, right, across) = sides
    x, one = c.values[0].astype(np.int64), 1 << bits
    down, across = down[:, None, None], across[:, None]
    rows: fp.Integers = x[:, above] * (one - down) + x[:, below] * down
    sums: Integers = rows[:, :, left] * (one - across) + rows[:, :, right] * across
    return to_integer(sums, 2 * bits).astype(c.dtype)


KERNELS: Mapping[str, Callable[[Call], Integers]] = {
    "concat": concat,
    "pad": pad,
    "reshape": reshape,
    "transpose": transpose,
    "slice": slice_,
    "gather": gather,
    "resize": resize,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
}
