"""Round the same sums as fast runtimes do: once, in float32, where LiteRT's reference kernels round twice.

An artifact's sums are the same integers everywhere. A runtime's own arithmetic lets it be held to the oracle exactly,
instead of within a distance that a fault could hide in. What is not here is as in ``kernels.py``.

Sources: XNNPACK ``src/microparams-init.c`` (``qs8_add``), ``src/indirection.c`` and ``src/s8-ibilinear`` (resizing),
``src/qs8-qc8w-gemm`` and its siblings (``fp32`` kernels); ONNX Runtime ``mlas/lib/qlgavgpool.cpp``, ``quantize.cpp``
(``MlasRequantizeOutput``), and those of ``mlas.py``; LiteRT ``kernels/internal/optimized/optimized_ops.h`` (``Softmax``
with a table, on x86).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.oracle import mlas, product_kernels
from edgecnn.graph.oracle.kernels import (
    KERNELS,
    Integers,
    connected,
    convolved,
    multiplied,
    requantized,
    summed,
)
from edgecnn.graph.oracle.moving import Lines, bilinear
from edgecnn.graph.oracle.parameters import Call
from edgecnn.graph.oracle.product_kernels import combined
from edgecnn.graph.oracle.table_kernels import exponentials

Kernel = Callable[[Call], Integers]
RESIZE_BITS = 11  # below the point of XNNPACK's shares
ADD_BITS = 20  # XNNPACK's larger multiplier of an add is in [2**20, 2**21)


def _once(
    c: Call, sums: NDArray[Any], scale: NDArray[np.float32] | np.float32, bias: int | NDArray[Any] = 0
) -> Integers:
    """``float32(sum + bias) * scale`` to the nearest integer, halves to even."""

    def to_grid(part: NDArray[Any]) -> NDArray[np.int64]:
        made: NDArray[np.int64] = np.rint((part.astype(np.int64) + bias).astype(np.float32) * scale).astype(np.int64)
        return made

    return requantized(c, sums, to_grid)


def _weighted(sums: Callable[[Call], NDArray[Any]]) -> Kernel:
    def kernel(c: Call) -> Integers:
        """One scale per output channel: ``s_in * s_w[c] / s_out``, each step in float32."""
        return _once(c, sums(c), c.scale(0) * c.inputs[1].quant.scale / c.scale(-1), c.values[2].astype(np.int64))

    return kernel


def _mul(c: Call) -> Integers:
    return _once(c, multiplied(c), c.scale(0) * c.scale(1) / c.scale(-1))


def _batch_matmul(c: Call) -> Integers:
    return _once(c, product_kernels.matrix_sums(c), c.scale(0) * c.scale(1) / c.scale(-1))


def _batch_matmul_xnnpack(c: Call) -> Integers:
    """Once in float32 where the second operand's zero point is 0. LiteRT's own kernel runs the others."""
    return KERNELS["batch_matmul"](c) if c.zero(1) else _batch_matmul(c)


def _mean(c: Call) -> Integers:
    _, height, width, _ = c.inputs[0].shape
    return _once(c, summed(c), c.scale(0) / (c.scale(-1) * np.float32(height * width)))


def _mean_xnnpack(*, fused: bool) -> Kernel:
    """``sum * scale + offset`` of the integers as they are: the zero points are in the offset, both in float32. Arm
    multiplies and adds at once (``fused``), x86 rounds the product. Found by fitting 24,576 means on each, most of them
    half way between two integers; every other order of the same steps misses some."""

    def kernel(c: Call) -> Integers:
        _, height, width, _ = c.inputs[0].shape
        scale = c.scale(0) / c.scale(-1) * (np.float32(1) / np.float32(height * width))
        base, zero = c.zero(0) * height * width, np.float32(c.zero(-1))

        def times_scale(integers: NDArray[Any] | int, plus: np.floating[Any]) -> NDArray[np.float32]:
            if fused:
                return np.asarray(np.float64(integers) * np.float64(scale) + np.float64(plus), np.float32)
            return np.asarray(np.float32(integers) * scale + plus, np.float32)

        offset = np.float32(times_scale(-base, zero))
        return requantized(
            c, summed(c) + base, lambda part: np.rint(times_scale(part, offset)).astype(np.int64) - c.zero(-1)
        )

    return kernel


def _add_xnnpack(c: Call) -> Integers:
    """Both inputs times their scale over the output's as integers of up to 21 bits, added, shifted, halves up."""
    ratios = np.array([c.scale(0), c.scale(1)], np.float32) / c.scale(-1)
    shift = ADD_BITS - (int(np.frexp(ratios.max())[1]) - 1)
    first, second = (int(m) for m in np.rint(np.ldexp(ratios.astype(np.float64), shift)))
    left, right = (c.values[k].astype(np.int64) - c.zero(k) for k in (0, 1))
    return requantized(c, left * first + right * second, lambda part: (part + (1 << (shift - 1))) >> shift)


def _add_mlas(c: Call) -> Integers:
    """In float32 with fused multiply-adds, on the unsigned grid (zero points + 128): the second input first."""
    a, b = (np.float32(c.scale(k) / c.scale(-1)) for k in (0, 1))
    zeros = [np.float32(c.zero(k) + 128) for k in (0, 1, -1)]
    fixed = zeros[2] - (a * zeros[0] + b * zeros[1])
    left, right = (c.values[k].astype(np.float64) + 128 for k in (0, 1))
    made = (left * a + (right * b + fixed).astype(np.float32)).astype(np.float32)
    return requantized(c, made, lambda part: np.rint(part).astype(np.int64) - 128 - c.zero(-1))


