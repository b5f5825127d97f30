"""Figures of the user's own: a function of all outputs and fp32's, ``--metric package.module:function``."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.own_code import own_code
from edgecnn.plugins import imported
from edgecnn.report.record import Accuracy

OwnMetric = Callable[..., Mapping[str, float]]
"""``function(outputs, references)`` or ``function(outputs, references, labels)``: names to numbers.

``outputs`` are an artifact's over all images, float32 ``(n, ...)``, dimensions in the graph's order; of several
outputs, a mapping of names to these. ``references`` are fp32's, alike, or ``None`` where there is no fp32; ``labels``
are class indices ``(n,)``, or ``None``.
"""
FP32 = "fp32_"  # begins the name of a figure of fp32 itself
OTHERS = frozenset(Accuracy().figures)


def own_metrics(given: Any) -> tuple[tuple[str, OwnMetric], ...]:
    """Return name and function of each metric that the user gave.

    Args:
        given: ``None``, ``package.module:function``, a callable, or a sequence of these.

    Raises:
        InputError: one cannot be imported or called.
    """
    each: Sequence[Any] = () if given is None else [given] if isinstance(given, str) or callable(given) else given
    found = []
    for one in each:
        function = imported(one, "a metric") if isinstance(one, str) else one
        name = one if isinstance(one, str) else getattr(one, "__name__", type(one).__name__)
        if not callable(function):
            raise InputError(f"metric {name} is a {type(function).__name__}; give a function of outputs and references")
        found.append((name, function))
    return tuple(found)


class Gathered:
    """Outputs of all images, in memory."""

    def __init__(self) -> None:
        self._parts: list[Mapping[str, NDArray[np.float32]]] = []

    def add(self, outputs: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the outputs of a batch, name to ``(n, ...)``."""
        self._parts.append(outputs)

    def whole(self) -> Any:
        """Return them joined: an array of one output, a mapping of several; ``None`` where there are none."""
        if not self._parts:
            return None
        joined = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        return joined if len(joined) > 1 else next(iter(joined.values()))


def figures(
    metrics: Sequence[tuple[str, OwnMetric]],
    outputs: Any,
    references: Any,
    labels: NDArray[np.int64] | None,
    prefix: str = "",
) -> dict[str, float]:
    """Return the figures of all metrics, with ``prefix`` before their names.

    Raises:
        InputError: a metric raises, returns no mapping of names to numbers, or a name that there is already.
    """
    found: dict[str, float] = {}
    for name, function in metrics:
        own = _called(name, function, outputs, references, labels)
        made = {f"{prefix}{key}": value for key, value in own.items()}
        if taken := set(made) & (OTHERS | set(found)):
            raise InputError(f"metric {name} returns {min(taken)!r}, which is another figure's name; choose another")
        found |= made
    return found


def _called(
    name: str, function: OwnMetric, outputs: Any, references: Any, labels: NDArray[np.int64] | None
) -> dict[str, float]:
    arguments = (outputs, references, labels) if _takes_labels(function) else (outputs, references)
    with own_code(f"metric {name}"):
        made = function(*arguments)
    allowed = "return a mapping of names to numbers, such as {'miou': 0.7}"
    if not isinstance(made, Mapping) or not made:
        raise InputError(f"metric {name} returned {type(made).__name__} {str(made)[:40]!r}; {allowed}")
    found = {}
    for key, value in made.items():
        number = isinstance(value, numbers.Real | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0)
        if not isinstance(key, str) or not key.isidentifier() or not number or isinstance(value, bool):
            raise InputError(f"metric {name} returned {key!r}: {str(value)[:40]!r}; {allowed}")
        if not math.isfinite(float(value)):
            raise InputError(f"metric {name} returned {key!r}: {float(value)}; return finite numbers")
        found[key] = float(value)
    return found


def _takes_labels(function: OwnMetric) -> bool:
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True
