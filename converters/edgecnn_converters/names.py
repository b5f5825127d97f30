"""Names of what a graph tensor becomes where a file needs several tensors for it: ``NAME/PART`` belongs to ``NAME``."""

from __future__ import annotations

SEPARATOR = "/"  # no name of a graph tensor has one, so it marks what a writer added


def part(name: str, what: str) -> str:
    """Return the name of a part of a graph tensor."""
    return f"{name}{SEPARATOR}{what}"


def part_of(name: str) -> tuple[str, str]:
    """Return the graph tensor and the part that a name in a file stands for; no part (empty) for the tensor itself."""
    owner, found, what = name.rpartition(SEPARATOR)
    return (owner, what) if found else (name, "")
