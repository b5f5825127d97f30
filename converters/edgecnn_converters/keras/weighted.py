"""Keras layers with weights in ops of the graph: convolutions, dense layers, norms, slopes.

Weights of Keras are HWIO; depthwise HWC and multiplier; of transposed convolutions (height, width, out, in).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph import layers, reductions
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need, same_padding
from edgecnn_converters.keras.activations import activated
from edgecnn_converters.keras.translation import Handler, Step, pair

Pair = tuple[int, int]


def padding_of(
    padding: str, sizes: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of ``same``, ``valid`` or ``causal``, which looks back only."""
    if padding == "causal":
        return 0, 0, (kernel[1] - 1) * dilation[1], 0
    if padding == "same":
        rows, columns = (same_padding(*each) for each in zip(sizes, kernel, stride, dilation, strict=True))
        return *rows, *columns
    need(padding == "valid", f"padding {padding!r}; allowed: causal, same, valid")
    return 0, 0, 0, 0


def sides(step: Step, x: Value) -> tuple[int, int]:
    """Return height and width of an image in the builder's order; a row has a height of 1."""
    shape = step.b.shape(x)
    inside = shape[1:-1] if step.b.channels_last else shape[2:]
    height, width = (1, *inside) if len(inside) == 1 else inside
    return height, width


def finished(step: Step, x: Value) -> Value:
    """Return a layer's output in its own order of dimensions, behind its activation."""
    return activated(step.b, step.outward(x), step.config.get("activation"), step.b.keras)


def _biased(step: Step, *kernels: str) -> list[Any]:
    """Return the kernels of a layer and its bias, or ``None`` for it."""
    if step.config.get("use_bias", True):
        return [*step.arrays(*kernels, "bias")]
    return [*step.arrays(*kernels), None]


def _window(step: Step, x: Value, kernel: Pair) -> dict[str, Any]:
    rows = len(step.b.shape(x)) == 3
    stride, dilation = pair(step.config.get("strides", 1), rows), pair(step.config.get("dilation_rate", 1), rows)
    padding = padding_of(str(step.config.get("padding", "valid")), sides(step, x), kernel, stride, dilation)
    return {"stride": stride, "dilation": dilation, "padding": padding}


def _image(kernel: Array) -> Array:
    """Return a kernel with a height, which one of a row has not."""
    return kernel[None] if kernel.ndim == 3 else kernel


def convolution(step: Step) -> Value:
    """Add Conv1D or Conv2D."""
    kernel, bias = _biased(step, "kernel")
    x, kernel = step.inward(step.x), _image(kernel)
    groups = int(step.config.get("groups", 1))
    window = _window(step, x, kernel.shape[:2])
    return finished(step, layers.conv(step.b, x, kernel.transpose(3, 0, 1, 2), bias, groups=groups, **window))


def _depthwise(step: Step, x: Value, kernel: Array, bias: Array | None) -> Value:
    kernel = _image(kernel)
    height, width, channels, multiplier = kernel.shape
    weight = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, height, width, 1)
    return layers.conv(step.b, x, weight, bias, groups=channels, **_window(step, x, (height, width)))


def depthwise(step: Step) -> Value:
    """Add DepthwiseConv1D or DepthwiseConv2D."""
    kernel, bias = _biased(step, "kernel")
    return finished(step, _depthwise(step, step.inward(step.x), kernel, bias))


def separable(step: Step) -> Value:
    """Add SeparableConv1D or SeparableConv2D: a depthwise convolution, then a pointwise one."""
    kernel, pointwise, bias = _biased(step, "depthwise_kernel", "pointwise_kernel")
    between = _depthwise(step, step.inward(step.x), kernel, None)
    made = layers.conv(step.b, between, _image(pointwise).transpose(3, 0, 1, 2), bias)
    return finished(step, made)


