"""Recipes: the whole list of quantization steps and their settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown

RANGES = ("mse", "minmax")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a float graph becomes a quantized one.

    Attributes:
        name: under which it is known.
        activation_range: ``minmax`` covers all that calibration saw; ``mse`` clips where that lowers the squared error.
        weight_range: the same choice for each output channel of the weights.
        bias_correction: correct each bias by the mean error that quantization causes at its layer's output.
        correction_images: calibration images that the correction looks at.
        weight_bits: 8, or 7 for x86 without VNNI, whose kernels add pairs of products in 16 bits.
    """

    name: str
    activation_range: str = "mse"
    weight_range: str = "minmax"
    bias_correction: bool = True
    correction_images: int = 32
    weight_bits: int = 8

    def __post_init__(self) -> None:
        for key in ("activation_range", "weight_range"):
            if getattr(self, key) not in RANGES:
                raise InputError(unknown(key, str(getattr(self, key)), RANGES))
        if self.correction_images < 1:
            raise InputError(f"correction_images {self.correction_images}: at least 1")
        if self.weight_bits not in (7, 8):
            raise InputError(f"weight_bits {self.weight_bits}; allowed: 7, 8")

    @property
    def weight_limit(self) -> int:
        """The largest weight integer."""
        return (1 << (self.weight_bits - 1)) - 1

    def to_json(self) -> dict[str, Any]:
        """JSON values, for manifests."""
        return asdict(self)


RECIPES: Mapping[str, Recipe] = {
    r.name: r
    for r in (
        Recipe(name="default"),
        Recipe(name="minmax", activation_range="minmax", weight_range="minmax", bias_correction=False),
    )
}


def recipe(name: str) -> Recipe:
    """A named recipe, or one from a TOML file: the fields of ``Recipe``; what is not given is as in ``default``.

    Raises:
        InputError: no such recipe or file, or a field that is not known or not allowed.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in RECIPES:
        raise InputError(unknown("recipe", name, RECIPES) + ", or a .toml file")
    return RECIPES[name]


def _read(path: Path) -> Recipe:
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the recipe {path} ({error}); `edgecnn recipes` shows the fields") from None
    fields = {"name": path.stem, **fields}
    for key, value in fields.items():
        known = Recipe.__dataclass_fields__.get(key)
        if known is None:
            raise InputError(f"recipe {path}: {unknown('field', key, Recipe.__dataclass_fields__)}")
        if type(value).__name__ != known.type:
            raise InputError(f"recipe {path}: {key} is {value!r}, a {type(value).__name__}; it must be a {known.type}")
    return Recipe(**fields)
