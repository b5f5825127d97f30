"""Make graph nodes of aten ops: one function per op, but for those that the op table names itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from edgecnn.graph.builder import Builder, Value
from edgecnn.graph.ir import Constant
from edgecnn.graph.meta_kernels import pair, windows
from edgecnn.graph.ops import OPS, need
from edgecnn.graph.trace import Call

Handler = Callable[[Builder, Call], Value]


def _args(call: Call, **defaults: Any) -> list[Any]:
    """Positional and keyword arguments by name, with defaults for those not given."""
    given = dict(zip(defaults, call.args, strict=False)) | call.kwargs
    return [given.get(name, default) for name, default in defaults.items()]


def _image(b: Builder, value: Value) -> tuple[int, int, int, int]:
    shape = b.shape(value)
    need(len(shape) == 4, f"input of {len(shape)} dimensions where (N, C, H, W) is needed")
    return (shape[0], shape[1], shape[2], shape[3])


def _convolution(b: Builder, call: Call) -> Value:
    x, weight, bias, stride, padding, dilation, _, _, groups = call.args
    value, kernel = b.value(x), b.array(weight)
    _image(b, value)
    ph, pw = pair(padding)
    return b.weighted(
        "conv2d", value, kernel.transpose(0, 2, 3, 1), None if bias is None else b.array(bias),
        stride=pair(stride), padding=(ph, ph, pw, pw), dilation=pair(dilation), groups=int(groups),
    )  # fmt: skip


def _linear(b: Builder, call: Call) -> Value:
    """addmm(bias, x, weight.T), or mm(x, weight.T) without bias."""
    bias, x, weight = call.args if len(call.args) == 3 else (None, *call.args)
    need(set(call.kwargs.values()) <= {1}, "addmm with alpha or beta")
    value, shift = b.value(x), None if bias is None else b.array(bias)
    matrix = b.array(weight).T
    if shift is not None:
        need(shift.shape == matrix.shape[:1], f"a bias of shape {shift.shape} for {len(matrix)} outputs")
    if value.chw is not None:  # columns are in CHW order, the graph's input in HWC order
        matrix = matrix.reshape(-1, *value.chw).transpose(0, 2, 3, 1).reshape(matrix.shape)
    return b.weighted("fully_connected", value, matrix, shift)


def _batch_norm(b: Builder, call: Call) -> Value:
    """Folded into the convolution or linear layer before it, or a 1x1 depthwise convolution. In float64."""
    x, weight, bias, mean, var, training, _, eps = call.args
    need(not training and mean is not None and var is not None, "batch norm without running statistics")
    mu, sigma2 = (np.asarray(b.array(a), np.float64) for a in (mean, var))
    gamma = np.ones_like(mu) if weight is None else np.asarray(b.array(weight), np.float64)
    beta = np.zeros_like(mu) if bias is None else np.asarray(b.array(bias), np.float64)
    scale = gamma / np.sqrt(sigma2 + float(eps))
    shift = beta - mu * scale
    value = b.value(x)
    last = b.nodes[-1] if b.nodes else None
    if last and last.weighted and last.output == value.name and b.consumers[x] == 1:
        w, c = (Constant.of(b.tensors[last.inputs[i]]) for i in (1, 2))
        folded = w.value.astype(np.float64) * scale.reshape(-1, *[1] * (len(w.shape) - 1))
        b.tensors[w.name] = replace(w, value=folded.astype(np.float32))
        b.tensors[c.name] = replace(c, value=(c.value.astype(np.float64) * scale + shift).astype(np.float32))
        return value
    _image(b, value)
    kernel = scale.reshape(-1, 1, 1, 1).astype(np.float32)
    return b.weighted("conv2d", value, kernel, shift.astype(np.float32), groups=len(mu))


def _simple(op: str, b: Builder, call: Call) -> Value:
    value = b.value(call.args[0])
    return b.add(op, value, chw=value.chw)


def _clamp(b: Builder, call: Call) -> Value:
    x, low, high = _args(call, input=None, min=None, max=None)
    if call.name == "hardtanh":
        x, low, high = _args(call, input=None, min_val=-1.0, max_val=1.0)
    need(low == 0 and high in (None, 6), f"clamp to [{low}, {high}]; [0, 6] and [0, inf] are supported")
    value = b.value(x)
    return b.add("relu" if high is None else "relu6", value, chw=value.chw)


def _binary(b: Builder, call: Call) -> Value:
    need(call.kwargs.get("alpha", 1) == 1, "add with alpha")
    left, right = (b.operand(argument, len(call.output.shape)) for argument in call.args[:2])
    if isinstance(b.tensors[left.name], Constant):
        left, right = right, left
    ranks = {len(b.shape(v)) for v in (left, right) if not isinstance(b.tensors[v.name], Constant)}
    need(len(ranks) <= 1 and not left.chw and not right.chw, "operands of different ranks, or flattened images")
    return b.add(call.name, left, right)


def _silu(b: Builder, call: Call) -> Value:
    x = b.value(call.args[0])
    return b.add("mul", x, b.add("sigmoid", x))


def _hard_sigmoid(b: Builder, call: Call) -> Value:
    """relu6(x + 3) / 6."""
    x = b.value(call.args[0])
    shifted = b.add("add", x, b.constant(np.full((1,), 3, np.float32), "three"))
    return b.add("mul", b.add("relu6", shifted), b.constant(np.full((1,), 1 / 6, np.float32), "sixth"))


def _concat(b: Builder, call: Call) -> Value:
    values = [b.value(v) for v in call.args[0]]
    rank = len(b.shape(values[0]))
    axis = int(_args(call, tensors=None, dim=0)[1]) % rank
    need(not any(v.chw for v in values), "concatenation of flattened images")
    return b.add("concat", *values, axis=(0, 3, 1, 2)[axis] if rank == 4 else axis)


def _end_padding(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> tuple[int, int]:
    """Padding (before, after) that gives torch's output size."""
    last = (windows(size, kernel, stride, pad, ceil=ceil) - 1) * stride + kernel
    return pad, max(pad, last - size - pad) if ceil else pad