def transposed(step: Step) -> Value:
    """Add Conv1DTranspose or Conv2DTranspose.

    Source: ``_get_output_shape_given_tf_padding`` of Keras 3; TensorFlow crops as ``SAME`` of the convolution that it
    is the gradient of.
    """
    kernel, bias = _biased(step, "kernel")
    x, kernel = step.inward(step.x), _image(kernel)
    rows = len(step.b.shape(x)) == 3
    stride, dilation = pair(step.config.get("strides", 1), rows), pair(step.config.get("dilation_rate", 1), rows)
    given = step.config.get("output_padding")
    extra = (None, None) if given is None else pair(given, rows)
    spans = [
        _span(size, (k - 1) * d + 1, s, str(step.config.get("padding", "valid")), more)
        for size, k, s, d, more in zip(sides(step, x), kernel.shape[:2], stride, dilation, extra, strict=True)
    ]
    (top, bottom, more_rows), (left, right, more_columns) = spans
    made = layers.conv_transpose(
        step.b, x, kernel.transpose(2, 0, 1, 3), bias, stride=stride, dilation=dilation,
        padding=(top, bottom, left, right), extra=(more_rows, more_columns),
    )  # fmt: skip
    return finished(step, made)


def _span(size: int, kernel: int, stride: int, padding: str, more: int | None) -> tuple[int, int, int]:
    """Return, of one side: what is cropped before and behind, and what is added behind."""
    need(padding in ("same", "valid"), f"padding {padding!r}; allowed: same, valid")
    full = (size - 1) * stride + kernel
    if padding == "valid":
        out = size * stride + max(kernel - stride, 0) if more is None else full + more
        before = 0
    else:
        out = size * stride if more is None else (size - 1) * stride + kernel % 2 + more
        before = max(full - out, 0) // 2
    behind = full - before - out
    return before, max(behind, 0), max(-behind, 0)


def dense(step: Step) -> Value:
    """Add Dense, over the last dimension."""
    kernel, bias = _biased(step, "kernel")
    made = layers.linear(step.b, step.x, np.ascontiguousarray(kernel.T), bias)
    return activated(step.b, made, step.config.get("activation"), step.b.keras)


# --- norms ---


def axes_of(step: Step, x: Value, default: Any = -1) -> list[int]:
    """Return the ``axis`` of a layer as dimensions, in order."""
    rank, given = len(step.b.shape(x)), step.config.get("axis", default)
    listed = [*given] if isinstance(given, list | tuple) else [given]
    return sorted({int(a) % rank for a in listed})


def along(value: NDArray[Any], shape: Sequence[int], dims: Sequence[int]) -> NDArray[Any]:
    """Return values of some dimensions in a shape that broadcasts to all."""
    return value.reshape([d if k in dims else 1 for k, d in enumerate(shape)])


def _affine_arrays(step: Step) -> tuple[Array | None, Array | None]:
    """Return scale and offset, where the layer has them."""
    wanted = [name for name, key in (("gamma", "scale"), ("beta", "center")) if step.config.get(key, True)]
    held = dict(zip(wanted, step.arrays(*wanted), strict=True)) if wanted else {}
    return held.get("gamma"), held.get("beta")


def scaled(step: Step, x: Value, axis: int, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Value:
    """Return ``scale x + shift`` along one dimension, in the layer before where nothing else reads that."""
    shape, b = step.b.shape(x), step.b
    channel = len(shape) - 1 if b.channels_last or len(shape) == 2 else 1
    if len(shape) > 4:
        times, plus = (along(v.astype(np.float32), shape, [axis]) for v in (scale, shift))
        return b.binary("add", b.binary("mul", x, times), plus)
    order = [k for k in range(len(shape)) if k != axis]
    order.insert(channel, axis)
    made = layers.batch_norm(b, b.transpose(x, order), scale, shift, alone=step.alone)
    return b.transpose(made, [order.index(k) for k in range(len(order))])


def batch_norm(step: Step) -> Value:
    """Add BatchNormalization, in float64."""
    config = step.config
    wanted = [name for name, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)]
    wanted += ["moving_mean", "moving_variance"]
    held = {k: v.astype(np.float64) for k, v in zip(wanted, step.arrays(*wanted), strict=True)}
    mean, variance = held["moving_mean"], held["moving_variance"]
    need(float(variance.min()) >= 0, "a moving variance below 0")
    scale = held.get("gamma", np.ones_like(mean)) / np.sqrt(variance + float(config.get("epsilon", 1e-3)))
    axes = axes_of(step, step.x)
    need(len(axes) == 1, f"a batch norm over axes {axes}; one is supported")
    return scaled(step, step.x, axes[0], scale, held.get("beta", np.zeros_like(mean)) - mean * scale)


