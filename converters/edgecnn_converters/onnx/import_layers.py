"""Make graph nodes of ONNX layers: convolutions, products of matrices, norms, pools. One function per op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.builder import Operand
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need, same_padding
from edgecnn_converters.onnx.model_file import Call
from edgecnn_converters.onnx.translation import Known, Translation

Handler = Callable[[Translation, Call], Value | Known | list[Value]]
Pair = tuple[int, int]


def _pair(given: Sequence[int], missing: int) -> Pair:
    """Return (height, width) of one or two numbers; a row has ``missing`` as its height."""
    need(len(given) in (1, 2), f"a window of {len(given)} dimensions; 1 and 2 are supported")
    return (missing, int(given[0])) if len(given) == 1 else (int(given[0]), int(given[1]))


def _sizes(t: Translation, x: Value) -> Pair:
    return _pair(t.shape(x)[2:], 1)


def _padding(call: Call, sizes: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right, by ``auto_pad`` or ``pads``."""
    auto = call.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return layers.NO_PADDING
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = [same_padding(*each) for each in zip(sizes, kernel, stride, dilation, strict=True)]
        rows, columns = (side if auto == "SAME_UPPER" else side[::-1] for side in sides)
        return (*rows, *columns)
    need(auto == "NOTSET", f"auto_pad {auto!r}")
    pads = call.attrs.get("pads") or (0, 0, 0, 0)
    half = len(pads) // 2
    (top, left), (bottom, right) = _pair(pads[:half], 0), _pair(pads[half:], 0)
    return (top, bottom, left, right)


def _window(call: Call, sizes: Pair, shape: Sequence[int]) -> tuple[Pair, dict[str, Any]]:
    """Return kernel, and stride, padding and dilation as the graph has them."""
    kernel, ones = _pair(call.attrs.get("kernel_shape") or shape, 1), (1,) * len(shape)
    stride = _pair(call.attrs.get("strides") or ones, 1)
    dilation = _pair(call.attrs.get("dilations") or ones, 1)
    padding = _padding(call, sizes, kernel, stride, dilation)
    return kernel, {"stride": stride, "padding": padding, "dilation": dilation}


def _weight(t: Translation, call: Call) -> Array:
    weight = t.array(call, 1, "the weight")
    need(weight.ndim in (3, 4), f"a convolution of {weight.ndim - 2} dimensions; 1 and 2 are supported")
    return weight


def _bias(t: Translation, call: Call) -> Array | None:
    return t.array(call, 2, "the bias") if t.given(call, 2) else None


def _conv(t: Translation, call: Call) -> Value:
    x, weight = t.value(call), _weight(t, call)
    row = weight if weight.ndim == 4 else weight[:, :, None]
    _, window = _window(call, _sizes(t, x), weight.shape[2:])
    groups = int(call.attrs.get("group", 1))
    made = layers.conv(t, x, row.transpose(0, 2, 3, 1), _bias(t, call), groups=groups, **window)
    t.note_weights(call, 0)
    return made


def _conv_transpose(t: Translation, call: Call) -> Value:
    x, weight = t.value(call), _weight(t, call)
    row = weight if weight.ndim == 4 else weight[:, :, None]
    sizes, rank = _sizes(t, x), weight.ndim - 2
    kernel, window = _window(call, sizes, weight.shape[2:])
    stride, dilation, padding = window["stride"], window["dilation"], window["padding"]
    extra = _pair(call.attrs.get("output_padding") or (0,) * rank, 0)
    wanted, auto = call.attrs.get("output_shape"), call.attrs.get("auto_pad", "NOTSET")
    if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
        size = _pair(wanted[-rank:], 1) if wanted else tuple(n * s for n, s in zip(sizes, stride, strict=True))
        sides = []
        for n, s, k, d, more, made in zip(sizes, stride, kernel, dilation, extra, size, strict=True):
            total = s * (n - 1) + more + (k - 1) * d + 1 - made
            short = total // 2 if total > 0 else 0
            sides.append((short, total - short) if auto == "SAME_UPPER" else (total - short, short))
        padding = (*sides[0], *sides[1])
    groups = int(call.attrs.get("group", 1))
    return layers.conv_transpose(
        t, x, row.transpose(1, 2, 3, 0), _bias(t, call),
        stride=stride, padding=padding, dilation=dilation, groups=groups, extra=extra,
    )  # fmt: skip


