"""Recipes: the whole list of quantization steps and their settings."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown

ACTIVATION_RANGES = ("mse", "minmax", "percentile", "felt", "learned")
LOGIT_RANGES = ("minmax", "mse")
WEIGHT_RANGES = ("minmax", "mse")
RECONSTRUCTIONS = ("none", "layer", "block")
SMALLEST_PERCENTILE = 90.0


def _setting(default: Any, says: str) -> Any:
    """A field with its explanation, which ``edgecnn recipes show`` prints beside it."""
    return field(default=default, metadata={"says": says})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a float graph becomes a quantized one; each field carries what it means.

    Raises:
        InputError: a value that is not allowed.
    """

    name: str
    pixel_grid: bool = _setting(
        True,
        "feed pixels that are the input's integers already; a mean of 127.5 becomes 127 (preprocessing, first bias)",
    )
    equalization: bool = _setting(True, "scale channels so that integers cost them less (cross-layer equalization)")
    bias_absorption: bool = _setting(False, "move biases that keep a ReLU's channels high into the next layer")
    statistics_images: int = _setting(48, "calibration images that equalization and absorption look at")
    activation_range: str = _setting(
        "mse",
        "minmax (all that calibration saw), percentile, mse (clipped where that lowers the squared error; around a "
        "swish, whose channels nothing equalizes, each counts as much as the logits feel it), felt (so everywhere), or "
        "learned (from mse on, for what the network answers)",
    )
    shared_scales: bool = _setting(False, "one scale for what additions join, where rounding once makes less noise")
    logit_range: str = _setting(
        "minmax", "minmax, or mse: clipped where that lowers the squared error, but above any image's second largest"
    )
    percentile: float = _setting(99.99, "leaves out the values beyond it at either end, where the range is percentile")
    weight_range: str = _setting("minmax", "minmax or mse, for each output channel of the weights, or all of them")
    per_tensor: bool = _setting(False, "one scale for all of a layer's weights, for hardware that has no more")
    weight_bits: int = _setting(8, "8, or 7 for x86 without VNNI, whose kernels add pairs of products in 16 bits")
    keep: tuple[str, ...] = _setting(
        (), "activations in 16 bits in an int8 network, or float where the target has none; --mixed finds them"
    )
    spare_channels: bool = _setting(
        False, "channels that are always zero carry copies of others, which a grid then rounds finer than it is"
    )
    bias_correction: bool = _setting(True, "move each layer's mean, after its activation, to the float network's")
    correction_images: int = _setting(
        32, "calibration images that bias correction looks at; fewer where their activations would not fit in 2.5 GiB"
    )
    reconstruction: str = _setting(
        "none",
        "none; layer: choose each layer's integers and bias for what they make of the images; block: then "
        "improve those of several layers together",
    )
    reconstruction_images: int = _setting(
        300, "calibration images that reconstruction looks at; fewer where their activations would not fit in 1.75 GiB"
    )
    block_layers: int = _setting(3, "layers of a block, at least; it ends where one activation is alive")
    block_iterations: int = _setting(100, "steps of each block")
    step_images: int = _setting(300, "calibration images that learned ranges look at")
    step_epochs: int = _setting(3, "how often they look at each")

    def __post_init__(self) -> None:
        for key, allowed in (
            ("activation_range", ACTIVATION_RANGES),
            ("logit_range", LOGIT_RANGES),
            ("weight_range", WEIGHT_RANGES),
            ("reconstruction", RECONSTRUCTIONS),
        ):
            if getattr(self, key) not in allowed:
                raise InputError(unknown(key, str(getattr(self, key)), allowed))
        if not SMALLEST_PERCENTILE <= self.percentile <= 100:
            raise InputError(f"percentile {self.percentile}; allowed: {SMALLEST_PERCENTILE} to 100")
        if self.weight_bits not in (7, 8):
            raise InputError(f"weight_bits {self.weight_bits}; allowed: 7, 8")
        for key in (
            "statistics_images",
            "correction_images",
            "reconstruction_images",
            "block_layers",
            "block_iterations",
            "step_images",
            "step_epochs",
        ):
            if getattr(self, key) < 1:
                raise InputError(f"{key} {getattr(self, key)}: at least 1")

    @property
    def calibration_images(self) -> int:
        """How many images it is worth giving."""
        again = [self.step_images] if self.activation_range == "learned" else []
        again += [self.reconstruction_images] if self.reconstruction != "none" else []
        return max([300, *again])

    @property
    def prepares(self) -> bool:
        """Whether the float network is changed before its ranges are taken."""
        return self.equalization or self.bias_absorption

    @property
    def quick(self) -> Recipe:
        """The same without the steps that take minutes."""
        ranges = "mse" if self.activation_range == "learned" else self.activation_range
        return replace(self, reconstruction="none", activation_range=ranges)

    @property
    def weight_limit(self) -> int:
        """The largest weight integer."""
        return (1 << (self.weight_bits - 1)) - 1

    def to_json(self) -> dict[str, Any]:
        """JSON values, for manifests."""
        return asdict(self)

    def to_toml(self) -> str:
        """A file that ``recipe`` reads back, every field with what it means."""
        lines = [f'name = "{self.name}"']
        for setting in fields(self)[1:]:
            value = getattr(self, setting.name)
            lines += [f"# {setting.metadata['says']}", f"{setting.name} = {json.dumps(value)}"]
        return "\n".join(lines) + "\n"


RECIPES: Mapping[str, Recipe] = {
    r.name: r
    for r in (
        Recipe(name="fast"),
        Recipe(
            name="best",
            statistics_images=300,
            activation_range="felt",
            shared_scales=True,
            logit_range="mse",
            spare_channels=True,
            reconstruction="layer",
            reconstruction_images=500,
        ),
        Recipe(name="minmax", pixel_grid=False, equalization=False, activation_range="minmax", bias_correction=False),
    )
}
DEFAULT = "fast"


def recipe(name: str) -> Recipe:
    """A named recipe, or one from a TOML file: the fields of ``Recipe``; what is not given is as in ``fast``.

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
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"cannot read the recipe {path} ({error}); `edgecnn recipes show {DEFAULT}` prints one"
        ) from None
    given = {"name": path.stem, **given}
    for key, value in given.items():
        known = Recipe.__dataclass_fields__.get(key)
        if known is None:
            raise InputError(f"recipe {path}: {unknown('field', key, Recipe.__dataclass_fields__)}")
        if known.type == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            given[key] = tuple(value)
        elif type(value).__name__ != known.type and (type(value), known.type) != (int, "float"):
            raise InputError(f"recipe {path}: {key} is {value!r}, a {type(value).__name__}; it must be a {known.type}")
    return Recipe(**given)
