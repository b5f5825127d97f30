"""Name what a torch module takes and what it returns."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn


def argument_names(module: nn.Module) -> list[str]:
    """Return the names of what a module's ``forward`` takes, or none where Python cannot tell."""
    try:
        return [name for name, p in inspect.signature(module.forward).parameters.items() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        return []


def named_results(made: Any) -> dict[str, Any]:
    """Return what a module returned, one entry each: names from keys and fields, else ``output``, ``output_1`` …"""
    found: dict[str, Any] = {}
    for path, value in _paths(made):
        name = re.sub(r"\W", "_", ".".join(path)) if path else "output"
        numbered = (f"{name}_{k}" for k in itertools.count(1))
        found[next(n for n in (name, *itertools.islice(numbered, len(found) + 1)) if n not in found)] = value
    return found


def _paths(made: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every leaf with the keys and fields that lead to it."""
    if isinstance(made, Mapping):
        parts = [((*path, str(k)), v) for k, v in made.items()]
    elif isinstance(made, tuple) and hasattr(made, "_fields"):
        parts = [((*path, k), v) for k, v in zip(made._fields, made, strict=True)]
    elif is_dataclass(made) and not isinstance(made, type):
        parts = [((*path, f.name), getattr(made, f.name)) for f in fields(made)]
    elif isinstance(made, list | tuple):
        parts = [(path, v) for v in made]
    else:
        yield path, made
        return
    for inner, value in parts:
        yield from _paths(value, inner)
