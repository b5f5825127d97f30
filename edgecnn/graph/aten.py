"""Make graph nodes of aten ops: one function per op, but for those that the op table names itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.builder import Value
from edgecnn.graph.meta_kernels import pair, windows
from edgecnn.graph.ops import OPS, need
from edgecnn.graph.trace import Call
from edgecnn.graph.translation import Translation

Handler = Callable[[Translation, Call], Value]


def _args(call: Call, **defaults: Any) -> list[Any]:
    """Positional and keyword arguments by name, with defaults for those not given."""
    given = dict(zip(defaults, call.args, strict=False)) | call.kwargs
    return [given.get(name, default) for name, default in defaults.items()]


def _convolution(t: Translation, call: Call) -> Value:
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = call.args
    value, kernel, shift = t.value(x), t.array(weight), None if bias is None else t.array(bias)
    need(kernel.ndim in (3, 4), f"a convolution of {kernel.ndim - 2} dimensions; 1 and 2 are supported")

    def sides(given: Any, missing: int) -> tuple[int, int]:
        return pair(given) if kernel.ndim == 4 else (missing, int(given[0]))

    (ph, pw), row = sides(padding, 0), kernel if kernel.ndim == 4 else kernel[:, :, None]
    window: dict[str, Any] = {
        "stride": sides(stride, 1),
        "padding": (ph, ph, pw, pw),
        "dilation": sides(dilation, 1),
        "groups": int(groups),
    }
    if transposed:
        return layers.conv_transpose(t, value, row.transpose(1, 2, 3, 0), shift, extra=sides(extra, 0), **window)
    return layers.conv(t, value, row.transpose(0, 2, 3, 1), shift, **window)


def _linear(t: Translation, call: Call) -> Value:
    """addmm(bias, x, weight.T), or mm(x, weight.T) without bias."""
    bias, x, weight = call.args if len(call.args) == 3 else (None, *call.args)
    need(set(call.kwargs.values()) <= {1}, "addmm with alpha or beta")
    value, shift = t.value(x), None if bias is None else t.array(bias)
    matrix = t.array(weight).T
    if shift is not None:
        need(shift.shape == matrix.shape[:1], f"a bias of shape {shift.shape} for {len(matrix)} outputs")
    return layers.linear(t, value, matrix, shift)


def _batch_norm(t: Translation, call: Call) -> Value:
    """In float64."""
    x, weight, bias, mean, var, training, _, eps = call.args
    need(not training and mean is not None and var is not None, "batch norm without running statistics")
    mu, sigma2 = (np.asarray(t.array(a), np.float64) for a in (mean, var))
    gamma = np.ones_like(mu) if weight is None else np.asarray(t.array(weight), np.float64)
    beta = np.zeros_like(mu) if bias is None else np.asarray(t.array(bias), np.float64)
    scale = gamma / np.sqrt(sigma2 + float(eps))
    return layers.batch_norm(t, t.value(x), scale, beta - mu * scale, alone=t.consumers[x] == 1)


def _simple(op: str, t: Translation, call: Call) -> Value:
    return t.unary(op, t.value(call.args[0]))


def _clamp(t: Translation, call: Call) -> Value:
    x, low, high = _args(call, input=None, min=None, max=None)
    if call.name == "hardtanh":
        x, low, high = _args(call, input=None, min_val=-1.0, max_val=1.0)
    return t.clamp(t.value(x), -np.inf if low is None else float(low), np.inf if high is None else float(high))


def _binary(t: Translation, call: Call) -> Value:
    need(call.kwargs.get("alpha", 1) == 1, "add with alpha")
    left, right = (t.operand(argument) for argument in call.args[:2])
    return t.binary(call.name, left, right)


def _silu(t: Translation, call: Call) -> Value:
    x = t.value(call.args[0])
    return t.binary("mul", x, t.unary("sigmoid", x))


def _hard_sigmoid(t: Translation, call: Call) -> Value:
    """relu6(x + 3) / 6."""
    x = t.value(call.args[0])
    return t.binary("mul", t.unary("relu6", t.binary("add", x, 3.0)), 1 / 6)


def _concat(t: Translation, call: Call) -> Value:
    values = [t.value(v) for v in call.args[0]]
    return t.concat(values, int(_args(call, tensors=None, dim=0)[1]) % len(t.shape(values[0])))


def _end_padding(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> tuple[int, int]:
    """Padding (before, after) that gives torch's output size."""
    last = (windows(size, kernel, stride, pad, ceil=ceil) - 1) * stride + kernel
    return pad, max(pad, last - size - pad) if ceil else pad


