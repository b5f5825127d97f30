"""The weights that ship with the package. No torch here."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

_ENDING = "_demo.safetensors"  # after the model's name, in assets/


def shipped_names() -> list[str]:
    """Return the names of the models that weights ship for."""
    assets = resources.files("edgecnn") / "assets"
    return sorted(p.name.removesuffix(_ENDING) for p in assets.iterdir() if p.name.endswith(_ENDING))


def shipped_weights(name: str) -> Traversable:
    """Return the weight file of one of these models."""
    return resources.files("edgecnn") / "assets" / f"{name}{_ENDING}"
