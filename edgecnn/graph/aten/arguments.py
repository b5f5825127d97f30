"""Read the arguments of an aten call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.node_builder import Value
from edgecnn.graph.traced import Call, Traced

Made = Value | Sequence[Value]
"""Of an op with several outputs: the first ones of them, in order; what is not made cannot be read."""
Handler = Callable[[Translation, Call], Made]


def arguments(call: Call, **defaults: Any) -> list[Any]:
    """Return positional and keyword arguments by name, with defaults for those not given."""
    given = dict(zip(defaults, call.args, strict=False)) | call.kwargs
    return [given.get(name, default) for name, default in defaults.items()]


def dims_of(given: Any, rank: int) -> list[int]:
    """Return dimensions counted from the front; one number, several, or ``None`` for all."""
    if given is None or (isinstance(given, Sequence) and not given):
        return list(range(rank))
    return [int(d) % rank for d in (given if isinstance(given, Sequence) else [given])]


def shape_of(argument: Any) -> tuple[int, ...]:
    """Return the shape of a tensor among the arguments; of a number, none."""
    return argument.shape if isinstance(argument, Traced) else ()
