"""What each aten op becomes in the graph. One function per op; ``HANDLERS`` is the whole list."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from edgecnn.errors import UnsupportedError
from edgecnn.graph.capture import Builder, Value
from edgecnn.graph.ops import same_padding

Handler = Callable[[Builder, fx.Node], Value]


def _args(node: fx.Node, **defaults: Any) -> list[Any]:
    """Positional and keyword arguments by name, with defaults for those not given."""
    names = list(defaults)
    given = {**dict(zip(names, node.args, strict=False)), **{k: v for k, v in node.kwargs.items() if k in names}}
    return [given.get(name, default) for name, default in defaults.items()]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    values = [int(v) for v in value]
    return (values[0], values[-1])


def _image(b: Builder, value: Value) -> tuple[int, int, int, int]:
    shape = b.shape(value)
    if len(shape) != 4:
        raise UnsupportedError(f"input of {len(shape)} dimensions where (N, C, H, W) is needed")
    return (shape[0], shape[1], shape[2], shape[3])


def _convolution(b: Builder, node: fx.Node) -> Value:
    x, weight, bias, stride, padding, dilation, groups = _args(
        node, input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    value, kernel = b.value(x), b.array(weight)
    assert kernel is not None
    if kernel.ndim != 4:
        raise UnsupportedError(f"a convolution over {kernel.ndim - 2} dimensions; 2 are supported")
    _, height, width, _ = _image(b, value)
    (kh, kw), (sh, sw), (dh, dw) = kernel.shape[2:], _pair(stride), _pair(dilation)
    if padding == "same":
        pad = (*same_padding(height, kh, sh, dh), *same_padding(width, kw, sw, dw))
    else:
        ph, pw = _pair(0 if padding == "valid" else padding)
        pad = (ph, ph, pw, pw)
    return b.weighted(
        "conv2d", value, kernel.transpose(0, 2, 3, 1), b.array(bias),
        stride=(sh, sw), padding=pad, dilation=(dh, dw), groups=int(groups),
    )  # fmt: skip


def _linear(b: Builder, node: fx.Node) -> Value:
    x, weight, bias = _args(node, input=None, weight=None, bias=None)
    value, matrix = b.value(x), b.array(weight)
    assert matrix is not None
    if len(b.shape(value)) != 2:
        raise UnsupportedError(f"a linear layer on {len(b.shape(value))} dimensions; flatten to (N, features) first")
    if value.chw is not None:  # columns are in CHW order, the graph's input in HWC order
        matrix = matrix.reshape(-1, *value.chw).transpose(0, 2, 3, 1).reshape(matrix.shape)
    return b.weighted("fully_connected", value, matrix, b.array(bias))


def _batch_norm(b: Builder, node: fx.Node) -> Value:
    """Folded into the convolution or linear layer before it, or a 1x1 depthwise convolution. In float64."""
    x, weight, bias, mean, var, training, _, eps = _args(
        node,
        input=None,
        weight=None,
        bias=None,
        running_mean=None,
        running_var=None,
        training=False,
        momentum=0.1,
        eps=1e-5,
    )
    if training or mean is None or var is None:
        raise UnsupportedError("batch norm without running statistics")
    mu, sigma2 = (np.asarray(b.array(a), np.float64) for a in (mean, var))
    gamma = np.ones_like(mu) if weight is None else np.asarray(b.array(weight), np.float64)
    beta = np.zeros_like(mu) if bias is None else np.asarray(b.array(bias), np.float64)
    scale = gamma / np.sqrt(sigma2 + float(eps))
    shift = beta - mu * scale
    value = b.value(x)
    last = b.nodes[-1] if b.nodes else None
    if last and last.op in ("conv2d", "fully_connected") and last.output == value.name and len(x.users) == 1:
        w, c = (b.tensors[last.inputs[i]] for i in (1, 2))
        assert w.value is not None
        assert c.value is not None
        folded = w.value.astype(np.float64) * scale.reshape(-1, *[1] * (len(w.shape) - 1))
        b.tensors[w.name] = replace(w, value=folded.astype(np.float32))
        b.tensors[c.name] = replace(c, value=(c.value.astype(np.float64) * scale + shift).astype(np.float32))
        return value
    _image(b, value)
    kernel = scale.reshape(-1, 1, 1, 1).astype(np.float32)
    return b.weighted("conv2d", value, kernel, shift.astype(np.float32), groups=len(mu))


def _simple(op: str) -> Handler:
    def handler(b: Builder, node: fx.Node) -> Value:
        value = b.value(node.args[0])
        return b.add(op, value, chw=value.chw)

    return handler


def _clamp(b: Builder, node: fx.Node) -> Value:
    x, low, high = _args(node, input=None, min=None, max=None)
    if str(node.target).startswith("aten.hardtanh"):
        x, low, high = _args(node, input=None, min_val=-1.0, max_val=1.0)
    value = b.value(x)
    if low == 0 and high in (None, 6):
        return b.add("relu" if high is None else "relu6", value, chw=value.chw)
    raise UnsupportedError(f"clamp to [{low}, {high}]; [0, 6] and [0, inf] are supported")


def _binary(op: str) -> Handler:
    def handler(b: Builder, node: fx.Node) -> Value:
        if node.kwargs.get("alpha", 1) != 1:
            raise UnsupportedError("add with alpha")
        rank = node.meta["val"].ndim
        left, right = b.operand(node.args[0], rank), b.operand(node.args[1], rank)
        if b.tensors[left.name].is_constant:
            left, right = right, left
        ranks = {len(b.shape(v)) for v in (left, right) if not b.tensors[v.name].is_constant}
        if len(ranks) > 1 or left.chw or right.chw:
            raise UnsupportedError("operands of different ranks, or flattened images")
        return b.add(op, left, right)

    return handler


def _silu(b: Builder, node: fx.Node) -> Value:
    x = b.value(node.args[0])
    return b.add("mul", x, b.add("sigmoid", x))


def _hard_sigmoid(b: Builder, node: fx.Node) -> Value:
    """relu6(x + 3) / 6."""
    x = b.value(node.args[0])
    shifted = b.add("add", x, b.constant(np.full((1,), 3, np.float32), "three"))
    return b.add("mul", b.add("relu6", shifted), b.constant(np.full((1,), 1 / 6, np.float32), "sixth"))


def _concat(b: Builder, node: fx.Node) -> Value:
    values = [b.value(v) for v in node.args[0]]  # type: ignore[union-attr]  # a list of nodes
    rank = len(b.shape(values[0]))
    axis = int(_args(node, tensors=None, dim=0)[1]) % rank
    if any(v.chw for v in values):
        raise UnsupportedError("concatenation of flattened images")
    to_nhwc = {0: 0, 1: 3, 2: 1, 3: 2} if rank == 4 else {i: i for i in range(rank)}
    return b.add("concat", *values, axis=to_nhwc[axis])


def _ceil_padding(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> tuple[int, int]:
    """Padding (before, after) that gives torch's output size; a window must start inside the image or its padding."""
    if not ceil:
        return pad, pad
    windows = math.ceil((size + 2 * pad - kernel) / stride) + 1
    if (windows - 1) * stride >= size + pad:
        windows -= 1
    return pad, max(pad, (windows - 1) * stride + kernel - size - pad)


