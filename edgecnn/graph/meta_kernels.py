"""Compute the shapes that the aten ops of a CNN make: kernels for meta tensors, which have a shape and no data.

torch has a meta kernel for each, but since 2.x most are Python and import sympy and dynamo, 1.4 s of every command.
What is here answers as they do for the common case, and ``None`` for any other and for whatever looks like a mistake:
torch then gives its own answer, or its own error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Result = Tensor | tuple[Tensor, ...]


def meta_result(name: str, args: Sequence[Any]) -> Result | None:
    """Return a new result of ``aten.name(*args)`` on float32 meta tensors, or ``None`` where torch is to be asked."""
    kernel = KERNELS.get(name)
    return kernel(*args) if kernel else None


def windows(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, ceil: bool = False) -> int:
    """Return how many windows torch places along one side. With ``ceil`` the last must start inside the image or its
    padding.

    Source: torch.nn.MaxPool2d, "Shape" and the note on ``ceil_mode``.
    """
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    count = (math.ceil(room / stride) if ceil else room // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + pad else count


def pair(value: Any) -> tuple[int, int]:
    """Return (height, width) of an aten argument that has one or two numbers."""
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _same(x: Tensor, *rest: Any) -> Result | None:
    return None if any(isinstance(r, Tensor) for r in rest) else _empty(*x.shape)


def _broadcast(*operands: Any) -> Result | None:
    try:
        return _empty(*np.broadcast_shapes(*(o.shape for o in operands if isinstance(o, Tensor))))
    except ValueError:
        return None


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, _: Any, groups: int,
) -> Result | None:  # fmt: skip
    if transposed or not x.ndim == weight.ndim == 4 or x.shape[1] != weight.shape[1] * groups:
        return None
    if weight.shape[0] % groups or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    sides = [
        windows(x.shape[2 + i], weight.shape[2 + i], pair(stride)[i], pair(padding)[i], pair(dilation)[i])
        for i in (0, 1)
    ]
    return _empty(x.shape[0], weight.shape[0], *sides) if min(sides) > 0 else None


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, training: bool,
    *_: Any,
) -> Result | None:  # fmt: skip
    if training or mean is None or var is None:
        return None
    if any(p is not None and p.shape != x.shape[1:2] for p in (weight, bias, mean, var)):
        return None
    return _empty(*x.shape), _empty(*mean.shape), _empty(*var.shape)


def _pooled(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> tuple[int, ...] | None:
    sizes, steps, pads = pair(kernel), pair(stride or kernel), pair(padding)
    if x.ndim != 4 or any(2 * p > k for p, k in zip(pads, sizes, strict=True)):
        return None
    sides = [windows(x.shape[2 + i], sizes[i], steps[i], pads[i], pair(dilation)[i], ceil) for i in (0, 1)]
    return (*x.shape[:2], *sides) if min(sides) > 0 else None


def _max_pool(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Result | None:
    shape = _pooled(x, kernel, stride, padding, dilation, ceil)
    return (_empty(*shape), _empty(*shape, dtype=torch.int64)) if shape else None


def _avg_pool(x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *_: Any) -> Result | None:
    shape = _pooled(x, kernel, stride, padding, 1, ceil)
    return _empty(*shape) if shape else None


def _adaptive_pool(x: Tensor, size: Any) -> Result | None:
    return _empty(*x.shape[:2], *pair(size)) if x.ndim == 4 else None


def _mean(x: Tensor, dims: Any = None, keep: bool = False) -> Result | None:
    if not dims or not all(-x.ndim <= d < x.ndim for d in dims):
        return None
    gone = {d % x.ndim for d in dims}
    if len(gone) < len(dims):
        return None
    return _empty(*(1 if i in gone else n for i, n in enumerate(x.shape) if keep or i not in gone))


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Result | None:
    first = tensors[0]
    if not -first.ndim <= dim < first.ndim:
        return None
    axis = dim % first.ndim
    rest = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in tensors}
    if len(rest) > 1:
        return None
    return _empty(*first.shape[:axis], sum(t.shape[axis] for t in tensors), *first.shape[axis + 1 :])


def _addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Result | None:
    made = _mm(x, weight)
    return made if made is not None and bias.shape == weight.shape[1:] else None


def _mm(x: Tensor, weight: Tensor) -> Tensor | None:
    fits = x.ndim == weight.ndim == 2 and x.shape[1] == weight.shape[0]
    return _empty(x.shape[0], weight.shape[1]) if fits else None


KERNELS: dict[str, Callable[..., Result | None]] = {
    **dict.fromkeys(
        ("relu", "hardtanh", "clamp", "clamp_min", "sigmoid", "hardswish", "hardsigmoid", "silu", "_softmax"), _same
    ),
    "add": _broadcast,
    "mul": _broadcast,
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "_adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    "cat": _cat,
    "addmm": _addmm,
    "mm": _mm,
}
