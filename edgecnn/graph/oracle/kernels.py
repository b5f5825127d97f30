"""One integer kernel per op, bit-exact with LiteRT's reference kernels. int8 or int16, NHWC (or NC), in and out.

Names in docstrings are LiteRT's source files under ``kernels`` (``*.cc``) and ``kernels/internal/reference`` (``*.h``).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.oracle import fixed_point as fp
from edgecnn.graph.oracle import int16, moving, parameters, product_kernels, table_kernels
from edgecnn.graph.oracle.parameters import HIGH, LOW, Call

Integers = NDArray[Any]  # of the activations' type
CHUNK = 2**16  # accumulators rescaled at a time: small enough for the cache


# --- convolutions: conv.h, depthwise_conv.h, fully_connected.h under integer_ops ---


def conv2d(c: Call) -> Integers:
    """``ConvPerChannel`` and ``DepthwiseConvPerChannel``: exact sums, one multiplier per channel."""
    return _rescaled(c, convolved(c), multiply=fp.multiply_wide if c.wide else fp.multiply)


def convolved(c: Call) -> NDArray[Any]:
    """Exact sums of a conv2d, without its bias."""
    weight = c.values[1]
    top, bottom, left, right = c.attrs["padding"]
    centred = c.values[0].astype(_exact_type(c)) - c.zero(0)
    padded = np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0))) if any(c.attrs["padding"]) else centred
    return _convolve(padded, weight.astype(padded.dtype), c.attrs["stride"], c.attrs["dilation"], c.attrs["groups"])


def fully_connected(c: Call) -> Integers:
    """``FullyConnectedPerChannel``.

    Unlike the convolutions it rounds once: of 524,288 outputs of a wide layer, single rounding gave every one, double
    rounding all but 227 (LiteRT 2.3.0). Of int16, ``FullyConnected`` in double precision: every one of 2,400,000, the
    fixed-point form all but 5.
    """
    if c.wide:
        real, bias = parameters.real_weighted(c), c.values[2].astype(np.float64)
        return requantized(c, connected(c), lambda part: fp.round_away((part + bias) * real).astype(np.int64))
    return _rescaled(c, connected(c), multiply=fp.multiply_once)


def connected(c: Call) -> NDArray[Any]:
    """Exact sums of a fully_connected, without its bias."""
    weight = c.values[1]
    centred = c.values[0].astype(_exact_type(c)) - c.zero(0)
    sums: NDArray[Any] = centred @ weight.astype(centred.dtype).T
    return sums


def _exact_type(c: Call) -> type[np.floating[Any]]:
    """A float type in which no sum of products can round: every partial sum stays below its 2**24 or 2**53."""
    weight, (low, high) = c.values[1], c.inputs[0].quant.limits
    largest = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1).max() * (high - low)
    return np.float32 if largest <= 2**24 else np.float64


def _convolve(
    x: NDArray[Any], weight: NDArray[Any], stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> NDArray[Any]:
    """One shifted slice of the padded input per kernel tap, summed. OHWI weights, NHWC in and out."""
    channels, kernel_h, kernel_w, depth = weight.shape
    height = (x.shape[1] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    sums = np.zeros((x.shape[0], height, width, channels), x.dtype)
    scratch = np.empty_like(sums)
    per_group = channels // groups
    for ky, kx in product(range(kernel_h), range(kernel_w)):
        rows = slice(ky * dilation[0], ky * dilation[0] + (height - 1) * stride[0] + 1, stride[0])
        columns = slice(kx * dilation[1], kx * dilation[1] + (width - 1) * stride[1] + 1, stride[1])
        patch, tap = x[:, rows, columns], weight[:, ky, kx]
        if depth == 1 and groups == x.shape[3]:
            patch = patch if per_group == 1 else np.repeat(patch, per_group, axis=3)
            sums += np.multiply(patch, tap[:, 0], out=scratch)
            continue
        for g in range(groups):
            source = patch[..., g * depth : (g + 1) * depth].reshape(-1, depth)
            made = source @ tap[g * per_group : (g + 1) * per_group].T
            sums[..., g * per_group : (g + 1) * per_group] += made.reshape(*sums.shape[:3], per_group)
    return sums


def _rescaled(c: Call, sums: NDArray[Any], *, multiply: Callable[..., fp.Integers] = fp.multiply) -> Integers:
    """Sums plus bias to the output's grid."""
    multiplier, shift = parameters.weighted(c)
    bias = c.values[2].astype(np.int64)
    return requantized(c, sums, lambda part: multiply(part.astype(np.int64) + bias, multiplier, shift))


