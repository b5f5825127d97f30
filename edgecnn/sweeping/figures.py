"""The figures of a result: a flat table of names to numbers, and which of several results is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecnn.sweeping.spec import direction

Figures = Mapping[str, float]


def figures_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a report entry by name.

    ``time_ms`` is the measured median, or the device's estimate; which of the two depends on the device alone.
    """
    groups = (entry["accuracy"], entry["latency"], entry["parity"], entry["resources"])
    found = {name: value for group in groups for name, value in group.items() if isinstance(value, int | float)}
    found["size_bytes"] = entry["size_bytes"]
    times = (found.get("median_ms"), found.get("estimated_ms"))
    time = next((value for value in times if value is not None), None)
    return found if time is None else {**found, "time_ms": time}


def better(objective: str, one: Figures, other: Figures) -> bool:
    """Return whether a result is better than another by one objective; a result without the figure never is."""
    name, more = direction(objective)
    if name not in one or name not in other:
        return name in one
    return one[name] > other[name] if more else one[name] < other[name]


def front(results: Sequence[Figures], objectives: Sequence[str]) -> list[int]:
    """Return the places of the results that no other equals in all objectives and exceeds in one (Pareto front).

    Results that lack the figure of an objective are not on it.
    """
    ways = [direction(objective) for objective in objectives]
    points = {
        k: tuple(each[name] if more else -each[name] for name, more in ways)
        for k, each in enumerate(results)
        if all(name in each for name, _ in ways)
    }
    return [k for k, point in points.items() if not any(_dominates(other, point) for other in points.values())]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
