"""Make graph nodes of the aten ops of one number, or of two, element by element."""

from __future__ import annotations

import math

import numpy as np

from edgecnn.graph import layers
from edgecnn.graph.aten.arguments import Handler, arguments
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.builder import Operand
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn.graph.traced import Call

POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}


def _scaled(t: Translation, operand: Operand, factor: object) -> Operand:
    assert isinstance(factor, int | float)
    if factor == 1:
        return operand
    return (
        t.binary("mul", operand, float(factor))
        if isinstance(operand, Value)
        else np.asarray(operand, np.float32) * np.float32(factor)
    )


def _binary(t: Translation, call: Call) -> Value:
    """add, sub (with ``alpha``), mul, div, minimum, maximum."""
    need(call.kwargs.get("rounding_mode") is None, "a division that rounds")
    left, right = (t.operand(argument) for argument in call.args[:2])
    alpha = call.args[2] if len(call.args) > 2 else call.kwargs.get("alpha", 1)
    if call.name == "rsub":
        return t.binary("sub", right, _scaled(t, left, alpha))
    return t.binary(call.name, left, _scaled(t, right, alpha))


def _addcmul(t: Translation, call: Call) -> Value:
    start, left, right = (t.operand(argument) for argument in call.args[:3])
    op = "mul" if call.name == "addcmul" else "div"
    if not isinstance(left, Value) and not isinstance(right, Value):
        product: Operand = left * right if op == "mul" else left / right
    else:
        product = t.binary(op, left, right)
    return t.binary("add", start, _scaled(t, product, call.kwargs.get("value", 1)))


def _lerp(t: Translation, call: Call) -> Value:
    start, end, weight = (t.operand(argument) for argument in call.args[:3])
    step = t.binary("mul", t.binary("sub", end, start), weight)
    return t.binary("add", start, step)


def _negative(t: Translation, call: Call) -> Value:
    return t.binary("mul", t.value(call.args[0]), -1.0)


def _power(t: Translation, call: Call) -> Value:
    """A whole exponent above 0 is a product; what is raised to a tensor is not known."""
    if call.name in POWERS:
        return t.unary("pow", t.value(call.args[0]), exponent=POWERS[call.name])
    base, exponent = call.args[:2]
    if isinstance(base, int | float):
        need(base > 0, f"{base} to the power of a tensor")
        return t.unary("exp", t.binary("mul", t.value(exponent), math.log(base)))
    power = t.operand(exponent)
    need(not isinstance(power, Value) and np.size(power) == 1, "a power that is a tensor")
    number, x = float(np.asarray(power).item()), t.value(base)
    if number == 0.5 or number < 0 or number != round(number):
        return t.unary("pow", x, exponent=number)
    need(1 <= number <= 8, f"power {number:g}; whole ones from 1 to 8 are supported")
    made = x
    for digit in f"{int(number):b}"[1:]:
        made = t.binary("mul", made, made)
        made = t.binary("mul", made, x) if digit == "1" else made
    return made


def _clamp(t: Translation, call: Call) -> Value:
    match call.name:
        case "hardtanh":
            x, low, high = arguments(call, self=None, min_val=-1.0, max_val=1.0)
        case "clamp_max":
            (x, high), low = call.args, None
        case _:
            x, low, high = arguments(call, self=None, min=None, max=None)
    value, bounds = t.value(x), [None if b is None else t.operand(b) for b in (low, high)]
    if all(b is None or (not isinstance(b, Value) and np.size(b) == 1) for b in bounds):
        numbers = [None if b is None else float(np.asarray(b).item()) for b in bounds]
        return t.clamp(
            value, -math.inf if numbers[0] is None else numbers[0], math.inf if numbers[1] is None else numbers[1]
        )
    for op, bound in zip(("maximum", "minimum"), bounds, strict=True):
        value = value if bound is None else t.binary(op, value, bound)
    return value


def _hard_sigmoid(t: Translation, call: Call) -> Value:
    """relu6(x + 3) / 6."""
    x = t.value(call.args[0])
    return t.binary("mul", t.unary("relu6", t.binary("add", x, 3.0)), 1 / 6)


def _silu(t: Translation, call: Call) -> Value:
    x = t.value(call.args[0])
    return t.binary("mul", x, t.unary("sigmoid", x))


