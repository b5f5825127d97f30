"""From axes to combinations, and from a combination to its stages. What is wrong is found before anything runs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from edgecnn.artifact import INTEGER_PRECISIONS, PRECISIONS
from edgecnn.converting import require_io
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn.evaluation.subject import executes
from edgecnn.export_job import require_library
from edgecnn.loading import is_factory, is_file
from edgecnn.models import families, resolve
from edgecnn.models.count import size_of
from edgecnn.models.shipped import shipped_names
from edgecnn.models.spec import ModelSpec, named
from edgecnn.quant import DEFAULT
from edgecnn.quant.recipe import Recipe, recipe
from edgecnn.quantizing import QUANTIZED
from edgecnn.sweeping.cluster import Place
from edgecnn.sweeping.inputs import NAMED, digest_of, digest_of_code, file_of
from edgecnn.sweeping.spec import Sweep, flat
from edgecnn.sweeping.stages import Stage
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.registry import kind_of, missing

WITNESS = "host"
Checking = Callable[[], AbstractContextManager[Any]]
Point = Mapping[str, Any]
"""Axis to value; an axis that does not matter to the combination is ``None``."""


class LeftOutError(Exception):
    """A combination that cannot be; the message is the reason."""


@dataclass(frozen=True)
class Row:
    """A combination.

    Attributes:
        point: its value of every axis.
        model: the full name of its model.
        stage: its last stage; those before hang on it.
    """

    point: Point
    model: str
    stage: Stage


class Planner:
    """Makes rows of points.

    Args:
        sweep: as its file says.
        here: whether formats and devices must be ready on this machine; on a cluster, workers are asked.
        checking: makes the context of each check; one that keeps errors finds them all.

    Raises:
        InputError: a model, recipe, setting, precision, target, device or file that is not there, or that do not fit.
        MissingDependencyError: a device or a format lacks a library here.
    """

    def __init__(self, sweep: Sweep, *, here: bool = True, checking: Checking = nullcontext) -> None:
        self.sweep, self._here, self._checking = sweep, here, checking
        self.left_out: Counter[str] = Counter()
        self._settings = [axis for axis in sweep.axes if "." in axis]
        for key, given in (("data", sweep.data), ("calibration", sweep.calibration)):
            with checking():
                if given == "random" or (key == "data" and given == "none"):
                    raise InputError(f"{key} is {given!r}; give a folder, FILE.npz:SPLIT or demo")
                digest_of(given)
        checks: dict[str, Callable[[Any], Any]] = {
            "model": self._network, "recipe": _recipe, "precision": _precision, "target": converter, "device": device,
            "seed": _seed,
        }  # fmt: skip
        for axis, check in checks.items():
            for value in sweep.axes.get(axis, ()):
                with checking():
                    check(value)
        for axis in self._settings:
            with checking():
                self._check_setting(axis, [_recipe(name) for name in sweep.axes.get("recipe", (DEFAULT,))])
        self._check_values()

    def rows(self) -> Iterator[Row]:
        """Yield every combination once, in the order of the axes; counts in ``left_out`` why others are left out.

        Raises:
            InputError: as the class.
        """
        self.left_out.clear()
        seen = set()
        for values in itertools.product(*self.sweep.axes.values()):
            row = self.row(dict(zip(self.sweep.axes, values, strict=True)))
            if row is not None and row.stage.digest not in seen:
                seen.add(row.stage.digest)
                yield row

    def row(self, point: Point) -> Row | None:
        """Return the combination of a value for every axis, or ``None`` where it is left out."""
        with self._checking():
            try:
                return self._row(point)
            except LeftOutError as reason:
                self.left_out[str(reason)] += 1
        return None

    def places(self) -> set[Place]:
        """Return the devices, and the targets on them, that the sweep has jobs for."""
        found = set()
        for name in self.sweep.axes.get("device", ("host",)):
            kind = kind_of(_device(name))
            timed = "latency" in kind.figures and not kind.elsewhere
            targets = self.sweep.axes.get("target", (_target(name),))
            for target in targets:
                if target in _device(name).targets:
                    found.add(Place(name, target, kind.elsewhere, timed))
        return found

    def images(self) -> set[Path]:
        """Return the files and folders of images that jobs read."""
        given = (self.sweep.data, self.sweep.calibration)
        return {path for each in given if (path := file_of(each)) is not None}

    def at_most(self, row: Row, images: int) -> Stage:
        """Return a row's last stage on fewer images, which a sampler prunes by."""
        settings = {**row.stage.settings, "limit": images}
        stage = row.stage
        return Stage(
            stage.kind, f"{stage.name} {images} images", settings, stage.inputs, stage.parent, stage.target,
            stage.alone, stage.device, stage.board,
        )  # fmt: skip

    def why_left_out(self) -> str:
        """Return why combinations are left out, and how many, in one line."""
        return "; ".join(f"{reason} ({count})" for reason, count in self.left_out.items())

    def _check_values(self) -> None:
        """Check every value of every axis, beside the first values of the others."""
        first = {axis: values[0] for axis, values in self.sweep.axes.items()}
        for axis, values in self.sweep.axes.items():
            for value in values:
                self.row({**first, axis: value})

    def _network(self, name: Any) -> None:
        """Check a model, and that its weights are there."""
        _, model = _model({**{axis: values[0] for axis, values in self.sweep.axes.items()}, "model": name})
        self._captured(model, 0)

    def _check_setting(self, axis: str, recipes: list[Recipe]) -> None:
        step, _, key = axis.partition(".")
        takes = [each for each in recipes if each.step(step) is not None]
        for value in self.sweep.axes[axis]:
            for each in takes or recipes[:1]:
                try:
                    each.with_settings(step, **{key: value})
                except InputError as error:
                    raise InputError(f"axis {axis}: {error}") from None
        if not takes:
            raise InputError(f"axis {axis}: no recipe of the sweep has the step {step}: {[r.name for r in recipes]}")

    def _row(self, given: Point) -> Row:
        sweep = self.sweep
        point = {**given}
        spec, model = _model(point)
        for table in _tables(sweep):
            if all(point[axis] in values for axis, values in table.items()):
                raise LeftOutError("excluded")
        if spec is not None:
            size = size_of(spec)
            for what, most, value in (
                ("MACs", sweep.max_macs, size.macs),
                ("parameters", sweep.max_parameters, size.parameters),
            ):
                if most is not None and value > most:
                    raise LeftOutError(f"{model} has {value / 1e6:.1f} M {what}, more than {most / 1e6:g} M")
        place, seed = point.get("device", "host"), point.get("seed", 0)
        target = point.get("target") or _target(place)
        precision = point.get("precision", "int8")
        self._fits(place, target, precision)
        stage = self._captured(model, seed)
        name = model
        if precision in QUANTIZED:
            steps = self._recipe(point)
            stage, name = self._quantized(stage, steps, precision, seed), f"{model} {steps.name}"
        else:
            point |= {axis: None for axis in ("recipe", *self._settings) if axis in point}
        stage = self._converted(stage, target, precision, place)
        return Row(point, model, self._validated(stage, f"{name} {target} {place}", place, seed))

    def _recipe(self, point: dict[str, Any]) -> Recipe:
        steps = _recipe(point.get("recipe", DEFAULT))
        for axis in self._settings:
            step, _, key = axis.partition(".")
            if steps.step(step) is None:
                point[axis] = None
            else:
                steps = steps.with_settings(step, **{key: _plain(point[axis])})
        return steps

    def _fits(self, place: str, target: str, precision: str) -> None:
        found = _device(place)
        if target not in found.targets:
            raise LeftOutError(f"{found.name} does not run {target}")
        if precision not in found.limits.precisions:
            raise LeftOutError(f"{found.name} does not run {precision}")
        if precision not in converter(target).precisions:
            raise LeftOutError(f"{target} is not written in {precision}")
        require_io(self.sweep.io if precision in INTEGER_PRECISIONS else None, precision, (target,))
        if not self._here:
            return
        require_library(target)
        command = _missing(place, target)
        if command is not None:
            raise MissingDependencyError(f"{found.name} cannot run {target} here; install what it needs: {command}")

    def _captured(self, model: str, seed: int) -> Stage:
        sweep, inputs = self.sweep, {}
        weights = _weights(sweep.weights, model)
        settings = {"model": model, "preprocess": sweep.preprocess, "label_offset": sweep.label_offset}
        if is_file(model):
            inputs["model"] = digest_of(model)
        else:
            settings["weights"] = weights
            if is_factory(model):
                inputs["model"] = digest_of_code(model)
            elif weights in (None, "demo") and model not in shipped_names():
                raise InputError(
                    f"{model} has no demo weights ({', '.join(shipped_names())} has); give weights, a file or random"
                )
            if weights not in (None, *NAMED):
                inputs["weights"] = digest_of(weights)
            if weights == "random":
                settings["seed"] = seed
        return Stage("capture", f"capture {model}", settings, inputs)

    def _quantized(self, before: Stage, steps: Recipe, precision: str, seed: int) -> Stage:
        sweep, integer = self.sweep, precision in INTEGER_PRECISIONS
        settings = {
            "recipe": steps.to_toml(), "precision": precision, "seed": seed,
            "calibration": sweep.calibration if integer else None, "calibration_images": sweep.calibration_images,
        }  # fmt: skip
        inputs = {"calibration": digest_of(sweep.calibration)} if integer else {}
        name = f"quantize {before.name.partition(' ')[2]} {precision} {steps.name} seed {seed}"
        return Stage("quantize", name, settings, inputs, before)

    def _converted(self, before: Stage, target: str, precision: str, place: str) -> Stage:
        row = converter(target)
        settings: dict[str, Any] = {"target": target, "precision": precision}
        if precision in INTEGER_PRECISIONS:
            settings["io"] = self.sweep.io
            if "activations" in row.options:  # the file depends on the device
                settings["devices"] = [place]
        name = f"convert {before.name.partition(' ')[2]} {target}"
        return Stage("convert", name, settings, _own_device(place) if "devices" in settings else {}, before, target)

    def _witness(self, place: str, target: str) -> str | None:
        """Return the device that tells accuracy where a device executes nothing."""
        if executes(_device(place)):
            return None
        if target not in _device(WITNESS).targets:
            raise LeftOutError(f"{place} executes nothing, and {WITNESS} does not run {target} to tell its accuracy")
        return WITNESS

    def _validated(self, before: Stage, name: str, place: str, seed: int) -> Stage:
        sweep, kind = self.sweep, kind_of(_device(place))
        limits = {k: v for k, v in asdict(sweep.limits).items() if v not in (None, ())}
        settings = {
            "data": sweep.data, "devices": [place], "witness": self._witness(place, before.target), "seed": seed,
            "limits": limits, "limit": sweep.limit, "threads": sweep.threads, "allow_float": sweep.allow_float,
            "allow_loss": sweep.allow_loss,
        }  # fmt: skip
        inputs = {"data": digest_of(sweep.data), **_own_device(place)}
        timed = "latency" in kind.figures and not kind.elsewhere
        name = f"validate {before.name.partition(' ')[2]} {place}"
        return Stage(
            "validate", name, settings, inputs, before, before.target, alone=timed, device=place, board=kind.elsewhere
        )


