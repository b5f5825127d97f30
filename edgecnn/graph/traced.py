"""The parts of a trace: tensors at one moment of the run, and aten calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Traced:
    """A tensor at one moment of the run: an op in place makes a new one of the same torch tensor."""

    shape: tuple[int, ...]  # as torch has it: (N, C, H, W) for an image
    constant: torch.Tensor | None = None  # with data: what the module holds, and what is computed from that alone
    fault: str = ""  # why nothing may read it
    dtype: torch.dtype = torch.float32

    def __repr__(self) -> str:
        return f"a tensor of shape {self.shape}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """One aten call."""

    name: str  # of the op as a user of torch knows it, without overload and the underscore of the form in place
    args: tuple[Any, ...]  # as torch got them, with ``Traced`` in the place of tensors
    kwargs: dict[str, Any]
    outputs: tuple[Traced, ...]  # what it made; for one in place, the new moment of its first argument
    path: str  # of the innermost module of the network that made it; empty for the network itself
    layer: str  # the class of that module where it is one of torch's own, so the call is what the module is; or empty
    line: str  # of the user's source, ``FILE:LINE``
    fault: str  # why no graph can hold the call, or empty
    op: Any  # the aten op, to be called again

    @property
    def output(self) -> Traced:
        """The first output."""
        return self.outputs[0]

    @property
    def inputs(self) -> tuple[Traced, ...]:
        """Every tensor among the arguments, once."""
        return tuple(dict.fromkeys(leaves((self.args, self.kwargs), Traced)))


@dataclass(frozen=True)
class Trace:
    """Hold what ``trace`` recorded."""

    inputs: Mapping[str, Traced]
    calls: tuple[Call, ...]  # in the order of the run; none that only computes with constants
    by_name: bool  # whether the inputs are the arguments of these names, or go by their order
    results: Mapping[str, Traced | None]  # what the module returned, by name; ``None`` for what is not a tensor


def each(change: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Return the same structure with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: each(change, v) for k, v in value.items()}
    return type(value)(each(change, v) for v in value) if isinstance(value, list | tuple) else value


def leaves(value: Any, kind: type) -> Iterator[Any]:
    """Yield everything of a kind in a structure."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part, kind)
