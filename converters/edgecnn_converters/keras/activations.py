"""Activations of Keras by name, in ops of the graph. Source of every formula: ``keras/src/activations`` of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.graph import reductions
from edgecnn.graph.builder import Builder
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, section 2
INFINITY = float("inf")
Function = Callable[[Builder, Value], Value]


def relu(b: Builder, x: Value, *, slope: float = 0.0, top: float | None = None, threshold: float = 0.0) -> Value:
    """Return ``x`` held below ``top`` where it is positive, else ``slope x``."""
    high = INFINITY if top is None else float(top)
    need(high >= 0, f"max_value {top} is below 0")
    need(threshold == 0, f"threshold {threshold}, where the function jumps; 0 is supported")
    if slope == 0:
        return b.clamp(x, 0.0, high)
    made = b.unary("leaky_relu", x, alpha=slope)
    return made if top is None else b.clamp(made, -INFINITY, high)


def silu(b: Builder, x: Value) -> Value:
    """Return ``x sigmoid(x)``."""
    return b.binary("mul", x, b.unary("sigmoid", x))


def selu(b: Builder, x: Value) -> Value:
    """Return the scaled exponential linear unit."""
    return b.binary("mul", b.unary("elu", x, alpha=SELU_ALPHA), SELU_SCALE)


def softsign(b: Builder, x: Value) -> Value:
    """Return ``x / (1 + |x|)``."""
    return b.binary("div", x, b.binary("add", b.unary("abs", x), 1.0))


def squareplus(b: Builder, x: Value) -> Value:
    """Return ``(x + sqrt(x^2 + 4)) / 2``."""
    root = b.unary("pow", b.binary("add", b.binary("mul", x, x), 4.0), exponent=0.5)
    return b.binary("mul", b.binary("add", x, root), 0.5)


def soft_shrink(b: Builder, x: Value) -> Value:
    """Return ``x`` moved by 0.5 towards 0, and 0 where it is nearer."""
    above = b.unary("relu", b.binary("add", x, -0.5))
    below = b.unary("relu", b.binary("sub", -0.5, x))
    return b.binary("sub", above, below)


def sparse_plus(b: Builder, x: Value) -> Value:
    """Return 0 below -1, ``(x + 1)^2 / 4`` up to 1, and ``x`` above."""
    inside = b.binary("add", b.clamp(x, -1.0, 1.0), 1.0)
    curve = b.binary("mul", b.binary("mul", inside, inside), 0.25)
    return b.binary("add", curve, b.unary("relu", b.binary("add", x, -1.0)))


def glu(b: Builder, x: Value) -> Value:
    """Return the first half of the last dimension times the sigmoid of the second."""
    last = len(b.shape(x)) - 1
    size = b.shape(x)[last]
    need(size % 2 == 0, f"a gated linear unit of {size} features; their number must be even")
    gate = b.unary("sigmoid", b.slice(x, last, size // 2, size))
    return b.binary("mul", b.slice(x, last, 0, size // 2), gate)


def log_softmax(b: Builder, x: Value, axis: int = -1) -> Value:
    """Return ``x - m - log(sum(exp(x - m)))`` with the maximum ``m``."""
    axis %= len(b.shape(x))
    shifted = b.binary("sub", x, reductions.largest(b, x, [axis], keepdims=True))
    total = reductions.total(b, b.unary("exp", shifted), [axis], keepdims=True)
    return b.binary("sub", shifted, b.unary("log", total))


def log_sigmoid(b: Builder, x: Value) -> Value:
    """Return ``-softplus(-x)``."""
    return b.binary("mul", b.unary("softplus", b.binary("mul", x, -1.0)), -1.0)


def _named(op: str, **attrs: Any) -> Function:
    return lambda b, x: b.unary(op, x, **attrs)


ACTIVATIONS: Mapping[str, Function] = {
    "linear": lambda b, x: x,
    "relu": _named("relu"),
    "relu6": _named("relu6"),
    "leaky_relu": _named("leaky_relu", alpha=0.2),
    "elu": _named("elu", alpha=1.0),
    "celu": _named("elu", alpha=1.0),
    "selu": selu,
    "gelu": _named("gelu", approximate=False),
    "silu": silu,
    "swish": silu,
    "mish": _named("mish"),
    "softplus": _named("softplus"),
    "softsign": softsign,
    "squareplus": squareplus,
    "soft_shrink": soft_shrink,
    "sparse_plus": sparse_plus,
    "glu": glu,
    "tanh": _named("tanh"),
    "tanh_shrink": lambda b, x: b.binary("sub", x, b.unary("tanh", x)),
    "sigmoid": _named("sigmoid"),
    "sparse_sigmoid": _named("hard_sigmoid", alpha=0.5, beta=0.5),
    "log_sigmoid": log_sigmoid,
    "exponential": _named("exp"),
    "hard_sigmoid": _named("hard_sigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _named("hard_swish"),
    "hard_swish": _named("hard_swish"),
    "hard_tanh": lambda b, x: b.clamp(x, -1.0, 1.0),
    "softmax": lambda b, x: reductions.softmax(b, x, -1),
    "log_softmax": log_softmax,
}
OF_KERAS_2: Mapping[str, Function] = {"hard_sigmoid": _named("hard_sigmoid", alpha=0.2, beta=0.5)}


def activation_name(given: Any) -> str:
    """Return the name of an activation in a configuration: a name, or an object of Keras."""
    if isinstance(given, Mapping):
        registered, kind, inside = given.get("registered_name"), given.get("class_name"), given.get("config")
        name = inside if kind == "function" and isinstance(inside, str) else kind
        own = str(registered or name)
        need(">" not in own, f"activation {own!r}, whose code is not in the file")
        return str(name)
    return "linear" if given is None else str(given)


def activated(b: Builder, x: Value, given: Any, keras: int) -> Value:
    """Return an activation of a value, by what the configuration of a layer says.

    Raises:
        InputError: it is not one of Keras that a graph holds.
    """
    name = activation_name(given)
    if isinstance(given, Mapping) and isinstance(given.get("config"), Mapping):
        if name not in LAYERS:
            raise InputError(unknown("activation layer", name, LAYERS))
        return LAYERS[name](b, x, given["config"])
    function = (OF_KERAS_2 if keras < 3 else {}).get(name) or ACTIVATIONS.get(name)
    if function is None:
        raise InputError(unknown("activation", name, ACTIVATIONS))
    return function(b, x)


def _relu_layer(b: Builder, x: Value, config: Mapping[str, Any]) -> Value:
    slope, threshold = (float(config.get(key) or 0) for key in ("negative_slope", "threshold"))
    return relu(b, x, slope=slope, top=config.get("max_value"), threshold=threshold)


def _leaky_relu_layer(b: Builder, x: Value, config: Mapping[str, Any]) -> Value:
    slope = config["negative_slope"] if "negative_slope" in config else config.get("alpha", 0.3)
    return b.unary("leaky_relu", x, alpha=float(slope))


def _softmax_layer(b: Builder, x: Value, config: Mapping[str, Any]) -> Value:
    axis = config.get("axis", -1)
    if isinstance(axis, list):
        need(len(axis) == 1, f"a softmax over {len(axis)} axes; one is supported")
        (axis,) = axis
    return reductions.softmax(b, x, int(axis))


LAYERS: Mapping[str, Callable[[Builder, Value, Mapping[str, Any]], Value]] = {
    "ReLU": _relu_layer,
    "LeakyReLU": _leaky_relu_layer,
    "ELU": lambda b, x, config: b.unary("elu", x, alpha=float(config.get("alpha", 1.0))),
    "Softmax": _softmax_layer,
}
"""Layers without weights that are an activation, by class."""