def layer_norm(step: Step) -> Value:
    """Add LayerNormalization."""
    x, shape, dims = step.x, step.b.shape(step.x), axes_of(step, step.x)
    need(not step.config.get("rms_scaling"), "rms_scaling; without it is supported")
    gamma, beta = (None if v is None else along(v, shape, dims) for v in _affine_arrays(step))
    return reductions.layer_norm(step.b, x, dims, gamma, beta, float(step.config.get("epsilon", 1e-3)))


def group_norm(step: Step) -> Value:
    """Add GroupNormalization."""
    b, (axis,) = step.b, axes_of(step, step.x)
    shape = b.shape(step.x)
    channel = len(shape) - 1 if b.channels_last else 1
    groups = int(step.config.get("groups", 32))
    groups = shape[axis] if groups == -1 else groups
    need(groups > 0 and shape[axis] % groups == 0, f"{groups} groups of {shape[axis]} channels")
    order = [k for k in range(len(shape)) if k != axis]
    order.insert(channel, axis)
    gamma, beta = _affine_arrays(step)
    epsilon = float(step.config.get("epsilon", 1e-3))
    made = reductions.group_norm(b, b.transpose(step.x, order), groups, gamma, beta, epsilon)
    return b.transpose(made, [order.index(k) for k in range(len(order))])


def normalization(step: Step) -> Value:
    """Add Normalization: ``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse."""
    config, x = step.config, step.x
    if config.get("mean") is not None:
        mean, variance = (np.asarray(config[key], np.float64) for key in ("mean", "variance"))
    else:
        mean, variance, _ = (v.astype(np.float64) for v in step.arrays("mean", "variance", "count"))
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    shape = step.b.shape(x)
    given = config.get("axis", -1)
    dims = [] if given is None else axes_of(step, x)
    if mean.size > 1:
        need(mean.size == math.prod(shape[d] for d in dims), f"{mean.size} means for axes {dims} of {shape}")
        mean, deviation = (along(np.broadcast_to(v, mean.shape), shape, dims) for v in (mean, deviation))
    else:
        mean, deviation = mean.reshape(-1), deviation.reshape(-1)
    scale, shift = (deviation, mean) if config.get("invert") else (1 / deviation, -mean / deviation)
    b = step.b
    return b.binary("add", b.binary("mul", x, scale.astype(np.float32)), shift.astype(np.float32))


# --- slopes and factors ---


def prelu(step: Step) -> Value:
    """Add PReLU; slopes that differ in places other than channels are a product."""
    (alpha,) = step.arrays("alpha")
    b, x = step.b, step.x
    last = len(b.shape(x)) - 1
    if alpha.size in (1, alpha.shape[-1]):
        return layers.prelu(b, x, np.broadcast_to(alpha.reshape(-1), b.shape(x)[last:]), last)
    if step.b.shape(x)[1] == alpha.size == alpha.shape[0]:
        return layers.prelu(b, x, alpha.reshape(-1), 1)
    below = b.unary("relu", b.binary("mul", x, -1.0))
    return b.binary("sub", b.unary("relu", x), b.binary("mul", below, alpha[None]))


def layer_scale(step: Step) -> Value:
    """Add LayerScale of ConvNeXt in ``keras.applications``: a factor for each channel."""
    (gamma,) = step.arrays("gamma")
    factors = gamma.astype(np.float64)
    return scaled(step, step.x, len(step.b.shape(step.x)) - 1, factors, np.zeros_like(factors))


WEIGHTED: Mapping[str, Handler] = {
    "Conv1D": convolution,
    "Conv2D": convolution,
    "Convolution1D": convolution,
    "Convolution2D": convolution,
    "DepthwiseConv1D": depthwise,
    "DepthwiseConv2D": depthwise,
    "SeparableConv1D": separable,
    "SeparableConv2D": separable,
    "SeparableConvolution1D": separable,
    "SeparableConvolution2D": separable,
    "Conv1DTranspose": transposed,
    "Conv2DTranspose": transposed,
    "Convolution2DTranspose": transposed,
    "Dense": dense,
    "BatchNormalization": batch_norm,
    "BatchNormalizationV1": batch_norm,
    "SyncBatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "Normalization": normalization,
    "PReLU": prelu,
    "LayerScale": layer_scale,
}
"""Class to what it adds."""
