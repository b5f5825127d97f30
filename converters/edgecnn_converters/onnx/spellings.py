"""Recognize functions of one number that a ``.onnx`` file spells out, such as GELU by ``Erf``, by their values.

The nodes between a tensor and another that is a function of it alone are evaluated on a grid of numbers; where these
are a known function's, one node takes their place. So every order of factors and terms is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.functions import evaluate
from edgecnn_converters.onnx.model_file import Call, ordered

Reals = NDArray[np.float64]
GRID: Reals = np.linspace(-9, 9, 721)
STARTS = ("Erf", "Tanh", "HardSigmoid", "Clip", "Log", "Softplus")  # no spelling of a known function is without one
PRECISION = 2e-6  # of float32 constants
STEPS = 4  # from one of these back to the number that the function is of


def _known() -> list[tuple[str, dict[str, Any], Reals]]:
    """Return op, attributes and values of the functions that are looked for."""
    return [
        ("Gelu", {"approximate": "none"}, evaluate("gelu", GRID, {"approximate": False})),
        ("Gelu", {"approximate": "tanh"}, evaluate("gelu", GRID, {"approximate": True})),
        ("Mish", {}, evaluate("mish", GRID, {})),
        ("Softplus", {}, evaluate("softplus", GRID, {})),
        ("HardSwish", {}, GRID * np.clip(GRID + 3, 0, 6) / 6),
    ]


_erf = np.vectorize(math.erf, otypes=[np.float64])
FUNCTIONS: Mapping[str, Callable[..., Reals]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Min": np.minimum,
    "Max": np.maximum,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Tanh": np.tanh,
    "Erf": _erf,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Relu": lambda x: np.maximum(x, 0),
    "Clip": lambda x, low=-np.inf, high=np.inf: np.clip(x, low, high),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "Identity": lambda x: x,
}


def recognized(calls: list[Call], known: Mapping[str, Any], outputs: list[str]) -> list[Call]:
    """Return the nodes of a file with one for each function that several spell out.

    Args:
        known: tensor to what is known of it; numbers of one element are used.
        outputs: of the file.
    """
    scalars = {name: float(v.reshape(())) for name, v in known.items() if isinstance(v, np.ndarray) and _is_number(v)}
    for call in calls:
        if call.op == "Constant" and "value" in call.attrs:
            from onnx import numpy_helper

            value = numpy_helper.to_array(call.attrs["value"])
            if _is_number(value):
                scalars[call.outputs[0]] = float(value.reshape(()))
    made = list(calls)
    for start in [call for call in calls if call.op in STARTS]:
        for root in _roots(start, made, scalars):
            found = _match(start, root, made, scalars)
            if found is not None:
                place, op, attrs = found
                old = made[place]
                made[place] = Call(op=op, name=old.name, inputs=(root,), outputs=old.outputs[:1], attrs=attrs)
                break
    if made == calls:
        return calls
    outside = set(known) | {name for call in calls for name in call.inputs}
    outside -= {name for call in calls for name in call.outputs}
    return ordered(made, outside, outputs)


def _is_number(value: NDArray[Any]) -> bool:
    return value.size == 1 and value.dtype.kind in "fiu"


def _roots(start: Call, calls: list[Call], scalars: Mapping[str, float]) -> list[str]:
    """Return the tensors that the node may be a function of, the nearest first."""
    makers = {name: call for call in calls for name in call.outputs}
    found: list[str] = []
    queue = [start.inputs[0]]
    for _ in range(STEPS):
        further = [name for name in queue if name not in scalars and name not in found]
        found += dict.fromkeys(further)
        within = [makers[n] for n in further if n in makers and makers[n].op in FUNCTIONS]
        queue = [name for call in within for name in call.inputs if name]
    return found


def _match(
    start: Call, root: str, calls: list[Call], scalars: Mapping[str, float]
) -> tuple[int, str, dict[str, Any]] | None:
    """Return the place of the last node that is a known function of ``root``, and that function."""
    values: dict[str, Reals] = {root: GRID}
    through, best = set[str](), None
    for place, call in enumerate(calls):
        names = [name for name in call.inputs if name]
        inside = [name for name in names if name in values]
        if not inside or call.op not in FUNCTIONS or any(n not in values and n not in scalars for n in names):
            continue
        more = _attributes(call)
        arguments = [values[n] if n in values else scalars[n] for n in names]
        with np.errstate(all="ignore"):
            value = np.asarray(FUNCTIONS[call.op](*arguments, **more), np.float64)
        values[call.outputs[0]] = value
        if call is start or not through.isdisjoint(names):
            through.add(call.outputs[0])
            for op, attrs, wanted in _known():
                if value.shape == wanted.shape and np.allclose(value, wanted, rtol=PRECISION, atol=PRECISION):
                    best = (place, op, attrs) if len(through) > 1 else best
    return best


def _attributes(call: Call) -> dict[str, float]:
    if call.op == "HardSigmoid":
        return {"alpha": float(call.attrs.get("alpha", 0.2)), "beta": float(call.attrs.get("beta", 0.5))}
    if call.op == "Clip" and len(call.inputs) == 1:
        names = {"min": "low", "max": "high"}
        return {names[k]: float(v) for k, v in call.attrs.items() if k in names}
    return {}