def _leaky_relu(t: Translation, call: Call) -> Value:
    x, slope = arguments(call, self=None, negative_slope=0.01)
    return t.unary("leaky_relu", t.value(x), alpha=float(slope))


def _prelu(t: Translation, call: Call) -> Value:
    x, weight = call.args[0], t.array(call.args[1])
    need(weight.size in (1, x.shape[1] if len(x.shape) > 1 else 1), f"{weight.size} slopes for {x.shape}")
    return layers.prelu(t, t.value(x), weight.reshape(-1), 1)


def _elu(t: Translation, call: Call) -> Value:
    """Also selu: ``scale elu(x)``."""
    x, alpha, scale, input_scale = arguments(call, self=None, alpha=1.0, scale=1.0, input_scale=1.0)
    need(input_scale == 1, f"elu with input_scale {input_scale}")
    return t.binary("mul", t.unary("elu", t.value(x), alpha=float(alpha)), float(scale))


def _celu(t: Translation, call: Call) -> Value:
    """alpha elu(x / alpha)."""
    x, alpha = arguments(call, self=None, alpha=1.0)
    value = t.unary("elu", t.binary("mul", t.value(x), 1 / float(alpha)), alpha=1.0)
    return t.binary("mul", value, float(alpha))


def _gelu(t: Translation, call: Call) -> Value:
    x, approximate = arguments(call, self=None, approximate="none")
    return t.unary("gelu", t.value(x), approximate=approximate == "tanh")


def _softplus(t: Translation, call: Call) -> Value:
    x, beta, _ = arguments(call, self=None, beta=1, threshold=20)
    value = t.binary("mul", t.value(x), float(beta))
    return t.binary("mul", t.unary("softplus", value), 1 / float(beta))


def _log_sigmoid(t: Translation, call: Call) -> Value:
    """-softplus(-x)."""
    return t.binary("mul", t.unary("softplus", t.binary("mul", t.value(call.args[0]), -1.0)), -1.0)


def _random_leaky_relu(t: Translation, call: Call) -> Value:
    """Return what RReLU is at inference: the mean of its slopes. Source: torch's documentation, ``RReLU``."""
    x, _, lower, upper, _ = arguments(call, self=None, noise=None, lower=1 / 8, upper=1 / 3, training=False)
    return t.unary("leaky_relu", t.value(x), alpha=(lower + upper) / 2)


def _threshold(t: Translation, call: Call) -> Value:
    x, limit, value = call.args
    need(limit == value == 0, f"threshold({limit}, {value}); (0, 0), which is relu, is supported")
    return t.unary("relu", t.value(x))


def _soft_shrink(t: Translation, call: Call) -> Value:
    x, limit = arguments(call, self=None, lambd=0.5)
    value = t.value(x)
    return t.binary("sub", value, t.clamp(value, -float(limit), float(limit)))


def _glu(t: Translation, call: Call) -> Value:
    x, dim = arguments(call, self=None, dim=-1)
    value, dim = t.value(x), dim % len(x.shape)
    half = x.shape[dim] // 2
    left, right = t.slice(value, dim, 0, half), t.slice(value, dim, half, 2 * half)
    return t.binary("mul", left, t.unary("sigmoid", right))


def _log1p(t: Translation, call: Call) -> Value:
    return t.unary("log", t.binary("add", t.value(call.args[0]), 1.0))


def _expm1(t: Translation, call: Call) -> Value:
    return t.binary("sub", t.unary("exp", t.value(call.args[0])), 1.0)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div", "minimum", "maximum"), _binary),
    **dict.fromkeys(("addcmul", "addcdiv"), _addcmul),
    "lerp": _lerp,
    "neg": _negative,
    **dict.fromkeys(("pow", *POWERS), _power),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh"), _clamp),
    "hardsigmoid": _hard_sigmoid,
    "silu": _silu,
    "leaky_relu": _leaky_relu,
    "rrelu_with_noise": _random_leaky_relu,
    "prelu": _prelu,
    "celu": _celu,
    "elu": _elu,
    "gelu": _gelu,
    "softplus": _softplus,
    "log_sigmoid_forward": _log_sigmoid,
    "threshold": _threshold,
    "softshrink": _soft_shrink,
    "glu": _glu,
    "log1p": _log1p,
    "expm1": _expm1,
}