def _gemm(t: Translation, call: Call) -> Value:
    """``alpha A B + beta C``, A and B transposed where it says so."""
    a = call.attrs
    alpha, beta = float(a.get("alpha", 1)), float(a.get("beta", 1))
    left, right = t.operand(call, 0), t.operand(call, 1)
    if a.get("transA"):
        left = _turned(t, left)
    shift = t.operand(call, 2) if t.given(call, 2) and beta else None
    if isinstance(left, Value) and not isinstance(right, Value):
        matrix = np.asarray(right if a.get("transB") else np.transpose(right), np.float32) * np.float32(alpha)
        if isinstance(shift, np.ndarray) and (shift.size == 1 or shift.size == shift.shape[-1] == len(matrix)):
            bias = np.broadcast_to(shift.reshape(-1), (len(matrix),)) * np.float32(beta)
            made = layers.linear(t, left, matrix, np.ascontiguousarray(bias))
            t.note_weights(call, 0 if a.get("transB") else 1)
            return made
        made = layers.linear(t, left, matrix, None)
        if shift is None:
            t.note_weights(call, 0 if a.get("transB") else 1)
    else:
        if a.get("transB"):
            right = _turned(t, right)
        made = _product(t, left, right)
        made = made if alpha == 1 else t.binary("mul", made, alpha)
    if shift is None:
        return made
    return t.binary("add", made, shift if beta == 1 else t.binary("mul", shift, beta))


def _turned(t: Translation, x: Operand) -> Operand:
    return t.transpose(x, (1, 0)) if isinstance(x, Value) else np.transpose(np.asarray(x, np.float32))


def _product(t: Translation, left: Operand, right: Operand) -> Value:
    """The product of matrices as numpy's ``matmul``, of two activations or of one and a constant."""
    if not isinstance(left, Value):
        assert isinstance(right, Value)
        constant = np.asarray(left, np.float32)
        flat = len(t.shape(right)) == 1
        need(not flat and constant.ndim >= 2, "a product of a constant and a vector")
        swapped = _product(t, _swapped(t, right), np.swapaxes(constant, -1, -2))
        return _swapped(t, swapped)
    if not isinstance(right, Value):
        matrix = np.asarray(right, np.float32)
        if matrix.ndim == 1:
            made = reductions.matmul(t, left, matrix[:, None])
            return t.reshape(made, t.shape(made)[:-1])
        rank = max(matrix.ndim, len(t.shape(left)))
        if matrix.size == matrix.shape[-1] * matrix.shape[-2]:
            shape = t.shape(left)
            left = t.reshape(left, (1,) * (rank - len(shape)) + shape)
            return reductions.matmul(t, left, matrix.reshape(matrix.shape[-2:]))
        matrix = matrix.reshape((1,) * (rank - matrix.ndim) + matrix.shape)
        need(matrix.shape[0] == 1, f"a product with a constant of shape {matrix.shape}, which has a batch of its own")
        held = t.constant(matrix)
        return reductions.matmul(t, left, Value(held.name, tuple(range(matrix.ndim))))
    return reductions.matmul(t, left, right)


def _swapped(t: Translation, x: Value) -> Value:
    rank = len(t.shape(x))
    return t.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def _matmul(t: Translation, call: Call) -> Value:
    right = t.operand(call, 1)
    made = _product(t, t.operand(call, 0), right)
    if not isinstance(right, Value) and np.ndim(right) == 2:
        t.note_weights(call, 1)
    return made