def _precision(name: Any) -> None:
    if name not in PRECISIONS:
        raise InputError(f"axis precision: {unknown('precision', name, PRECISIONS)}")


def _seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"axis seed: {seed!r} is no whole number")


def _model(point: Point) -> tuple[ModelSpec | None, str]:
    """Return the spec of a registered model, and its full name; a file and a factory have none."""
    name, width, resolution = point["model"], point.get("width"), point.get("resolution")
    if not isinstance(name, str):
        raise InputError(f"axis model: {name!r} is no name")
    if is_file(name) or is_factory(name):
        if width is not None or resolution is not None:
            raise InputError(f"axes width and resolution are of models by name; {name} has its own")
        return None, name
    spec = resolve(name)
    if width is None and resolution is None:
        return spec, name
    if name not in families():
        raise InputError(f"axes width and resolution take families such as {spec.family}; {name} has its own")
    spec = named(name, spec.width if width is None else width, spec.depth, resolution or spec.resolution)
    return spec, spec.name


def _target(place: str) -> str:
    targets: tuple[str, ...] = _device(place).targets
    if not targets:
        raise InputError(f"device {place} runs no target that is installed")
    return targets[0]


def _weights(given: Any, model: str) -> str | None:
    if isinstance(given, Mapping):
        found = next((given[key] for key in given if key != "*" and fnmatchcase(model, key)), given.get("*"))
        given = found
    return given.format(model=model) if isinstance(given, str) else None


def _own_device(place: str) -> dict[str, str]:
    return {"device": digest_of(place)} if place.endswith(".toml") else {}


def _tables(sweep: Sweep) -> Iterator[dict[str, tuple[Any, ...]]]:
    for table in sweep.exclude:
        yield {k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in flat(table).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@cache
def _device(place: str) -> Any:
    return device(place)


@cache
def _missing(place: str, target: str) -> str | None:
    return missing(_device(place), target)


@cache
def _recipe(name: str) -> Recipe:
    return recipe(name)