def _max_pool(b: Builder, call: Call) -> Value:
    x, kernel, stride, padding, dilation, ceil = _args(
        call, input=None, kernel_size=1, stride=None, padding=0, dilation=1, ceil_mode=False
    )
    need(pair(dilation) == (1, 1), "dilated pooling")
    return _pool(b, "max_pool2d", b.value(x), kernel, stride, padding, bool(ceil))


def _avg_pool(b: Builder, call: Call) -> Value:
    x, kernel, stride, padding, ceil, count_padding, divisor = _args(
        call, input=None, kernel_size=1, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None
    )
    value = b.value(x)
    ph, pw = pair(padding)
    counted = count_padding and (ph, pw) != (0, 0)
    odd = "average pooling with divisor_override, or ceil_mode that counts padding"
    need(divisor is None and not (ceil and counted), odd)
    if counted:
        value, padding = b.add("pad", value, padding=(ph, ph, pw, pw)), 0
    return _pool(b, "avg_pool2d", value, kernel, stride, padding, bool(ceil))


def _pool(b: Builder, op: str, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool) -> Value:
    _, height, width, _ = _image(b, x)
    (kh, kw), (ph, pw) = pair(kernel), pair(padding)
    sh, sw = pair(stride) if stride else (kh, kw)
    pad = (*_end_padding(height, kh, sh, ph, ceil), *_end_padding(width, kw, sw, pw, ceil))
    return b.add(op, x, kernel=(kh, kw), stride=(sh, sw), padding=pad)


def _adaptive_pool(b: Builder, call: Call) -> Value:
    """Not of (1, 1): torch makes that a mean."""
    value = b.value(call.args[0])
    _, height, width, _ = _image(b, value)
    oh, ow = pair(call.args[1])
    sizes = f"{height}x{width} to {oh}x{ow}"
    need(height % oh == width % ow == 0, f"adaptive pooling of {sizes}; the output must divide the input")
    kernel = (height // oh, width // ow)
    return value if kernel == (1, 1) else b.add("avg_pool2d", value, kernel=kernel, stride=kernel)


def _mean(b: Builder, call: Call) -> Value:
    x, dims, keep = _args(call, input=None, dim=None, keepdim=False)
    value = b.value(x)
    _image(b, value)
    spatial = sorted(d % 4 for d in dims or ()) == [2, 3]
    need(spatial, f"mean over dimensions {dims}; (2, 3), height and width, is supported")
    return b.add("mean", value, keepdims=bool(keep))


def _reshape(b: Builder, call: Call) -> Value:
    """flatten, view, reshape, squeeze of an image to (N, features), or a shape that changes nothing."""
    value = b.value(call.args[0])
    old, new = call.args[0].shape, call.output.shape
    if new == old:
        return value
    if len(old) == 4 and new == (old[0], math.prod(old[1:])):
        chw = (old[1], old[2], old[3])
        return b.add("reshape", value, shape=new, chw=None if old[2] * old[3] == 1 else chw)
    unflat = len(old) == 2 and new == (*old, 1, 1) and value.chw is None
    need(unflat, f"{old} to {new}; flattening an image to (N, features) is supported")
    return b.add("reshape", value, shape=(old[0], 1, 1, old[1]))


def _pad(b: Builder, call: Call) -> Value:
    x, widths, fill = _args(call, input=None, pad=None, value=0)
    value = b.value(x)
    _image(b, value)
    widths = [int(w) for w in widths]
    what = f"padding {widths} of value {fill}; zeros around height, width and channels are supported"
    need(fill == 0 and len(widths) <= 6 and min(widths) >= 0, what)
    left, right, top, bottom, front, back = [*widths, 0, 0, 0, 0][:6]
    # Conv2d(padding="same") pads first where two sides differ; its own name is for the convolution.
    name = f"{call.path}.pad" if call.layer == "Conv2d" else None
    return b.add("pad", value, name=name, padding=(top, bottom, left, right), channels=(front, back))


def _softmax(b: Builder, call: Call) -> Value:
    value = b.value(call.args[0])
    classes = len(b.shape(value)) == 2 and int(call.args[1]) % 2 == 1 and not value.chw
    need(classes, "softmax that is not over the classes of (N, classes)")
    return b.add("softmax", value)


def _same(b: Builder, call: Call) -> Value:
    """An op that changes nothing at inference."""
    return b.value(call.args[0])


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