# --- norms ---


def _batch_norm(t: Translation, call: Call) -> Value:
    """In float64."""
    need(not call.attrs.get("training_mode") and call.attrs.get("spatial", 1), "batch norm in training, or not spatial")
    gamma, beta, mean, var = (np.asarray(t.array(call, k, "a parameter"), np.float64) for k in range(1, 5))
    scale = gamma / np.sqrt(var + float(call.attrs.get("epsilon", 1e-5)))
    x = t.value(call)
    return layers.batch_norm(t, x, scale, beta - mean * scale, alone=t.alone(call))


def _affine(t: Translation, call: Call) -> tuple[Array | None, Array | None]:
    return t.array(call, 1, "the scale"), t.array(call, 2, "the shift") if t.given(call, 2) else None


def _instance_norm(t: Translation, call: Call) -> Value:
    x, (weight, bias) = t.value(call), _affine(t, call)
    return reductions.group_norm(t, x, t.shape(x)[1], weight, bias, float(call.attrs.get("epsilon", 1e-5)))


def _group_norm(t: Translation, call: Call) -> Value:
    """Opset 18 has a scale for each group, 21 for each channel."""
    x, groups, affine = t.value(call), int(call.attrs["num_groups"]), _affine(t, call)
    channels = t.shape(x)[1]
    weight, bias = (None if a is None else np.repeat(a, channels // a.size) for a in affine)
    return reductions.group_norm(t, x, groups, weight, bias, float(call.attrs.get("epsilon", 1e-5)))


def _layer_norm(t: Translation, call: Call) -> Value:
    x, (weight, bias) = t.value(call), _affine(t, call)
    rank = len(t.shape(x))
    dims = range(int(call.attrs.get("axis", -1)) % rank, rank)
    return reductions.layer_norm(t, x, list(dims), weight, bias, float(call.attrs.get("epsilon", 1e-5)))


def _lp_norm(t: Translation, call: Call) -> Value:
    x, p = t.value(call), int(call.attrs.get("p", 2))
    dim = int(call.attrs.get("axis", -1)) % len(t.shape(x))
    if p == 2:
        return reductions.l2_normalize(t, x, [dim], 0.0)
    return t.binary("div", x, reductions.total(t, t.unary("abs", x), [dim], keepdims=True))


# --- pools ---


def _ceiled(call: Call, sizes: Pair, kernel: Pair, stride: Pair, padding: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the padding with which the last window of ``ceil_mode`` fits; a window that begins outside is none."""
    sides: list[int] = []
    for n, k, s, before, after in zip(sizes, kernel, stride, padding[::2], padding[1::2], strict=True):
        count = -(-(n + before + after - k) // s) + 1
        if (count - 1) * s >= n + before:
            count -= 1
        sides += [before, max(after, (count - 1) * s + k - n - before)]
    return sides[0], sides[1], sides[2], sides[3]


def _pool(t: Translation, call: Call) -> Value:
    x = t.value(call)
    sizes = _sizes(t, x)
    kernel, window = _window(call, sizes, call.attrs["kernel_shape"])
    need(window["dilation"] == (1, 1), "dilated pooling")
    need(len([o for o in call.outputs if o]) == 1, "a pool that returns places")
    stride, padding = window["stride"], window["padding"]
    whole = _ceiled(call, sizes, kernel, stride, padding) if call.attrs.get("ceil_mode") else padding
    if call.op == "MaxPool":
        return layers.max_pool(t, x, kernel, stride, whole)
    counted = bool(call.attrs.get("count_include_pad")) and any(padding)
    need(not counted or whole == padding, "an average pool with ceil_mode that counts padding")
    return layers.avg_pool(t, x, kernel, stride, whole, outside_counts=counted)


LAYERS: Mapping[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MaxPool": _pool,
    "AveragePool": _pool,
}
