"""Make graph nodes of ONNX functions, arithmetic and reductions. One function per op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn_converters.onnx.import_integers import real_ends
from edgecnn_converters.onnx.import_layers import LAYERS, Handler
from edgecnn_converters.onnx.model_file import Call
from edgecnn_converters.onnx.translation import Translation

# --- functions of one number ---


def _function(op: str, t: Translation, call: Call, **attrs: Any) -> Value:
    return t.unary(op, t.value(call), **attrs)


def _with_alpha(op: str, default: float, t: Translation, call: Call) -> Value:
    return t.unary(op, t.value(call), alpha=float(call.attrs.get("alpha", default)))


def _clip(t: Translation, call: Call) -> Value:
    low, high = (call.attrs.get(k, d) for k, d in (("min", -np.inf), ("max", np.inf)))
    if t.opset >= 11:
        low, high = t.number(call, 1, "the lower bound", -np.inf), t.number(call, 2, "the upper bound", np.inf)
    limit = float(np.finfo(np.float32).max)
    low, high = (-np.inf if low <= -limit else float(low)), (np.inf if high >= limit else float(high))
    x = t.value(call)
    return t.clamp(x, *real_ends(t, call, x, (low, high)))


def _prelu(t: Translation, call: Call) -> Value:
    x, slope = t.value(call), t.array(call, 1, "the slope")
    rank = len(t.shape(x))
    full = slope.reshape((1,) * (rank - slope.ndim) + slope.shape)
    wide = [k for k, d in enumerate(full.shape) if d > 1]
    if len(wide) < 2:
        return layers.prelu(t, x, slope.reshape(-1), wide[0] if wide else 1)
    below = t.unary("relu", t.binary("mul", x, -1.0))
    return t.binary("sub", t.unary("relu", x), t.binary("mul", below, slope))


def _selu(t: Translation, call: Call) -> Value:
    alpha = float(call.attrs.get("alpha", 1.67326319217681884765625))
    return t.binary(
        "mul", t.unary("elu", t.value(call), alpha=alpha), float(call.attrs.get("gamma", 1.05070102214813232))
    )


def _celu(t: Translation, call: Call) -> Value:
    """``alpha elu(x / alpha)``."""
    alpha = float(call.attrs.get("alpha", 1.0))
    inner = t.unary("elu", t.binary("mul", t.value(call), 1 / alpha), alpha=1.0)
    return t.binary("mul", inner, alpha)


def _hard_sigmoid(t: Translation, call: Call) -> Value:
    """Spell a hard sigmoid of torch's slope as the capture of torch does."""
    x, alpha, beta = t.value(call), float(call.attrs.get("alpha", 0.2)), float(call.attrs.get("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return t.binary("mul", t.unary("relu6", t.binary("add", x, 3.0)), 1 / 6)
    return t.unary("hard_sigmoid", x, alpha=alpha, beta=beta)


def _gelu(t: Translation, call: Call) -> Value:
    return t.unary("gelu", t.value(call), approximate=call.attrs.get("approximate", "none") == "tanh")


def _swish(t: Translation, call: Call) -> Value:
    x, alpha = t.value(call), float(call.attrs.get("alpha", 1.0))
    return t.binary("mul", x, t.unary("sigmoid", t.binary("mul", x, alpha)))


def _softsign(t: Translation, call: Call) -> Value:
    x = t.value(call)
    return t.binary("div", x, t.binary("add", t.unary("abs", x), 1.0))


def _thresholded_relu(t: Translation, call: Call) -> Value:
    need(float(call.attrs.get("alpha", 1.0)) == 0, "a threshold other than 0, where the function jumps")
    return t.unary("relu", t.value(call))


def _softmax(t: Translation, call: Call) -> Value:
    """Before opset 13, over all dimensions from ``axis`` on."""
    x = t.value(call)
    shape = t.shape(x)
    axis = int(call.attrs.get("axis", 1 if t.opset < 13 else -1)) % len(shape)
    logarithm = call.op == "LogSoftmax"
    wide = [k for k in range(axis, len(shape)) if shape[k] > 1]
    if t.opset >= 13 or len(wide) < 2:
        dim = axis if t.opset >= 13 or not wide else wide[0]
        return _over(t, x, dim, logarithm)
    flat = t.reshape(x, (math.prod(shape[:axis]), math.prod(shape[axis:])))
    return t.reshape(_over(t, flat, 1, logarithm), shape)


def _argmax(t: Translation, call: Call) -> Value:
    need(not call.attrs.get("select_last_index", 0), "the last of equals; the first is supported")
    axis, keep = int(call.attrs.get("axis", 0)), bool(call.attrs.get("keepdims", 1))
    return reductions.argmax(t, t.value(call), axis, keepdims=keep)


def _over(t: Translation, x: Value, dim: int, logarithm: bool) -> Value:
    if not logarithm:
        return reductions.softmax(t, x, dim)
    centred = t.binary("sub", x, reductions.largest(t, x, [dim], keepdims=True))
    total = reductions.total(t, t.unary("exp", centred), [dim], keepdims=True)
    return t.binary("sub", centred, t.unary("log", total))


# --- arithmetic ---


def _binary(op: str, t: Translation, call: Call) -> Value:
    return t.binary(op, t.operand(call, 0), t.operand(call, 1))


def _variadic(op: str, t: Translation, call: Call) -> Value:
    made = t.operand(call, 0)
    for place in range(1, len(call.inputs)):
        other = t.operand(call, place)
        if isinstance(made, Value) or isinstance(other, Value):
            made = t.binary(op, made, other)
        else:
            made = {"add": np.add, "minimum": np.minimum, "maximum": np.maximum}[op](made, other)
    assert isinstance(made, Value)
    return made


def _average(t: Translation, call: Call) -> Value:
    return t.binary("mul", _variadic("add", t, call), 1 / len(call.inputs))


def _pow(t: Translation, call: Call) -> Value:
    base, exponent = t.operand(call, 0), t.operand(call, 1)
    if isinstance(exponent, Value):
        need(not isinstance(base, Value), "a power of two activations")
        need(bool(np.all(np.asarray(base) > 0)), "a power of a constant that is not above 0")
        return t.unary("exp", t.binary("mul", exponent, np.log(np.asarray(base, np.float32))))
    powers = np.unique(np.asarray(exponent))
    need(powers.size == 1, "a power with several exponents")
    assert isinstance(base, Value)
    return _power(t, base, float(powers[0]))


def _power(t: Translation, x: Value, exponent: float) -> Value:
    if exponent == 1:
        return x
    return t.binary("mul", x, x) if exponent == 2 else t.unary("pow", x, exponent=exponent)


def _fixed_power(exponent: float, t: Translation, call: Call) -> Value:
    return _power(t, t.value(call), exponent)


def _negative(t: Translation, call: Call) -> Value:
    return t.binary("mul", t.value(call), -1.0)


def _where(t: Translation, call: Call) -> Value:
    """With a mask that is known: each part times its own mask."""
    mask = t.known(call, 0, "the condition").astype(bool)
    left, right = (t.values[name] for name in call.inputs[1:])
    shape = np.broadcast_shapes(mask.shape, *(t.shape(v) if isinstance(v, Value) else v.shape for v in (left, right)))

    def masked(operand: Any, where: Any) -> Any:
        if isinstance(operand, Value):
            return t.binary("mul", operand, where.astype(np.float32)) if not where.all() else operand
        chosen = np.where(where, operand, 0)
        limit = np.float32(1e4)  # what a mask of minus infinity is for, before a softmax
        return np.clip(np.asarray(chosen, np.float32), -limit, limit) if np.isinf(chosen).any() else chosen

    for operand, where in ((left, mask), (right, ~mask)):
        if where.all() and isinstance(operand, Value) and t.shape(operand) == shape:
            return operand
    return t.binary("add", masked(left, mask), masked(right, ~mask))


# --- reductions ---


def _dims(t: Translation, call: Call, rank: int) -> list[int] | None:
    """Return the dimensions of a reduction, or ``None`` where it reduces nothing."""
    axes = call.attrs.get("axes")
    if axes is None and t.given(call, 1):
        axes = t.ints(call, 1, "the dimensions")
    if not axes:
        return None if call.attrs.get("noop_with_empty_axes") else list(range(rank))
    return sorted({int(a) % rank for a in axes})


ADDENDS: Mapping[str, Callable[[Translation, Value], Value]] = {
    "sum": lambda t, x: x,
    "l1": lambda t, x: t.unary("abs", x),
    "l2": lambda t, x: t.binary("mul", x, x),
    "square": lambda t, x: t.binary("mul", x, x),
    "log of a sum": lambda t, x: x,
    "log of a sum of exponentials": lambda t, x: t.unary("exp", x),
}
"""Kind of reduction to the function of each number that it adds."""


def _reduce(how: str, t: Translation, call: Call) -> Value:
    x = t.value(call)
    dims, keep = _dims(t, call, len(t.shape(x))), bool(call.attrs.get("keepdims", 1))
    if dims is None:
        return x
    if how == "mean":
        return reductions.mean(t, x, dims, keepdims=keep)
    if each := ADDENDS.get(how):
        made = reductions.total(t, each(t, x), dims, keepdims=keep)
        return t.unary("log", made) if "log" in how else t.unary("pow", made, exponent=0.5) if how == "l2" else made
    if how == "max":
        return reductions.largest(t, x, dims, keepdims=keep)
    below = t.binary("mul", x, -1.0)
    return t.binary("mul", reductions.largest(t, below, dims, keepdims=keep), -1.0)


def _global_pool(how: Callable[..., Value], t: Translation, call: Call) -> Value:
    x = t.value(call)
    return how(t, x, list(range(2, len(t.shape(x)))), keepdims=True)


def _local_response_norm(t: Translation, call: Call) -> Value:
    numbers = (float(call.attrs.get(key, usual)) for key, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    x, size = t.value(call), int(call.attrs["size"])
    need(len(t.shape(x)) == 4, f"an input of {len(t.shape(x))} dimensions; images are supported")
    return reductions.local_response_norm(t, x, size, *numbers)


COMPUTING: Mapping[str, Handler] = {
    **LAYERS,
    **{
        name: partial(_function, op)
        for name, op in (
            ("Relu", "relu"),
            ("Tanh", "tanh"),
            ("Sigmoid", "sigmoid"),
            ("HardSwish", "hard_swish"),
            ("Abs", "abs"),
            ("Softplus", "softplus"),
            ("Mish", "mish"),
            ("Exp", "exp"),
            ("Log", "log"),
            ("Erf", "erf"),
        )
    },
    "LeakyRelu": partial(_with_alpha, "leaky_relu", 0.01),
    "Elu": partial(_with_alpha, "elu", 1.0),
    "Clip": _clip,
    "PRelu": _prelu,
    "Selu": _selu,
    "Celu": _celu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "Softsign": _softsign,
    "ThresholdedRelu": _thresholded_relu,
    "Softmax": _softmax,
    "ArgMax": _argmax,
    "LogSoftmax": _softmax,
    "Add": partial(_binary, "add"),
    "Sub": partial(_binary, "sub"),
    "Mul": partial(_binary, "mul"),
    "Div": partial(_binary, "div"),
    "Sum": partial(_variadic, "add"),
    "Min": partial(_variadic, "minimum"),
    "Max": partial(_variadic, "maximum"),
    "Mean": _average,
    "Pow": _pow,
    "Sqrt": partial(_fixed_power, 0.5),
    "Reciprocal": partial(_fixed_power, -1.0),
    "Neg": _negative,
    "Where": _where,
    "ReduceMean": partial(_reduce, "mean"),
    "ReduceSum": partial(_reduce, "sum"),
    "ReduceMax": partial(_reduce, "max"),
    "ReduceMin": partial(_reduce, "min"),
    "ReduceL1": partial(_reduce, "l1"),
    "ReduceL2": partial(_reduce, "l2"),
    "ReduceSumSquare": partial(_reduce, "square"),
    "ReduceLogSum": partial(_reduce, "log of a sum"),
    "ReduceLogSumExp": partial(_reduce, "log of a sum of exponentials"),
    "LRN": _local_response_norm,
    "GlobalAveragePool": partial(_global_pool, reductions.mean),
    "GlobalMaxPool": partial(_global_pool, reductions.largest),
}
