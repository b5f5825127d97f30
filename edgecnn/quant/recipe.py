"""Recipes: ordered lists of quantization steps, as TOML files that users print, edit and keep."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.escaping import toml_value
from edgecnn.quant import DEFAULT
from edgecnn.quant.step import Step, check_order, steps
from edgecnn.records import read_file

WIDTH = 80  # columns of a file that ``to_toml`` makes
SHIPPED = Path(__file__).parent / "recipes"
ENOUGH = 300  # calibration images that ranges are worth


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say how a float graph becomes a quantized one.

    Attributes:
        name: for reports.
        about: one line.
        steps: in the order in which they run.

    Raises:
        InputError: a step stands where it finds not what it needs.
    """

    name: str
    steps: tuple[Step, ...]
    about: str = ""

    def __post_init__(self) -> None:
        check_order(self.steps)

    def step(self, name: str) -> Step | None:
        """Return the first step of that name, or ``None``."""
        return next((step for step in self.steps if step.name == name), None)

    def setting(self, name: str, key: str) -> Any:
        """Return a setting of a step; the default where the recipe has no such step."""
        return getattr(self.step(name) or steps()[name](), key)

    def with_settings(self, name: str, /, **settings: Any) -> Recipe:
        """Return the recipe with other settings of all steps of that name; one is put in where there is none.

        Args:
            name: of a step.
            settings: as in TOML, for example ``with_settings("weights", bits=7)``.

        Raises:
            InputError: an unknown step or setting, or a value that is not allowed.
        """
        if name not in steps():
            raise InputError(unknown("step", name, steps()))
        if self.step(name) is None:
            made = steps()[name]().with_settings(**settings)
            at = next((i for i, step in enumerate(self.steps) if step.before >= made.after), len(self.steps))
            return replace(self, steps=(*self.steps[:at], made, *self.steps[at:]))
        changed = (step.with_settings(**settings) if step.name == name else step for step in self.steps)
        return replace(self, steps=tuple(changed))

    def without(self, *names: str) -> Recipe:
        """Return the recipe without the steps of these names."""
        return replace(self, steps=tuple(step for step in self.steps if step.name not in names))

    @property
    def calibration_images(self) -> int:
        """Return how many images it is worth giving."""
        return max(ENOUGH, *(getattr(step, "images", 0) for step in self.steps))

    @property
    def quick(self) -> Recipe:
        """Return the recipe without the steps that take minutes."""
        return replace(self, steps=tuple(step.quick() for step in self.steps))

    @property
    def per_tensor(self) -> bool:
        """Tell whether a layer's weights have one scale."""
        return bool(self.setting("weights", "per_tensor"))

    @property
    def weight_limit(self) -> int:
        """Return the largest weight integer."""
        return (1 << (int(self.setting("weights", "bits")) - 1)) - 1

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for manifests: every step with all its settings, in order."""
        rows = [{"name": step.name, **{k: v for k, (v, _) in step.settings().items()}} for step in self.steps]
        return {"name": self.name, "steps": rows}

    def to_toml(self) -> str:
        """Return a file that ``recipe`` reads back, every setting with what it means; comments fit 80 columns."""
        lines = [f"name = {toml_value(self.name)}", f"about = {toml_value(self.about)}"]
        for step in self.steps:
            lines += ["", *_comment(step.says), "[[step]]", f"name = {toml_value(step.name)}"]
            for key, (value, says) in step.settings().items():
                setting = f"{key} = {toml_value(value)}"
                beside = f"{setting}  # {says}"
                lines += [beside] if len(beside) <= WIDTH else [*_comment(says), setting]
        return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return the recipes that ship, by name."""
    order = [DEFAULT, *sorted(path.stem for path in SHIPPED.glob("*.toml") if path.stem != DEFAULT)]
    return {name: _read(SHIPPED / f"{name}.toml") for name in order}


def recipe(name: str) -> Recipe:
    """Return a recipe by its name, or from a TOML file.

    Raises:
        InputError: no such recipe or file, an unknown step or setting, a value that is not allowed, or a step that
            stands where it finds not what it needs.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in recipes():
        raise InputError(unknown("recipe", name, recipes()) + ", or a .toml file")
    return recipes()[name]


def recorded(given: Mapping[str, Any]) -> Recipe:
    """Return the recipe of which ``Recipe.to_json`` made a record.

    Raises:
        InputError: it has a step or a setting that is not known here.
    """
    return Recipe(name=str(given["name"]), about="", steps=tuple(map(_step, given["steps"])))


def parsed_recipe(text: str) -> Recipe:
    """Return the recipe of which ``Recipe.to_toml`` made a text.

    Raises:
        InputError: as ``recorded``.
    """
    given = tomllib.loads(text)
    return Recipe(name=given["name"], about=given["about"], steps=tuple(map(_step, given["step"])))


@dataclass(frozen=True, kw_only=True)
class _File:
    """Hold the content of a recipe's file."""

    name: str = ""
    about: str = ""
    step: tuple[Mapping[str, Any], ...] = ()


def _read(path: Path) -> Recipe:
    given = read_file(_File, path, remedy=f"`edgecnn recipes show {DEFAULT}` prints one")
    try:
        return Recipe(name=given.name or path.stem, about=given.about, steps=tuple(map(_step, given.step)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _step(row: Mapping[str, Any]) -> Step:
    row = dict(row)
    name = row.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"a [[step]] has no name; allowed: {', '.join(steps())}")
    if name not in steps():
        raise InputError(unknown("step", name, steps()))
    return steps()[name]().with_settings(**row)