def requantized(c: Call, sums: NDArray[Any], to_grid: Callable[[NDArray[Any]], fp.Integers]) -> Integers:
    """``to_grid`` of rows of channels, a chunk at a time, plus the zero point, clipped to the activation."""
    low, high = c.limits(c.attrs.get("activation", "none"))
    rows = sums.reshape(-1, sums.shape[-1])
    out = np.empty(rows.shape, c.dtype)
    step = max(1, CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        part = to_grid(rows[start : start + step])
        part += c.zero(-1)
        out[start : start + step] = np.clip(part, low, high, out=part)
    return out.reshape(sums.shape)


# --- arithmetic: add.cc, mul.cc, reduce.cc ---


def add(c: Call) -> Integers:
    """``AddElementwise``: inputs times 2**20 (int16: 2**15) on twice the larger scale, added, put on the output's."""
    *of_inputs, (multiplier, shift) = parameters.add(c)
    scaled = []
    for k, own in enumerate(of_inputs):  # one table each
        scaled.append(c.looked_up(fp.multiply((c.every(k) - c.zero(k)) << c.add_shift, *own), k))
    return requantized(c, scaled[0] + scaled[1], lambda part: fp.multiply(part, multiplier, shift))


def mul(c: Call) -> Integers:
    """``MulElementwise``: the product of the centred integers, one multiplier."""
    multiplier, shift = parameters.mul(c)
    return requantized(c, multiplied(c), lambda part: fp.multiply(part.astype(np.int64), multiplier, shift))


def multiplied(c: Call) -> NDArray[Any]:
    """Products of the centred integers of two tensors."""
    left, right = (c.values[k].astype(np.int32) - c.zero(k) for k in (0, 1))
    return left * right


def mean(c: Call) -> Integers:
    """``QuantizedMeanOrSum``: sums of the centred integers, one multiplier with the count in it."""
    multiplier, shift = parameters.mean(c)
    return requantized(c, summed(c), lambda part: fp.multiply(part, multiplier, shift))


def summed(c: Call) -> NDArray[Any]:
    """Sums of the centred integers over height and width."""
    x = c.values[0]
    sums: NDArray[Any] = x.sum(axis=(1, 2), dtype=np.int64, keepdims=bool(c.attrs["keepdims"]))
    sums -= c.zero(0) * x.shape[1] * x.shape[2]
    return sums


def requantize(c: Call) -> Integers:
    """``Requantize`` of requantize.h: from one integer type to another."""
    table = fp.multiply(c.every(0) - c.zero(0), *parameters.requantize(c)) + c.zero(-1)
    return c.looked_up(np.clip(table, *c.limits("none")).astype(c.dtype), 0)


# --- ops that keep their input's grid ---


def max_pool2d(c: Call) -> Integers:
    """``MaxPool``: over the pixels inside the image."""
    return _pooled(c, c.values[0], np.maximum, c.limits("none")[0])


def avg_pool2d(c: Call) -> Integers:
    """``AveragePool``: integers as they are (zero point included), over the pixels inside, halves away from zero."""
    sums, count = pooled_sums(c, c.values[0].astype(np.int32))
    nearest: NDArray[Any] = np.sign(sums) * ((np.abs(sums) + count // 2) // count)
    return nearest.astype(c.dtype)


def pooled_sums(c: Call, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums over the pixels inside each window, in the type of ``x``, and how many those pixels are."""
    inside = np.ones((1, *x.shape[1:3], 1), np.int32)
    return _pooled(c, x, np.add, 0), _pooled(c, inside, np.add, 0)


def _pooled(c: Call, values: NDArray[Any], combine: np.ufunc, outside: int) -> NDArray[Any]:
    (kh, kw), (sh, sw) = c.attrs["kernel"], c.attrs["stride"]
    top, bottom, left, right = c.attrs["padding"]
    x = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    _, height, width, _ = c.output.shape
    out = np.full((x.shape[0], height, width, x.shape[3]), outside, x.dtype)
    for ky, kx in product(range(kh), range(kw)):
        patch = x[:, ky : ky + (height - 1) * sh + 1 : sh, kx : kx + (width - 1) * sw + 1 : sw]
        combine(out, patch, out=out)
    return out


# --- ops of one input: a table with an entry for each integer that it can hold ---


def _by_table(function: Callable[[Call, fp.Integers], NDArray[Any]]) -> Callable[[Call], Integers]:
    def kernel(c: Call) -> Integers:
        table = np.clip(function(c, c.every(0) - c.zero(0)) + c.zero(-1), *c.limits("none"))
        return c.looked_up(table.astype(c.dtype), 0)

    kernel.__doc__ = function.__doc__
    return kernel


def _relu(activation: str) -> Callable[[Call], Integers]:
    def kernel(c: Call, centred: fp.Integers) -> fp.Integers:
        """``QuantizedReluX``: rescaled, then clipped like a fused activation."""
        multiplier, shift = parameters.rescaling(c)
        low, high = c.limits(activation)
        return np.clip(fp.multiply(centred, multiplier, shift), low - c.zero(-1), high - c.zero(-1))

    return _by_table(kernel)


@_by_table
def sigmoid(c: Call, centred: fp.Integers) -> NDArray[Any]:
    """``SigmoidPrepare``: the table in float32, by an ``expf`` that rounds as C's. Of int16: ``int16.sigmoid``."""
    if c.wide:
        return int16.sigmoid(centred, c.scale(0))
    real = np.maximum(c.scale(0) * centred.astype(np.float32), np.float32(-80))  # below, exp overflows: 0 either way
    power = np.exp(-real.astype(np.float64)).astype(np.float32)
    return fp.round_away(np.float32(1) / (np.float32(1) + power) * (np.float32(1) / c.scale(-1)))


@_by_table
def hard_swish(c: Call, centred: fp.Integers) -> fp.Integers:
    """``HardSwishPrepare`` and hard_swish.h, in 16 bits: input * 128, times (x + 3) / 6 held in [0, 1] as Q0.15."""
    fine = np.float32(1 / 128) * c.scale(0)
    to_output, output_shift = fp.quantize_multiplier(np.float64(fine / c.scale(-1)))
    to_third, third_shift = fp.quantize_multiplier(np.float64(fine / np.float32(3 / 32768)))
    x = centred << 7
    on_output = _high_mul16(x, _top16(to_output))
    third = x  # becomes x / 3, saturated to [-1, 1], in Q0.15
    if third_shift > 0:
        third = _saturate16(third << (third_shift - 1))
    third = _high_mul16(third, _top16(to_third))
    if third_shift > 0:
        third = _saturate16(third << 1)
    if third_shift < 0:
        third = fp.divide_by_power(third, -third_shift)
    gate = (third + (1 << 15)) >> 1
    # SaturatingDoublingHighMul truncates towards zero
    gated = np.sign(gate * on_output) * (np.abs(gate * on_output) >> 15)
    return fp.divide_by_power(gated, -output_shift)


def _top16(multiplier: fp.Integers) -> fp.Integers:
    """``DownScaleInt32ToInt16Multiplier``."""
    top: fp.Integers = np.minimum((multiplier + (1 << 15)) >> 16, 2**15 - 1)
    return top


def _high_mul16(a: fp.Integers, b: fp.Integers) -> fp.Integers:
    return _saturate16((a * b + (1 << 14)) >> 15)


def _saturate16(x: fp.Integers) -> fp.Integers:
    return np.clip(x, -(2**15), 2**15 - 1)


def exponentials(c: Call) -> fp.Integers:
    """softmax.h: ``exp`` of a logit 0, 1, .. 255 integers below the row's maximum, Q0.31. Differences are in Q5.26."""
    multiplier, shift = parameters.softmax(c)
    below = -np.arange(256, dtype=np.int64)
    counted = below >= -((31 << 26) >> int(shift))  # further below, the difference has no Q5.26
    powers = fp.exp_on_negative_values(fp.high_mul(np.where(counted, below, 0) << shift, multiplier))
    return np.where(counted, powers, 0)


def softmax(c: Call) -> Integers:
    """softmax.h: sums of exponentials in Q12.19, one reciprocal per row. Of int16: ``int16.softmax``."""
    if c.wide:
        return int16.softmax(c.values[0], c.scale(0))
    x = c.values[0].astype(np.int16)
    powers = exponentials(c)[x.max(axis=-1, keepdims=True) - x]
    total = fp.divide_by_power(powers, 12).sum(axis=-1, keepdims=True)
    inverse, over = fp.reciprocal(total, 12)
    share = fp.divide_by_power(fp.high_mul(powers, inverse), over + 31 - 8)
    return np.clip(share + LOW, LOW, HIGH).astype(np.int8)


def argmax(c: Call) -> Integers:
    """``ArgMinMax``: the first of equals."""
    places = c.values[0].argmax(axis=-1)[..., None]
    return np.asarray(places + c.zero(-1), c.dtype)


KERNELS: dict[str, Callable[[Call], Integers]] = {
    "conv2d": conv2d,
    "fully_connected": fully_connected,
    "add": add,
    "mul": mul,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "mean": mean,
    **moving.KERNELS,
    "requantize": requantize,
    "relu": _relu("relu"),
    "relu6": _relu("relu6"),
    "hard_swish": hard_swish,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "argmax": argmax,
    **product_kernels.KERNELS,
    **table_kernels.KERNELS,
}