def _prelu_xnnpack(c: Call) -> Integers:
    """Two products where ``product_kernels.combined`` says so; else LiteRT's, which runs it."""
    made = combined(c)
    if made is None:
        return KERNELS["prelu"](c)
    x, slope = (c.values[k].astype(np.int64) - c.zero(k) for k in (0, 1))
    parts = (_once(c, x, c.scale(0) / c.scale(-1)), _once(c, x * slope, c.scale(0) * c.scale(1) / c.scale(-1)))
    return np.asarray(made(*parts))


def _resize_xnnpack(c: Call) -> Integers:
    """Bilinear: places in float32, shares with 11 bits, halves up. Nearest: LiteRT's, which runs it."""
    if c.attrs["mode"] == "nearest":
        return KERNELS["resize"](c)
    sides = zip(c.values[0].shape[1:3], c.attrs["size"], strict=True)
    made = [_lines_xnnpack(size, made, c.attrs) for size, made in sides]
    return bilinear(c, made, RESIZE_BITS, lambda sums, bits: (sums + (1 << (bits - 1))) >> bits)


def _lines_xnnpack(size: int, made: int, attrs: Mapping[str, Any]) -> Lines:
    """Return the pixels between which each pixel of a resized side lies (``indirection.c``)."""
    fewer = int(attrs["align_corners"] and made > 1)
    scale = np.float32(size - fewer) / np.float32(made - fewer)
    places = np.arange(made, dtype=np.float32) * scale
    if attrs["half_pixel"]:
        places = np.clip(places + (np.float32(0.5) * scale - np.float32(0.5)), 0, np.float32(size - 1))
    low = places.astype(np.int64)
    share = np.rint((places - low.astype(np.float32)) * np.float32(1 << RESIZE_BITS)).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), share


def _real(c: Call) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = c.values[0].astype(np.float32) - np.float32(c.zero(0))
    return centred * c.scale(0)


def _relu(highest: float) -> Kernel:
    def kernel(c: Call) -> Integers:
        """The real values, held between 0 and the highest, in float32."""
        real = np.clip(_real(c), 0, np.float32(highest))
        return requantized(c, real, lambda part: np.rint(part / c.scale(-1)).astype(np.int64))

    return kernel


def _prelu(c: Call) -> Integers:
    """The real values, times real slopes below zero, in float32."""
    slope = (c.values[1].astype(np.float32) - np.float32(c.zero(1))) * c.scale(1)
    real = _real(c)
    made = np.where(real < 0, real * slope, real)
    return requantized(c, made, lambda part: np.rint(part / c.scale(-1)).astype(np.int64))


def _softmax_table(c: Call) -> Integers:
    """LiteRT's fast kernel, which runs beside XNNPACK: a table of ``exp``, sums one after another in float32."""
    if c.wide:
        return KERNELS["softmax"](c)
    table = np.exp(-c.scale(0) * np.arange(256, dtype=np.float32))
    x = c.values[0].astype(np.int16)
    powers = table[x.max(axis=-1, keepdims=True) - x]
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    shares = powers * (np.float32(1) / (total * c.scale(-1)))
    return requantized(c, shares, lambda part: np.floor(part.astype(np.float64) + 0.5).astype(np.int64))


def _softmax(c: Call) -> Integers:
    """Sums of a table's integers, exact; a share is one division in float32."""
    x = c.values[0].astype(np.int16)
    powers = exponentials(c.inputs[0].quant, x.shape[-1])[x.max(axis=-1, keepdims=True) - x]
    total = powers.sum(axis=-1, keepdims=True, dtype=np.int64)
    shares = powers.astype(np.float32) / total.astype(np.float32)
    return requantized(c, shares, lambda part: np.rint(part / c.scale(-1)).astype(np.int64))


def _hard_swish(c: Call) -> Integers:
    """In float32: ``x * clip(x / 6 + 1 / 2, 0, 1)``."""
    real = _real(c)
    gate = np.clip(real * np.float32(1 / 6) + np.float32(0.5), 0, 1)
    return requantized(c, real * gate, lambda part: np.rint(part / c.scale(-1)).astype(np.int64))


def _with(changed: Mapping[str, Kernel]) -> Mapping[str, Kernel]:
    once = {"conv2d": _weighted(convolved), "fully_connected": _weighted(connected), "mul": _mul, "mean": _mean}
    return ChainMap({**once, **changed}, KERNELS)


XNNPACK: Mapping[str, Kernel] = {
    "add": _add_xnnpack,
    "batch_matmul": _batch_matmul_xnnpack,
    "resize": _resize_xnnpack,
    "prelu": _prelu_xnnpack,
}
ARITHMETICS: Mapping[str, Mapping[str, Kernel]] = {
    "litert": KERNELS,
    "xnnpack": _with({**XNNPACK, "mean": _mean_xnnpack(fused=False), "softmax": _softmax_table}),
    "xnnpack_arm": _with({**XNNPACK, "mean": _mean_xnnpack(fused=True)}),
    "onnxruntime": _with(mlas.CHANGED),
    "openvino": _with(
        {
            "add": _add_mlas,
            "batch_matmul": _batch_matmul,
            "hard_swish": _hard_swish,
            "prelu": _prelu,
            "relu": _relu(np.inf),
            "relu6": _relu(6),
            "softmax": _softmax,
        }
    ),
}
"""Name of an arithmetic to its kernels of 8-bit activations, one per op. ``litert`` is LiteRT's reference kernels."""