def _max_pool(b: Builder, node: fx.Node) -> Value:
    x, kernel, stride, padding, dilation, ceil = _args(
        node, input=None, kernel_size=1, stride=None, padding=0, dilation=1, ceil_mode=False
    )
    if _pair(dilation) != (1, 1):
        raise UnsupportedError("dilated pooling")
    value = b.value(x)
    return _pool(b, "max_pool2d", value, kernel, stride, padding, bool(ceil))


def _avg_pool(b: Builder, node: fx.Node) -> Value:
    x, kernel, stride, padding, ceil, count_padding, divisor = _args(
        node,
        input=None,
        kernel_size=1,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    value = b.value(x)
    if divisor is not None or (ceil and count_padding and _pair(padding) != (0, 0)):
        raise UnsupportedError("average pooling with divisor_override, or ceil_mode that counts padding")
    if count_padding and _pair(padding) != (0, 0):
        ph, pw = _pair(padding)
        value, padding = b.add("pad", value, padding=(ph, ph, pw, pw)), 0
    return _pool(b, "avg_pool2d", value, kernel, stride, padding, bool(ceil))


def _pool(b: Builder, op: str, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool) -> Value:
    _, height, width, _ = _image(b, x)
    (kh, kw), (ph, pw) = _pair(kernel), _pair(padding)
    sh, sw = _pair(stride) if stride else (kh, kw)
    pad = (*_ceil_padding(height, kh, sh, ph, ceil), *_ceil_padding(width, kw, sw, pw, ceil))
    return b.add(op, x, kernel=(kh, kw), stride=(sh, sw), padding=pad)


def _adaptive_pool(b: Builder, node: fx.Node) -> Value:
    value = b.value(node.args[0])
    _, height, width, _ = _image(b, value)
    oh, ow = _pair(node.args[1])
    if (oh, ow) == (1, 1):
        return b.add("mean", value, keepdims=True)
    if height % oh or width % ow:
        raise UnsupportedError(f"adaptive pooling of {height}x{width} to {oh}x{ow}; the output must divide the input")
    if (oh, ow) == (height, width):
        return value
    kernel = (height // oh, width // ow)
    return b.add("avg_pool2d", value, kernel=kernel, stride=kernel)


def _mean(b: Builder, node: fx.Node) -> Value:
    x, dims, keep = _args(node, input=None, dim=None, keepdim=False)
    value = b.value(x)
    _image(b, value)
    if dims is None or sorted(d % 4 for d in dims) != [2, 3]:
        raise UnsupportedError(f"mean over dimensions {dims}; (2, 3), height and width, is supported")
    return b.add("mean", value, keepdims=bool(keep))


def _reshape(b: Builder, node: fx.Node) -> Value:
    """flatten, view, reshape, squeeze of an image to (N, features), or a shape that changes nothing."""
    value = b.value(node.args[0])
    old = tuple(int(d) for d in node.args[0].meta["val"].shape)  # type: ignore[union-attr]  # an aten node
    new = tuple(int(d) for d in node.meta["val"].shape)
    if new == old:
        return value
    if len(old) == 4 and new == (old[0], math.prod(old[1:])):
        chw = (old[1], old[2], old[3])
        return b.add("reshape", value, shape=new, chw=None if old[2] * old[3] == 1 else chw)
    if len(old) == 2 and new == (old[0], old[1], 1, 1) and value.chw is None:
        return b.add("reshape", value, shape=(old[0], 1, 1, old[1]))
    raise UnsupportedError(f"reshape of {old} to {new}; flattening an image to (N, features) is supported")


def _pad(b: Builder, node: fx.Node) -> Value:
    x, widths, mode, fill = _args(node, input=None, pad=None, mode="constant", value=0.0)
    if str(node.target).startswith("aten.constant_pad"):
        mode, fill = "constant", _args(node, input=None, pad=None, value=0.0)[2]
    value = b.value(x)
    _image(b, value)
    widths = [int(w) for w in widths]
    if mode != "constant" or fill not in (None, 0) or len(widths) > 6 or min(widths) < 0:
        raise UnsupportedError(
            f"padding {widths} of mode {mode!r}, value {fill}; zeros around height, width and channels are supported"
        )
    left, right, top, bottom, front, back = [*widths, 0, 0, 0, 0][:6]
    return b.add("pad", value, padding=(top, bottom, left, right), channels=(front, back))


def _softmax(b: Builder, node: fx.Node) -> Value:
    value = b.value(node.args[0])
    rank = len(b.shape(value))
    if rank != 2 or int(node.args[1]) % 2 != 1 or value.chw:  # type: ignore[arg-type]
        raise UnsupportedError("softmax that is not over the classes of (N, classes)")
    return b.add("softmax", value)


def _same(b: Builder, node: fx.Node) -> Value:
    """An op that changes nothing at inference."""
    return b.value(node.args[0])


def _dropout(b: Builder, node: fx.Node) -> Value:
    if len(node.args) > 2 and node.args[2]:
        raise UnsupportedError("dropout that stays on at inference")
    return b.value(node.args[0])


HANDLERS: dict[str, Handler] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _simple("relu"),
    "relu6": _simple("relu6"),
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "sigmoid": _simple("sigmoid"),
    "hardswish": _simple("hard_swish"),
    "hardsigmoid": _hard_sigmoid,
    "silu": _silu,
    "softmax": _softmax,
    "add": _binary("add"),
    "mul": _binary("mul"),
    "cat": _concat,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "dropout": _dropout,
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
    "alias": _same,
    "lift_fresh_copy": _same,
}
SUPPORTED = tuple(sorted(set(HANDLERS) - {"clone", "detach", "alias", "contiguous", "lift_fresh_copy"}))
