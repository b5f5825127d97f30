"""The ops that are functions of one number, in numpy: what a table of an 8-bit op, or a folded constant, is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Function = Callable[[Reals, Mapping[str, Any]], Reals]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Reals, a: Mapping[str, Any]) -> Reals:
    """Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2; ``approximate`` is their tanh form."""
    if a["approximate"]:
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _softplus(x: Reals, a: Mapping[str, Any] | None = None) -> Reals:
    return np.logaddexp(x, 0.0)


FUNCTIONS: Mapping[str, Function] = {
    "leaky_relu": lambda x, a: np.where(x < 0, a["alpha"] * x, x),
    "clamp": lambda x, a: np.clip(x, a["low"], a["high"]),
    "tanh": lambda x, a: np.tanh(x),
    "elu": lambda x, a: np.where(x < 0, a["alpha"] * np.expm1(np.minimum(x, 0)), x),
    "gelu": _gelu,
    "softplus": _softplus,
    "mish": lambda x, a: x * np.tanh(_softplus(x)),
    "hard_sigmoid": lambda x, a: np.clip(a["alpha"] * x + a["beta"], 0, 1),
    "abs": lambda x, a: np.abs(x),
    "erf": lambda x, a: np.asarray(_erf(x)),
    "exp": lambda x, a: np.exp(x),
    "log": lambda x, a: np.log(x),
    "pow": lambda x, a: np.power(x, a["exponent"]),
}
"""Op to its values; attributes as in the op table. ``nan`` and infinities where the function has none."""


def evaluate(op: str, x: NDArray[Any], attrs: Mapping[str, Any]) -> Reals:
    """Return the values of a function op in float64; where it has none, ``nan`` or an infinity, without a warning."""
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[op](np.asarray(x, np.float64), attrs), np.float64)
