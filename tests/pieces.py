"""More pieces of random networks: moves, resizing, attention, slopes and functions of one number. See ``graphs.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from int8_builder import Int8Builder

from edgecnn.graph.contract import TANH
from edgecnn.graph.ops import OPS
from edgecnn.graph.unary_functions import FUNCTIONS

Piece = Callable[[Int8Builder, str], str]


def _as_image(b: Int8Builder, x: str) -> str:
    """Whatever it is, in four dimensions."""
    shape = b.shape(x)
    return x if len(shape) == 4 else b.op("reshape", x, shape=(1, *shape[1:3], math.prod(shape[3:])))


def _behind_a_convolution(piece: Piece) -> Piece:
    """Put a layer with weights in front: XNNPACK runs that of any file, and it has no int8 kernel for some moves."""

    def made(b: Int8Builder, x: str) -> str:
        return piece(b, b.weighted("conv2d", x, (b.shape(x)[3], 1, 1, b.shape(x)[3])))

    return made


def _permuted(rank: int) -> Piece:
    def piece(b: Int8Builder, x: str) -> str:
        """Split channels into several dimensions, and put them in another order."""
        grown = 2 ** (rank - 4) * int(b.rng.integers(1, 4))
        x = b.weighted("conv2d", x, (grown, 1, 1, b.shape(x)[3]))
        split = (2,) * (rank - 4) + (grown // 2 ** (rank - 4),)
        x = b.op("reshape", x, shape=(*b.shape(x)[:3], *split)) if rank > 4 else x
        order = [int(k) + 1 for k in b.rng.permutation(rank - 1)]
        return _as_image(b, b.op("transpose", x, perm=(0, *order)))

    return piece


def _shuffle(b: Int8Builder, x: str) -> str:
    """A channel shuffle of two groups."""
    x = b.weighted("conv2d", x, (6, 1, 1, b.shape(x)[3]))
    _, height, width, _ = b.shape(x)
    split = b.op("reshape", x, shape=(1, height, width, 2, 3))
    return b.op("reshape", b.op("transpose", split, perm=(0, 1, 2, 4, 3)), shape=(1, height, width, 6))


def _slice(*, strided: bool) -> Piece:
    def piece(b: Int8Builder, x: str) -> str:
        begin = [int(b.rng.integers(0, size)) for size in b.shape(x)[1:]]
        end = [int(b.rng.integers(at + 1, size + 1)) for at, size in zip(begin, b.shape(x)[1:], strict=True)]
        step = [int(b.rng.integers(1, 4)) if strided else 1 for _ in begin]
        return b.op("slice", x, begin=tuple(begin), end=tuple(end), step=tuple(step))

    return piece


def _gather(b: Int8Builder, x: str) -> str:
    axis = int(b.rng.integers(1, 4))
    indices = b.rng.integers(0, b.shape(x)[axis], int(b.rng.integers(1, 9)))
    return b.op("gather", x, axis=axis, indices=tuple(int(k) for k in indices))


def _resize(mode: str) -> Piece:
    def piece(b: Int8Builder, x: str) -> str:
        _, height, width, _ = b.shape(x)
        size = (2 * height, 2 * width) if b.rng.random() < 0.4 else tuple(int(v) for v in b.rng.integers(1, 24, 2))
        corners, half = ((False, False), (True, False), (False, True))[int(b.rng.integers(3))]
        return b.op("resize", x, size=size, mode=mode, align_corners=corners, half_pixel=half)

    return piece


def _depth_to_space(b: Int8Builder, x: str) -> str:
    block = int(b.rng.integers(2, 4))
    x = b.weighted("conv2d", x, (block**2 * int(b.rng.integers(1, 4)), 1, 1, b.shape(x)[3]))
    return b.op("depth_to_space", x, block=block)


def _space_to_depth(b: Int8Builder, x: str) -> str:
    _, height, width, _ = b.shape(x)
    x = b.op("pad", x, padding=(0, height % 2, 0, width % 2), channels=(0, 0))
    return b.op("space_to_depth", x, block=2)


def _attention(b: Int8Builder, x: str) -> str:
    """Every pixel looks at every other one, with two heads."""
    _, height, width, channels = b.shape(x)
    pixels = height * width

    def heads(*order: int) -> str:
        made = b.weighted("conv2d", x, (8, 1, 1, channels))
        return b.op("transpose", b.op("reshape", made, shape=(1, pixels, 2, 4)), perm=order)

    if b.rng.random() < 0.5:
        scores = b.op("batch_matmul", heads(0, 2, 1, 3), heads(0, 2, 1, 3), transpose_b=True)
    else:
        scores = b.op("batch_matmul", heads(0, 2, 1, 3), heads(0, 2, 3, 1))
    mixed = b.op("batch_matmul", b.op("softmax", scores), heads(0, 2, 1, 3))
    return b.op("reshape", b.op("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, height, width, 8))


def _softmax_of_channels(b: Int8Builder, x: str) -> str:
    return b.op("softmax", b.weighted("conv2d", x, (5, 1, 1, b.shape(x)[3]), out=b.grid(0.1)))


def _argmax(b: Int8Builder, x: str) -> str:
    """Few integers, so that the largest is often there several times: the first counts."""
    return b.op("argmax", b.weighted("conv2d", x, (5, 1, 1, b.shape(x)[3]), out=b.grid(2.0)))


def _prelu(b: Int8Builder, x: str) -> str:
    return b.op("prelu", x, b.constant((b.shape(x)[3],), b.grid(0.004)))


def _broadcast(op: str) -> Piece:
    def piece(b: Int8Builder, x: str) -> str:
        """Pixels and the mean of them, both activations."""
        pooled = b.op("mean", x, keepdims=True)
        return b.op(op, *((x, pooled) if b.rng.random() < 0.5 else (pooled, x)))

    return piece


def _function(op: str) -> Piece:
    def piece(b: Int8Builder, x: str) -> str:
        attrs: dict[str, Any] = {
            "leaky_relu": {"alpha": float(b.rng.choice([0.1, 0.01, 0.3]))},
            "clamp": {"low": -0.7, "high": 0.4},
            "elu": {"alpha": float(b.rng.choice([1.0, 0.5]))},
            "gelu": {"approximate": bool(b.rng.random() < 0.5)},
            "pow": {"exponent": float(b.rng.choice([2.0, 0.5, -0.5, -1.0, 3.0]))},
        }.get(op, {})
        positive = op in ("log", "pow")
        x = b.weighted(
            "conv2d", x, (b.shape(x)[3], 1, 1, b.shape(x)[3]), out=b.grid(6 / 255, -128 if positive else None)
        )
        fixed = TANH if op == "tanh" and b.rng.random() < 0.7 else None
        return b.op(op, x, out=fixed or b.grid(4 / 255), **attrs)

    return piece


MORE_PIECES: dict[str, Piece] = {
    "transpose": _permuted(4),
    "transpose_5": _permuted(5),
    "transpose_6": _permuted(6),
    "shuffle": _shuffle,
    "slice": _behind_a_convolution(_slice(strided=False)),
    "slice_strided": _behind_a_convolution(_slice(strided=True)),
    "gather": _behind_a_convolution(_gather),
    "resize_nearest": _behind_a_convolution(_resize("nearest")),
    "resize_bilinear": _behind_a_convolution(_resize("bilinear")),
    "depth_to_space": _depth_to_space,
    "space_to_depth": _behind_a_convolution(_space_to_depth),
    "attention": _attention,
    "softmax_of_channels": _softmax_of_channels,
    "argmax": _argmax,
    "prelu": _behind_a_convolution(_prelu),
    "add_broadcast": _behind_a_convolution(_broadcast("add")),
    "mul_broadcast": _behind_a_convolution(_broadcast("mul")),
    **{op: _function(op) for op in FUNCTIONS if not OPS[op].interim},
}