def _window(call: Call, kernel: Any, stride: Any, padding: Any, ceil: bool) -> dict[str, Any]:
    """Return kernel, stride and padding of a pool as the graph has them; of one dimension, of one row."""
    height, width = call.args[0].shape[-2:]
    (kh, kw), (ph, pw) = pair(kernel), pair(padding)
    sh, sw = pair(stride) if stride else (kh, kw)
    pad = (*_end_padding(height, kh, sh, ph, ceil), *_end_padding(width, kw, sw, pw, ceil))
    return {"kernel": (kh, kw), "stride": (sh, sw), "padding": pad}


def _max_pool(t: Translation, call: Call) -> Value:
    x, kernel, stride, padding, dilation, ceil = _args(
        call, input=None, kernel_size=1, stride=None, padding=0, dilation=1, ceil_mode=False
    )
    need(pair(dilation) == (1, 1), "dilated pooling")
    return layers.max_pool(t, t.value(x), **_window(call, kernel, stride, padding, bool(ceil)))


def _avg_pool(t: Translation, call: Call) -> Value:
    x, kernel, stride, padding, ceil, count_padding, divisor = _args(
        call, input=None, kernel_size=1, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None
    )
    counted = count_padding and pair(padding) != (0, 0)
    odd = "average pooling with divisor_override, or ceil_mode that counts padding"
    need(divisor is None and not (ceil and counted), odd)
    window = _window(call, kernel, stride, padding, bool(ceil))
    return layers.avg_pool(t, t.value(x), **window, outside_counts=bool(counted))


def _adaptive_pool(t: Translation, call: Call) -> Value:
    """Not of (1, 1): torch makes that a mean."""
    return layers.adaptive_pool(t, t.value(call.args[0]), pair(call.args[1]))


def _mean(t: Translation, call: Call) -> Value:
    x, dims, keep = _args(call, input=None, dim=None, keepdim=False)
    return reductions.mean(t, t.value(x), dims or range(len(x.shape)), keepdims=bool(keep))


def _reshape(t: Translation, call: Call) -> Value:
    """flatten, view, reshape, squeeze."""
    return t.reshape(t.value(call.args[0]), call.output.shape)


def _pad(t: Translation, call: Call) -> Value:
    x, widths, fill = _args(call, input=None, pad=None, value=0)
    pairs = [(int(a), int(b)) for a, b in zip(widths[::2], widths[1::2], strict=True)]
    if (
        call.layer == "Conv2d"
    ):  # Conv2d(padding="same") pads first where two sides differ; its name is the convolution's
        t.scope, t.named = f"{call.path}.pad", True
    return t.pad(t.value(x), [*[(0, 0)] * (len(x.shape) - len(pairs)), *reversed(pairs)], fill=float(fill or 0))


def _softmax(t: Translation, call: Call) -> Value:
    return reductions.softmax(t, t.value(call.args[0]), int(call.args[1]))


def _same(t: Translation, call: Call) -> Value:
    """An op that changes nothing at inference."""
    return t.value(call.args[0])


def handler(name: str) -> Handler | None:
    """Return what makes nodes of an aten op: its own function, or the op whose row in the table names it."""
    if name in HANDLERS:
        return HANDLERS[name]
    return next((partial(_simple, op) for op, spec in OPS.items() if name in spec.aten), None)


def supported() -> list[str]:
    """Return the names of all aten ops that have a handler, sorted."""
    return sorted({*HANDLERS, *(name for spec in OPS.values() for name in spec.aten)})


HANDLERS: dict[str, Handler] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min"), _clamp),
    "hardsigmoid": _hard_sigmoid,
    "silu": _silu,
    "softmax": _softmax,
    "add": _binary,
    "mul": _binary,
    "cat": _concat,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    **dict.fromkeys(("reshape", "squeeze", "unsqueeze"), _reshape),
    "pad": _pad,
    **dict.fromkeys(("clone", "detach", "alias"), _same),
}
