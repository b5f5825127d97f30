"""Rules that find one op in what is spelled by several: activations by hand, roots of roots, means of means.

Nodes that compute a function of one tensor, element by element, are evaluated together on many numbers; what comes out
tells the function, however it is spelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Node
from edgecnn.graph.ops import ACTIVATIONS
from edgecnn.graph.rewriting import Draft, Rule
from edgecnn.graph.unary_functions import FUNCTIONS, evaluate

Reals = NDArray[np.float64]
DEEPEST = 24  # nodes that spell one function
SAMPLES: Reals = np.concatenate([np.linspace(-12, 12, 1201), [-60.0, -30.0, 30.0, 60.0], np.linspace(-0.1, 0.1, 101)])
EXACT = 2e-5  # largest difference of one spelling and another, relative where values are above 1; of float32


def _relu(x: Reals) -> Reals:
    return np.maximum(x, 0)


PLAIN: Mapping[str, Any] = {
    "relu": _relu,
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(x / 2)),
}
"""Ops that are functions of one number and have kernels of their own."""


def recognize_function(d: Draft, last: Node) -> bool:
    """Replace several nodes that compute one function of one tensor by the op of that function."""
    if _operands(d, last) is None:
        return False
    best: tuple[str, str, dict[str, Any]] | None = None
    for root, inside in _regions(d, last):
        if len(inside) < 2:
            continue
        made = _evaluated(d, root, inside, last.output)
        found = None if made is None else _named(made)
        if found is not None:
            best = (root, *found)
    if best is None:
        return False
    root, op, attrs = best
    d.put(op, [root], last.output, last, **attrs)
    return True


def _operands(d: Draft, node: Node) -> list[str] | None:
    """Return the activations that an element of the node's output is a function of, or ``None`` for another node."""
    if node.op not in PLAIN and not node.spec.function and node.op not in ("add", "mul"):
        return None
    read = [i for i in node.inputs if d.value(i) is None]
    values = [v for i in node.inputs if (v := d.value(i)) is not None]
    if any(v.size != 1 for v in values) or any(d.shape(i) != d.shape(node.output) for i in read):
        return None
    return list(dict.fromkeys(read))


def _regions(d: Draft, last: Node) -> Iterator[tuple[str, list[Node]]]:
    """Yield tensors of which ``last`` is a function, and the nodes between, from the nearest to the furthest."""
    order: list[Node] = []
    seen: set[str] = set()
    _gather(d, last, order, seen)
    border, inside = {last.output}, []
    for node in reversed(order):  # each after all that read it
        border = (border - {node.output}) | set(_operands(d, node) or ())
        inside.append(node)
        if len(border) == 1:
            yield next(iter(border)), inside[::-1]


def _gather(d: Draft, node: Node, order: list[Node], seen: set[str]) -> None:
    """Note the nodes that ``node`` is made of, element by element, each after what it reads."""
    seen.add(node.output)
    for name in _operands(d, node) or ():
        maker = d.producer(name)
        if maker is not None and name not in seen and len(seen) < DEEPEST and _operands(d, maker) is not None:
            _gather(d, maker, order, seen)
    order.append(node)


def _evaluated(d: Draft, root: str, inside: list[Node], output: str) -> Reals | None:
    """Return the function's values of ``SAMPLES``, or ``None`` where it has none of some."""
    values: dict[str, Reals] = {root: SAMPLES}
    for node in inside:
        read: list[Reals] = []
        for name in node.inputs:
            constant = d.value(name)
            if constant is None and name not in values:
                return None
            read.append(values[name] if constant is None else constant.astype(np.float64).reshape(()))
        with np.errstate(all="ignore"):
            if node.op in FUNCTIONS:
                made = evaluate(node.op, read[0], node.attrs)
            elif node.op in PLAIN:
                made = PLAIN[node.op](read[0])
            else:
                made = read[0] + read[1] if node.op == "add" else read[0] * read[1]
            activation = node.attrs.get("activation", "none")
            if activation in ACTIVATIONS[1:]:
                made = PLAIN[str(activation)](made)
        values[node.output] = np.broadcast_to(made, SAMPLES.shape)
    result = values[output]
    return result if np.all(np.isfinite(result[np.abs(SAMPLES) <= 12])) else None


def _named(made: Reals) -> tuple[str, dict[str, Any]] | None:
    """Return the op and attributes of a function that has these values of ``SAMPLES``."""
    for op, function in PLAIN.items():
        if _alike(made, function(SAMPLES)):
            return op, {}
    for op, attrs in _candidates(made):
        if _alike(made, evaluate(op, SAMPLES, attrs)):
            return op, attrs
    return None


def _alike(made: Reals, wanted: Reals) -> bool:
    known = np.isfinite(made)
    return bool(np.all(np.abs(made - wanted)[known] <= EXACT * np.maximum(1, np.abs(wanted[known]))))


def _candidates(made: Reals) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield functions with the attributes that fit single values."""
    at = {x: float(made[int(np.argmin(np.abs(SAMPLES - x)))]) for x in (-10.0, -1.0, 0.0, 1.0, 10.0)}
    yield "gelu", {"approximate": False}
    yield "gelu", {"approximate": True}
    yield "mish", {}
    yield "tanh", {}
    yield "softplus", {}
    yield "abs", {}
    low, high = float(made.min()), float(made.max())
    if abs(at[1.0] - 1) < EXACT and -1 < at[-1.0] < 1:
        yield "leaky_relu", {"alpha": round(-at[-1.0], 7)}
    if abs(at[1.0] - 1) < EXACT and at[-10.0] < 0:
        yield "elu", {"alpha": round(-at[-10.0] / (1 - np.exp(-10.0)), 6)}
    if low < high and np.isfinite([low, high]).all():
        yield "clamp", {"low": low, "high": high}
        yield "clamp", {"low": low, "high": float("inf")}
        yield "clamp", {"low": float("-inf"), "high": high}
    slopes = np.diff(made[:1201]) / np.diff(SAMPLES[:1201])
    slope = float(np.median(slopes[slopes > 1e-6])) if np.any(slopes > 1e-6) else 0.0
    # 1/6 and 1/2 stay a sum, a ReLU6 and a factor, all of which fold into the layers around
    if 0 < at[0.0] < 1 and slope and not (abs(slope - 1 / 6) < EXACT and abs(at[0.0] - 0.5) < EXACT):
        yield "hard_sigmoid", {"alpha": round(slope, 6), "beta": round(at[0.0], 6)}


def merge_powers(d: Draft, second: Node) -> bool:
    """Merge a power of a root: ``1 / sqrt(x)``."""
    first = d.producer(second.inputs[0], "pow") if second.op == "pow" else None
    if first is None or d.only_reader(first.output) is None:
        return False
    inner, outer = first.attrs["exponent"], second.attrs["exponent"]
    assert isinstance(inner, int | float)
    assert isinstance(outer, int | float)
    if inner == round(inner) and inner % 2 == 0:  # of what may be negative
        return False
    d.put("pow", first.inputs, second.output, second, exponent=float(inner * outer))
    return True


def mean_of_rows(d: Draft, node: Node) -> bool:
    """Let a mean over height and width read what a reshape before it made one row of, or of several rows."""
    first = d.producer(node.inputs[0], "reshape") if node.op == "mean" else None
    if first is None:
        return False
    old, new = d.shape(first.inputs[0]), d.shape(first.output)
    if len(old) != 4 or (old[0], old[3]) != (new[0], new[3]):
        return False
    d.put("mean", first.inputs, node.output, node, **node.attrs)
    return True


RULES: tuple[Rule, ...] = (merge_powers, recognize_function, mean_of_rows)
