"""Parts of tensors that are written in place: ``y[:, :2] = x``."""

from __future__ import annotations

import math

import torch

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides, offset
Region = tuple[tuple[int, ...], tuple[int, ...]]  # begin and sizes, in the dimensions of the whole


def region_of(part: Geometry, whole: Geometry, held: int) -> Region | None:
    """Return which rectangle of a tensor a smaller view is, or ``None`` where it is no such view.

    Args:
        part: of the view.
        whole: of the tensor; it must be contiguous and all that its memory holds.
        held: elements in the memory.
    """
    (shape, strides, offset), (full, steps, first) = part, whole
    size = math.prod(full)
    contiguous = [math.prod(full[k + 1 :]) for k in range(len(full))]
    if first or size != held or any(s != c for s, c, d in zip(steps, contiguous, full, strict=True) if d > 1):
        return None
    if math.prod(shape) >= size:
        return None
    begin = [offset // c % d for c, d in zip(contiguous, full, strict=True)]
    sizes, place = [1] * len(full), 0
    for count, stride in zip(shape, strides, strict=True):
        if count == 1:
            continue
        found = next((k for k in range(place, len(full)) if contiguous[k] == stride and full[k] > 1), None)
        if found is None or begin[found] + count > full[found]:
            return None
        sizes[found], place = count, found + 1
    return tuple(begin), tuple(sizes)


def write_part(whole: torch.Tensor, part: torch.Tensor, begin: tuple[int, ...], sizes: tuple[int, ...]) -> torch.Tensor:
    """Return a copy of a tensor with a rectangle of it replaced."""
    made = whole.clone()
    made[tuple(slice(b, b + s) for b, s in zip(begin, sizes, strict=True))] = part.reshape(sizes)
    return made
